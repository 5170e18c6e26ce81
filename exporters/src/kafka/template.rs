//! Names that are made of an event's fields: `alerts-{namespace}`.
//!
//! A topic's name may hold letters, digits, `.`, `_` and `-`, 249 at most (Kafka's `Topic.java`); what an event brings into
//! it beyond that becomes `_`, and a word without a value is `none`. Events come from workloads, so how many topics they can
//! call for is bounded: see [`Config::max_topics`](super::Config::max_topics).

use proto::{Kind, Texts, View};

/// Longest name of a topic, in bytes.
pub(super) const MAX_TOPIC: usize = 249;

/// Text with words to be filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Word(Word),
}

macro_rules! words {
    ($($word:ident = $name:literal;)*) => {
        /// What of an event can stand in a template.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Word { $($word),* }

        const NAMES: &[&str] = &[$($name),*];

        impl Word {
            fn named(name: &str) -> Option<Word> {
                match name {
                    $($name => Some(Word::$word),)*
                    _ => None,
                }
            }
        }
    };
}

words! {
    Cluster = "cluster";
    Host = "host";
    Namespace = "namespace";
    Pod = "pod";
    Workload = "workload";
    Kind = "kind";
    Operation = "operation";
    Action = "action";
    Severity = "severity";
}

/// Text that is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadTemplate {
    #[error("there is `{{` without its `}}`; words look like {{namespace}}")]
    Open,
    #[error("`{{{name}}}` is no word of an event; {}", advice(name))]
    Unknown { name: String },
}

fn advice(name: &str) -> String {
    match yaml::nearest(name, NAMES.iter().copied()) {
        Some(near) => format!("did you mean `{{{near}}}`?"),
        None => format!("known are {{{}}}", NAMES.join("} {")),
    }
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, BadTemplate> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(BadTemplate::Open)?;
            let word = Word::named(name).ok_or_else(|| BadTemplate::Unknown {
                name: name.to_owned(),
            })?;
            push_text(&mut parts, before);
            parts.push(Part::Word(word));
            rest = after;
        }
        push_text(&mut parts, rest);
        Ok(Template(parts))
    }

    /// The text, if no event can change it.
    pub(super) fn fixed(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// What of an event it looks at.
    pub(super) fn texts(&self) -> Texts {
        let words = self.0.iter().filter_map(|part| match part {
            Part::Word(word) => Some(word.texts()),
            Part::Text(_) => None,
        });
        words.fold(Texts::of(&[]), Texts::and)
    }

    /// Writes what the event makes of it.
    pub(super) fn write(&self, view: &View<'_>, out: &mut String) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Word(word) => word.write(view, out),
            }
        }
    }

    /// Writes what the event makes of it as a topic's name.
    pub(super) fn write_topic(&self, view: &View<'_>, out: &mut String) {
        let mut value = String::new();
        self.write_with(out, |word, out| {
            value.clear();
            word.write(view, &mut value);
            let fitting = |c: char| if is_topic_char(c) { c } else { '_' };
            match value.as_str() {
                "" => out.push_str("none"),
                value => out.extend(value.chars().map(fitting)),
            }
        });
    }

    /// Writes the topic of those events that would need one topic too many.
    pub(super) fn write_other(&self, out: &mut String) {
        self.write_with(out, |_, out| out.push_str("other"));
    }

    fn write_with(&self, out: &mut String, mut write: impl FnMut(Word, &mut String)) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Word(word) => write(*word, out),
            }
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

impl Word {
    fn texts(self) -> Texts {
        Texts::of(match self {
            Word::Cluster => &["ClusterName"],
            Word::Host => &["HostName"],
            Word::Namespace => &["NamespaceName"],
            Word::Pod => &["PodName"],
            Word::Workload => &["HostName", "NamespaceName", "PodName"],
            Word::Kind => &[],
            Word::Operation => &["Operation"],
            Word::Action => &["Action"],
            Word::Severity => &["Severity"],
        })
    }

    fn write(self, view: &View<'_>, out: &mut String) {
        let value = match self {
            Word::Cluster => view.cluster,
            Word::Host => view.host,
            Word::Namespace => view.namespace,
            Word::Pod => view.pod,
            Word::Workload => return write_workload(view, out),
            Word::Kind => kind_word(view.kind),
            Word::Operation => view.operation,
            Word::Action => view.action,
            Word::Severity => view.severity,
        };
        out.push_str(value);
    }
}

