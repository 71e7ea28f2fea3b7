//! Task events into Kafka: encoded, keyed, partitioned like Java clients do, and acknowledged by
//! all in-sync replicas (law 1).
//!
//! A [`Submitter`] belongs to one thread. [`Submitter::submit`] copies the event into the client's
//! bounded queue and returns; the report on it comes from [`Submitter::deliveries`], which must be
//! called again and again, since nothing else serves the client's reports. A full queue is no
//! error but [`Submitted::Full`]: collect deliveries, wait a moment, submit the same event again.

use std::time::{Duration, Instant};

use millrace_schemas::{Framing, TaskEventRef};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};

use crate::delivery::{Delivery, Reports};
use crate::topic::Topic;
use crate::wire::{SubmitError, Trace, Wire, record_headers};

/// Defaults for throughput within bounded memory; each can be set otherwise.
const DEFAULTS: [(&str, &str); 5] = [
    ("compression.type", "lz4"),
    ("linger.ms", "5"),
    ("batch.size", "524288"),
    ("queue.buffering.max.messages", "100000"),
    ("queue.buffering.max.kbytes", "65536"),
];

/// Whether an event was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Submitted {
    /// The report on it will come.
    Queued,
    /// The client's queue is full: collect deliveries, then submit the event again.
    Full,
}

/// Sends task events to one topic.
pub struct Submitter {
    producer: BaseProducer<Reports>,
    wire: Wire,
    in_flight: u64,
    /// Reused from event to event.
    encoded: Vec<u8>,
    /// One record in flight whose way is timed; the next one is timed when it has arrived.
    timed: Option<(u64, Instant)>,
    /// How long the record timed last took.
    latency: Option<Duration>,
}

impl Submitter {
    /// A submitter to the topic `name`, which was found as `topic`. `settings` name the brokers and
    /// may set any librdkafka property but those that the laws fix; `max_event_bytes` bounds the
    /// encoded event. The error is the client's refusal of a setting.
    pub fn new(
        settings: ClientConfig,
        name: &str,
        topic: &Topic,
        framing: Framing,
        max_event_bytes: usize,
    ) -> Result<Self, KafkaError> {
        let wire = Wire {
            topic: name.to_owned(),
            framing,
            max_event_bytes,
        };
        let settings = wire.settings(settings, topic, &DEFAULTS);
        Ok(Submitter {
            producer: settings.create_with_context(Reports::new())?,
            wire,
            in_flight: 0,
            encoded: Vec::new(),
            timed: None,
            latency: None,
        })
    }

    /// How events are framed on the wire.
    pub fn framing(&self) -> Framing {
        self.wire.framing
    }

    /// Hands an event to the client under `ticket`, by which the report on it will be known.
    pub fn submit(
        &mut self,
        event: &TaskEventRef<'_>,
        ticket: u64,
    ) -> Result<Submitted, SubmitError> {
        self.wire.encode(event, &mut self.encoded)?;
        let record = BaseRecord {
            topic: &self.wire.topic,
            partition: None,
            payload: Some(self.encoded.as_slice()),
            key: event.record_key(),
            timestamp: Some(event.submitted_at / 1000),
            headers: Some(record_headers(event, Trace::default())),
            // A ticket counts events in memory and fits a pointer.
            delivery_opaque: ticket as usize,
        };
        let Err((error, _)) = self.producer.send(record) else {
            self.in_flight += 1;
            if self.timed.is_none() {
                self.timed = Some((ticket, Instant::now()));
            }
            return Ok(Submitted::Queued);
        };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Ok(Submitted::Full),
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => Err(SubmitError::TooLarge {
                size: self.encoded.len(),
                limit: self.wire.max_event_bytes,
            }),
            _ => Err(SubmitError::Fatal(
                self.fatal_error().unwrap_or_else(|| error.to_string()),
            )),
        }
    }

    /// Appends the reports that have arrived to `deliveries`, without waiting.
    pub fn deliveries(&mut self, deliveries: &mut Vec<Delivery>) {
        let before = deliveries.len();
        loop {
            let known = deliveries.len();
            self.producer.poll(Duration::ZERO);
            self.producer.context().take(deliveries);
            if deliveries.len() == known {
                break;
            }
        }
        let arrived = deliveries.get(before..).unwrap_or_default();
        self.in_flight = self.in_flight.saturating_sub(arrived.len() as u64);
        if let Some((ticket, since)) = self.timed
            && arrived.iter().any(|delivery| delivery.ticket == ticket)
        {
            self.timed = None;
            self.latency = Some(since.elapsed());
        }
    }

    /// How long a record on its way took lately, from submit to report; one at a time is timed,
    /// and each is told once.
    pub fn take_latency(&mut self) -> Option<Duration> {
        self.latency.take()
    }

    /// Records submitted and not reported on.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Gives up all records in flight: each is reported as not sent or unknown.
    pub fn give_up(&self) {
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
    }

    /// Why the client can send nothing any more, if so.
    pub fn fatal_error(&self) -> Option<String> {
        self.producer
            .client()
            .fatal_error()
            .map(|(_, reason)| reason)
    }
}
