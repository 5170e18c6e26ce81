//! What the server answered, as what became of each event.
//!
//! | answer | of one event | of the whole request |
//! |---|---|---|
//! | 2xx | it has it | – |
//! | 409 | it has had it | – |
//! | 429, 5xx, 408 | again | again, and less at a time |
//! | 401, 403, 404, a closed index, no room for shards | wrong with the place and not with the event: everything waits | everything waits |
//! | 413 | – | again, in halves; an event that is too large alone is a dead letter |
//! | other 4xx | dead letter with status, type and reason | everything waits |
//!
//! An answer that is cut off, or tells of more or fewer events than were sent, says nothing: all are sent again, and those
//! that were taken are conflicts then.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

/// The parts of an answer that are read; the server leaves out the others.
pub(super) const BULK: &str = "_bulk?filter_path=errors,items.*.status,items.*._seq_no,items.*.error.type,items.*.error.reason,\
    items.*.error.caused_by.reason,error,status";

/// Longest reason that is kept.
const MAX_REASON: usize = 1024;

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is there.
    Done,
    /// Not now; `busy`: because there is too much to do.
    Again {
        /// Why.
        reason: String,
        /// Less would help.
        busy: bool,
    },
    /// The place is wrong, whatever the event.
    Misplaced(String),
    /// Never.
    Reject(String),
}

/// What an answer that is not 200 means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// Less at a time, and later.
    Busy(String),
    /// Less at a time, at once.
    TooLarge(String),
    /// Nothing can be delivered.
    Away(String),
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    items: Vec<Item<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    create: Told<'a>,
}

#[derive(Deserialize)]
struct Told<'a> {
    status: u16,
    /// Its number in the shard.
    #[serde(rename = "_seq_no", default)]
    number: Option<u64>,
    #[serde(borrow)]
    error: Option<Fault<'a>>,
}

#[derive(Deserialize)]
struct Fault<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    caused_by: Option<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: Option<String>,
}

/// The error of a whole answer: a text in some versions, an object in others.
#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    error: FailureText<'a>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FailureText<'a> {
    Object(#[serde(borrow)] Fault<'a>),
    Text(String),
}

/// What became of the events of a request.
#[derive(Debug)]
pub(super) struct Judged {
    /// One for each event, in their order.
    pub(super) verdicts: Vec<Verdict>,
    /// One of them is the first document of a shard: its index was made for it.
    pub(super) made: bool,
}

/// What became of the `sent` events.
///
/// # Errors
/// The answer is not about these events.
pub(super) fn items(body: &[u8], sent: usize) -> Result<Judged, String> {
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| {
        format!(
            "the answer is none to a bulk request: {error}: {}",
            shown(body)
        )
    })?;
    if answer.items.len() != sent {
        let told = answer.items.len();
        return Err(format!(
            "the answer tells of {told} events when {sent} were sent"
        ));
    }
    let told = || answer.items.iter().map(|item| &item.create);
    Ok(Judged {
        verdicts: told().map(judge).collect(),
        made: told().any(|told| told.status == 201 && told.number == Some(0)),
    })
}

fn judge(told: &Told<'_>) -> Verdict {
    let status = told.status;
    match (status, &told.error) {
        (200..=299 | 409, _) => Verdict::Done,
        (408 | 429 | 500.., error) => Verdict::Again {
            reason: reason(status, error.as_ref()),
            busy: status == 429,
        },
        (401 | 403 | 404, error) => Verdict::Misplaced(reason(status, error.as_ref())),
        (_, Some(error)) if of_the_place(error) => Verdict::Misplaced(reason(status, Some(error))),
        (_, error) => Verdict::Reject(reason(status, error.as_ref())),
    }
}

