//! Whether the log under a position is the log that the position belongs to, and why a partition has to stop.
//!
//! Compares what the rows say with what the brokers say now: group and topic, the ids of cluster and topic, the
//! partition count, the ends of the log, and what Kafka remembers as committed. Guarantees to a claim, and to
//! whoever asks without claiming, that the answer names one reason and takes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use millrace_store::Purpose;
use millrace_store::deployment::{self, Deployment};
use millrace_store::position::{self, Progress};
use rdkafka::consumer::Consumer as _;

use super::claims::{Ahead, ClaimError, Claims};
use super::log::{self, Bounds, LogIdentity};
use super::stop::StopReason;
use crate::engine::{Offset, Partition};

/// How long the brokers may take to answer one question.
const BROKER_DEADLINE: Duration = Duration::from_secs(5);

/// What the brokers say about the partitions.
pub(super) struct Broker {
    pub(super) identity: LogIdentity,
    pub(super) bounds: BTreeMap<Partition, Bounds>,
    committed: BTreeMap<Partition, Option<Offset>>,
}

impl Claims {
    /// What would be answered, without claiming: for `position show`.
    ///
    /// # Errors
    /// When Postgres or the brokers do not answer.
    pub async fn diagnose(
        &self,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Option<StopReason>>, ClaimError> {
        let mut broker = self.ask_brokers(partitions).await?;
        let mut connection = self.database.connect(Purpose::Reading).await?;
        let pinned = deployment::pinned(&mut connection)
            .await?
            .unwrap_or_else(|| self.deployment(&broker.identity));
        let heights = position::highest_ever(&mut connection, &self.consumer).await?;
        let rows = self.rows(&mut connection).await?;
        self.ask_again_about(rows.values(), &mut broker, partitions)
            .await?;
        Ok(partitions
            .iter()
            .map(|&partition| {
                (
                    partition,
                    self.examine(
                        partition,
                        &pinned,
                        &broker,
                        rows.get(&partition),
                        &heights,
                        Ahead::Refused,
                    ),
                )
            })
            .collect())
    }

    /// Asks again for the ends of the log where a position lies outside of them: rows that were read after the
    /// brokers had answered may have moved beyond what was the end then, by an owner at work.
    pub(super) async fn ask_again_about(
        &self,
        rows: impl IntoIterator<Item = &Progress>,
        broker: &mut Broker,
        partitions: &[i32],
    ) -> Result<(), ClaimError> {
        let is_outside = |row: &Progress| {
            partitions.contains(&row.partition) && outside(row, &broker.bounds).is_some()
        };
        if rows.into_iter().any(is_outside) {
            broker.bounds = self.ask_brokers(partitions).await?.bounds;
        }
        Ok(())
    }

    pub(super) async fn ask_brokers(&self, partitions: &[i32]) -> Result<Broker, ClaimError> {
        let client = Arc::clone(&self.client);
        let topic = self.consumer.topic.clone();
        let partitions: Vec<Partition> = partitions.iter().copied().map(Partition).collect();
        tokio::task::spawn_blocking(move || {
            let identity = log::identify(client.client(), &topic, BROKER_DEADLINE)?;
            let bounds = log::all_bounds(client.as_ref(), &topic, &partitions, BROKER_DEADLINE)?;
            let committed = log::committed(client.as_ref(), &topic, &partitions, BROKER_DEADLINE)?;
            Ok(Broker {
                identity,
                bounds,
                committed,
            })
        })
        .await?
    }

    /// Whether another group or topic was first in this schema.
    fn another_group(&self, pinned: &Deployment) -> Option<StopReason> {
        let ours = pinned.group == self.consumer.group && pinned.topic == self.consumer.topic;
        (!ours).then(|| StopReason::AnotherGroup {
            group: pinned.group.clone(),
            topic: pinned.topic.clone(),
        })
    }

    pub(super) fn examine(
        &self,
        partition: i32,
        pinned: &Deployment,
        broker: &Broker,
        row: Option<&Progress>,
        heights: &HashMap<i32, i64>,
        ahead: Ahead,
    ) -> Option<StopReason> {
        self.another_group(pinned)
            .or_else(|| another_log(pinned, &broker.identity))
            .or_else(|| {
                (partition >= pinned.partition_count && row.is_none()).then_some(
                    StopReason::NewPartition {
                        partition,
                        pinned: pinned.partition_count,
                        now: broker.identity.partition_count,
                    },
                )
            })
            .or_else(|| {
                let committed = broker
                    .committed
                    .get(&Partition(partition))
                    .copied()
                    .flatten()?
                    .0;
                match row {
                    None => Some(StopReason::LostTable {
                        partition,
                        committed,
                    }),
                    Some(row) => {
                        let highest = heights.get(&partition).copied().unwrap_or(row.high_offset);
                        (ahead == Ahead::Refused && committed > highest).then_some(
                            StopReason::DatabaseRestored {
                                partition,
                                committed,
                                highest,
                            },
                        )
                    }
                }
            })
            .or_else(|| outside(row?, &broker.bounds))
    }
}

/// Whether the log is another one than that which was pinned.
#[must_use]
pub fn another_log(pinned: &Deployment, now: &LogIdentity) -> Option<StopReason> {
    let differ = |what: &'static str, was: &Option<String>, is: &Option<String>| match (was, is) {
        (Some(was), Some(is)) if was != is => Some(StopReason::AnotherLog {
            what,
            was: was.clone(),
            is: is.clone(),
        }),
        _ => None,
    };
    differ("cluster id", &pinned.cluster_id, &now.cluster_id)
        .or_else(|| differ("topic id", &pinned.topic_id, &now.topic_id))
        .or_else(|| {
            (now.partition_count < pinned.partition_count).then(|| StopReason::AnotherLog {
                what: "partition count",
                was: pinned.partition_count.to_string(),
                is: now.partition_count.to_string(),
            })
        })
}

/// Whether the position lies outside the log.
pub(super) fn outside(row: &Progress, bounds: &BTreeMap<Partition, Bounds>) -> Option<StopReason> {
    let bounds = bounds.get(&Partition(row.partition))?;
    let (partition, position) = (row.partition, row.next_offset);
    if position < bounds.start.0 {
        Some(StopReason::RetentionPassed {
            partition,
            position,
            start: bounds.start.0,
        })
    } else if position > bounds.end.0 {
        Some(StopReason::BeyondEnd {
            partition,
            position,
            end: bounds.end.0,
        })
    } else {
        None
    }
}
