//! Paths as rules write them: absolute, literal, `/`-separated.

/// How many components of a path the kernel's walk keeps; a rule that needs more cannot be enforced.
pub const MAX_COMPONENTS: usize = 48;
/// The longest name of one component (`NAME_MAX`, linux/limits.h).
pub const MAX_COMPONENT: usize = 255;
/// The longest path (`PATH_MAX`, linux/limits.h, less its closing NUL).
pub(crate) const MAX_PATH: usize = 4095;

/// The components of an absolute path; none for `/`.
pub(crate) fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|component| !component.is_empty())
}

/// How many components stand between `/` and the end of the path.
pub(crate) fn depth(path: &str) -> usize {
    components(path).count()
}

/// The one way to write a path: `//bin///sleep` is `/bin/sleep`; a directory keeps its closing `/`.
pub(crate) fn canonical(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for component in components(path) {
        out.push('/');
        out.push_str(component);
    }
    if out.is_empty() || path.ends_with('/') {
        out.push('/');
    }
    out
}

/// Why no object can have this path; `None` for one that could be.
pub(crate) fn impossible(path: &str) -> Option<String> {
    if path.len() > MAX_PATH {
        return Some(format!(
            "is longer than {MAX_PATH} bytes, which no path can be"
        ));
    }
    if path.contains('\0') {
        return Some("holds a NUL byte, which no path can".to_owned());
    }
    let dots = components(path).find(|component| matches!(*component, "." | ".."))?;
    Some(format!(
        "holds `{dots}`, which a resolved path never does; write the path without it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_canonical_form() {
        assert_eq!(canonical("//bin///sleep"), "/bin/sleep");
        assert_eq!(canonical("/etc//"), "/etc/");
        assert_eq!(canonical("///"), "/");
        assert_eq!((depth("/"), depth("/a/b"), depth("/a/b/")), (0, 2, 2));
    }
}
