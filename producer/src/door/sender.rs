//! Events to Kafka for many callers at once: each gets a future of its own acknowledgement.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use millrace_schemas::{Framing, TaskEventRef};
use millrace_telemetry::BrokerMetrics;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use crate::delivery::{DeliveryFailure, kind_of, log};
use crate::topic::Topic;
use crate::wire::{SubmitError, Trace, Wire, record_headers};

/// Defaults within bounded memory; each can be set otherwise.
const DEFAULTS: [(&str, &str); 2] = [
    ("batch.size", "524288"),
    ("queue.buffering.max.messages", "200000"),
];

/// Why an event was not handed to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsent {
    /// The client's queue is full: Kafka does not keep up.
    #[error("the queue to Kafka is full")]
    Full,
    /// The event itself cannot be sent, or the client cannot go on.
    #[error(transparent)]
    Event(#[from] SubmitError),
}

/// Sends events to one topic. Clones share one client.
#[derive(Clone)]
pub(crate) struct Sender {
    producer: Arc<RwLock<FutureProducer<Told>>>,
    settings: ClientConfig,
    wire: Arc<Wire>,
}

/// The acknowledgement of one event.
pub(crate) struct Acknowledgement(DeliveryFuture);

impl Sender {
    /// `patience` is how long an event may be on its way before its outcome counts as unknown. The error is
    /// the client's refusal of a setting.
    pub(crate) fn new(
        settings: ClientConfig,
        name: &str,
        topic: &Topic,
        framing: Framing,
        max_event_bytes: usize,
        patience: Duration,
    ) -> Result<Self, KafkaError> {
        let wire = Wire {
            topic: name.to_owned(),
            framing,
            max_event_bytes,
        };
        let mut settings = wire.settings(settings, topic, &DEFAULTS);
        settings.set("message.timeout.ms", patience.as_millis().to_string());
        Ok(Self {
            producer: Arc::new(RwLock::new(client(&settings)?)),
            settings,
            wire: Arc::new(wire),
        })
    }

    fn producer(&self) -> FutureProducer<Told> {
        let held = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    /// Makes a new client where the old one can send nothing any more. What was on its way is unknown.
    pub(crate) fn renew_if_beyond_repair(&self) {
        let Some((_, reason)) = self.producer().client().fatal_error() else {
            return;
        };
        tracing::error!(reason, "the Kafka client cannot go on: making a new one");
        match client(&self.settings) {
            Ok(new) => {
                *self
                    .producer
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = new;
            }
            Err(error) => tracing::error!(%error, "no new Kafka client can be made"),
        }
    }

    /// Hands an event to the client.
    pub(crate) fn send(
        &self,
        event: &TaskEventRef<'_>,
        trace: Trace<'_>,
    ) -> Result<Acknowledgement, Unsent> {
        let mut encoded = Vec::with_capacity(event.payload.len() + 256);
        self.wire.encode(event, &mut encoded)?;
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.wire.topic)
            .payload(encoded.as_slice())
            .timestamp(event.submitted_at / 1000)
            .headers(record_headers(event, trace));
        record.key = event.record_key();
        match self.producer().send_result(record) {
            Ok(future) => Ok(Acknowledgement(future)),
            Err((error, _)) => Err(match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => Unsent::Full,
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    Unsent::Event(SubmitError::TooLarge {
                        size: encoded.len(),
                        limit: self.wire.max_event_bytes,
                    })
                }
                _ => Unsent::Event(SubmitError::Fatal(error.to_string())),
            }),
        }
    }

    /// Asks the brokers for the topic: whether anything can be sent at present. Blocks for as long as
    /// `patience`.
    pub(crate) fn confirm(&self, patience: Duration) -> Result<(), String> {
        let producer = self.producer();
        let found = producer
            .client()
            .fetch_metadata(Some(&self.wire.topic), patience);
        found
            .map(|_| ())
            .map_err(|error| format!("no broker answers: {error}"))
    }

    /// Records beyond these positions, (partition, position), in all; `None` when a broker does not answer. Blocks for as
    /// long as `patience` at most, and a little more.
    pub(crate) fn lag(&self, positions: &[(i32, i64)], patience: Duration) -> Option<i64> {
        let producer = self.producer();
        let until = Instant::now() + patience;
        let mut lag = 0;
        for (partition, position) in positions {
            let left = until.checked_duration_since(Instant::now())?;
            let (_, end) = producer
                .client()
                .fetch_watermarks(&self.wire.topic, *partition, left)
                .ok()?;
            lag += (end - position).max(0);
        }
        Some(lag)
    }

    /// Waits until nothing is on its way, for as long as `patience`. Blocks.
    pub(crate) fn flush(&self, patience: Duration) {
        let _ = self.producer().flush(patience);
    }
}

impl Acknowledgement {
    /// Waits until all in-sync replicas have the event.
    pub(crate) async fn wait(self) -> Result<(), DeliveryFailure> {
        match self.0.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(error
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown)
                .into()),
            Err(_) => Err(DeliveryFailure::Unknown(RDKafkaErrorCode::Unknown)),
        }
    }
}

fn client(settings: &ClientConfig) -> Result<FutureProducer<Told>, KafkaError> {
    let broker = BrokerMetrics::new();
    settings.create_with_context(Told { broker })
}

/// Passes on what the client says.
struct Told {
    broker: BrokerMetrics,
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.broker.error(kind_of(&error));
        tracing::warn!(%error, "{reason}");
    }
}
