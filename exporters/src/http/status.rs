//! What a status code means for the batch that it answers.
//!
//! | status | means | so |
//! |---|---|---|
//! | 2xx | taken | `Taken` |
//! | 400, 413, 422 | this content is wrong or too large | `Refused`: halved, and the one that is left is a dead letter |
//! | 408, 425, 429, 5xx | not now | `Unavailable`, for as long as `Retry-After` says |
//! | 3xx, 401, 403, 404, 405, 407, 410, 415, … | the settings are wrong | `Unavailable`: everything waits until they are mended |

use std::time::{Duration, SystemTime};

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::Unavailable;

/// Characters of an answer that are told on.
const MAX_SHOWN: usize = 500;
/// No destination keeps us longer than this at once; then it is asked again.
const MAX_AFTER: Duration = Duration::from_secs(3600);

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What an answer says of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// The destination has it.
    Taken(Vec<u8>),
    /// It will not take this content: the reason.
    Refused(String),
}

impl Answer {
    /// See the table above.
    pub(crate) fn judge(self) -> Result<Judged, Unavailable> {
        let after = retry_after(&self.headers, SystemTime::now());
        match self.status.as_u16() {
            200..=299 => Ok(Judged::Taken(self.body)),
            400 | 413 | 422 => Ok(Judged::Refused(self.words())),
            _ => Err(Unavailable {
                reason: match self.advice() {
                    "" => self.words(),
                    advice => format!("{}; {advice}", self.words()),
                },
                after,
            }),
        }
    }

    /// Takes a secret out of what is told on. Servers repeat what they refuse: an echo of the request's headers, or
    /// `Cannot POST /services/…` for an address that is a secret.
    pub(crate) fn hide(&mut self, secret: &str) {
        if let Some(hidden) = hidden(&String::from_utf8_lossy(&self.body), secret) {
            self.body = hidden.into_bytes();
        }
    }

    /// The status and what the body says about it.
    pub(crate) fn words(&self) -> String {
        let said = shown(&String::from_utf8_lossy(&self.body));
        match said.is_empty() {
            true => format!("HTTP {}", self.status),
            false => format!("HTTP {}: {said}", self.status),
        }
    }

    fn advice(&self) -> &'static str {
        match self.status.as_u16() {
            300..=399 => "the address has moved; write the new one into the settings",
            401 => "it refuses the credentials; check auth and the file that it names",
            403 => "it knows these credentials and does not allow this; check what they may do",
            404 | 405 | 410 => "there is nothing at this address that takes events; check it",
            407 => "the proxy wants credentials; check proxy",
            415 => "it does not understand this form; check the address, and try compression: none",
            _ => "",
        }
    }
}

/// The text without the secret; none if it is not in it.
pub(crate) fn hidden(text: &str, secret: &str) -> Option<String> {
    (!secret.is_empty() && text.contains(secret)).then(|| text.replace(secret, "***"))
}

/// What a destination said, in one line without what would command a terminal.
pub(crate) fn shown(text: &str) -> String {
    let text = proto::visible::text(text.trim());
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// How long to wait, of `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = DateTimeParser::new().parse_timestamp(text).ok()?;
            SystemTime::try_from(date)
                .ok()?
                .duration_since(now)
                .unwrap_or_default()
        }
    };
    Some(wait.min(MAX_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, after: Option<&str>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(RETRY_AFTER, after.parse().unwrap());
        }
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.into(),
        }
    }

    #[test]
    fn codes_say_taken_refused_or_not_now() {
        for status in [200, 202, 204] {
            assert!(matches!(
                answer(status, None, "").judge(),
                Ok(Judged::Taken(_))
            ));
        }
        for status in [400, 413, 422] {
            let judged = answer(status, None, "bad\x1b[31m").judge();
            assert!(
                matches!(&judged, Ok(Judged::Refused(why)) if why.contains("bad\\x1b")),
                "{judged:?}"
            );
        }
        for status in [
            301, 401, 403, 404, 405, 407, 408, 415, 425, 429, 500, 502, 503, 504, 599,
        ] {
            assert!(answer(status, None, "").judge().is_err(), "{status}");
        }
    }

    #[test]
    fn wrong_settings_are_told_with_what_to_do() {
        let said = answer(401, None, "nope").judge().unwrap_err().reason;
        assert!(said.starts_with("HTTP 401 Unauthorized: nope; "), "{said}");
        assert!(said.contains("auth"), "{said}");
    }

    #[test]
    fn the_destination_says_how_long_to_wait() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700);
        let after = |text: &str| retry_after(&answer(429, Some(text), "").headers, now);
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            after("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(77))
        );
        // A moment that has passed is no wait.
        assert_eq!(after("Sat, 06 Nov 1993 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(after("99999999"), Some(MAX_AFTER));
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn a_long_answer_is_cut() {
        assert_eq!(shown(&"ü".repeat(600)).chars().count(), 501);
        assert_eq!(shown(" a\nb "), "a\\nb");
    }
}
