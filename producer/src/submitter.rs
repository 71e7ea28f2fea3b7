//! Task events into Kafka: encoded, keyed, partitioned like Java clients do, and acknowledged by
//! all in-sync replicas (law 1).
//!
//! A [`Submitter`] belongs to one thread. [`Submitter::submit`] copies the event into the client's
//! bounded queue and returns; the report on it comes from [`Submitter::deliveries`], which must be
//! called again and again, since nothing else serves the client's reports. A full queue is no
//! error but [`Submitted::Full`]: collect deliveries, wait a moment, submit the same event again.

use std::time::{Duration, Instant};

use millrace_schemas::{FieldOutOfRange, Framing, TaskEventRef, encode, headers, limits};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use thiserror::Error;

use crate::delivery::{Delivery, Reports};
use crate::topic::Topic;

/// What a key (1,024 bytes at most) and the record's headers add to an event's size.
const RECORD_OVERHEAD: usize = 4096;

/// What the laws ask of a producer; no setting overrides these.
const LAWS: [(&str, &str); 4] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("partitioner", "murmur2_random"),
    // The two binaries never create topics, not even by asking for one.
    ("allow.auto.create.topics", "false"),
];

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

/// Why an event cannot be submitted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The encoded event is over the limit; bytes.
    #[error("the event has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Bytes of the encoded event.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A field is out of its range: every consumer would refuse the event.
    #[error(transparent)]
    Field(#[from] FieldOutOfRange),
    /// The client cannot go on; events before it are unaffected. A new submitter may.
    #[error("the Kafka producer cannot go on: {0}")]
    Fatal(String),
}

/// Sends task events to one topic.
pub struct Submitter {
    producer: BaseProducer<Reports>,
    topic: String,
    framing: Framing,
    max_event_bytes: usize,
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
        mut settings: ClientConfig,
        name: &str,
        topic: &Topic,
        framing: Framing,
        max_event_bytes: usize,
    ) -> Result<Self, KafkaError> {
        for (name, value) in LAWS {
            settings.set(name, value);
        }
        let message_bytes = (max_event_bytes + RECORD_OVERHEAD).to_string();
        for (name, value) in DEFAULTS
            .into_iter()
            .chain([("message.max.bytes", message_bytes.as_str())])
        {
            if settings.get(name).is_none() {
                settings.set(name, value);
            }
        }
        // A batch over the topic's limit would be refused as a whole, good events with it.
        if let Some(limit) = topic.max_message_bytes
            && settings
                .get("batch.size")
                .and_then(|size| size.parse().ok())
                .is_some_and(|size: usize| size > limit)
        {
            settings.set("batch.size", limit.to_string());
        }
        Ok(Submitter {
            producer: settings.create_with_context(Reports::new())?,
            topic: name.to_owned(),
            framing,
            max_event_bytes,
            in_flight: 0,
            encoded: Vec::new(),
            timed: None,
            latency: None,
        })
    }

    /// How events are framed on the wire.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Hands an event to the client under `ticket`, by which the report on it will be known.
    pub fn submit(
        &mut self,
        event: &TaskEventRef<'_>,
        ticket: u64,
    ) -> Result<Submitted, SubmitError> {
        limits::check(event)?;
        self.encoded.clear();
        encode(event, self.framing, &mut self.encoded);
        let (size, limit) = (self.encoded.len(), self.max_event_bytes);
        if size > limit {
            return Err(SubmitError::TooLarge { size, limit });
        }
        let record = BaseRecord {
            topic: &self.topic,
            partition: None,
            payload: Some(self.encoded.as_slice()),
            key: event.record_key(),
            timestamp: Some(event.submitted_at / 1000),
            headers: Some(record_headers(event)),
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
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                Err(SubmitError::TooLarge { size, limit })
            }
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

fn record_headers(event: &TaskEventRef<'_>) -> OwnedHeaders {
    let mut task_id = [0; 36];
    let task_id: &str = event
        .task_id
        .as_uuid()
        .hyphenated()
        .encode_lower(&mut task_id);
    let reply = if event.reply { "true" } else { "false" };
    OwnedHeaders::new_with_capacity(3)
        .insert(Header {
            key: headers::TASK_ID,
            value: Some(task_id),
        })
        .insert(Header {
            key: headers::TENANT,
            value: Some(event.tenant),
        })
        .insert(Header {
            key: headers::REPLY,
            value: Some(reply),
        })
}
