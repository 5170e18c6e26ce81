//! `cresset policy test`: test cases beside policies.
//!
//! A file of test cases says which workload, which operations, and what is expected; `policy::decide` answers. Without
//! `policies` the cases of `a.test.yaml` are about `a.yaml` beside it. An operation may name several objects: each is a case.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use policy::{Device, Direction, Packet, Transport, Workload};
use proto::rules;
use proto::visible::text as visible;
use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};
use yaml::{Node, Problem, Severity};

use super::asked::{Answer, Asked, Judge, Links, Outcome, Peer, SocketName, What};
use super::check::counted;
use super::files::{self, TEST, Wanted};
use super::loaded::{Compiled, Loaded};
use super::report;
use crate::connect::{Trouble, say};

pub(super) const HELP: &str = "\
A file of test cases, NAME.test.yaml, is about NAME.yaml beside it, or about the files that it names:
  policies: [no-shells.yaml, ../more]        files and folders, from here
  workload: {namespace: shop, labels: {app: cart}, container: web}
  postures: {file: block}                    default audit
  links: {/bin: /usr/bin}                    symbolic links of the workload's root
  tests:
    - {exec: [/usr/bin/bash, /usr/bin/dash], source: /usr/sbin/nginx, expect: block, by: no-shells}
    - {open: /etc/passwd, access: write, owner: true, expect: block}
    - {socket: raw, expect: block}           also: dns, capability, syscall (with path), map_exec, args, tty, pid, session
    - {connect: 'tcp 10.1.2.3:5432', names: [db.example.org], expect: pass}      what comes in: direction: ingress
    - {node: {name: node-a}, packet: 'udp 10.9.9.9:53', expect: block}           of a node, with labels; also interface
    - {node: {name: node-a}, plug: 8/6/80/1, expect: block}                      class/subclass/protocol/level
    - {exec: /usr/bin/ls, expect: pass}      pass, audit, would-block, block";

/// Run the test cases beside policies; exits 1 when one fails
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Files of test cases, or folders with *.test.yaml in them
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,

    /// Tell of every case, not only of those that fail
    #[arg(short, long)]
    verbose: bool,
}

// === the file ===

/// What a file of test cases says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    #[serde(default)]
    policies: Vec<String>,
    #[serde(default)]
    workload: Option<Who>,
    #[serde(default)]
    node: Option<Machine>,
    #[serde(default)]
    postures: Postures,
    #[serde(default)]
    links: BTreeMap<String, String>,
    tests: Vec<Case>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    #[serde(default = "default_namespace")]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    container: String,
}

fn default_namespace() -> String {
    "default".to_owned()
}

impl Default for Who {
    fn default() -> Who {
        Who {
            namespace: default_namespace(),
            labels: BTreeMap::new(),
            container: String::new(),
        }
    }
}

/// A machine, for what is about nodes.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Of workloads and nodes alike.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Postures {
    file: Unnamed,
    network: Unnamed,
    capabilities: Unnamed,
    devices: Unnamed,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unnamed {
    Allow,
    #[default]
    Audit,
    Block,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    name: String,
    #[serde(default)]
    workload: Option<Who>,
    #[serde(default)]
    node: Option<Machine>,
    #[serde(default)]
    exec: Names,
    #[serde(default)]
    open: Names,
    #[serde(default)]
    socket: Names,
    #[serde(default)]
    dns: Names,
    #[serde(default)]
    capability: Names,
    #[serde(default)]
    syscall: Names,
    #[serde(default)]
    connect: Names,
    #[serde(default)]
    packet: Names,
    #[serde(default)]
    plug: Names,
    #[serde(default)]
    direction: Option<Way>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    interface: String,
    #[serde(default)]
    access: Option<Access>,
    #[serde(default)]
    path: String,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    owner: bool,
    #[serde(default)]
    tty: bool,
    #[serde(default)]
    map_exec: bool,
    #[serde(default)]
    pid: Option<u32>,
    #[serde(default)]
    session: bool,
    expect: Outcome,
    #[serde(default)]
    by: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Access {
    Read,
    Write,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    Ingress,
    Egress,
}

/// One name or a list of them.
#[derive(Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Names, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }
            fn visit_str<E>(self, name: &str) -> Result<Names, E> {
                Ok(Names(vec![name.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Names, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Names)
            }
        }
        from.deserialize_any(Either)
    }
}

