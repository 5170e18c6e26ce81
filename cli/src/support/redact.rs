//! Taking secrets out of what somebody else will read.
//!
//! The settings name secrets by file and by variable; what those hold is taken out of every text, wherever it came to stand
//! there (a destination that repeats a token in its error, say). Besides, whatever stands under a key that sounds secret, the
//! values of HTTP headers, and user, password, path and query of addresses are taken out of the settings.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in place of a secret.
const GONE: &str = "***";
/// A shorter text would be found everywhere.
const SHORTEST: usize = 4;
/// A larger file holds no secret of ours.
const LARGEST: u64 = 64 << 10;

/// Keys whose values are secret, whatever else their names say.
const SECRET_KEYS: [&str; 6] = [
    "password",
    "token",
    "secret",
    "api_key",
    "apikey",
    "credential",
];

static ADDRESS: LazyLock<Regex> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the text is this one")]
    Regex::new(r#"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:[^\s/@"']*@)?(?P<host>[^\s/?#"']+)(?P<rest>[^\s"']*)"#)
        .expect("a good expression")
});

/// What must not be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Finds the secrets that settings name, and takes out of them what is secret itself.
    pub(super) fn of(settings: &mut Value) -> Secrets {
        let mut secrets = Vec::new();
        walk("", settings, &mut secrets);
        secrets.retain(|secret| secret.len() >= SHORTEST);
        // A secret that holds another one goes first.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Secrets(secrets)
    }

    /// The text without them, and without what addresses carry beside their host.
    pub(super) fn without(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), GONE);
            }
        }
        ADDRESS
            .replace_all(&text, |found: &Captures<'_>| address(found))
            .into_owned()
    }
}

/// An address as far as it may be seen. Who may read an address with a long path often needs nothing else (Slack's, say).
fn address(found: &Captures<'_>) -> String {
    let rest = match &found["rest"] {
        short @ ("" | "/" | "/metrics" | "/readyz" | "/healthz") => short,
        _ if &found["scheme"] == "spiffe" => &found["rest"],
        _ => "/***",
    };
    format!("{}://{}{rest}", &found["scheme"], &found["host"])
}

fn walk(key: &str, value: &mut Value, secrets: &mut Vec<String>) {
    match value {
        Value::Object(map) if key == "headers" => {
            for value in map.values_mut() {
                secrets.extend(value.as_str().map(str::to_owned));
                *value = GONE.into();
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                walk(key, value, secrets);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(key, item, secrets)),
        Value::String(text) if key.ends_with("_env") => {
            secrets.extend(std::env::var(text).ok());
        }
        Value::String(text) if key.ends_with("_file") && !is_public(key) => {
            secrets.extend(held(text));
        }
        Value::String(text) if SECRET_KEYS.iter().any(|word| key.contains(word)) => {
            secrets.push(std::mem::take(text));
            *text = GONE.to_owned();
        }
        _ => {}
    }
}

/// Certificates are shown to everybody.
fn is_public(key: &str) -> bool {
    matches!(key, "cert_file" | "ca_file" | "client_ca_file")
}

/// What a file holds, as a whole and by lines; nothing if it cannot be read, for then it cannot be repeated here either.
fn held(path: &str) -> Vec<String> {
    let small = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= LARGEST);
    let text = small.then(|| std::fs::read_to_string(path).ok()).flatten();
    let text = text.unwrap_or_default();
    let lines = text.lines().map(|line| line.trim().to_owned());
    let mut all: Vec<String> = lines.filter(|line| !line.starts_with("-----")).collect();
    all.push(text.trim().to_owned());
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_files_headers_and_secret_keys_hold_is_taken_out_of_every_text() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("es.key");
        std::fs::write(&file, "hunter2-from-a-file\n").unwrap();
        let mut settings = json!({"sinks": {"siem": {
            "auth": {"api_key_file": file, "username": "cresset"},
            "headers": {"X-Key": "hunter2-header"},
            "smtp_password": "hunter2-inline",
            "url": "https://user:hunter2@hooks.example/services/T0/B0/hunter2x?y=1",
        }}});
        let secrets = Secrets::of(&mut settings);
        let text = format!("{settings} said: bad key hunter2-from-a-file, hunter2-header");
        let shown = secrets.without(&text);
        assert!(!shown.contains("hunter2"), "{shown}");
        for kept in [
            "api_key_file",
            "cresset",
            "https://hooks.example/***",
            "X-Key",
        ] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
    }

    #[test]
    fn addresses_without_secrets_and_short_words_stay() {
        let mut settings =
            json!({"sinks": {"a": {"endpoints": ["http://es-0:9200"], "password": "no"}}});
        let secrets = Secrets::of(&mut settings);
        assert_eq!(secrets, Secrets(Vec::new()));
        for text in [
            "no news",
            "http://es-0:9200",
            "spiffe://d/reader/siem",
            "http://127.0.0.1:9480/metrics",
        ] {
            assert_eq!(secrets.without(text), text);
        }
        assert!(!settings.to_string().contains("\"no\""));
    }
}
