//! Partitions coming and going: assigned, revoked, lost.
//!
//! An assignment is answered at once with nothing, so a slow claim never holds up the group: each
//! partition is handed to the fetcher when its claim is granted. On the way out only the flush in the air
//! is waited for, within a short deadline, because librdkafka holds every partition still meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use millrace_store::Purpose;
use millrace_store::position::{self, Fence, Suspect};
use millrace_telemetry::RebalanceEvent;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::TopicPartitionList;
use uuid::Uuid;

use super::claims::{Ahead, Claims};
use super::context::GroupEvent;
use super::owner::Owner;
use super::partition::Running;
use super::standing::Standing;
use crate::engine::Partition;
use crate::handlers::CancelReason;

/// How long a revoke may wait for the flush in the air: short, since librdkafka holds every partition of
/// this worker still meanwhile.
const LEAVE_DEADLINE: Duration = Duration::from_secs(4);
/// How long giving a claim back may take on the way out.
const RELEASE_DEADLINE: Duration = Duration::from_secs(3);

/// How long tasks that run may take on the way out before they are asked to stop.
const RUN_ON: Duration = Duration::from_millis(1_500);

/// Partitions on their way out, of which something runs or is not written yet.
pub struct Leaving {
    /// By number.
    pub(super) rest: BTreeMap<i32, Box<Running>>,
    written: Vec<(i32, Fence, Option<Suspect>)>,
    fetched: Vec<i32>,
    asks_at: Instant,
    deadline: Instant,
}

