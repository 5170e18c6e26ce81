//! Names that are looked up.

/// What resolv.conf of a pod may have put behind a name before it was looked up (Kubernetes, "DNS for Services and
/// Pods"): the cluster's domain, its `svc`, or a namespace's.
const CLUSTER: &str = ".cluster.local";
const SERVICES: &str = ".svc.cluster.local";

/// The one way to write a name: lower case, without the closing dot.
pub(crate) fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// How many labels stand between the root and the name.
pub(crate) fn labels(name: &str) -> usize {
    name.split('.').filter(|label| !label.is_empty()).count()
}

/// Whether a rule on this domain is about the name: the domain itself, what is below it, and either with a search
/// suffix behind it. `domain` is canonical.
pub(crate) fn covers(domain: &str, name: &str) -> bool {
    forms(name).iter().any(|form| {
        let rest = form.strip_suffix(domain);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// A name as it was looked up, and as it was asked for before a search suffix came behind it.
pub(crate) fn forms(name: &str) -> Vec<String> {
    let name = canonical(name);
    let mut forms = vec![name.clone()];
    if let Some(short) = name.strip_suffix(SERVICES) {
        forms.push(short.to_owned());
        // The last label may be a namespace.
        forms.extend(short.rsplit_once('.').map(|(front, _)| front.to_owned()));
    }
    forms.extend(name.strip_suffix(CLUSTER).map(str::to_owned));
    forms.retain(|form| !form.is_empty());
    forms
}

/// The name and its parents, the longest first: `a.b.c`, `b.c`, `c`.
pub(crate) fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| {
        name.split_once('.').map(|(_, parent)| parent)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_covers_itself_what_is_below_and_search_suffixes() {
        for name in [
            "example.org",
            "EXAMPLE.ORG.",
            "www.example.org",
            "example.org.cluster.local",
            "a.example.org.svc.cluster.local",
            "example.org.shop.svc.cluster.local",
        ] {
            assert!(covers("example.org", name), "{name}");
        }
        for name in ["notexample.org", "example.org.evil.net", "org", ""] {
            assert!(!covers("example.org", name), "{name}");
        }
    }
}