impl Unnamed {
    fn wire(self) -> i32 {
        match self {
            Unnamed::Allow => rules::Posture::Allow.into(),
            Unnamed::Audit => rules::Posture::Audit.into(),
            Unnamed::Block => rules::Posture::Block.into(),
        }
    }
}

impl Postures {
    fn wire(&self) -> rules::Postures {
        rules::Postures {
            file: self.file.wire(),
            network: self.network.wire(),
            capabilities: self.capabilities.wire(),
            ..rules::Postures::default()
        }
    }

    /// The same of nodes, which have devices.
    fn host(&self) -> rules::Postures {
        rules::Postures {
            devices: self.devices.wire(),
            ..self.wire()
        }
    }
}

impl Case {
    /// The operations that this case asks for, each a case of its own.
    ///
    /// # Errors
    /// What is wrong with it.
    fn asked(&self) -> Result<Vec<Asked>, String> {
        let mut what = Vec::new();
        what.extend(self.map_exec.then_some(What::MapExec));
        what.extend(self.exec.0.iter().cloned().map(What::Exec));
        let write = self.access == Some(Access::Write);
        what.extend(self.open.0.iter().map(|path| What::Open {
            path: path.clone(),
            write,
        }));
        what.extend(self.dns.0.iter().cloned().map(What::Dns));
        for name in &self.socket.0 {
            let socket = SocketName::of(name).ok_or_else(|| {
                format!("`{name}` is no socket: tcp, udp, icmp, icmpv6, sctp, raw, packet, …")
            })?;
            what.push(What::Socket(socket));
        }
        for name in &self.capability.0 {
            policy::capability(name)
                .ok_or_else(|| format!("`{name}` is no capability; write net_raw, sys_admin, …"))?;
            what.push(What::Capability(name.clone()));
        }
        for name in &self.syscall.0 {
            policy::syscall(name).ok_or_else(|| format!("`{name}` is no system call"))?;
            let path = self.path.clone();
            what.push(What::Syscall {
                name: name.clone(),
                path,
            });
        }
        self.far(&mut what)?;
        self.fits(&what)?;
        let whole = |what| Asked {
            what,
            source: self.source.clone(),
            args: self.args.clone(),
            owner: self.owner,
            tty: self.tty,
            pid: self.pid,
            session: Some(self.session),
        };
        Ok(what.into_iter().map(whole).collect())
    }

    /// What is about a far end, or a device.
    fn far(&self, what: &mut Vec<What>) -> Result<(), String> {
        let direction = match self.direction {
            Some(Way::Ingress) => Direction::Ingress,
            Some(Way::Egress) | None => Direction::Egress,
        };
        for text in &self.connect.0 {
            let (transport, far) = far_end(text)?;
            what.push(What::Connect(Peer {
                direction,
                transport,
                address: far.ip(),
                port: Some(far.port()),
                names: Some(self.names.clone()),
            }));
        }
        for text in &self.packet.0 {
            let (transport, far) = far_end(text)?;
            what.push(What::Packet(Packet {
                direction,
                transport,
                address: far.ip(),
                port: far.port(),
                interface: self.interface.clone(),
                used: Some(0),
            }));
        }
        for text in &self.plug.0 {
            what.push(What::Plug(device(text)?));
        }
        Ok(())
    }

    /// What is written must mean something for what is asked.
    fn fits(&self, what: &[What]) -> Result<(), String> {
        let no_file = !what.iter().any(|what| matches!(what, What::Open { .. }));
        let no_call = !what.iter().any(|what| matches!(what, What::Syscall { .. }));
        let relative = what.iter().find_map(|what| match what {
            What::Exec(path) if path.starts_with("memfd:") => None,
            What::Exec(path) | What::Open { path, .. } if !path.starts_with('/') => Some(path),
            _ => None,
        });
        if what.is_empty() {
            return Err(
                "asks for nothing: give exec, open, socket, dns, capability, syscall, connect, packet or plug".to_owned(),
            );
        }
        if let Some(path) = relative {
            return Err(format!("`{path}` is not an absolute path"));
        }
        if self.access.is_some() == no_file {
            return Err("`open` and `access: read` or `write` go together".to_owned());
        }
        let far = !self.connect.0.is_empty() || !self.packet.0.is_empty();
        if self.direction.is_some() && !far {
            return Err("`direction` is of a connection or a packet".to_owned());
        }
        if !self.names.is_empty() && self.connect.0.is_empty() {
            return Err("`names` are what an address was looked up by; give `connect`".to_owned());
        }
        if !self.interface.is_empty() && self.packet.0.is_empty() {
            return Err("`interface` is what a packet goes through; give `packet`".to_owned());
        }
        if self.workload.is_some() && self.node.is_some() {
            return Err("is about a workload or about a node, not both".to_owned());
        }
        if !self.path.is_empty() && no_call {
            return Err("`path` is what a system call acts on; give `syscall`".to_owned());
        }
        Ok(())
    }
}

