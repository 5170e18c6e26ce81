//! What a literal path of a rule leads to in a workload's root.
//!
//! A sensor resolves the paths of rules when a workload is registered. Without the root here, the one thing that is known of
//! nearly every root is that `/bin`, `/sbin`, `/lib` and `/lib64` either are links into `/usr` or are not: both are tried.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use policy::Found;

/// Links are followed so often (`MAXSYMLINKS`, linux/namei.h).
const MAX_LINKS: usize = 40;
const MERGED: [&str; 4] = ["/bin", "/sbin", "/lib", "/lib64"];

/// How paths are looked up.
pub(super) struct Names {
    root: Option<PathBuf>,
}

impl Names {
    pub(super) fn new(root: Option<PathBuf>) -> Names {
        Names { root }
    }

    /// Other names of a literal path; without a root, those of a merged `/usr` if it is.
    pub(super) fn of(&self, path: &str, merged_usr: bool) -> Vec<String> {
        match &self.root {
            Some(root) => resolved(root, path)
                .into_iter()
                .filter(|name| name != path)
                .collect(),
            None if merged_usr => merged(path).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// The file that a name which a program wrote leads to.
    pub(super) fn target(&self, path: &str) -> String {
        let target = self.root.as_ref().and_then(|root| resolved(root, path));
        target.unwrap_or_else(|| path.to_owned())
    }
}

/// Programs that do what the name they are started by says.
const MANY: [&str; 4] = [
    "/bin/busybox",
    "/usr/bin/busybox",
    "/bin/toybox",
    "/usr/bin/coreutils",
];

/// What is at a path of a root folder.
pub(super) fn find(root: &Path, path: &str) -> Found {
    let Some(to) = resolved(root, path) else {
        return Found::Nothing;
    };
    if let Some(of) = many(root, &to).filter(|of| name_of(of) != name_of(path)) {
        return Found::Applet { of };
    }
    match to == path {
        true => Found::Itself,
        false => Found::Link { to },
    }
}

/// The binary of many names that this is, by a link of either kind.
fn many(root: &Path, path: &str) -> Option<String> {
    let inode = |path: &str| {
        let metadata = std::fs::symlink_metadata(root.join(path.trim_start_matches('/'))).ok()?;
        metadata.is_file().then(|| (metadata.dev(), metadata.ino()))
    };
    let own = inode(path)?;
    let mut known = MANY.into_iter().filter_map(|known| resolved(root, known));
    known.find(|known| inode(known) == Some(own))
}

fn name_of(path: &str) -> Option<&str> {
    path.rsplit('/').next()
}

fn merged(path: &str) -> Option<String> {
    let below = |top: &str| {
        let rest = path.strip_prefix(top)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(())
    };
    MERGED.into_iter().find_map(below)?;
    Some(format!("/usr{path}"))
}

/// Follows every link of a path without leaving the root, as chroot(2) would. None: it is not there.
fn resolved(root: &Path, path: &str) -> Option<String> {
    let directory = path.ends_with('/') && path != "/";
    let mut left: Vec<String> = parts(Path::new(path));
    left.reverse();
    let mut done: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        done.push(part);
        let here = root.join(done.join("/"));
        let metadata = std::fs::symlink_metadata(&here).ok()?;
        if metadata.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            let target = std::fs::read_link(&here).ok()?;
            if target.is_absolute() {
                done.clear();
            } else {
                done.pop();
            }
            left.extend(parts(&target).into_iter().rev());
        }
    }
    let closing = if directory { "/" } else { "" };
    Some(format!("/{}{closing}", done.join("/")))
}

fn parts(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            Component::ParentDir => Some("..".to_owned()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_without_leaving_the_root() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        std::fs::write(root.path().join("usr/bin/dash"), "").unwrap();
        std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).unwrap();
        std::os::unix::fs::symlink("/../../bin/dash", root.path().join("usr/bin/sh")).unwrap();
        std::os::unix::fs::symlink("loop", root.path().join("loop")).unwrap();
        let names = Names::new(Some(root.path().to_owned()));
        assert_eq!(names.of("/bin/sh", true), ["/usr/bin/dash"]);
        assert_eq!(names.of("/bin/", true), ["/usr/bin/"]);
        assert_eq!(names.of("/usr/bin/dash", true), [""; 0]);
        assert_eq!(names.of("/loop", true), [""; 0]);
        assert_eq!(names.target("/bin/sh"), "/usr/bin/dash");
        assert_eq!(names.target("/not/there"), "/not/there");
    }

    #[test]
    fn an_applet_is_one_by_a_symbolic_or_a_hard_link() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(bin.join("busybox"), "").unwrap();
        std::fs::write(bin.join("bash"), "").unwrap();
        std::os::unix::fs::symlink("busybox", bin.join("sh")).unwrap();
        std::os::unix::fs::symlink("bash", bin.join("rbash")).unwrap();
        std::fs::hard_link(bin.join("busybox"), bin.join("ls")).unwrap();
        let busybox = || Found::Applet {
            of: "/bin/busybox".to_owned(),
        };
        let bash = Found::Link {
            to: "/bin/bash".to_owned(),
        };
        let found = |path| find(root.path(), path);
        assert_eq!((found("/bin/sh"), found("/bin/ls")), (busybox(), busybox()));
        assert_eq!(
            (found("/bin/busybox"), found("/bin/rbash")),
            (Found::Itself, bash)
        );
        assert_eq!(
            (found("/bin/nc"), found("/bin/")),
            (Found::Nothing, Found::Itself)
        );
    }

    #[test]
    fn without_a_root_both_ways_of_usr_are_tried() {
        let names = Names::new(None);
        assert_eq!(names.of("/bin/sh", false), [""; 0]);
        assert_eq!(names.of("/bin/sh", true), ["/usr/bin/sh"]);
        assert_eq!(names.of("/binary", true), [""; 0]);
    }
}
