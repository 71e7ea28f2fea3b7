//! Claims going out and coming back: which partitions are due, what their answers mean.
//!
//! A claim runs beside the loop. Only the answer to a partition's latest attempt counts, so a partition
//! that was revoked or claimed again meanwhile ignores the older one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_schemas::Decoders;
use millrace_telemetry::ClaimResult;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::claims::{Ahead, ClaimAnswer, ClaimError, Granted};
use super::errand::{ClaimReport, DEADLINE, Errand};
use super::leader_epoch::set_epoch;
use super::owner::Owner;
use super::partition::Running;
use super::standing::Standing;
use super::stop::StopReason;
use crate::engine::{DecodeWindow, Offset, Partition, Pressure};
use crate::handlers::CancelReason;

/// How long until a claim that failed is tried again.
const CLAIM_AGAIN: Duration = Duration::from_millis(500);
/// How long until a stopped partition is looked at again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Which partitions are claimed in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Together {
    /// Those that are due for the first time.
    Due,
    /// This one only: it failed before, or stands still.
    Alone(i32),
}

impl Owner {
    /// Starts a claim for every partition whose time has come: one task for all that allow the same, and one
    /// of its own for each partition whose claim has failed before, since it may be what failed the others.
    pub(super) fn ask_due_claims(&mut self, at: Instant) {
        if self.is_stopping() {
            return;
        }
        let mut errands: BTreeMap<(Ahead, Together), Errand> = BTreeMap::new();
        for (&partition, standing) in &mut self.owned.partitions {
            let (ahead, together, confirm, reason) = match standing {
                Standing::Claiming {
                    due,
                    ahead,
                    confirm,
                    failures,
                    ..
                } if due.is_some_and(|due| due <= at) => {
                    *due = None;
                    let together = if *failures > 0 {
                        Together::Alone(partition)
                    } else {
                        Together::Due
                    };
                    (*ahead, together, *confirm, None)
                }
                Standing::Stopped { due, reason, .. } if *due <= at => {
                    // The answer sets the next time; a second question meanwhile would make it count for nothing.
                    *due = at + DEADLINE + LOOK_AGAIN;
                    let alone = Together::Alone(partition);
                    (Ahead::Refused, alone, None, Some(reason.clone()))
                }
                _ => continue,
            };
            let next = &mut self.next_attempt;
            let errand = errands.entry((ahead, together)).or_insert_with(|| {
                *next += 1;
                Errand::new(*next, ahead, Decoders::clone(&self.decoders))
            });
            errand
                .confirm
                .extend(confirm.map(|position| (partition, position)));
            errand.learn |= reason.as_ref().is_some_and(StopReason::may_be_learnt);
            errand
                .waiting
                .extend(reason.map(|reason| (partition, reason)));
            errand.partitions.push(partition);
            self.attempts.insert(partition, errand.attempt);
        }
        for errand in errands.into_values() {
            let (claims, answers) = (self.claims.clone(), self.answers.clone());
            tokio::spawn(async move {
                // The owner is gone only at the very end, and then the answer is nobody's.
                let _ = answers.send(errand.run(&claims).await);
            });
        }
    }

    /// Takes in what a claim brought back.
    pub(super) fn claim_answered(&mut self, report: ClaimReport) {
        if let Some(decoders) = report.decoders {
            self.floor.attempts.learned(decoders.clone());
            self.decoders = Arc::new(decoders);
        }
        let current =
            |owner: &Self, partition: i32| owner.attempts.get(&partition) == Some(&report.attempt);
        match report.outcome {
            Ok(answers) => {
                self.health.ready("database", Ok(()));
                let mut granted = Vec::new();
                for (partition, answer) in answers {
                    if current(self, partition) && self.owned.partitions.contains_key(&partition) {
                        granted
                            .extend(matches!(answer, ClaimAnswer::Granted(_)).then_some(partition));
                        self.answered(partition, answer);
                    }
                }
                if !granted.is_empty() {
                    tracing::info!(partitions = ?granted, "claimed");
                }
                // A row that went away between two statements is in no answer.
                self.claim_later(&report.partitions, report.attempt);
            }
            Err(error) => {
                self.gauges.database.claim(ClaimResult::Failed);
                tracing::warn!(error = %chain(&error), partitions = ?report.partitions, "claiming failed: trying again, nothing is lost");
                let component = match error {
                    ClaimError::Database(_) => "database",
                    ClaimError::Log(_) | ClaimError::NotOurs(_) | ClaimError::CutOff(_) => "kafka",
                };
                self.health
                    .ready(component, Err(format!("claiming: {error}")));
                self.claim_later(&report.partitions, report.attempt);
            }
        }
        self.share_budget();
    }

