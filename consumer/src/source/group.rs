//! Partitions coming and going: assigned, claimed, claimed again, halted, revoked, lost.
//!
//! An assignment is answered at once with nothing, so a slow claim never holds up the group: each
//! partition is handed to the fetcher when its claim is granted. On the way out only the flush in the air
//! is waited for, within a short deadline, because librdkafka holds every partition still meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use millrace_schemas::Decoders;
use millrace_store::position::{self, Fence};
use millrace_store::{Purpose, schemas_known};
use millrace_telemetry::{ClaimResult, RebalanceEvent};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use uuid::Uuid;

use super::claims::{Ahead, ClaimAnswer, ClaimError, Claims};
use super::context::GroupEvent;
use super::leader_epoch::set_epoch;
use super::owner::Owner;
use super::partition::Running;
use super::standing::Standing;
use super::stop::StopReason;
use crate::engine::{Offset, Partition, Pressure};

/// How long a revoke may wait for the flush in the air; below every session timeout in use.
const LEAVE_DEADLINE: Duration = Duration::from_secs(4);
/// How long until a claim that failed is tried again.
const CLAIM_AGAIN: Duration = Duration::from_millis(500);
/// How long until a stopped partition is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long giving a claim back may take on the way out.
const RELEASE_DEADLINE: Duration = Duration::from_secs(3);

/// Partitions on their way out, whose flush is still in the air.
pub struct Leaving {
    flying: BTreeMap<i32, Box<Running>>,
    written: Vec<(i32, Fence)>,
    fetched: Vec<i32>,
    deadline: Instant,
}

/// What a claim task brings back.
pub struct ClaimReport {
    attempt: u64,
    partitions: Vec<i32>,
    outcome: Result<Vec<(i32, ClaimAnswer)>, ClaimError>,
    decoders: Option<Decoders>,
}

/// What one claim task is to do.
struct Errand {
    attempt: u64,
    partitions: Vec<i32>,
    ahead: Ahead,
    /// Positions that Kafka must accept from us first: a stale member is refused.
    confirm: Vec<(i32, i64)>,
    /// Learn the published schemas first.
    learn: bool,
    decoders: Decoders,
    /// Partitions that wait for a schema, and at which offset: claimed only when it is known or the position moved.
    waiting: BTreeMap<i32, StopReason>,
}