/// Errors with status 400 that would meet every event: an index that is closed, an alias that leads to several indices, a
/// cluster that has its number of shards, a name that cannot be one.
fn of_the_place(error: &Fault<'_>) -> bool {
    let says = |words: &str| {
        error
            .reason
            .as_ref()
            .is_some_and(|reason| reason.contains(words))
    };
    match &*error.kind {
        "index_closed_exception"
        | "invalid_alias_name_exception"
        | "invalid_index_name_exception"
        | "validation_exception" => true,
        "illegal_argument_exception" => says("no write index is defined for alias"),
        _ => false,
    }
}

fn reason(status: u16, error: Option<&Fault<'_>>) -> String {
    let Some(error) = error else {
        return format!("status {status}");
    };
    let mut text = format!("status {status}");
    if !error.kind.is_empty() {
        text.push(' ');
        text.push_str(&error.kind);
    }
    let cause = error
        .caused_by
        .as_ref()
        .and_then(|cause| cause.reason.as_ref());
    for part in [error.reason.as_ref(), cause].into_iter().flatten() {
        text.push_str(": ");
        text.push_str(part);
    }
    shortened(text)
}

/// What an answer with a status other than 200 means.
pub(super) fn whole(status: u16, body: &[u8]) -> Whole {
    let reason = failure(status, body);
    match status {
        413 => Whole::TooLarge(reason),
        408 | 429 | 500.. => Whole::Busy(reason),
        401 => Whole::Away(format!("{reason}; look at the sink's `auth`")),
        403 => Whole::Away(format!("{reason}; the sink's user may not write here")),
        300..=399 => Whole::Away(format!(
            "{reason}; `endpoints` leads to something that is moved"
        )),
        404 | 405 => Whole::Away(format!(
            "{reason}; look at the path in the sink's `endpoints`"
        )),
        _ => Whole::Away(reason),
    }
}

/// The error that an answer tells.
pub(super) fn failure(status: u16, body: &[u8]) -> String {
    match serde_json::from_slice(body) {
        Ok(Failure {
            error: FailureText::Object(fault),
        }) => reason(status, Some(&fault)),
        Ok(Failure {
            error: FailureText::Text(text),
        }) => shortened(format!("status {status}: {text}")),
        Err(_) if body.is_empty() => format!("status {status}"),
        Err(_) => format!("status {status}: {}", shown(body)),
    }
}

