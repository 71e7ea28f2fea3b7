//! Claiming partitions: the fence is taken, and the log under the position is checked to be the same log.
//!
//! Runs beside the owner's loop, which goes on polling meanwhile. The checks come before the claim, so
//! that a partition that has to stop is not claimed over and over, and again after it, since the former
//! owner's last flush may have moved the position.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use millrace_store::deployment::{self, Deployment};
use millrace_store::position::{self, Consumer, Progress};
use millrace_store::{Database, Purpose, Trouble, allowances, frozen, parked, progress};
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use sqlx::PgConnection;

use super::context::GroupContext;
use super::log::{self, Bounds, LogError, LogIdentity};
use super::parked_here::ParkedHere;
use super::stop::StopReason;
use crate::engine::{Offset, Partition};

/// How long the brokers may take to answer one question.
const BROKER_DEADLINE: Duration = Duration::from_secs(5);

/// Where a group that has never worked here begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Start {
    /// At the log's first record.
    Earliest,
    /// At the log's end: only what comes from now on.
    Latest,
}

/// Everything a claim needs.
#[derive(Clone)]
pub struct Claims {
    /// The group's client.
    pub client: Arc<StreamConsumer<GroupContext>>,
    /// Where the rows are.
    pub database: Database,
    /// Group and topic.
    pub consumer: Consumer,
    /// This worker's name in the rows.
    pub owner: String,
    /// Where a partition without a history begins.
    pub start: Start,
}

/// The answer for one partition.
#[derive(Debug)]
pub enum ClaimAnswer {
    /// It is ours; work goes on here.
    Granted(Box<Granted>),
    /// It stands still until somebody decides.
    Stopped(StopReason),
}

/// A partition that was claimed.
#[derive(Debug)]
pub struct Granted {
    /// Its row.
    pub progress: Progress,
    /// What waits in the database.
    pub parked: ParkedHere,
    /// Up to where records that do not decode are let pass.
    pub decode_allowed: i64,
}

/// Nothing was decided: the database or the brokers did not answer, and it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Postgres.
    #[error(transparent)]
    Database(#[from] Trouble),
    /// Kafka.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Kafka did not take a commit from us: the partition may be another member's by now.
    #[error("Kafka did not confirm that the partition is ours: {0}")]
    NotOurs(rdkafka::error::KafkaError),
    /// The question could not be run.
    #[error("asking the brokers was cut off: {0}")]
    CutOff(#[from] tokio::task::JoinError),
}

/// What is allowed in this claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ahead {
    /// Kafka's committed offset must not be ahead of every position known.
    Refused,
    /// It may be: this very worker committed it before the database went back, and reads the rest again.
    Expected,
}

/// What the brokers say about the partitions.
struct Broker {
    identity: LogIdentity,
    bounds: BTreeMap<Partition, Bounds>,
    committed: BTreeMap<Partition, Option<Offset>>,
}

impl Claims {
    /// Claims the partitions. `confirm` are positions that Kafka must accept from us first, where it is in
    /// doubt whose partition it is; a log that is another one is told before that.
    ///
    /// # Errors
    /// When Postgres or the brokers do not answer.
    pub async fn claim(
        &self,
        partitions: &[i32],
        ahead: Ahead,
        confirm: &[(i32, i64)],
    ) -> Result<Vec<(i32, ClaimAnswer)>, ClaimError> {
        let broker = match self.ask_brokers(partitions).await {
            Ok(broker) => broker,
            Err(ClaimError::Log(LogError::TopicMissing { topic })) => {
                let stop = |partition: &i32| {
                    (
                        *partition,
                        ClaimAnswer::Stopped(StopReason::TopicMissing {
                            topic: topic.clone(),
                        }),
                    )
                };
                return Ok(partitions.iter().map(stop).collect());
            }
            Err(error) => return Err(error),
        };
        let mut connection = self.database.connect(Purpose::Operations).await?;
        let pinned = deployment::pin(&mut connection, &self.deployment(&broker.identity)).await?;
        let heights = position::highest_ever(&mut connection, &self.consumer).await?;
        let rows = self.rows(&mut connection).await?;
        let mut answers = Vec::with_capacity(partitions.len());
        let mut passed = Vec::new();
        for &partition in partitions {
            match self.examine(
                partition,
                &pinned,
                &broker,
                rows.get(&partition),
                &heights,
                ahead,
            ) {
                Some(reason) => answers.push((partition, ClaimAnswer::Stopped(reason))),
                None => {
                    if !rows.contains_key(&partition) {
                        self.create(&mut connection, partition, &broker).await?;
                    }
                    passed.push(partition);
                }
            }
        }
        let confirm: Vec<(i32, i64)> = confirm
            .iter()
            .copied()
            .filter(|(partition, _)| passed.contains(partition))
            .collect();
        self.commit(&confirm).await?;
        let claimed = self.take(&mut connection, &passed).await?;
        let bounds = if claimed.iter().all(|row| broker.admits(row)) {
            broker.bounds
        } else {
            self.ask_brokers(&passed).await?.bounds
        };
        let allowed = allowances::all(&mut connection, &self.consumer).await?;
        for row in claimed {
            let partition = row.partition;
            let answer = match outside(&row, &bounds) {
                Some(reason) => ClaimAnswer::Stopped(reason),
                None => {
                    let allowance = allowed
                        .iter()
                        .find(|one| one.partition == partition && one.log_book == row.log_book);
                    ClaimAnswer::Granted(Box::new(Granted {
                        parked: self.parked(&mut connection, &row).await?,
                        decode_allowed: allowance.map_or(0, |one| one.until_offset),
                        progress: row,
                    }))
                }
            };
            answers.push((partition, answer));
        }
        Ok(answers)
    }

