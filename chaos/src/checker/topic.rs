//! Reads a topic from its start to its end, with a consumer of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::error::ChaosError;
use crate::sender::NUMBER_HEADER;
use crate::wire::{Wire, WireEvent};

const LIMIT: Duration = Duration::from_secs(60);

/// A record as it lies in the log.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Which record of the plan it is, as its header says.
    pub number: Option<usize>,
    /// The event, when its bytes are one.
    pub event: Option<WireEvent>,
}

/// Every record, each partition in its order.
pub fn read(bootstrap: &str, topic: &str, partitions: i32) -> Result<Vec<LogRecord>, ChaosError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "chaos-checker")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("log_level", "0")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let wire = Wire::new()?;
    let mut records = Vec::new();
    let mut ended = BTreeSet::new();
    let deadline = Instant::now() + LIMIT;
    while ended.len() < usize::try_from(partitions).unwrap_or_default() {
        if Instant::now() >= deadline {
            return Err(ChaosError::TooSlow {
                what: format!("reading topic {topic}"),
                limit: LIMIT,
            });
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => records.push(record(&wire, &message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = ended.insert(partition),
            // A broker that was killed may still be on its way back: the deadline decides.
            Some(Err(_)) | None => {}
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

fn record(wire: &Wire, message: &BorrowedMessage<'_>) -> LogRecord {
    let number = message.headers().and_then(|headers| {
        let header = headers.iter().find(|header| header.key == NUMBER_HEADER)?;
        std::str::from_utf8(header.value?).ok()?.parse().ok()
    });
    LogRecord {
        partition: message.partition(),
        offset: message.offset(),
        number,
        event: message.payload().and_then(|bytes| wire.decode(bytes).ok()),
    }
}
