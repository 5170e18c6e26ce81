//! A path as a policy writes it, and as the kernel will see it inside a workload's root.
//!
//! On a system with merged /usr, `/bin/sleep` is `/usr/bin/sleep`: a rule must cover both. The resolution runs with
//! `openat2(2)` inside the workload's root (`RESOLVE_IN_ROOT`, so `..` and absolute links stay inside) and without
//! magic links, so that nothing in the workload's file system can lead the sensor out of it. A path that does not
//! exist yet is resolved as far as it does: `/bin/new` becomes `/usr/bin/new`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Resolves paths inside one root.
#[derive(Debug)]
pub struct Resolver {
    root: OwnedFd,
    prefix: String,
}

impl Resolver {
    /// Opens the root. Errors: the folder cannot be opened, or `/proc` is not there to name it.
    pub fn new(root: &Path) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        let prefix = name_of(&root)?;
        let prefix = prefix.trim_end_matches('/').to_owned();
        Ok(Self { root, prefix })
    }

    /// Other names of `path`, which is absolute: none when it is already the resolved one.
    /// A trailing `/` (a directory rule) stays.
    pub fn aliases(&self, path: &str) -> Vec<String> {
        let directory = path.len() > 1 && path.ends_with('/');
        let bare = if directory {
            path.trim_end_matches('/')
        } else {
            path
        };
        match self.resolve(bare) {
            Some(mut resolved) if resolved != bare => {
                if directory && !resolved.ends_with('/') {
                    resolved.push('/');
                }
                vec![resolved]
            }
            _ => Vec::new(),
        }
    }

    fn resolve(&self, path: &str) -> Option<String> {
        let mut existing = PathBuf::from(path);
        let mut missing = Vec::new();
        loop {
            if let Some(found) = self.open(&existing) {
                return Some(append(found, &missing));
            }
            missing.push(existing.file_name()?.to_str()?.to_owned());
            existing.pop();
        }
    }

    fn open(&self, path: &Path) -> Option<String> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve).ok()?;
        let name = name_of(&file).ok()?;
        let inside = name.strip_prefix(&self.prefix)?;
        Some(if inside.is_empty() {
            "/".to_owned()
        } else {
            inside.to_owned()
        })
    }
}

/// The path of an open file, as the kernel prints it.
fn name_of(file: impl AsFd) -> std::io::Result<String> {
    use std::os::fd::AsRawFd;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))?;
    link.into_os_string()
        .into_string()
        .map_err(|_| std::io::Error::other("a path that is not UTF-8"))
}

fn append(mut path: String, missing: &[String]) -> String {
    for name in missing.iter().rev() {
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(name);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A root with merged /usr: bin → usr/bin, usr/bin/sleep, etc/real, etc/link → /etc/real, out → ../../..
    fn root() -> (tempfile::TempDir, Resolver) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("usr/bin/sleep"), "").unwrap();
        std::fs::write(dir.path().join("etc/real"), "").unwrap();
        symlink("usr/bin", dir.path().join("bin")).unwrap();
        symlink("/etc/real", dir.path().join("etc/link")).unwrap();
        symlink("../../../..", dir.path().join("out")).unwrap();
        let resolver = Resolver::new(dir.path()).unwrap();
        (dir, resolver)
    }

    #[test]
    fn a_path_through_a_link_gets_its_resolved_name() {
        let (_dir, resolver) = root();
        assert_eq!(resolver.aliases("/bin/sleep"), ["/usr/bin/sleep"]);
        assert_eq!(resolver.aliases("/etc/link"), ["/etc/real"]);
    }

    #[test]
    fn a_resolved_path_has_no_other_name() {
        let (_dir, resolver) = root();
        assert_eq!(resolver.aliases("/usr/bin/sleep"), Vec::<String>::new());
        assert_eq!(resolver.aliases("/"), Vec::<String>::new());
    }

    #[test]
    fn a_directory_rule_keeps_its_slash() {
        let (_dir, resolver) = root();
        assert_eq!(resolver.aliases("/bin/"), ["/usr/bin/"]);
    }

    #[test]
    fn what_does_not_exist_yet_is_resolved_as_far_as_it_does() {
        let (_dir, resolver) = root();
        assert_eq!(resolver.aliases("/bin/new/tool"), ["/usr/bin/new/tool"]);
        assert_eq!(resolver.aliases("/nowhere/tool"), Vec::<String>::new());
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let (_dir, resolver) = root();
        assert_eq!(resolver.aliases("/out/etc/link"), ["/etc/real"]);
        assert_eq!(resolver.aliases("/out/"), ["/"]);
    }
}