    /// Reads what waits in the database, in statements after the claim's own: the claim waits for the former
    /// owner's last flush, and a statement sees what was there when it began.
    async fn parked(
        &self,
        connection: &mut PgConnection,
        row: &Progress,
    ) -> Result<ParkedHere, ClaimError> {
        let mut here = ParkedHere::default();
        let keys = &mut here.keys;
        parked::each_key(connection, &self.consumer, row.partition, |key, depth| {
            for _ in 0..depth {
                keys.insert(&key);
            }
        })
        .await?;
        here.tasks = parked::depth_of(connection, &self.consumer, row.partition).await?;
        if let Some(claim) = row.claim {
            progress::sweep(connection, &self.consumer, row.partition, claim).await?;
        }
        Ok(here)
    }

    /// What would be answered, without claiming: for `position show`.
    ///
    /// # Errors
    /// When Postgres or the brokers do not answer.
    pub async fn diagnose(
        &self,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Option<StopReason>>, ClaimError> {
        let broker = self.ask_brokers(partitions).await?;
        let mut connection = self.database.connect(Purpose::Reading).await?;
        let pinned = deployment::pinned(&mut connection)
            .await?
            .unwrap_or_else(|| self.deployment(&broker.identity));
        let heights = position::highest_ever(&mut connection, &self.consumer).await?;
        let rows = self.rows(&mut connection).await?;
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

    /// The log as the brokers know it now.
    #[must_use]
    pub fn deployment(&self, identity: &LogIdentity) -> Deployment {
        Deployment {
            group: self.consumer.group.clone(),
            topic: self.consumer.topic.clone(),
            cluster_id: identity.cluster_id.clone(),
            topic_id: identity.topic_id.clone(),
            partition_count: identity.partition_count,
        }
    }

    async fn rows(
        &self,
        connection: &mut PgConnection,
    ) -> Result<HashMap<i32, Progress>, ClaimError> {
        Ok(position::all(connection, &self.consumer)
            .await?
            .into_iter()
            .map(|row| (row.partition, row))
            .collect())
    }

    /// Takes the fences. Where a former owner that froze within a flush holds a row, its session is ended, so
    /// that the next attempt gets it.
    async fn take(
        &self,
        connection: &mut PgConnection,
        partitions: &[i32],
    ) -> Result<Vec<Progress>, ClaimError> {
        let claim = position::claim(connection, &self.consumer, partitions, &self.owner);
        let trouble = match claim.await {
            Ok(claimed) => return Ok(claimed),
            Err(trouble) => trouble,
        };
        // Only a row that stays locked tells of a frozen owner.
        if !matches!(trouble, Trouble::Held(_)) {
            return Err(trouble.into());
        }
        match frozen::end(connection).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::warn!(count, "ended sessions of owners that froze within a flush")
            }
            Err(error) => tracing::debug!(%error, "frozen sessions were not looked for"),
        }
        Err(trouble.into())
    }

    async fn ask_brokers(&self, partitions: &[i32]) -> Result<Broker, ClaimError> {
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

    async fn create(
        &self,
        connection: &mut PgConnection,
        partition: i32,
        broker: &Broker,
    ) -> Result<(), ClaimError> {
        let Some(bounds) = broker.bounds.get(&Partition(partition)) else {
            return Ok(());
        };
        let first = match self.start {
            Start::Earliest => bounds.start,
            Start::Latest => bounds.end,
        };
        position::create(connection, &self.consumer, partition, first.0).await?;
        tracing::debug!(
            partition,
            offset = first.0,
            "first start of this partition: its book begins"
        );
        Ok(())
    }

    /// Whether another group or topic was first in this schema.
    fn another_group(&self, pinned: &Deployment) -> Option<StopReason> {
        let ours = pinned.group == self.consumer.group && pinned.topic == self.consumer.topic;
        (!ours).then(|| StopReason::AnotherGroup {
            group: pinned.group.clone(),
            topic: pinned.topic.clone(),
        })
    }

    fn examine(
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

impl Broker {
    fn admits(&self, row: &Progress) -> bool {
        outside(row, &self.bounds).is_none()
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
fn outside(row: &Progress, bounds: &BTreeMap<Partition, Bounds>) -> Option<StopReason> {
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
