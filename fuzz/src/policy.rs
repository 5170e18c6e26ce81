//! Policies as people and clusters write them: YAML and JSON, one document or many.

use policy::{Judges, Moment, Operation, Rules, Set};
use proto::rules::Postures;

/// Reads, compiles, takes the set in as a sensor does, and decides.
pub fn run(bytes: &[u8]) {
    let (policies, problems) = policy::parse_bytes("a.yaml", bytes);
    for problem in &problems {
        assert!(!problem.message.is_empty(), "a problem without words");
        assert!(!problem.to_string().is_empty(), "a problem without words");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let mut loader = policy::Loader::default();
        for _ in 0..2 {
            let again = loader.load([("a.yaml", text)]);
            assert_eq!(again, (policies.clone(), problems.clone()), "read again");
        }
    }
    let postures = Postures::default();
    let set = policy::compile(&policies, &postures);
    let mut turned = policies;
    turned.reverse();
    assert_eq!(policy::compile(&turned, &postures), set, "the order counts");
    let taken =
        Set::from_wire(&set.manifest, &set.blobs).expect("a sensor refuses what was compiled");
    decide(&taken);
}

/// Asks a set about a workload, with the whole language and with the least of it.
pub(super) fn decide(set: &Set) {
    let workload = policy::Workload {
        namespace: "shop".to_owned(),
        labels: [("app".to_owned(), "cart".to_owned())].into(),
        container: "web".to_owned(),
    };
    let effective = policy::select(set, &workload, Moment(0));
    let rules = Rules::new(&effective, &|_| Vec::new());
    for operation in [
        Operation::exec("/usr/bin/apt"),
        Operation::write("/etc/shadow"),
    ] {
        let meant = policy::decide(&rules, &operation);
        let flat = policy::flatten(&rules, Judges::ALL).decide(&operation);
        assert_eq!(meant.enforced.denies(), flat.enforced.denies());
        let least = policy::flatten(&rules, Judges::PLAIN).decide(&operation);
        assert!(
            meant.enforced.denies() || !least.enforced.denies(),
            "a node that judges less denies more"
        );
    }
}

/// Something of everything, and what is wrong in many ways.
pub fn seeds() -> Vec<Vec<u8>> {
    let whole = "apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: a, namespace: shop}
spec:
  severity: 5
  tags: [x]
  message: m
  mode: audit
  expires: 2099-01-31T18:00:00Z
  selector:
    matchLabels: {app: cart, kubearmor.io/container.name: \"[web, db]\"}
    matchExpressions: [{key: label, operator: NotIn, values: [tier=debug]}]
  process:
    matchPaths:
      - {path: /usr/bin/apt, fromSource: [{path: /bin/sh}], ownerOnly: true, pts: false, allowedArgs: [-m]}
      - {execname: curl, action: Allow}
    matchDirectories: [{dir: /sbin/, recursive: true}]
    matchPatterns: [{pattern: \"/opt/**/{a,b}?[c-d]\"}]
  file: {action: Audit, matchPaths: [{path: /etc/shadow, readOnly: true}]}
  network:
    matchProtocols: [{protocol: \"tcp,UDP\"}]
    matchDNSQueries: [{domain: example.com}]
    matchEndpoints: [{cidr: 10.0.0.0/8, ports: [{port: \"1-1024\", protocol: tcp}], direction: egress}]
  capabilities: {matchCapabilities: [{capability: net_raw}]}
  syscalls: {matchSyscalls: [{syscall: [mkdir]}], matchPaths: [{path: /a/, recursive: true, syscall: [unlink]}]}
  presets: [{name: filelessExec}]
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: h}
spec: {nodeSelector: {matchLabels: {kubearmor.io/hostname: \"*\"}}, device: {matchDevice: [{class: \"0x08\"}]}, action: Block}
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorNetworkPolicy
metadata: {name: n}
spec: {level: pod, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: https}], limit: 1GB, duration: 1h}]}
";
    let list = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"security.kubearmor.com/v1","kind":"KubeArmorClusterPolicy","metadata":{"name":"c"},"spec":{"selector":{"matchExpressions":[{"key":"namespace","operator":"In","values":["shop"]}]},"process":{"matchPaths":[{"path":"/bin/a"}]}}}]}"#;
    let wrong = "a: &a [*a]\n---\nkind: KubeArmorPolicy\nmetadata: 3\nspec: {process: {matchPaths: {path: [}}}\n";
    [whole, list, wrong]
        .map(|text| text.as_bytes().to_vec())
        .into()
}