    /// Partitions of an attempt that got no answer are claimed again.
    fn claim_later(&mut self, partitions: &[i32], attempt: u64) {
        let now = Instant::now();
        for partition in partitions {
            if self.attempts.get(partition) != Some(&attempt) {
                continue;
            }
            match self.owned.partitions.get_mut(partition) {
                Some(Standing::Claiming {
                    due: due @ None,
                    failures,
                    ..
                }) => {
                    *failures += 1;
                    *due = Some(now + CLAIM_AGAIN * (*failures).min(4));
                }
                Some(Standing::Stopped { due, .. }) => *due = (*due).min(now + LOOK_AGAIN),
                _ => {}
            }
        }
    }

    fn answered(&mut self, partition: i32, answer: ClaimAnswer) {
        let mut anew = false;
        let vouched = match self.owned.partitions.get(&partition) {
            Some(Standing::Claiming { vouched, .. }) => *vouched,
            Some(Standing::Stopped { reason, .. }) => {
                anew = matches!(reason, StopReason::MostUndecodable { .. });
                None
            }
            Some(Standing::Running(_) | Standing::Halting { .. }) | None => return,
        };
        match answer {
            ClaimAnswer::Stopped(reason) => self.stop_partition(partition, reason),
            ClaimAnswer::Granted(granted) => {
                let Granted {
                    progress,
                    parked,
                    decode_allowed,
                } = *granted;
                let Some(claim) = progress.claim else { return };
                self.gauges.database.claim(ClaimResult::Claimed);
                let metrics = self.gauges.consumer.partition(partition);
                let mut running = Running::new(&progress, claim, parked, metrics);
                running.vouched_gap = vouched;
                running.decode_allowed = decode_allowed;
                if anew {
                    // Somebody decided, or a schema came: what did not decode before says nothing any more.
                    running.window = DecodeWindow::default();
                }
                let fetched = self.fetch(partition, progress.next_offset, &running);
                if let Err(error) = fetched {
                    tracing::warn!(partition, %error, "the claimed partition was not taken up: trying again");
                    // If the client has it already, it would refuse it for ever.
                    if let Err(error) = self.client.incremental_unassign(&self.list(&[partition])) {
                        tracing::debug!(partition, %error, "taking the partition from the fetcher");
                    }
                    self.claim_again(partition, Ahead::Refused, None);
                    return;
                }
                tracing::debug!(
                    partition,
                    offset = progress.next_offset,
                    seq = progress.seq,
                    "claimed"
                );
                if running.careful.is_careful() {
                    tracing::warn!(
                        partition,
                        deaths = progress.unclean_starts - 1,
                        suspect = progress.suspect.map(|suspect| suspect.offset),
                        "workers of this partition died again and again: its tasks run one at a time for now"
                    );
                }
                self.owned
                    .partitions
                    .insert(partition, Standing::Running(Box::new(running)));
                if progress.next_offset > 0 {
                    // What an earlier owner settled may never have been committed: lag tools hear of it now.
                    self.store_offsets(&[(partition, Offset(progress.next_offset))]);
                }
                self.floor.waking.soon();
            }
        }
    }

    fn fetch(
        &self,
        partition: i32,
        position: i64,
        running: &Running,
    ) -> rdkafka::error::KafkaResult<()> {
        let topic = &self.claims.consumer.topic;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, KafkaOffset::Offset(position))?;
        if let Err(error) = set_epoch(&mut list, topic, Partition(partition), running.epoch()) {
            tracing::debug!(%error, "the leader epoch was not set");
        }
        // A pause outlives the assignment in librdkafka: held back before, it would never be read again.
        self.resume(&[partition]);
        self.client.incremental_assign(&list)?;
        if self.pressure == Pressure::Hard {
            self.pause(&[partition]);
        }
        Ok(())
    }

    /// Drops a partition's state and claims it anew, from its row. `vouched` is the end of a wide gap
    /// that the claim's look at the log vouches for.
    pub(super) fn claim_again(&mut self, partition: i32, ahead: Ahead, vouched: Option<Offset>) {
        self.unfetch(&[partition]);
        self.budget.forget(Partition(partition));
        let Some(standing) = self.owned.partitions.get_mut(&partition) else {
            return;
        };
        // Kafka is asked whether the partition is ours, by a commit of what it was told before anyway. A doubt
        // that was not settled yet stays one.
        let (confirm, failures) = match (ahead, &*standing) {
            (
                _,
                Standing::Claiming {
                    confirm, failures, ..
                },
            ) => (*confirm, *failures),
            (Ahead::Refused, Standing::Running(running) | Standing::Halting { running, .. }) => {
                (Some(running.ledger.frontier().0), 0)
            }
            _ => (None, 0),
        };
        *standing = Standing::Claiming {
            due: Some(Instant::now() + CLAIM_AGAIN / 5),
            ahead,
            confirm,
            failures,
            vouched,
        };
        self.attempts.remove(&partition);
        self.stop_strays(CancelReason::PartitionLost);
        self.share_budget();
    }
}

/// An error with its causes, for one line of log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
