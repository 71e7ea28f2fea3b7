//! A bare rdkafka produce loop: encoded records in, acknowledgements back, nothing else.
//!
//! It has the settings of `producer emit` and sends the same record: value, key, headers, timestamp.
//! So it is what `emit` is measured against, and what fills the topics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use millrace_schemas::headers;
use millrace_settings::{KafkaArgs, Role};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use crate::backlog::{Backlog, Record};
use crate::rows::TENANT;

/// What `emit` sets beside the settings of the producer's role.
const AS_EMIT: [(&str, &str); 2] = [
    ("batch.size", "524288"),
    ("queue.buffering.max.messages", "100000"),
];
/// Records between two looks at the reports.
const TURN: usize = 64;
const DEADLINE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
struct Acknowledged {
    count: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let which = if result.is_ok() {
            &self.count
        } else {
            &self.failed
        };
        which.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends all records; returns the time from the first one sent to the last one acknowledged.
///
/// # Errors
/// When the broker does not take them all.
pub fn run(kafka: &KafkaArgs, backlog: &Backlog) -> anyhow::Result<Duration> {
    let mut config: ClientConfig = kafka.client_config(Role::Producer)?;
    for (name, value) in AS_EMIT {
        config.set(name, value);
    }
    let producer: BaseProducer<Acknowledged> =
        config.create_with_context(Acknowledged::default())?;
    let acknowledged = || producer.context().count.load(Ordering::Relaxed);
    let expected = backlog.len() as u64;
    let began = Instant::now();
    for (index, record) in backlog.records().enumerate() {
        if index % TURN == 0 {
            producer.poll(Duration::ZERO);
        }
        send(&producer, &kafka.topic, &record)?;
    }
    while acknowledged() < expected {
        producer.poll(Duration::from_millis(1));
        let failed = producer.context().failed.load(Ordering::Relaxed);
        ensure!(failed == 0, "{failed} records were not acknowledged");
        ensure!(
            began.elapsed() < DEADLINE,
            "{} of {expected} records were acknowledged within {DEADLINE:?}",
            acknowledged()
        );
    }
    Ok(began.elapsed())
}

fn send(
    producer: &BaseProducer<Acknowledged>,
    topic: &str,
    record: &Record<'_>,
) -> anyhow::Result<()> {
    loop {
        let mut message = BaseRecord::<[u8], [u8]>::to(topic)
            .payload(record.value)
            .timestamp(i64::try_from(record.task_id.born_ms()).unwrap_or_default())
            .headers(record_headers(record));
        message.key = record.key;
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => bail!("a record was not taken: {error}"),
        }
    }
}

fn record_headers(record: &Record<'_>) -> OwnedHeaders {
    let task_id = record.task_id.to_string();
    OwnedHeaders::new_with_capacity(3)
        .insert(Header {
            key: headers::TASK_ID,
            value: Some(&task_id),
        })
        .insert(Header {
            key: headers::TENANT,
            value: Some(TENANT),
        })
        .insert(Header {
            key: headers::REPLY,
            value: Some("false"),
        })
}

/// As [`run`], off the async threads.
///
/// # Errors
/// As [`run`].
pub async fn run_apart(
    kafka: KafkaArgs,
    backlog: std::sync::Arc<Backlog>,
) -> anyhow::Result<Duration> {
    tokio::task::spawn_blocking(move || run(&kafka, &backlog))
        .await
        .context("the produce loop")?
}