// === running ===

/// What came of all files.
#[derive(Default)]
struct Tally {
    cases: usize,
    failed: usize,
    /// Files and cases that could not be asked.
    errors: usize,
}

impl Tally {
    /// Tells of what is wrong with a file of test cases, or with what it is about.
    fn wrong(&mut self, problem: &Problem) -> Result<(), Trouble> {
        self.errors += usize::from(problem.is_error());
        say(&report::line(problem))
    }

    fn words(&self) -> String {
        let errors = counted(self.errors, "error", "errors");
        match (self.failed, self.errors) {
            (0, 0) => "all as expected".to_owned(),
            (0, _) => errors,
            (failed, 0) => format!("{failed} FAILED"),
            (failed, _) => format!("{failed} FAILED, {errors}"),
        }
    }
}

/// Runs `cresset policy test`.
///
/// # Errors
/// A path that is not there; an output that cannot be written.
pub(super) fn run(args: &TestArgs) -> Result<ExitCode, Trouble> {
    let files = files::list(&args.paths, Wanted::Tests)?;
    if files.is_empty() {
        return Err(Trouble::Local(format!(
            "no test cases there: files of test cases end in {TEST}"
        )));
    }
    let mut tally = Tally::default();
    for file in &files {
        file_of_cases(file, args.verbose, &mut tally)?;
    }
    let (files, cases) = (
        counted(files.len(), "file", "files"),
        counted(tally.cases, "case", "cases"),
    );
    say(&format!("{files}, {cases}: {}\n", tally.words()))?;
    Ok(if tally.failed + tally.errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn file_of_cases(path: &Path, verbose: bool, tally: &mut Tally) -> Result<(), Trouble> {
    let file = match files::text(path) {
        Ok(file) => file,
        Err(problem) => return tally.wrong(&problem),
    };
    let (node, read, problems) = read(&file.name, &file.text);
    problems.iter().try_for_each(|told| tally.wrong(told))?;
    let broken = problems.iter().any(Problem::is_error);
    let (Some(node), Some(read), false) = (node, read, broken) else {
        return Ok(());
    };
    match set(path, &read) {
        Ok(compiled) => read.cases(&node, &compiled, verbose, tally),
        Err(why) => tally.wrong(&node.problem_at("policies", why.to_string())),
    }
}

/// The policies that a file of test cases is about.
fn set(path: &Path, read: &TestFile) -> Result<Compiled, Trouble> {
    let loaded = Loaded::sound(&policies_of(path, read))?;
    let ruleset = policy::compile(&loaded.policies, &read.postures.wire());
    Compiled::new(ruleset.with_host(read.postures.host()))
}

impl TestFile {
    /// Whom a case is about: what it says itself, else what the file says.
    fn judge<'s>(&self, case: &Case, compiled: &'s Compiled, links: Links<'_>) -> Judge<'s> {
        let machine = match &case.workload {
            Some(_) => None,
            None => case.node.as_ref().or(self.node.as_ref()),
        };
        match machine {
            Some(machine) => Judge::on_node(compiled, &machine.node(), links),
            None => {
                let who = case.workload.as_ref().or(self.workload.as_ref());
                Judge::new(compiled, &workload(who), links)
            }
        }
    }

    fn cases(
        &self,
        node: &Node,
        compiled: &Compiled,
        verbose: bool,
        tally: &mut Tally,
    ) -> Result<(), Trouble> {
        for (at, case) in self.tests.iter().enumerate() {
            let place = format!("tests[{at}]");
            let asked = match case.asked() {
                Ok(asked) => asked,
                Err(why) => {
                    tally.wrong(&node.problem_at(&place, why))?;
                    continue;
                }
            };
            let line = node.get(&place).map_or(0, Node::line);
            let links = |path: &str| resolved(&self.links, path);
            let judge = self.judge(case, compiled, &links);
            for told in case.told(&judge, asked, verbose, tally) {
                say(&format!("{}:{line}: {}\n", node.file(), visible(&told)))?;
            }
        }
        Ok(())
    }
}

impl Case {
    /// What is to say of its operations: those that fail, or all.
    fn told(
        &self,
        judge: &Judge<'_>,
        asked: Vec<Asked>,
        verbose: bool,
        tally: &mut Tally,
    ) -> Vec<String> {
        let name = match self.name.as_str() {
            "" => String::new(),
            name => format!("{name}: "),
        };
        tally.cases += asked.len();
        let mut lines = Vec::new();
        for asked in asked {
            match judged(judge, self, &asked) {
                Ok(answer) if verbose => lines.push(format!("ok: {name}{asked}: {answer}")),
                Ok(_) => {}
                Err(why) => {
                    tally.failed += 1;
                    lines.push(format!("FAILED: {name}{asked}: {why}"));
                }
            }
        }
        lines
    }
}

fn read(name: &str, text: &str) -> (Option<Node>, Option<TestFile>, Vec<Problem>) {
    let (documents, mut problems) = yaml::parse(name, text);
    let [document] = &documents[..] else {
        if problems.is_empty() {
            let message = "expected one document with `tests`";
            problems.push(Problem::whole_file(name, message));
        }
        return (None, None, problems);
    };
    let read = document.read::<TestFile>(Severity::Error, &mut problems);
    if read.as_ref().is_some_and(|file| file.tests.is_empty()) {
        problems
            .push(document.problem_at("tests", "no test case is here: nothing would be tested"));
    }
    (Some(document.clone()), read, problems)
}

/// Those that the file names, from its own folder; else the file beside it.
fn policies_of(path: &Path, read: &TestFile) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new(""));
    if read.policies.is_empty() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(TEST).unwrap_or(&name);
        return vec![folder.join(format!("{name}.yaml"))];
    }
    read.policies.iter().map(|name| folder.join(name)).collect()
}