impl Owner {
    /// Takes in what the client told.
    pub(super) fn group_event(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Assigned(partitions) => self.assigned(&partitions),
            GroupEvent::Revoked { partitions, lost } => self.revoked(partitions, lost),
            GroupEvent::Failed(code) => {
                tracing::warn!(?code, "the group failed: everything is dropped and joined again");
                let all: Vec<i32> = self.owned.partitions.keys().copied().collect();
                self.drop_all(&all);
            }
            GroupEvent::Statistics(found) => self.note_statistics(&found),
        }
    }

    fn assigned(&mut self, partitions: &[i32]) {
        self.gauges.consumer.rebalance(RebalanceEvent::Assigned);
        tracing::info!(?partitions, "assigned");
        if let Err(error) = self.client.incremental_assign(&TopicPartitionList::new()) {
            tracing::warn!(%error, "answering the assignment");
        }
        self.owned.assigned_once = true;
        for &partition in partitions {
            self.owned
                .partitions
                .insert(partition, Standing::Claiming { due: Some(Instant::now()), ahead: Ahead::Refused, confirm: None, vouched: None });
        }
        self.share_budget();
        self.ask_due_claims(Instant::now());
    }

    fn share_budget(&mut self) {
        self.budget.share_among(self.owned.partitions.len());
        self.gauges.consumer.partitions_owned(self.owned.running().count());
    }

    /// Starts a claim for every partition whose time has come, one task for all that allow the same.
    pub(super) fn ask_due_claims(&mut self, at: Instant) {
        if self.is_stopping() {
            return;
        }
        for ahead in [Ahead::Refused, Ahead::Expected] {
            let mut errand = Errand {
                attempt: self.next_attempt,
                partitions: Vec::new(),
                ahead,
                confirm: Vec::new(),
                learn: false,
                decoders: Decoders::clone(&self.decoders),
                waiting: BTreeMap::new(),
            };
            for (&partition, standing) in &mut self.owned.partitions {
                match standing {
                    Standing::Claiming { due, ahead: allowed, confirm, .. }
                        if *allowed == ahead && due.is_some_and(|due| due <= at) =>
                    {
                        *due = None;
                        errand.confirm.extend(confirm.map(|position| (partition, position)));
                    }
                    Standing::Stopped { due, reason, .. } if ahead == Ahead::Refused && *due <= at => {
                        *due = at + LOOK_AGAIN;
                        errand.learn |= matches!(reason, StopReason::UnknownSchema { .. });
                        errand.waiting.insert(partition, reason.clone());
                    }
                    _ => continue,
                }
                self.attempts.insert(partition, errand.attempt);
                errand.partitions.push(partition);
            }
            if !errand.partitions.is_empty() {
                self.next_attempt += 1;
                let (claims, answers) = (self.claims.clone(), self.answers.clone());
                tokio::spawn(async move {
                    // The owner is gone only at the very end, and then the answer is nobody's.
                    let _ = answers.send(errand.run(&claims).await);
                });
            }
        }
    }

    /// Takes in what a claim brought back.
    pub(super) fn claim_answered(&mut self, report: ClaimReport) {
        if let Some(decoders) = report.decoders {
            self.decoders = std::sync::Arc::new(decoders);
        }
        let current = |owner: &Self, partition: i32| owner.attempts.get(&partition) == Some(&report.attempt);
        match report.outcome {
            Ok(answers) => {
                self.health.ready("database", Ok(()));
                let mut granted = Vec::new();
                for (partition, answer) in answers {
                    if current(self, partition) && self.owned.partitions.contains_key(&partition) {
                        granted.extend(matches!(answer, ClaimAnswer::Granted(_)).then_some(partition));
                        self.answered(partition, answer);
                    }
                }
                if !granted.is_empty() {
                    tracing::info!(partitions = ?granted, "claimed");
                }
            }
            Err(error) => {
                self.gauges.database.claim(ClaimResult::Failed);
                tracing::warn!(error = %chain(&error), partitions = ?report.partitions, "claiming failed: trying again, nothing is lost");
                self.health.ready("database", Err(format!("claiming: {error}")));
                for partition in report.partitions {
                    if current(self, partition)
                        && let Some(Standing::Claiming { due, .. }) = self.owned.partitions.get_mut(&partition)
                    {
                        *due = Some(Instant::now() + CLAIM_AGAIN);
                    }
                }
            }
        }
        self.share_budget();
    }

    fn answered(&mut self, partition: i32, answer: ClaimAnswer) {
        let vouched = match self.owned.partitions.get(&partition) {
            Some(Standing::Claiming { vouched, .. }) => *vouched,
            Some(Standing::Stopped { .. }) => None,
            Some(Standing::Running(_) | Standing::Halting { .. }) | None => return,
        };
        match answer {
            ClaimAnswer::Stopped(reason) => self.stop_partition(partition, reason),
            ClaimAnswer::Granted(progress) => {
                let Some(claim) = progress.claim else { return };
                self.gauges.database.claim(ClaimResult::Claimed);
                let mut running = Running::new(&progress, claim, self.gauges.consumer.partition(partition));
                running.vouched_gap = vouched;
                let fetched = self.fetch(partition, progress.next_offset, &running);
                if let Err(error) = fetched {
                    tracing::warn!(partition, %error, "the claimed partition was not taken up: trying again");
                    self.claim_again(partition, Ahead::Refused, None);
                    return;
                }
                tracing::debug!(partition, offset = progress.next_offset, seq = progress.seq, "claimed");
                self.owned.partitions.insert(partition, Standing::Running(Box::new(running)));
            }
        }
    }

    fn fetch(&self, partition: i32, position: i64, running: &Running) -> rdkafka::error::KafkaResult<()> {
        let topic = &self.claims.consumer.topic;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, KafkaOffset::Offset(position))?;
        if let Err(error) = set_epoch(&mut list, topic, Partition(partition), running.epoch()) {
            tracing::debug!(%error, "the leader epoch was not set");
        }
        self.client.incremental_assign(&list)?;
        if self.pressure == Pressure::Hard {
            self.pause(&[partition]);
        }
        Ok(())
    }

    fn stop_partition(&mut self, partition: i32, reason: StopReason) {
        let due = Instant::now() + LOOK_AGAIN;
        if let Some(Standing::Stopped { reason: before, due: next, .. }) = self.owned.partitions.get_mut(&partition)
            && *before == reason
        {
            *next = due;
            return;
        }
        self.gauges.database.claim(ClaimResult::Stopped);
        tracing::error!(partition, %reason, "the partition stands still");
        let metrics = self.gauges.consumer.partition(partition);
        metrics.stopped(true);
        self.owned.partitions.insert(partition, Standing::Stopped { reason, due, metrics });
    }

    /// Reads no further: what was taken is written, then the partition stands still.
    pub(super) fn halt(&mut self, partition: i32, reason: StopReason) {
        self.unfetch(&[partition]);
        match self.owned.partitions.remove(&partition) {
            Some(Standing::Running(running)) => {
                tracing::error!(partition, %reason, "the partition is read no further");
                self.owned.partitions.insert(partition, Standing::Halting { running, reason });
                self.finish_halting();
            }
            Some(other) => {
                self.owned.partitions.insert(partition, other);
            }
            None => {}
        }
    }

    /// Stops at once, without writing what was taken: it may be another log's.
    pub(super) fn stop_dead(&mut self, partition: i32, reason: StopReason) {
        self.unfetch(&[partition]);
        self.budget.forget(Partition(partition));
        self.stop_partition(partition, reason);
    }

    /// Partitions that were to be read no further and have everything written stand still now.
    pub(super) fn finish_halting(&mut self) {
        let done: Vec<(i32, StopReason)> = self
            .owned
            .partitions
            .iter()
            .filter_map(|(partition, standing)| match standing {
                Standing::Halting { running, reason } if running.is_idle() => Some((*partition, reason.clone())),
                _ => None,
            })
            .collect();
        for (partition, reason) in done {
            self.owned.partitions.remove(&partition);
            self.stop_partition(partition, reason);
        }
    }

    /// Drops a partition's state and claims it anew, from its row. `vouched` is the end of a wide gap
    /// that the claim's look at the log vouches for.
    pub(super) fn claim_again(&mut self, partition: i32, ahead: Ahead, vouched: Option<Offset>) {
        self.unfetch(&[partition]);
        self.budget.forget(Partition(partition));
        let Some(standing) = self.owned.partitions.get_mut(&partition) else { return };
        // Kafka is asked whether the partition is ours, by a commit of what it was told before anyway.
        let confirm = match (ahead, standing.running()) {
            (Ahead::Refused, Some(running)) => Some(running.ledger.frontier().0),
            _ => None,
        };
        *standing = Standing::Claiming { due: Some(Instant::now() + CLAIM_AGAIN / 5), ahead, confirm, vouched };
        self.attempts.remove(&partition);
        self.share_budget();
    }

    fn revoked(&mut self, partitions: Vec<i32>, lost: bool) {
        self.gauges.consumer.rebalance(if lost { RebalanceEvent::Lost } else { RebalanceEvent::Revoked });
        self.finish_leaving();
        if lost {
            tracing::warn!(?partitions, "lost: another worker has them already, everything is dropped");
            self.drop_all(&partitions);
            self.answer_revoke(&partitions);
            return;
        }
        tracing::info!(?partitions, "revoked: finishing what is in the air");
        let mut leaving =
            Leaving { flying: BTreeMap::new(), written: Vec::new(), fetched: Vec::new(), deadline: Instant::now() + LEAVE_DEADLINE };
        for partition in partitions {
            self.attempts.remove(&partition);
            self.budget.forget(Partition(partition));
            let standing = self.owned.partitions.remove(&partition);
            if standing.as_ref().is_some_and(Standing::is_fetched) {
                leaving.fetched.push(partition);
            }
            if let Some(Standing::Running(mut running) | Standing::Halting { mut running, .. }) = standing {
                running.drop_batch();
                if running.is_flying() {
                    leaving.flying.insert(partition, running);
                } else {
                    leaving.written.push((partition, running.fence));
                }
            }
        }
        self.leaving = Some(leaving);
        self.finish_leaving_when_written();
        self.share_budget();
    }

    /// Drops partitions whole; they are another's.
    fn drop_all(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.attempts.remove(partition);
            self.owned.partitions.remove(partition);
            self.budget.forget(Partition(*partition));
        }
        self.share_budget();
    }

    fn answer_revoke(&self, fetched: &[i32]) {
        let assigned: BTreeSet<i32> = match self.client.assignment() {
            Ok(list) => list.elements().iter().map(|one| one.partition()).collect(),
            Err(_) => BTreeSet::new(),
        };
        let ours: Vec<i32> = fetched.iter().copied().filter(|partition| assigned.contains(partition)).collect();
        if let Err(error) = self.client.incremental_unassign(&self.list(&ours)) {
            tracing::warn!(%error, "answering the revocation");
        }
    }

    /// Takes partitions from the fetcher, if it has them.
    fn unfetch(&self, partitions: &[i32]) {
        let fetched: Vec<i32> = partitions
            .iter()
            .copied()
            .filter(|partition| self.owned.partitions.get(partition).is_some_and(Standing::is_fetched))
            .collect();
        if !fetched.is_empty()
            && let Err(error) = self.client.incremental_unassign(&self.list(&fetched))
        {
            tracing::debug!(%error, "taking partitions from the fetcher");
        }
    }

    /// A leaving partition that lost its fence has nothing more to wait for.
    pub(super) fn forget_leaving(&mut self, partition: i32) {
        if let Some(leaving) = &mut self.leaving {
            leaving.flying.remove(&partition);
        }
    }

    /// Answers the revocation as soon as nothing is in the air.
    pub(super) fn finish_leaving_when_written(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            let (written, flying): (BTreeMap<_, _>, BTreeMap<_, _>) =
                std::mem::take(&mut leaving.flying).into_iter().partition(|(_, running)| !running.is_flying());
            leaving.written.extend(written.into_iter().map(|(partition, running)| (partition, running.fence)));
            leaving.flying = flying;
            if leaving.flying.is_empty() {
                self.finish_leaving();
            }
        }
    }

    /// Answers the revocation late rather than never: the fence makes a late flush harmless.
    pub(super) fn give_up_leaving(&mut self, at: Instant) {
        if self.leaving.as_ref().is_some_and(|leaving| at >= leaving.deadline) {
            tracing::warn!("a flush is still in the air: the partitions are given up without waiting for it");
            self.finish_leaving();
        }
    }

    fn finish_leaving(&mut self) {
        let Some(leaving) = self.leaving.take() else { return };
        self.answer_revoke(&leaving.fetched);
        let (claims, written) = (self.claims.clone(), leaving.written);
        tokio::spawn(async move { release(&claims, written).await });
    }

    /// The state under a claim, owned or on its way out.
    pub(super) fn find(&mut self, partition: i32, claim: Uuid) -> Option<&mut Running> {
        let owned = self.owned.partitions.get_mut(&partition).and_then(Standing::running_mut);
        let leaving = self.leaving.as_mut().and_then(|leaving| leaving.flying.get_mut(&partition)).map(Box::as_mut);
        [owned, leaving].into_iter().flatten().find(|running| running.fence.claim == claim)
    }

    /// Whether the partition is ours under this claim.
    pub(super) fn is_running(&self, partition: i32, claim: Uuid) -> bool {
        self.owned
            .partitions
            .get(&partition)
            .and_then(Standing::running)
            .is_some_and(|running| running.fence.claim == claim)
    }

    /// Gives claims back on the way out.
    pub(super) async fn release(&self, held: Vec<(i32, Fence)>) {
        release(&self.claims, held).await;
    }
}

