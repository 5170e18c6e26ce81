//! What a literal path of a rule leads to in a workload's root.
//!
//! A sensor resolves the paths of rules when a workload is registered. Without the root here, the one thing that is known of
//! nearly every root is that `/bin`, `/sbin`, `/lib` and `/lib64` either are links into `/usr` or are not: both are tried.

use std::path::{Component, Path, PathBuf};

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
    fn without_a_root_both_ways_of_usr_are_tried() {
        let names = Names::new(None);
        assert_eq!(names.of("/bin/sh", false), [""; 0]);
        assert_eq!(names.of("/bin/sh", true), ["/usr/bin/sh"]);
        assert_eq!(names.of("/binary", true), [""; 0]);
    }
}