/// The beginning of something that is not what was expected, in one line.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..200).unwrap_or(body));
    let words: Vec<&str> = text.split_whitespace().collect();
    proto::visible::text(&words.join(" "))
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_REASON {
        let mut end = MAX_REASON;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Longest wait that a destination is granted.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::DateTimeParser::new()
                .parse_timestamp(value)
                .ok()?;
            until.duration_since(now).try_into().unwrap_or_default()
        }
    };
    Some(wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(item: &str) -> Verdict {
        let answer = format!(r#"{{"errors":true,"items":[{{"create":{item}}}]}}"#);
        let mut verdicts = items(answer.as_bytes(), 1).unwrap().verdicts;
        verdicts.remove(0)
    }

    #[test]
    fn the_first_document_of_a_shard_says_that_its_index_was_made() {
        let made = |status: u16, number: u64| {
            let answer =
                format!(r#"{{"items":[{{"create":{{"_seq_no":{number},"status":{status}}}}}]}}"#);
            items(answer.as_bytes(), 1).unwrap().made
        };
        assert!(made(201, 0));
        assert!(!made(201, 7) && !made(409, 0));
    }

    #[test]
    fn each_item_is_judged_alone() {
        assert_eq!(one(r#"{"status":201}"#), Verdict::Done);
        let conflict = r#"{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"exists"}}"#;
        assert_eq!(one(conflict), Verdict::Done);
        let busy =
            r#"{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"queue"}}"#;
        assert_eq!(
            one(busy),
            Verdict::Again {
                reason: "status 429 es_rejected_execution_exception: queue".into(),
                busy: true
            }
        );
        let away = Verdict::Again {
            reason: "status 503".into(),
            busy: false,
        };
        assert_eq!(one(r#"{"status":503}"#), away);
        let mapping = r#"{"status":400,"error":{"type":"document_parsing_exception","reason":"failed to parse field [UID]","caused_by":{"type":"x","reason":"For input string: \"é\""}}}"#;
        assert_eq!(
            one(mapping),
            Verdict::Reject(
                "status 400 document_parsing_exception: failed to parse field [UID]: For input string: \"é\"".into()
            )
        );
    }

    #[test]
    fn what_is_wrong_with_the_place_is_not_held_against_the_event() {
        for error in [
            r#"{"status":403,"error":{"type":"security_exception","reason":"unauthorized"}}"#,
            r#"{"status":403,"error":{"type":"cluster_block_exception","reason":"read-only"}}"#,
            r#"{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index"}}"#,
            r#"{"status":400,"error":{"type":"index_closed_exception","reason":"closed"}}"#,
            r#"{"status":400,"error":{"type":"validation_exception","reason":"this cluster currently has [1000]/[1000] maximum normal shards open"}}"#,
            r#"{"status":400,"error":{"type":"illegal_argument_exception","reason":"no write index is defined for alias [kubearmor-alerts]"}}"#,
        ] {
            assert!(matches!(one(error), Verdict::Misplaced(_)), "{error}");
        }
        let field = r#"{"status":400,"error":{"type":"illegal_argument_exception","reason":"immense term"}}"#;
        assert!(matches!(one(field), Verdict::Reject(_)));
    }

    #[test]
    fn an_answer_that_is_cut_or_miscounts_says_nothing() {
        let answer =
            br#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}]}"#;
        assert_eq!(items(answer, 2).unwrap().verdicts.len(), 2);
        for sent in [0, 1, 3] {
            assert!(items(answer, sent).is_err());
        }
        for end in 0..answer.len() {
            assert!(items(&answer[..end], 2).is_err(), "{end}");
        }
        let error = items(b"<html>\n <b>\x1b[31mproxy</b>", 1).unwrap_err();
        assert!(
            error.contains("<html> <b>") && !error.contains('\x1b'),
            "{error}"
        );
    }

    #[test]
    fn whole_answers_say_whether_to_wait_to_halve_or_to_mend_the_settings() {
        let busy = br#"{"error":{"root_cause":[],"type":"es_rejected_execution_exception","reason":"rejected execution of coordinating operation"},"status":429}"#;
        assert_eq!(
            whole(429, busy),
            Whole::Busy("status 429 es_rejected_execution_exception: rejected execution of coordinating operation".into())
        );
        assert_eq!(whole(503, b""), Whole::Busy("status 503".into()));
        assert_eq!(whole(413, b""), Whole::TooLarge("status 413".into()));
        let text = br#"{"error":"no handler found for uri [/x/_bulk]","status":400}"#;
        assert_eq!(
            whole(400, text),
            Whole::Away("status 400: no handler found for uri [/x/_bulk]".into())
        );
        for (status, hint) in [
            (401, "`auth`"),
            (403, "may not write"),
            (404, "`endpoints`"),
            (302, "moved"),
        ] {
            let Whole::Away(reason) = whole(status, b"") else {
                panic!("{status}")
            };
            assert!(reason.contains(hint), "{reason}");
        }
    }

    #[test]
    fn long_reasons_are_cut_at_a_letter() {
        let text = "ä".repeat(2000);
        let Verdict::Reject(reason) = one(&format!(
            r#"{{"status":400,"error":{{"type":"t","reason":"{text}"}}}}"#
        )) else {
            panic!()
        };
        assert!(reason.len() < MAX_REASON + 8 && reason.ends_with("ä…"));
    }

    #[test]
    fn a_wait_is_seconds_or_a_date_and_bounded() {
        let now = "2026-11-26T08:00:00Z".parse().unwrap();
        let wait = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("86400"), Some(600));
        assert_eq!(wait("Thu, 26 Nov 2026 08:00:05 GMT"), Some(5));
        assert_eq!(wait("Thu, 26 Nov 2026 07:00:00 GMT"), Some(0));
        assert_eq!(wait("soon"), None);
    }
}