impl Owner {
    /// Takes in what the client told.
    pub(super) fn group_event(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Assigned(partitions) => self.assigned(&partitions),
            GroupEvent::Revoked { partitions, lost } => self.revoked(partitions, lost),
            GroupEvent::Failed(code) => {
                tracing::warn!(
                    ?code,
                    "the group failed: everything is dropped and joined again"
                );
                let all: Vec<i32> = self.owned.partitions.keys().copied().collect();
                self.drop_all(&all);
            }
            GroupEvent::Statistics(found) => {
                self.owned.brokers_answer = found.a_broker_is_up;
                self.owned.group_is_steady = found.group_is_steady;
                self.note_statistics(&found.partitions);
            }
            GroupEvent::LogChanged => self.log_changed(),
        }
    }

    /// Nothing of the new log is taken: every partition is claimed again, and the claim looks at the log.
    fn log_changed(&mut self) {
        tracing::warn!(
            "the topic was made again: looking at the log before anything of it is taken"
        );
        self.log_changes = self.client.context().log_changes();
        let read: Vec<(i32, Ahead)> = self
            .owned
            .partitions
            .iter()
            .filter_map(|(partition, standing)| match standing {
                Standing::Running(_) => Some((*partition, Ahead::Refused)),
                Standing::Claiming { ahead, .. } => Some((*partition, *ahead)),
                Standing::Stopped { .. } | Standing::Halting { .. } => None,
            })
            .collect();
        for (partition, ahead) in read {
            self.claim_again(partition, ahead, None);
        }
    }

    fn assigned(&mut self, partitions: &[i32]) {
        self.gauges.consumer.rebalance(RebalanceEvent::Assigned);
        tracing::info!(?partitions, "assigned");
        // The group goes on only after a revocation was answered: what is left of one must not take away
        // what is taken up from now on. A partition of ours that is given to us again was lost unnoticed.
        self.finish_leaving();
        self.unfetch(partitions);
        if let Err(error) = self.client.incremental_assign(&TopicPartitionList::new()) {
            tracing::warn!(%error, "answering the assignment");
        }
        self.owned.assigned = true;
        for &partition in partitions {
            self.budget.forget(Partition(partition));
            self.owned.partitions.insert(
                partition,
                Standing::Claiming {
                    due: Some(Instant::now()),
                    ahead: Ahead::Refused,
                    confirm: None,
                    failures: 0,
                    vouched: None,
                },
            );
        }
        self.share_budget();
        self.ask_due_claims(Instant::now());
    }

    pub(super) fn share_budget(&mut self) {
        self.budget.share_among(self.owned.partitions.len());
        self.gauges
            .consumer
            .partitions_owned(self.owned.running().count());
    }

    fn revoked(&mut self, partitions: Vec<i32>, lost: bool) {
        self.gauges.consumer.rebalance(if lost {
            RebalanceEvent::Lost
        } else {
            RebalanceEvent::Revoked
        });
        self.finish_leaving();
        if lost {
            tracing::warn!(
                ?partitions,
                "lost: another worker has them already, everything is dropped"
            );
            self.drop_all(&partitions);
            self.answer_revoke(&partitions);
            return;
        }
        tracing::info!(?partitions, "revoked: finishing what is in the air");
        let now = Instant::now();
        let mut leaving = Leaving {
            rest: BTreeMap::new(),
            written: Vec::new(),
            fetched: Vec::new(),
            asks_at: now + RUN_ON,
            deadline: now + LEAVE_DEADLINE,
        };
        for partition in partitions {
            self.attempts.remove(&partition);
            self.budget.forget(Partition(partition));
            let standing = self.owned.partitions.remove(&partition);
            if standing.as_ref().is_some_and(Standing::is_fetched) {
                leaving.fetched.push(partition);
            }
            if let Some(Standing::Running(mut running) | Standing::Halting { mut running, .. }) =
                standing
            {
                running.begin_leaving();
                leaving.rest.insert(partition, running);
            }
        }
        self.leaving = Some(leaving);
        self.finish_leaving_when_written();
        self.share_budget();
    }

    /// Drops partitions whole; they are another's, and the group is joined again.
    fn drop_all(&mut self, partitions: &[i32]) {
        self.owned.assigned = false;
        for partition in partitions {
            self.attempts.remove(partition);
            self.owned.partitions.remove(partition);
            self.budget.forget(Partition(*partition));
        }
        self.stop_strays(CancelReason::PartitionLost);
        self.share_budget();
    }

    /// Attempts whose partition is not ours any more under their claim are asked to stop: their outcome would
    /// not be written.
    pub(super) fn stop_strays(&mut self, why: CancelReason) {
        let ours: BTreeSet<(i32, i64)> = self
            .owned
            .running()
            .map(|(partition, running)| (partition, running.token))
            .chain(self.leaving.iter().flat_map(|leaving| {
                let rest = leaving.rest.iter();
                rest.map(|(partition, running)| (*partition, running.token))
            }))
            .collect();
        self.floor
            .careful
            .forget(|offer| !ours.contains(&(offer.partition, offer.token)));
        self.stop_attempts(why, |attempt| {
            !ours.contains(&(attempt.offer.partition, attempt.offer.token))
        });
    }

    fn answer_revoke(&self, fetched: &[i32]) {
        let assigned: BTreeSet<i32> = match self.client.assignment() {
            Ok(list) => list.elements().iter().map(|one| one.partition()).collect(),
            Err(_) => BTreeSet::new(),
        };
        let ours: Vec<i32> = fetched
            .iter()
            .copied()
            .filter(|partition| assigned.contains(partition))
            .collect();
        if let Err(error) = self.client.incremental_unassign(&self.list(&ours)) {
            tracing::warn!(%error, "answering the revocation");
        }
    }

    /// Takes partitions from the fetcher, if it has them.
    pub(super) fn unfetch(&self, partitions: &[i32]) {
        let fetched: Vec<i32> = partitions
            .iter()
            .copied()
            .filter(|partition| {
                self.owned
                    .partitions
                    .get(partition)
                    .is_some_and(Standing::is_fetched)
            })
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
            leaving.rest.remove(&partition);
        }
        self.stop_strays(CancelReason::PartitionLost);
    }

    /// Answers the revocation as soon as nothing runs and everything is written.
    pub(super) fn finish_leaving_when_written(&mut self) {
        let attempts = &self.floor.attempts;
        if let Some(leaving) = &mut self.leaving {
            let (done, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut leaving.rest)
                .into_iter()
                .partition(|(partition, running)| {
                    running.is_written() && !attempts.any_of(*partition, running.token)
                });
            leaving.written.extend(
                done.into_iter()
                    .map(|(partition, running)| (partition, running.fence, running.suspect())),
            );
            leaving.rest = rest;
            if leaving.rest.is_empty() {
                self.finish_leaving();
            }
        }
    }

    /// Asks what still runs to stop, and then answers the revocation late rather than never: the fence makes a
    /// late flush harmless.
    pub(super) fn give_up_leaving(&mut self, at: Instant) {
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        if at >= leaving.deadline {
            tracing::warn!(
                "something still runs or is still in the air: the partitions are given up without waiting for it"
            );
            self.finish_leaving();
        } else if at >= leaving.asks_at {
            let going: BTreeSet<(i32, i64)> = leaving
                .rest
                .iter()
                .map(|(partition, running)| (*partition, running.token))
                .collect();
            self.stop_attempts(CancelReason::PartitionLost, |attempt| {
                going.contains(&(attempt.offer.partition, attempt.offer.token))
            });
        }
    }

    fn finish_leaving(&mut self) {
        let Some(leaving) = self.leaving.take() else {
            return;
        };
        self.answer_revoke(&leaving.fetched);
        self.stop_strays(CancelReason::PartitionLost);
        // What runs alone goes on in this process, which lives: the claim's end must not speak against it.
        let noted = leaving.rest.iter().filter_map(|(partition, running)| {
            running.careful.alone()?;
            Some((*partition, running.fence.claim, running.suspect()))
        });
        let noted: Vec<_> = noted.collect();
        let (claims, written) = (self.claims.clone(), leaving.written);
        tokio::spawn(async move {
            set_notes_back(&claims, noted).await;
            release(&claims, written).await;
        });
    }

    /// The state under a claim, owned or on its way out.
    pub(super) fn find(&mut self, partition: i32, claim: Uuid) -> Option<&mut Running> {
        let owned = self
            .owned
            .partitions
            .get_mut(&partition)
            .and_then(Standing::running_mut);
        let leaving = self
            .leaving
            .as_mut()
            .and_then(|leaving| leaving.rest.get_mut(&partition))
            .map(Box::as_mut);
        [owned, leaving]
            .into_iter()
            .flatten()
            .find(|running| running.fence.claim == claim)
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
    pub(super) async fn release(&self, held: Vec<(i32, Fence, Option<Suspect>)>) {
        release(&self.claims, held).await;
    }
}

