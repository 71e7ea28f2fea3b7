//! Claiming partitions: the fence is taken, and what goes with it is read.
//!
//! Runs beside the owner's loop, which goes on polling meanwhile. A claim that is granted is of the log that
//! the position belongs to. The checks (`diagnosis`) come before the claim, so that a partition that has to
//! stop is not claimed over and over, and again after it, since the former owner's last flush may have moved
//! the position.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_store::deployment::{self, Deployment};
use millrace_store::position::{self, Consumer, Progress};
use millrace_store::{Database, Purpose, Trouble, allowances, frozen, parked, progress};
use rdkafka::consumer::StreamConsumer;
use sqlx::PgConnection;

use super::context::GroupContext;
use super::diagnosis::{Broker, outside};
use super::log::{LogError, LogIdentity};
use super::parked_here::ParkedHere;
use super::stop::StopReason;
use crate::engine::Partition;

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
        let mut broker = match self.ask_brokers(partitions).await {
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
        self.ask_again_about(rows.values(), &mut broker, partitions)
            .await?;
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
        self.ask_again_about(&claimed, &mut broker, &passed).await?;
        let allowed = allowances::all(&mut connection, &self.consumer).await?;
        for row in claimed {
            let partition = row.partition;
            let answer = match outside(&row, &broker.bounds) {
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

    pub(super) async fn rows(
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
}
