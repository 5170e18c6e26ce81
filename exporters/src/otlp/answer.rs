//! What a collector's answer means for the batch.
//!
//! Source: OTLP specification 1.x, "Failures", "OTLP/gRPC response" and "OTLP/HTTP response".

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::Unavailable;
use crate::http::{self, Judged, causes, shown};
use crate::offer::Answer;

pub(super) type Response = ExportLogsServiceResponse;

/// A success, whole or in part.
pub(super) fn success(response: &Response, count: usize) -> Answer {
    let Some(partial) = &response.partial_success else {
        return Answer::Taken;
    };
    let said = match shown(&partial.error_message) {
        said if said.is_empty() => "the collector refused it without a word".to_owned(),
        said => said,
    };
    match partial.rejected_log_records {
        // A warning: all were taken.
        ..=0 => {
            if !partial.error_message.is_empty() {
                tracing::warn!(said, "the collector took all events and warns");
            }
            Answer::Taken
        }
        rejected => match usize::try_from(rejected) {
            Ok(rejected) if rejected < count => Answer::AllBut(rejected, said),
            _ => Answer::Refused(said),
        },
    }
}

/// A gRPC error.
pub(super) fn status(status: &Status) -> Result<Answer, Unavailable> {
    let words = format!("{:?}: {}", status.code(), shown(status.message()));
    let after = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    let away = |advice: &str| {
        let cause = match std::error::Error::source(status) {
            Some(source) => format!(" ({}: {})", source, causes(source)),
            None => String::new(),
        };
        Err(Unavailable {
            reason: format!("{words}{cause}{advice}"),
            after,
        })
    };
    match status.code() {
        Code::ResourceExhausted if after.is_some() => away(""),
        // What grpc-go and tonic say of a message over their bound.
        Code::ResourceExhausted if too_large(status.message()) => Ok(Answer::Refused(words)),
        Code::OutOfRange if too_large(status.message()) => Ok(Answer::Refused(words)),
        Code::InvalidArgument => Ok(Answer::Refused(words)),
        Code::Unauthenticated => {
            away("; it refuses the credentials; check auth and the file that it names")
        }
        Code::PermissionDenied => {
            away("; it does not allow this; check what these credentials may do")
        }
        Code::Unimplemented | Code::NotFound => {
            away("; nothing takes logs at this address; check it, and that protocol is right")
        }
        _ => away(""),
    }
}

fn too_large(message: &str) -> bool {
    message.contains("larger than max") || message.contains("too large")
}

/// An answer over HTTP.
pub(super) fn http(answer: http::Answer, count: usize) -> Result<Answer, Unavailable> {
    let protobuf = answer
        .headers
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-protobuf"));
    if !answer.status.is_success() && protobuf {
        // The body is a google.rpc.Status, which has the words.
        if let Ok(status) = tonic_types::Status::decode(&answer.body[..]) {
            let body = status.message.into_bytes();
            return judged(http::Answer { body, ..answer }.judge()?, count);
        }
    }
    judged(answer.judge()?, count)
}

fn judged(judged: Judged, count: usize) -> Result<Answer, Unavailable> {
    match judged {
        Judged::Refused(why) => Ok(Answer::Refused(why)),
        Judged::Taken(body) => match Response::decode(&body[..]) {
            Ok(response) => Ok(success(&response, count)),
            Err(_) => Err(Unavailable {
                reason: "what answers there is no OTLP collector; check the endpoint".to_owned(),
                after: Some(Duration::from_secs(1)),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;
    use tonic_types::ErrorDetails;

    use super::*;

    fn partial(rejected: i64, count: usize) -> Answer {
        let response = Response {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: rejected,
                error_message: "too old".into(),
            }),
        };
        success(&response, count)
    }

    #[test]
    fn a_partial_success_says_how_many_were_refused() {
        assert_eq!(partial(0, 3), Answer::Taken);
        assert_eq!(partial(1, 3), Answer::AllBut(1, "too old".into()));
        for all in [3, 4, i64::MAX] {
            assert_eq!(partial(all, 3), Answer::Refused("too old".into()));
        }
    }

    #[test]
    fn a_status_says_refused_or_not_now_and_for_how_long() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        let busy = Status::with_error_details(Code::ResourceExhausted, "slow down", details);
        let away = status(&busy).unwrap_err();
        assert_eq!(away.after, Some(Duration::from_secs(7)));
        assert!(matches!(
            status(&Status::invalid_argument("bad")),
            Ok(Answer::Refused(_))
        ));
        let large = "grpc: received message larger than max (5000000 vs. 4194304)";
        assert!(matches!(
            status(&Status::resource_exhausted(large)),
            Ok(Answer::Refused(_))
        ));
        for code in [
            Code::Unavailable,
            Code::ResourceExhausted,
            Code::Unauthenticated,
            Code::Unimplemented,
            Code::DeadlineExceeded,
            Code::Internal,
            Code::Unknown,
        ] {
            assert!(status(&Status::new(code, "x")).is_err(), "{code:?}");
        }
    }
}
