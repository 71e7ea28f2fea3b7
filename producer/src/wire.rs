//! How a task event becomes a Kafka record, and what the laws ask of the client that sends it.
//!
//! Shared by everything that sends task events: files by the [`Submitter`](crate::Submitter), requests by
//! the front door.

use millrace_schemas::{FieldOutOfRange, Framing, TaskEventRef, encode, headers, limits};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use thiserror::Error;

use crate::topic::Topic;

/// What a key (1,024 bytes at most), the headers and a trace context (10 KiB at most) add to an event's size.
const RECORD_OVERHEAD: usize = 16 * 1024;

/// What the laws ask of a producer; no setting overrides these.
const LAWS: [(&str, &str); 4] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("partitioner", "murmur2_random"),
    // The two binaries never create topics, not even by asking for one.
    ("allow.auto.create.topics", "false"),
];

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

/// The trace context that an event carries on: the texts of the headers of the same names, as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace<'a> {
    /// W3C Trace Context, section 3.2.
    pub traceparent: Option<&'a str>,
    /// W3C Trace Context, section 3.3.
    pub tracestate: Option<&'a str>,
    /// W3C Baggage, section 3.2.
    pub baggage: Option<&'a str>,
}

/// Where events go and how they are written.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) topic: String,
    pub(crate) framing: Framing,
    /// Bytes of an encoded event.
    pub(crate) max_event_bytes: usize,
}

impl Wire {
    /// The settings of a client that sends to `topic`: what the laws ask for, then what was set, then `defaults`.
    pub(crate) fn settings(
        &self,
        mut settings: ClientConfig,
        topic: &Topic,
        defaults: &[(&str, &str)],
    ) -> ClientConfig {
        for (name, value) in LAWS {
            settings.set(name, value);
        }
        let message_bytes = (self.max_event_bytes + RECORD_OVERHEAD).to_string();
        for (name, value) in defaults
            .iter()
            .chain(&[("message.max.bytes", message_bytes.as_str())])
        {
            if settings.get(name).is_none() {
                settings.set(*name, *value);
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
        settings
    }

    /// Checks an event and writes it into `encoded`, which is cleared first.
    pub(crate) fn encode(
        &self,
        event: &TaskEventRef<'_>,
        encoded: &mut Vec<u8>,
    ) -> Result<(), SubmitError> {
        limits::check(event)?;
        encoded.clear();
        encode(event, self.framing, encoded);
        let (size, limit) = (encoded.len(), self.max_event_bytes);
        if size > limit {
            return Err(SubmitError::TooLarge { size, limit });
        }
        Ok(())
    }
}

/// The headers of an event's record.
pub(crate) fn record_headers(event: &TaskEventRef<'_>, trace: Trace<'_>) -> OwnedHeaders {
    let mut task_id = [0; 36];
    let task_id: &str = event
        .task_id
        .as_uuid()
        .hyphenated()
        .encode_lower(&mut task_id);
    let reply = if event.reply { "true" } else { "false" };
    let always = [
        (headers::TASK_ID, Some(task_id)),
        (headers::TENANT, Some(event.tenant)),
        (headers::REPLY, Some(reply)),
    ];
    let traced = [
        (headers::TRACEPARENT, trace.traceparent),
        (headers::TRACESTATE, trace.tracestate),
        (headers::BAGGAGE, trace.baggage),
    ];
    always
        .into_iter()
        .chain(traced)
        .filter(|(_, value)| value.is_some())
        .fold(
            OwnedHeaders::new_with_capacity(6),
            |headers, (key, value)| headers.insert(Header { key, value }),
        )
}