async fn release(claims: &Claims, held: Vec<(i32, Fence)>) {
    let all = async {
        let mut connection = claims.database.connect(Purpose::Operations).await?;
        for (partition, fence) in held {
            position::release(&mut connection, &claims.consumer, partition, fence).await?;
        }
        Ok::<(), millrace_store::Trouble>(())
    };
    match tokio::time::timeout(RELEASE_DEADLINE, all).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "claims were not given back: the next owner takes them"),
        Err(_) => tracing::debug!("claims were not given back in time: the next owner takes them"),
    }
}

impl Errand {
    async fn run(mut self, claims: &Claims) -> ClaimReport {
        let outcome = self.claim(claims).await;
        ClaimReport {
            attempt: self.attempt,
            partitions: self.partitions,
            outcome,
            decoders: self.learn.then_some(self.decoders),
        }
    }

    async fn claim(&mut self, claims: &Claims) -> Result<Vec<(i32, ClaimAnswer)>, ClaimError> {
        if !self.confirm.is_empty() {
            claims.commit(&self.confirm).await?;
        }
        if self.learn {
            let mut connection = claims.database.connect(Purpose::Reading).await?;
            for schema in schemas_known::all(&mut connection).await? {
                if let Err(error) = self.decoders.learn(&schema) {
                    tracing::debug!(%error, "a published schema cannot be read by this release");
                }
            }
        }
        let still = claims.still_waiting(&self.waiting, &self.decoders).await?;
        let asked: Vec<i32> = self.partitions.iter().copied().filter(|partition| !still.contains_key(partition)).collect();
        let mut answers: Vec<(i32, ClaimAnswer)> =
            still.into_iter().map(|(partition, reason)| (partition, ClaimAnswer::Stopped(reason))).collect();
        if !asked.is_empty() {
            answers.extend(claims.claim(&asked, self.ahead).await?);
        }
        if self.ahead == Ahead::Expected {
            let back: Vec<(i32, i64)> = answers
                .iter()
                .filter_map(|(partition, answer)| match answer {
                    ClaimAnswer::Granted(progress) => Some((*partition, progress.next_offset)),
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
    async fn commit(&self, positions: &[(i32, i64)]) -> Result<(), ClaimError> {
        if positions.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, offset) in positions {
            list.add_partition_offset(&self.consumer.topic, *partition, KafkaOffset::Offset(*offset))
                .map_err(ClaimError::NotOurs)?;
        }
        let client = std::sync::Arc::clone(&self.client);
        tokio::task::spawn_blocking(move || client.commit(&list, CommitMode::Sync)).await?.map_err(ClaimError::NotOurs)
    }

    /// Of the partitions that wait for a schema, those that still do: it is not known yet, and nobody moved
    /// the position away.
    async fn still_waiting(
        &self,
        waiting: &BTreeMap<i32, StopReason>,
        decoders: &Decoders,
    ) -> Result<BTreeMap<i32, StopReason>, ClaimError> {
        let unknown: BTreeMap<i32, (i64, &StopReason)> = waiting
            .iter()
            .filter_map(|(partition, reason)| match reason {
                StopReason::UnknownSchema { offset, schema } if !knows(decoders, *schema) => Some((*partition, (*offset, reason))),
                _ => None,
            })
            .collect();
        if unknown.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut connection = self.database.connect(Purpose::Reading).await?;
        let rows = position::all(&mut connection, &self.consumer).await?;
        Ok(unknown
            .into_iter()
            .filter(|(partition, (offset, _))| {
                rows.iter().any(|row| row.partition == *partition && row.next_offset == *offset)
            })
            .map(|(partition, (_, reason))| (partition, reason.clone()))
            .collect())
    }
}

fn knows(decoders: &Decoders, schema: millrace_schemas::UnknownSchema) -> bool {
    match schema {
        millrace_schemas::UnknownSchema::Fingerprint(fingerprint) => decoders.knows(fingerprint),
        millrace_schemas::UnknownSchema::ConfluentId(_) => false,
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
