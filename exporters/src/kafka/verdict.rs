//! What librdkafka's and the brokers' errors mean for an event and for the sink.
//!
//! Codes: <https://kafka.apache.org/protocol#protocol_error_codes>, and below zero librdkafka's own.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;

/// What a failed record means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It, or the request that it was in, is larger than the broker takes.
    TooLarge,
    /// The broker will never take it.
    Never,
    /// The topic is not there.
    NoTopic,
    /// This user may not write the topic.
    Forbidden,
    /// Not now.
    Away,
}

pub(super) fn meaning(code: RDKafkaErrorCode) -> Meaning {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            Meaning::TooLarge
        }
        // A topic that is compacted wants keys, which these have; other rules are the operator's own.
        Code::InvalidRecord | Code::InvalidTimestamp => Meaning::Never,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            Meaning::NoTopic
        }
        Code::TopicAuthorizationFailed => Meaning::Forbidden,
        _ => Meaning::Away,
    }
}

/// How long to wait for a report when the brokers are in this trouble. Brokers that restart are given a moment; those that
/// refuse this client only as long as another may need to let it in.
pub(super) fn patience(code: RDKafkaErrorCode) -> Duration {
    match code {
        RDKafkaErrorCode::Fatal => Duration::ZERO,
        code if is_refusal(code) => Duration::from_secs(1),
        _ => Duration::from_secs(5),
    }
}

/// The brokers do not let this client in: its name, password or certificate is wrong.
pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::Authentication
            | Code::SSL
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::ClusterAuthorizationFailed
    )
}
