//! Raw drain: how fast rdkafka alone reads the topic, with a worker's fetch settings and one thread.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use millrace_settings::{KafkaArgs, Role};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::servers::PARTITIONS;

const DEADLINE: Duration = Duration::from_secs(300);

/// Reads the topic from its start; returns the time from the assignment to the last record.
///
/// # Errors
/// When the broker does not give them all.
pub async fn run(kafka: KafkaArgs, events: u64) -> anyhow::Result<Duration> {
    tokio::task::spawn_blocking(move || read(&kafka, events)).await?
}

fn read(kafka: &KafkaArgs, events: u64) -> anyhow::Result<Duration> {
    let consumer: BaseConsumer = kafka
        .client_config(Role::Consumer {
            group: "bench-drain",
        })?
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(&kafka.topic, partition, Offset::Beginning)?;
    }
    let began = Instant::now();
    consumer.assign(&list)?;
    let mut read = 0;
    while read < events {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(_)) => read += 1,
            None | Some(Err(KafkaError::PartitionEOF(_))) => ensure!(
                began.elapsed() < DEADLINE,
                "{read} of {events} records were read within {DEADLINE:?}"
            ),
            Some(Err(error)) => bail!("reading failed: {error}"),
        }
    }
    Ok(began.elapsed())
}
