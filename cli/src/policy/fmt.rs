//! `cresset policy fmt`: policy files in one form.
//!
//! Keys of a policy stand in the order of the language's reference: what it is, for whom, how grave, what. Nothing that a
//! file says is changed, and that is checked: what was written is read again and compared before a file is replaced.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::files::{self, Wanted};
use super::layout::{File, Tree, Value};
use super::report::line;
use crate::connect::{Trouble, say};

/// Write policy files in their one canonical form
#[derive(Args)]
pub(crate) struct FmtArgs {
    /// Files, folders, or - for standard input, which is written to standard output
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,

    /// Change nothing; name the files that would be changed and exit 1 if there is one
    #[arg(long)]
    check: bool,

    /// Write to standard output and leave the files alone
    #[arg(long, conflicts_with = "check")]
    stdout: bool,
}

/// Runs `cresset policy fmt`.
///
/// # Errors
/// A file that cannot be read, understood as YAML, or written.
pub(super) fn run(args: &FmtArgs) -> Result<ExitCode, Trouble> {
    let (mut differ, mut unread) = (0, 0);
    for path in files::list(&args.paths, Wanted::Policies)? {
        if path.extension().is_some_and(|ending| ending == "json") {
            eprintln!("{}: JSON is left as it is", path.display());
            continue;
        }
        let file = match files::text(&path) {
            Ok(file) => file,
            Err(problem) => {
                eprint!("{}", line(&problem));
                unread += 1;
                continue;
            }
        };
        let written = formatted(&file.name, &file.text).map_err(Trouble::Local)?;
        if args.stdout || path == Path::new("-") && !args.check {
            say(&written)?;
        } else if written != file.text {
            differ += 1;
            say(&format!("{}\n", file.name))?;
            if !args.check {
                replace(&path, &written).map_err(|error| {
                    Trouble::Local(format!("cannot write {}: {error}", file.name))
                })?;
            }
        }
    }
    Ok(if unread > 0 || args.check && differ > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The one form of a file.
///
/// # Errors
/// What is wrong with it as YAML, or why it cannot be written without losing something.
pub(super) fn formatted(name: &str, text: &str) -> Result<String, String> {
    let mut file = File::read(name, text)?;
    if file.lost_comments {
        return Err(format!(
            "{name}: too many lines with `#` to tell comments from text; split the file"
        ));
    }
    let comments = file.comments();
    file.documents
        .iter_mut()
        .filter(|tree| is_policy(tree))
        .for_each(arrange);
    let written = file.written();
    let mut again = File::read(name, &written).map_err(|why| {
        format!("{name}: left as it is, for its form would not be read again: {why}")
    })?;
    if again.says_the_same(&file) && again.comments() == comments {
        Ok(written)
    } else {
        Err(format!(
            "{name}: left as it is: it cannot be written in one form without losing something"
        ))
    }
}

/// Replaced whole: somebody may be reading it, a relay among others.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path = fs::canonicalize(path)?; // a link stays one
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = fs::File::create(&beside).and_then(|mut new| {
        new.set_permissions(fs::metadata(&path)?.permissions())?;
        new.write_all(text.as_bytes())?;
        new.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&beside, &path));
    if renamed.is_err() {
        let _ = fs::remove_file(&beside);
    }
    renamed
}

// === order ===

/// Keys in the order in which they are written; others follow as they come.
const ORDER: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "spec",
    "items",
    "nodeSelector",
    "selector",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
    "values",
    "path",
    "execname",
    "dir",
    "pattern",
    "cidr",
    "protocol",
    "domain",
    "capability",
    "syscall",
    "class",
    "subClass",
    "port",
    "endPort",
    "direction",
    "level",
    "recursive",
    "readOnly",
    "ownerOnly",
    "pts",
    "allowedArgs",
    "fromSource",
    "from",
    "to",
    "iface",
    "ports",
    "limit",
    "duration",
    "mode",
    "expires",
    "defaultPosture",
    "severity",
    "tags",
    "message",
    "action",
    "process",
    "file",
    "network",
    "capabilities",
    "device",
    "syscalls",
    "presets",
    "apparmor",
    "ingress",
    "egress",
    "matchPaths",
    "matchDirectories",
    "matchPatterns",
    "matchProtocols",
    "matchEndpoints",
    "matchDNSQueries",
    "matchCapabilities",
    "matchDevice",
    "matchSyscalls",
];

