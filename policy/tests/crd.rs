//! The custom resource definitions accept what KubeArmor's accept and refuse what those refuse.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a failure here is the test's"
)]

use policy::{Kind, crd, crd_document};
use serde_json::{Value, json};

fn kind_of(word: &str) -> Kind {
    Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == word)
        .unwrap()
}

/// YAML to JSON by the reader of the project: a mapping read as a free value.
fn value(text: &str) -> Value {
    let (documents, problems) = yaml::parse("f", text);
    assert_eq!(problems, []);
    let mut problems = Vec::new();
    let value = documents[0].read::<Value>(yaml::Severity::Error, &mut problems);
    assert_eq!(problems, []);
    value.unwrap()
}

fn problems(kind: Kind, document: &Value) -> Vec<String> {
    let schema = crd_document(kind);
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn of_spec(kind: Kind, spec: &str) -> Vec<String> {
    let spec = value(spec);
    problems(
        kind,
        &json!({"apiVersion": "security.kubearmor.com/v1", "kind": kind.name(), "metadata": {"name": "p"}, "spec": spec}),
    )
}

const EXAMPLES: [&str; 8] = [
    include_str!("examples/apparmor.yaml"),
    include_str!("examples/cluster.yaml"),
    include_str!("examples/host.yaml"),
    include_str!("examples/lenient-allow-list.yaml"),
    include_str!("examples/network-and-more.yaml"),
    include_str!("examples/network-policy.yaml"),
    include_str!("examples/presets.yaml"),
    include_str!("examples/process-and-file.yaml"),
];

#[test]
fn every_example_of_the_language_is_accepted() {
    for text in EXAMPLES.iter().flat_map(|text| text.split("---\n")) {
        let document = value(text);
        let kind = kind_of(document["kind"].as_str().unwrap());
        assert_eq!(problems(kind, &document), Vec::<String>::new(), "{text}");
    }
}

/// What KubeArmor's definitions accept (reference: its CRDs at 510cee3), however odd.
#[test]
fn odd_documents_that_are_accepted_there_are_accepted_here() {
    let cases = [
        ("KubeArmorPolicy", "{}"),
        ("KubeArmorPolicy", "{selector: {}}"),
        ("KubeArmorPolicy", "{process: {matchPaths: [{}]}}"),
        (
            "KubeArmorPolicy",
            "{process: {matchPaths: [{path: //bin//sh, fromSource: [{}]}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{process: {matchPaths: [{path: '/bin/a*', execname: sh}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{network: {matchProtocols: [{protocol: 'tcp,udp'}, {protocol: xxTCP}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{network: {matchDNSQueries: [{domain: '*'}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{capabilities: {matchCapabilities: [{capability: 'chown,net_raw'}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{syscalls: {matchPaths: [{syscall: [unlink]}], matchSyscalls: [{}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{syscalls: {matchSyscalls: [{syscall: [unlink], fromSource: [{dir: anything}]}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{presets: [{name: whatever}, {action: Allow}]}",
        ),
        ("KubeArmorPolicy", "{apparmor: 'x'}"),
        ("KubeArmorPolicy", "{selector: {matchExpressions: [{}]}}"),
        (
            "KubeArmorPolicy",
            "{process: {matchPatterns: [{pattern: '[['}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{process: {matchDirectories: [{dir: /}]}}",
        ),
        ("KubeArmorHostPolicy", "{nodeSelector: {}}"),
        (
            "KubeArmorHostPolicy",
            "{nodeSelector: {}, device: {matchDevice: [{class: nonsense}]}}",
        ),
        (
            "KubeArmorClusterPolicy",
            "{selector: {matchExpressions: [{key: namespace, operator: NotIn, values: []}]}}",
        ),
        ("KubeArmorNetworkPolicy", "{}"),
        ("KubeArmorNetworkPolicy", "{egress: [{severity: 99}]}"),
        (
            "KubeArmorNetworkPolicy",
            "{egress: [{to: [{ipBlock: {cidr: nonsense}}], ports: [{port: nonsense}]}], level: Pod}",
        ),
    ];
    for (kind, spec) in cases {
        assert_eq!(
            of_spec(kind_of(kind), spec),
            Vec::<String>::new(),
            "{kind} {spec}"
        );
    }
}

#[test]
fn what_is_refused_there_is_refused_here() {
    let cases = [
        ("KubeArmorPolicy", "{severity: 0}"),
        ("KubeArmorPolicy", "{severity: 11}"),
        ("KubeArmorPolicy", "{severity: high}"),
        ("KubeArmorPolicy", "{action: block}"),
        ("KubeArmorPolicy", "{action: Deny}"),
        ("KubeArmorPolicy", "{tags: x}"),
        ("KubeArmorPolicy", "{process: {severity: 11}}"),
        (
            "KubeArmorPolicy",
            "{process: {matchPaths: [{path: bin/sh}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{process: {matchPaths: [{path: /bin/}]}}",
        ),
        ("KubeArmorPolicy", "{process: {matchPaths: [{path: /}]}}"),
        (
            "KubeArmorPolicy",
            "{process: {matchPaths: [{execname: a/b}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{process: {matchPaths: [{path: /a, ownerOnly: 'yes'}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{process: {matchPaths: [{path: /a, fromSource: [{path: a}]}]}}",
        ),
        ("KubeArmorPolicy", "{process: {matchPaths: {path: /a}}}"),
        ("KubeArmorPolicy", "{process: {matchDirectories: [{}]}}"),
        (
            "KubeArmorPolicy",
            "{process: {matchDirectories: [{dir: /a}]}}",
        ),
        ("KubeArmorPolicy", "{process: {matchPatterns: [{}]}}"),
        ("KubeArmorPolicy", "{file: {matchPaths: [{}]}}"),
        ("KubeArmorPolicy", "{file: {matchDirectories: [{dir: a/}]}}"),
        (
            "KubeArmorPolicy",
            "{file: {matchPatterns: [{readOnly: true}]}}",
        ),
        ("KubeArmorPolicy", "{network: {matchProtocols: [{}]}}"),
        (
            "KubeArmorPolicy",
            "{network: {matchProtocols: [{protocol: Tcp}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{network: {matchProtocols: [{protocol: 'tcp,'}]}}",
        ),
        ("KubeArmorPolicy", "{network: {matchDNSQueries: [{}]}}"),
        (
            "KubeArmorPolicy",
            "{capabilities: {matchCapabilities: [{capability: NET_RAW}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{capabilities: {matchCapabilities: [{}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{syscalls: {matchSyscalls: [{syscall: [umount]}]}}",
        ),
        ("KubeArmorPolicy", "{syscalls: {matchPaths: [{path: a}]}}"),
        ("KubeArmorPolicy", "{presets: [{name: exec, action: Kill}]}"),
        (
            "KubeArmorPolicy",
            "{selector: {matchExpressions: [{key: namespace}]}}",
        ),
        (
            "KubeArmorPolicy",
            "{selector: {matchExpressions: [{operator: Exists}]}}",
        ),
        ("KubeArmorPolicy", "{selector: {matchLabels: {a: 1}}}"),
        ("KubeArmorHostPolicy", "{}"),
        (
            "KubeArmorHostPolicy",
            "{nodeSelector: {}, network: {matchProtocols: [{protocol: tcp}]}}",
        ),
        (
            "KubeArmorHostPolicy",
            "{nodeSelector: {}, capabilities: {matchCapabilities: [{capability: chown}]}}",
        ),
        (
            "KubeArmorHostPolicy",
            "{nodeSelector: {}, device: {matchDevice: [{}]}}",
        ),
        (
            "KubeArmorHostPolicy",
            "{nodeSelector: {}, device: {matchDevice: [{class: HUB, level: 0}]}}",
        ),
        (
            "KubeArmorClusterPolicy",
            "{selector: {matchExpressions: [{key: pod}]}}",
        ),
        ("KubeArmorNetworkPolicy", "{level: cluster}"),
        ("KubeArmorNetworkPolicy", "{egress: [{limit: 5TB}]}"),
        ("KubeArmorNetworkPolicy", "{egress: [{to: [{}]}]}"),
        (
            "KubeArmorNetworkPolicy",
            "{egress: [{to: [{ipBlock: {}}]}]}",
        ),
        ("KubeArmorNetworkPolicy", "{egress: [{ports: [{}]}]}"),
        (
            "KubeArmorNetworkPolicy",
            "{egress: [{ports: [{port: 80}]}]}",
        ),
        (
            "KubeArmorNetworkPolicy",
            "{egress: [{ports: [{port: '80', endPort: 0}]}]}",
        ),
        (
            "KubeArmorNetworkPolicy",
            "{egress: [{ports: [{port: '80', protocol: icmp}]}]}",
        ),
    ];
    for (kind, spec) in cases {
        assert_ne!(
            of_spec(kind_of(kind), spec),
            Vec::<String>::new(),
            "{kind} {spec}"
        );
    }
    let long = format!(
        "{{process: {{matchPaths: [{{path: /{}}}]}}}}",
        "a".repeat(200)
    );
    assert_ne!(of_spec(Kind::Workload, &long), Vec::<String>::new());
    let many = format!(
        "{{process: {{matchPaths: [{{path: /a, allowedArgs: [{}]}}]}}}}",
        "x,".repeat(21)
    );
    assert_ne!(of_spec(Kind::Workload, &many), Vec::<String>::new());
}

/// Kubernetes takes only structural schemas.
#[test]
fn the_schemas_are_structural() {
    fn walk(schema: &Value, at: &str) {
        let map = schema.as_object().unwrap();
        assert!(
            map.get("type").is_some_and(Value::is_string),
            "{at} has no type: {schema}"
        );
        for word in [
            "$ref", "anyOf", "oneOf", "allOf", "nullable", "default", "title", "$schema", "const",
            "$defs",
        ] {
            assert!(!map.contains_key(word), "{at} has {word}");
        }
        let more = map.get("additionalProperties");
        assert!(more.is_none_or(Value::is_object), "{at}: {more:?}");
        assert!(
            !(more.is_some() && map.contains_key("properties")),
            "{at} has both"
        );
        if let Some(more) = more {
            walk(more, &format!("{at}.*"));
        }
        if let Some(items) = map.get("items") {
            walk(items, &format!("{at}[]"));
        }
        for (name, field) in map
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            walk(field, &format!("{at}.{name}"));
        }
    }
    for kind in Kind::ALL {
        let whole = crd(kind);
        let schema = whole
            .pointer("/spec/versions/0/schema/openAPIV3Schema")
            .unwrap();
        walk(schema, kind.name());
        let syscalls = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/syscalls/properties/matchSyscalls/items/properties/syscall/items/enum";
        let listed = whole
            .pointer(syscalls)
            .and_then(Value::as_array)
            .map(Vec::len);
        assert_eq!(listed, (kind != Kind::Network).then_some(335));
    }
}
