//! One claim task's errand: everything it does beside the owner's loop, and what it brings back.
//!
//! It asks Kafka whether the partition is ours where that is in doubt, learns schemas where one was
//! missing, and claims. It touches no state of the owner's: the answer is a plain value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::{Decoders, UnknownSchema};
use millrace_store::position::{self, Progress};
use millrace_store::{Purpose, Trouble, allowances, schemas_known};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::claims::{Ahead, ClaimAnswer, ClaimError, Claims};
use super::stop::StopReason;

/// Longest that an errand may take: over the deadlines of the questions to the brokers and the server's own
/// limits for statements.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// What a claim task brings back.
pub struct ClaimReport {
    pub attempt: u64,
    pub partitions: Vec<i32>,
    pub outcome: Result<Vec<(i32, ClaimAnswer)>, ClaimError>,
    pub decoders: Option<Decoders>,
}

/// What one claim task is to do.
pub struct Errand {
    pub attempt: u64,
    pub partitions: Vec<i32>,
    pub ahead: Ahead,
    /// Positions that Kafka must accept from us first: a stale member is refused.
    pub confirm: Vec<(i32, i64)>,
    /// Learn the published schemas first.
    pub learn: bool,
    pub decoders: Decoders,
    /// Schemas that were known before.
    knew: Decoders,
    /// Partitions that wait for a schema, and at which offset: claimed only when it is known or the position moved.
    pub waiting: BTreeMap<i32, StopReason>,
}

impl Errand {
    /// An errand for no partition yet.
    pub fn new(attempt: u64, ahead: Ahead, decoders: Decoders) -> Self {
        Self {
            attempt,
            partitions: Vec::new(),
            ahead,
            confirm: Vec::new(),
            learn: false,
            knew: decoders.clone(),
            decoders,
            waiting: BTreeMap::new(),
        }
    }

    /// Runs it.
    pub async fn run(mut self, claims: &Claims) -> ClaimReport {
        // A line that went dead without a word would keep the partition waiting for ever.
        let outcome = match tokio::time::timeout(DEADLINE, self.claim(claims)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Trouble::Outage(format!("claiming took over {DEADLINE:?}")).into()),
        };
        ClaimReport {
            attempt: self.attempt,
            partitions: self.partitions,
            outcome,
            decoders: self.learn.then_some(self.decoders),
        }
    }

    async fn claim(&mut self, claims: &Claims) -> Result<Vec<(i32, ClaimAnswer)>, ClaimError> {
        let mut learned = false;
        if self.learn {
            let mut connection = claims.database.connect(Purpose::Reading).await?;
            for schema in schemas_known::all(&mut connection).await? {
                match self.decoders.learn(&schema) {
                    Ok(fingerprint) => learned |= !self.knew.knows(fingerprint),
                    Err(error) => {
                        tracing::debug!(%error, "a published schema cannot be read by this release");
                    }
                }
            }
        }
        let still = claims
            .still_waiting(&self.waiting, &self.decoders, learned)
            .await?;
        let asked: Vec<i32> = self
            .partitions
            .iter()
            .copied()
            .filter(|partition| !still.contains_key(partition))
            .collect();
        let mut answers: Vec<(i32, ClaimAnswer)> = still
            .into_iter()
            .map(|(partition, reason)| (partition, ClaimAnswer::Stopped(reason)))
            .collect();
        if !asked.is_empty() {
            answers.extend(claims.claim(&asked, self.ahead, &self.confirm).await?);
        }
        if self.ahead == Ahead::Expected {
            let back: Vec<(i32, i64)> = answers
                .iter()
                .filter_map(|(partition, answer)| match answer {
                    ClaimAnswer::Granted(granted) => {
                        Some((*partition, granted.progress.next_offset))
                    }
                    ClaimAnswer::Stopped(_) => None,
                })
                .collect();
            claims.commit(&back).await?;
        }
        Ok(answers)
    }
}

/// Commits positions to Kafka and waits for the answer; a member that is no longer in the group is refused.
impl Claims {
    pub(super) async fn commit(&self, positions: &[(i32, i64)]) -> Result<(), ClaimError> {
        if positions.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, offset) in positions {
            list.add_partition_offset(
                &self.consumer.topic,
                *partition,
                KafkaOffset::Offset(*offset),
            )
            .map_err(ClaimError::NotOurs)?;
        }
        let client = Arc::clone(&self.client);
        tokio::task::spawn_blocking(move || client.commit(&list, CommitMode::Sync))
            .await?
            .map_err(ClaimError::NotOurs)
    }

    /// Of the partitions that wait for a schema, or for somebody to let undecodable records pass, those that
    /// still do: nothing new is known, nobody allowed it, and nobody moved the position away.
    async fn still_waiting(
        &self,
        waiting: &BTreeMap<i32, StopReason>,
        decoders: &Decoders,
        learned: bool,
    ) -> Result<BTreeMap<i32, StopReason>, ClaimError> {
        let unknown: BTreeMap<i32, (i64, &StopReason)> = waiting
            .iter()
            .filter_map(|(partition, reason)| match reason {
                StopReason::UnknownSchema { offset, schema } if !knows(decoders, *schema) => {
                    Some((*partition, (*offset, reason)))
                }
                StopReason::MostUndecodable { offset, .. } if !learned => {
                    Some((*partition, (*offset, reason)))
                }
                _ => None,
            })
            .collect();
        if unknown.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut connection = self.database.connect(Purpose::Reading).await?;
        let rows = position::all(&mut connection, &self.consumer).await?;
        let allowed = allowances::all(&mut connection, &self.consumer).await?;
        Ok(unknown
            .into_iter()
            .filter(|(partition, (offset, reason))| {
                let allows = |row: &Progress| {
                    matches!(reason, StopReason::MostUndecodable { .. })
                        && allowed.iter().any(|one| {
                            one.partition == *partition
                                && one.log_book == row.log_book
                                && one.until_offset > *offset
                        })
                };
                rows.iter().any(|row| {
                    row.partition == *partition && row.next_offset <= *offset && !allows(row)
                })
            })
            .map(|(partition, (_, reason))| (partition, reason.clone()))
            .collect())
    }
}

fn knows(decoders: &Decoders, schema: UnknownSchema) -> bool {
    match schema {
        UnknownSchema::Fingerprint(fingerprint) => decoders.knows(fingerprint),
        UnknownSchema::ConfluentId(_) => false,
    }
}
