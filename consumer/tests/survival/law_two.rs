//! Law 2 at every sampled instant: Kafka's committed offset is never ahead of Postgres.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::task::JoinHandle;

use crate::stage::{PARTITIONS, Stage};

/// Watches until it is told to stop; an instant at which either side is away is no sample.
pub struct LawTwo {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<Seen>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Instants at which Kafka's offsets and Postgres' positions were both read.
    pub samples: u64,
    /// Partitions in them for which Kafka had an offset.
    pub offsets: u64,
    /// Where the law was broken: partition, committed, next_offset.
    pub broken: Vec<(i32, i64, i64)>,
}

impl LawTwo {
    pub fn watch(stage: &Arc<Stage>) -> LawTwo {
        let stop = Arc::new(AtomicBool::new(false));
        let (stage, told) = (Arc::clone(stage), Arc::clone(&stop));
        let watching = tokio::spawn(async move {
            let client: Arc<BaseConsumer> = Arc::new(
                ClientConfig::new()
                    .set("bootstrap.servers", &stage.kafka)
                    .set("group.id", &stage.group)
                    .set("log_level", "0")
                    .create()
                    .unwrap(),
            );
            let mut seen = Seen::default();
            let mut again = tokio::time::interval(Duration::from_millis(30));
            while !told.load(Ordering::Acquire) {
                again.tick().await;
                seen.sample(&stage, &client).await;
            }
            tokio::task::spawn_blocking(move || drop(client));
            seen
        });
        LawTwo { stop, watching }
    }

    /// Stops, and fails when the law was broken at any instant.
    pub async fn held(self) -> Seen {
        self.stop.store(true, Ordering::Release);
        let seen = self.watching.await.unwrap();
        assert!(
            seen.broken.is_empty(),
            "Kafka ahead of Postgres: {:?}",
            seen.broken
        );
        assert!(seen.offsets > 0, "nothing was ever committed: {seen:?}");
        seen
    }
}

impl Seen {
    /// Kafka is asked first: what it has then must be in Postgres afterwards.
    async fn sample(&mut self, stage: &Stage, client: &Arc<BaseConsumer>) {
        let (asked, topic) = (Arc::clone(client), stage.topic.clone());
        let committed = tokio::task::spawn_blocking(move || committed(&asked, &topic));
        let Some(committed) = committed.await.unwrap() else {
            return;
        };
        let Ok(mut connection) = stage.try_connect().await else {
            return;
        };
        let rows: Result<Vec<(i32, i64)>, _> =
            sqlx::query_as("SELECT partition, next_offset FROM partition_progress")
                .fetch_all(&mut connection)
                .await;
        let Ok(rows) = rows else { return };
        let positions: BTreeMap<i32, i64> = rows.into_iter().collect();
        self.samples += 1;
        for (partition, committed) in committed {
            self.offsets += 1;
            let position = positions.get(&partition).copied().unwrap_or(-1);
            if committed > position {
                self.broken.push((partition, committed, position));
            }
        }
    }
}

fn committed(client: &BaseConsumer, topic: &str) -> Option<Vec<(i32, i64)>> {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition(topic, partition);
    }
    let answer = client
        .committed_offsets(list, Duration::from_secs(2))
        .ok()?;
    let offsets = answer.elements();
    Some(
        offsets
            .iter()
            .filter_map(|one| match one.offset() {
                Offset::Offset(offset) => Some((one.partition(), offset)),
                _ => None,
            })
            .collect(),
    )
}
