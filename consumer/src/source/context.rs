//! The client's callbacks: each only copies what it is told into the owner's channel.
//!
//! They run inside `poll`, so they never wait, decide or touch state. The one exception is a client that
//! is closing: there nobody reads the channel any more, and librdkafka waits for the answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_telemetry::{BrokerErrorKind, BrokerMetrics};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc::UnboundedSender;

use super::statistics::{self, Statistics};

/// What the client told.
#[derive(Debug)]
pub enum GroupEvent {
    /// Partitions are this member's from now on.
    Assigned(Vec<i32>),
    /// Partitions are to be given up.
    Revoked {
        /// Which.
        partitions: Vec<i32>,
        /// They are another's already.
        lost: bool,
    },
    /// The group could not be served; it starts over.
    Failed(RDKafkaRespErr),
    /// Numbers, once a second.
    Statistics(Statistics),
    /// The topic has another id than a moment ago: it was deleted and created again.
    LogChanged,
}

/// The callbacks' end of the channel.
pub struct GroupContext {
    topic: String,
    events: UnboundedSender<GroupEvent>,
    metrics: BrokerMetrics,
    closing: AtomicBool,
    log_changes: AtomicU64,
    /// Lines about single connections.
    lines: Seldom,
    /// Errors about all of them.
    errors: Seldom,
}

/// While brokers are away the client repeats itself several times a second: one line in so long says enough.
const SELDOM: Duration = Duration::from_secs(10);

/// Lets one in [`SELDOM`] pass.
struct Seldom {
    began: Instant,
    /// Milliseconds from `began` before which nothing passes.
    closed_until: AtomicU64,
}

impl Seldom {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            closed_until: AtomicU64::new(0),
        }
    }

    fn passes(&self) -> bool {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = self.began.elapsed();
        let next = |until: u64| (until <= ms(now)).then(|| ms(now + SELDOM));
        let closed = &self.closed_until;
        closed
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .is_ok()
    }
}

/// The client's words for a topic without an id: 16 zero bytes in base64.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Makes the client tell that its topic became another one. It says so in its debug log alone, and after
/// that goes on in the new log at the old offset.
pub fn hear_of_log_changes(config: &mut ClientConfig) {
    let debug = match config.get("debug") {
        Some(chosen) if !chosen.is_empty() => format!("{chosen},topic"),
        _ => "topic".to_owned(),
    };
    config
        .set("debug", debug)
        .set_log_level(RDKafkaLogLevel::Debug);
}

impl GroupContext {
    /// Tells `events` what happens to `topic`.
    #[must_use]
    pub fn new(topic: String, events: UnboundedSender<GroupEvent>, metrics: BrokerMetrics) -> Self {
        Self {
            topic,
            events,
            metrics,
            closing: AtomicBool::new(false),
            log_changes: AtomicU64::new(0),
            lines: Seldom::new(),
            errors: Seldom::new(),
        }
    }

    /// From now on rebalances are answered at once, since the owner does not listen any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// How often the topic became another one. Counted before any record of the new log is delivered, since
    /// the client's words and its records come through one queue.
    #[must_use]
    pub fn log_changes(&self) -> u64 {
        self.log_changes.load(Ordering::Acquire)
    }

    /// Takes notice of a line of the client's log.
    fn note_log_change(&self, line: &str) {
        let before = line
            .split_once(" changed id from ")
            .filter(|(head, _)| head.ends_with(&format!("Topic {}", self.topic)))
            .and_then(|(_, ids)| ids.split(' ').next());
        if before.is_some_and(|id| id != NO_ID) {
            self.log_changes.fetch_add(1, Ordering::AcqRel);
            self.tell(GroupEvent::LogChanged);
        }
    }

    fn tell(&self, event: GroupEvent) {
        // The owner is gone only when the client is closing, and then nobody needs to know.
        let _ = self.events.send(event);
    }
}

impl ClientContext for GroupContext {
    fn stats_raw(&self, json: &[u8]) {
        match statistics::read(json, &self.topic) {
            Ok(found) => self.tell(GroupEvent::Statistics(found)),
            Err(error) => tracing::debug!(%error, "librdkafka's statistics could not be read"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is told here, too, and is no error.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        let kind = kind_of(&error);
        self.metrics.error(kind);
        if comes_and_goes(kind) && !self.errors.passes() {
            tracing::debug!(%error, reason, "the Kafka client reports an error");
        } else {
            tracing::warn!(%error, reason, "the Kafka client reports an error");
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                if facility == "FAIL" && !self.lines.passes() {
                    tracing::debug!(facility, message, "librdkafka");
                } else {
                    tracing::warn!(facility, message, "librdkafka");
                }
            }
            RDKafkaLogLevel::Warning => tracing::info!(facility, message, "librdkafka"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                self.note_log_change(message);
                tracing::debug!(facility, message, "librdkafka");
            }
        }
    }
}

/// Sorts a client's error for the metric.
#[must_use]
pub fn kind_of(error: &KafkaError) -> BrokerErrorKind {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve,
        ) => BrokerErrorKind::Connection,
        Some(
            RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::MessageTimedOut,
        ) => BrokerErrorKind::Timeout,
        Some(
            RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed,
        ) => BrokerErrorKind::Authorization,
        Some(RDKafkaErrorCode::Fatal) => BrokerErrorKind::Fatal,
        _ => BrokerErrorKind::Other,
    }
}

/// Whether the client repeats such an error for as long as an outage lasts, and tells of it by its callback.
#[must_use]
pub const fn comes_and_goes(kind: BrokerErrorKind) -> bool {
    matches!(kind, BrokerErrorKind::Connection | BrokerErrorKind::Timeout)
}

impl ConsumerContext for GroupContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions: Vec<i32> = list
            .elements_for_topic(&self.topic)
            .iter()
            .map(|one| one.partition())
            .collect();
        let closing = self.closing.load(Ordering::Acquire);
        match error {
            // librdkafka 2.12 drops the answer to a client that has left its group, and waits for it for ever. Its
            // `rebalance` events may be older than that.
            _ if closing && consumer.closed() => {}
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS if closing => {
                let _ = consumer.incremental_assign(&TopicPartitionList::new());
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if closing => {
                let _ = consumer.unassign();
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.tell(GroupEvent::Assigned(partitions))
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.tell(GroupEvent::Revoked {
                    partitions,
                    lost: consumer.assignment_lost(),
                });
            }
            other => {
                let _ = consumer.unassign();
                self.tell(GroupEvent::Failed(other));
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
        {
            // Kafka's offset is a hint for lag tools; the position is in Postgres.
            tracing::debug!(%error, "Kafka did not take the committed offsets");
        }
    }
}