fn workload(who: Option<&Who>) -> Workload {
    let Who {
        namespace,
        labels,
        container,
    } = who.cloned().unwrap_or_default();
    Workload {
        namespace,
        labels,
        container,
    }
}

impl Machine {
    fn node(&self) -> policy::Node {
        policy::Node {
            hostname: self.name.clone(),
            labels: self.labels.clone(),
        }
    }
}

/// `tcp 10.1.2.3:5432`; of what comes in, the port is one's own.
fn far_end(text: &str) -> Result<(Transport, SocketAddr), String> {
    let parts = text
        .split_once(' ')
        .and_then(|(transport, far)| Some((Transport::of(transport)?, far.trim().parse().ok()?)));
    parts.ok_or_else(|| {
        format!("`{text}` is no far end; write tcp, udp or sctp, and address:port: tcp 10.1.2.3:443, udp [fd00::1]:53")
    })
}

/// `class/subclass/protocol/level`, as numbers.
fn device(text: &str) -> Result<Device, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let read = || {
        let [class, sub_class, protocol, level] = parts[..] else {
            return None;
        };
        Some(Device {
            class: class.parse().ok()?,
            sub_class: sub_class.parse().ok()?,
            protocol: protocol.parse().ok()?,
            level: level.parse().ok()?,
        })
    };
    read().ok_or_else(|| {
        format!("`{text}` is no device; write class/subclass/protocol/level as numbers: 8/6/80/1 is a disk at the machine's own hub")
    })
}

fn judged(judge: &Judge<'_>, case: &Case, asked: &Asked) -> Result<Answer, String> {
    let got = judge.answer(asked);
    let by = case.by.as_ref().is_none_or(|by| *by == got.by);
    if got.outcome == case.expect && by {
        return Ok(got);
    }
    let expected = match &case.by {
        Some(by) => format!("{} by {by}", case.expect),
        None => case.expect.to_string(),
    };
    Err(format!("expected {expected}, got {got}"))
}

/// The names that a path has behind links: `/bin: /usr/bin` makes `/usr/bin/sh` of `/bin/sh`.
fn resolved(links: &BTreeMap<String, String>, path: &str) -> Vec<String> {
    let through = |(link, target): (&String, &String)| {
        let rest = path.strip_prefix(link.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/'))
            .then(|| format!("{}{rest}", target.trim_end_matches('/')))
    };
    links.iter().filter_map(through).collect()
}
