//! What became of a record that was handed to the Kafka client.
//!
//! The client reports on every record exactly once. A report of failure is one of four things for
//! the caller to do: write the record off, find out (it may be in the log), send it again, or stop.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use millrace_telemetry::{BrokerErrorKind, BrokerMetrics};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode;

/// The report on one record.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The number that the record was submitted under.
    pub ticket: u64,
    /// `Ok` when all in-sync replicas have it.
    pub outcome: Result<(), Box<Undelivered>>,
}

/// A record that was not acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// What to do about it.
    pub failure: DeliveryFailure,
    /// The value of a refused record, as it was sent; empty otherwise.
    pub record: Vec<u8>,
}

/// Why a record was not acknowledged, by what there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryFailure {
    /// The broker refuses this very record, however often it is sent.
    #[error("the broker refused the event: {}", Reason(*.0))]
    Refused(RDKafkaErrorCode),
    /// No answer in time. The record may be in the log or not: sending it again with the same
    /// dedup key is safe, without one it may be there twice.
    #[error("unknown, not failed: {}", Reason(*.0))]
    Unknown(RDKafkaErrorCode),
    /// It was given up before it left this process.
    #[error("not sent")]
    NotSent,
    /// The broker refuses any record from here: rights, topic, or a client that cannot go on.
    #[error("the broker takes nothing from here: {}", Reason(*.0))]
    Stopped(RDKafkaErrorCode),
}

impl DeliveryFailure {
    /// Whether the broker refused the record for its size.
    pub fn is_too_large(self) -> bool {
        use RDKafkaErrorCode::{MessageBatchTooLarge, MessageSizeTooLarge};
        matches!(
            self,
            DeliveryFailure::Refused(MessageSizeTooLarge | MessageBatchTooLarge)
        )
    }
}

struct Reason(RDKafkaErrorCode);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge => {
                f.write_str("larger than the topic's max.message.bytes")
            }
            RDKafkaErrorCode::MessageTimedOut => f.write_str("no answer within message.timeout.ms"),
            code => write!(f, "{code}"),
        }
    }
}

impl From<RDKafkaErrorCode> for DeliveryFailure {
    fn from(code: RDKafkaErrorCode) -> Self {
        use RDKafkaErrorCode as Code;
        match code {
            Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::PolicyViolation => DeliveryFailure::Refused(code),
            Code::PurgeQueue => DeliveryFailure::NotSent,
            Code::Fatal
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::InvalidTopic
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedVersion
            | Code::OutOfOrderSequenceNumber
            | Code::InvalidProducerEpoch
            | Code::ProducerFenced => DeliveryFailure::Stopped(code),
            _ => DeliveryFailure::Unknown(code),
        }
    }
}

/// Collects the reports while the client is polled, and passes on what it logs.
#[derive(Debug)]
pub(crate) struct Reports {
    arrived: Mutex<Vec<Delivery>>,
    broker: BrokerMetrics,
}

impl Reports {
    pub(crate) fn new() -> Self {
        Reports {
            arrived: Mutex::new(Vec::new()),
            broker: BrokerMetrics::new(),
        }
    }

    /// Moves what has arrived behind the end of `deliveries`.
    pub(crate) fn take(&self, deliveries: &mut Vec<Delivery>) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if deliveries.is_empty() {
            std::mem::swap(deliveries, &mut arrived);
        } else {
            deliveries.append(&mut arrived);
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, record)) => {
                let code = error
                    .rdkafka_error_code()
                    .unwrap_or(RDKafkaErrorCode::Unknown);
                let failure = DeliveryFailure::from(code);
                let record = match failure {
                    DeliveryFailure::Refused(_) => record.payload().unwrap_or_default().to_vec(),
                    _ => Vec::new(),
                };
                Err(Box::new(Undelivered { failure, record }))
            }
        };
        let delivery = Delivery {
            ticket: ticket as u64,
            outcome,
        };
        self.arrived
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(delivery);
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.broker.error(kind_of(&error));
        tracing::warn!(%error, "{reason}");
    }
}

/// Writes what the client logs to our log.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", facility, "{message}")
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
    }
}

/// What kind of trouble the client reports.
pub(crate) fn kind_of(error: &KafkaError) -> BrokerErrorKind {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve,
        ) => BrokerErrorKind::Connection,
        Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => {
            BrokerErrorKind::Timeout
        }
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
            BrokerErrorKind::Authorization
        }
        Some(RDKafkaErrorCode::Fatal) => BrokerErrorKind::Fatal,
        _ => BrokerErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_that_timed_out_is_unknown_and_not_failed() {
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::RequestTimedOut,
            RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
            RDKafkaErrorCode::PurgeInflight,
        ] {
            let failure = DeliveryFailure::from(code);
            assert_eq!(failure, DeliveryFailure::Unknown(code));
            assert!(failure.to_string().starts_with("unknown, not failed"));
        }
    }

    #[test]
    fn what_never_left_the_queue_is_known_not_to_be_sent() {
        assert_eq!(
            DeliveryFailure::from(RDKafkaErrorCode::PurgeQueue),
            DeliveryFailure::NotSent
        );
    }

    #[test]
    fn only_a_refusal_of_this_very_record_is_a_rejection() {
        let too_large = DeliveryFailure::from(RDKafkaErrorCode::MessageSizeTooLarge);
        assert_eq!(
            too_large,
            DeliveryFailure::Refused(RDKafkaErrorCode::MessageSizeTooLarge)
        );
        assert!(too_large.to_string().contains("max.message.bytes"));
        let denied = DeliveryFailure::from(RDKafkaErrorCode::TopicAuthorizationFailed);
        assert_eq!(
            denied,
            DeliveryFailure::Stopped(RDKafkaErrorCode::TopicAuthorizationFailed)
        );
    }
}