fn write_workload(view: &View<'_>, out: &mut String) {
    if view.pod.is_empty() {
        out.push_str(view.host);
    } else {
        out.extend([view.namespace, "/", view.pod]);
    }
}

/// `alert`, `log` or `message`.
pub(super) fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Alert => "alert",
        Kind::Log => "log",
        Kind::Message => "message",
    }
}

fn is_topic_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Why a text cannot be a topic's name or the template of one, if it cannot.
pub(super) fn topic_problem(text: &str) -> Option<String> {
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(bad) => return Some(bad.to_string()),
    };
    let mut shortest = String::new();
    template.write_with(&mut shortest, |_, out| out.push('x'));
    if let Some(c) = shortest.chars().find(|c| !is_topic_char(*c)) {
        return Some(format!(
            "`{c}` cannot stand in a topic's name; use letters, digits, `.`, `_` and `-`"
        ));
    }
    match shortest.as_str() {
        "" => Some("is empty; name the topic, or leave the key out".to_owned()),
        "." | ".." => Some(format!("`{shortest}` cannot name a topic")),
        _ if shortest.len() > MAX_TOPIC => Some(format!(
            "{} characters are too long for a topic; use up to {MAX_TOPIC}",
            shortest.len()
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::feeder;

    use super::*;

    fn alert(namespace: &str, pod: &str) -> Vec<u8> {
        feeder::Alert {
            cluster_name: "prod".into(),
            host_name: "node-1".into(),
            namespace_name: namespace.into(),
            pod_name: pod.into(),
            severity: "5".into(),
            operation: "File".into(),
            action: "Block".into(),
            ..Default::default()
        }
        .encode_to_vec()
    }

    fn written(template: &str, namespace: &str, pod: &str) -> [String; 2] {
        let bytes = alert(namespace, pod);
        let template = Template::parse(template).unwrap();
        let view = View::read_only(Kind::Alert, &bytes, template.texts());
        let (mut key, mut topic) = (String::new(), String::new());
        template.write(&view, &mut key);
        template.write_topic(&view, &mut topic);
        [key, topic]
    }

    #[test]
    fn words_take_the_events_values() {
        let [key, topic] = written("{cluster}.{namespace}-{kind}s-{severity}", "shop", "cart");
        assert_eq!(key, "prod.shop-alerts-5");
        assert_eq!(topic, key);
    }

    #[test]
    fn every_word_is_among_what_its_template_looks_at() {
        let values = NAMES.iter().map(|name| {
            let [key, _] = written(&format!("{{{name}}}"), "shop", "cart");
            key
        });
        let all = "prod node-1 shop cart shop/cart alert File Block 5";
        assert_eq!(values.collect::<Vec<_>>().join(" "), all);
    }

    #[test]
    fn a_workload_is_a_pod_or_else_the_node() {
        assert_eq!(written("{workload}", "shop", "cart")[0], "shop/cart");
        assert_eq!(written("{workload}", "", "")[0], "node-1");
    }

    #[test]
    fn what_an_event_brings_cannot_break_a_topics_name() {
        let [_, topic] = written("a-{namespace}", "sh/öp\u{0}\n", "");
        assert_eq!(topic, "a-sh__p__");
        assert_eq!(written("a-{namespace}", "", "")[1], "a-none");
        let mut other = String::new();
        let template = Template::parse("{cluster}-{pod}.x").unwrap();
        template.write_other(&mut other);
        assert_eq!(other, "other-other.x");
    }

    #[test]
    fn texts_that_are_no_template_and_no_topic_are_told() {
        for (text, why) in [
            ("a{pod", "without its `}`"),
            ("{pods}", "did you mean `{pod}`?"),
            ("{qqqqqqqqq}", "known are {cluster}"),
            ("", "is empty"),
            ("..", "cannot name a topic"),
            ("a b", "` ` cannot stand"),
            (&"x".repeat(250), "250 characters"),
        ] {
            let told = topic_problem(text).unwrap_or_default();
            assert!(told.contains(why), "{text}: {told}");
        }
        assert_eq!(topic_problem("a.b_c-{namespace}"), None);
    }
}
