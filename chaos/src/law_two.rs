//! Law 2 at every sampled instant: Kafka's committed offset is never ahead of Postgres.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::error::ChaosError;
use crate::servers::connect;

const EVERY: Duration = Duration::from_millis(200);

/// What was seen.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Offsets of partitions that were read on both sides.
    pub offsets: u64,
    /// Where Kafka was ahead: partition, committed, position.
    pub broken: Vec<(i32, i64, i64)>,
}

/// Looks until it is told to stop; an instant at which either side is away is no sample.
///
/// # Errors
/// When no client can be made.
pub async fn watch(
    bootstrap: &str,
    group: &str,
    (topic, partitions): (&str, i32),
    (url, schema): (&str, &str),
    stop: CancellationToken,
) -> Result<Seen, ChaosError> {
    let client: Arc<BaseConsumer> = Arc::new(
        ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", group)
            .set("log_level", "0")
            .create()?,
    );
    let mut seen = Seen::default();
    let mut connection = None;
    while !stop.is_cancelled() {
        tokio::time::sleep(EVERY).await;
        let asked = Arc::clone(&client);
        let topic = topic.to_owned();
        let committed =
            tokio::task::spawn_blocking(move || committed(&asked, &topic, partitions)).await;
        let Ok(Some(committed)) = committed else {
            continue;
        };
        // Kafka was asked first: what Postgres says later can only be further on.
        if connection.is_none() {
            connection = connect(url, schema).await.ok();
        }
        let Some(open) = connection.as_mut() else {
            continue;
        };
        let positions: Result<Vec<(i32, i64)>, _> =
            sqlx::query_as("SELECT partition, next_offset FROM partition_progress")
                .fetch_all(open)
                .await;
        let Ok(positions) = positions else {
            connection = None;
            continue;
        };
        for (partition, position) in positions {
            if let Some(offset) = committed.get(&partition) {
                seen.offsets += 1;
                if *offset > position {
                    seen.broken.push((partition, *offset, position));
                }
            }
        }
    }
    Ok(seen)
}

/// The group's committed offsets; none when the brokers do not answer.
#[must_use]
pub fn committed(
    client: &BaseConsumer,
    topic: &str,
    partitions: i32,
) -> Option<BTreeMap<i32, i64>> {
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let found = client
        .committed_offsets(list, Duration::from_secs(2))
        .ok()?;
    let offsets = found.elements().into_iter().filter_map(|element| {
        let Offset::Offset(offset) = element.offset() else {
            return None;
        };
        element
            .error()
            .is_ok()
            .then(|| (element.partition(), offset))
    });
    Some(offsets.collect())
}