/// Mappings whose keys are the user's own.
const OWN: &[&str] = &["matchLabels", "labels", "annotations"];

pub(super) fn is_policy(tree: &Tree) -> bool {
    let version = tree.get("apiVersion").and_then(Tree::as_str);
    let kind = tree.get("kind").and_then(Tree::as_str).unwrap_or_default();
    version.is_some_and(|version| version.starts_with("security.kubearmor.com/"))
        || kind.ends_with("List")
}

/// Puts the keys of a policy in order, all the way down.
pub(super) fn arrange(tree: &mut Tree) {
    match &mut tree.value {
        Value::Scalar { .. } => {}
        Value::List(items) => items.iter_mut().for_each(arrange),
        Value::Map(entries) => {
            let rank = |key: &str| {
                ORDER
                    .iter()
                    .position(|known| *known == key)
                    .unwrap_or(ORDER.len())
            };
            entries.sort_by_key(|(key, _)| rank(key)); // stable
            let others = entries
                .iter_mut()
                .filter(|(key, _)| !OWN.contains(&key.as_str()));
            others.for_each(|(_, tree)| arrange(tree));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "\
# what it is for
kind: KubeArmorPolicy
apiVersion: security.kubearmor.com/v1
spec:
    action: Block   # the default
    process: {severity: 3, matchPaths: [{action: Audit, path: \"/bin/a\"},
        {path: /bin/b, fromSource: [{path: /bin/c}]}]}
    tags: [ \"a b\", '# no comment', \"1.10\" ]
    # for whom
    selector: {matchLabels: {\"b\": 'x', a: \"true\"}}
    apparmor: |
        # text of a block
        deny /x r,
metadata: {namespace: shop, name: n}
---
kind: Other
a: 1
# the end
";

    #[test]
    fn keys_are_in_order_and_comments_stay_with_what_they_are_about() {
        let formatted = formatted("a.yaml", WRITTEN).unwrap();
        assert_eq!(
            formatted,
            "\
# what it is for
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: n
  namespace: shop
spec:
  # for whom
  selector:
    matchLabels:
      b: x
      a: \"true\"
  tags: [a b, \"# no comment\", \"1.10\"]
  action: Block  # the default
  process:
    severity: 3
    matchPaths:
      - path: /bin/a
        action: Audit
      - path: /bin/b
        fromSource:
          - path: /bin/c
  apparmor: |
    # text of a block
    deny /x r,
---
kind: Other
a: 1
# the end
"
        );
    }

    #[test]
    fn the_form_of_a_formatted_file_is_itself() {
        let once = formatted("a.yaml", WRITTEN).unwrap();
        assert_eq!(formatted("a.yaml", &once).unwrap(), once);
    }

    #[test]
    fn what_reads_as_another_type_keeps_its_quotes() {
        let text = "a: \"1\"\nb: 1\nc: \"yes\"\nd: yes\ne: \"\"\nf:\ng: 'it''s'\nh: \"x: y\"\ni: \"l1\\nl2\"\n";
        let written = formatted("a.yaml", text).unwrap();
        assert_eq!(
            written,
            "a: \"1\"\nb: 1\nc: \"yes\"\nd: yes\ne: \"\"\nf:\ng: it's\nh: \"x: y\"\ni: |-\n  l1\n  l2\n"
        );
    }

    #[test]
    fn a_broken_file_is_told_and_never_replaced() {
        assert!(
            formatted("a.yaml", "a: [1")
                .unwrap_err()
                .contains("a.yaml:")
        );
    }
}