/// Sets the notes of tasks that run alone back to what they said before; where the partition is another's by now,
/// nothing is written.
async fn set_notes_back(claims: &Claims, noted: Vec<(i32, Uuid, Option<Suspect>)>) {
    if noted.is_empty() {
        return;
    }
    let all = async {
        let (mut connection, consumer) = (
            claims.database.connect(Purpose::Operations).await?,
            &claims.consumer,
        );
        for (partition, claim, suspect) in noted {
            let open = &mut connection;
            match suspect {
                Some(one) => position::note_suspect(open, consumer, partition, claim, one).await?,
                None => position::clear_suspect(open, consumer, partition, claim, false).await?,
            };
        }
        Ok::<(), millrace_store::Trouble>(())
    };
    if !matches!(
        tokio::time::timeout(RELEASE_DEADLINE, all).await,
        Ok(Ok(()))
    ) {
        tracing::debug!("the note of a task that ran alone was not set back");
    }
}

async fn release(claims: &Claims, held: Vec<(i32, Fence, Option<Suspect>)>) {
    let all = async {
        let mut connection = claims.database.connect(Purpose::Operations).await?;
        for (partition, fence, suspect) in held {
            let consumer = &claims.consumer;
            position::release(&mut connection, consumer, partition, fence, suspect).await?;
        }
        Ok::<(), millrace_store::Trouble>(())
    };
    match tokio::time::timeout(RELEASE_DEADLINE, all).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(%error, "claims were not given back: the next owner takes them")
        }
        Err(_) => tracing::debug!("claims were not given back in time: the next owner takes them"),
    }
}
