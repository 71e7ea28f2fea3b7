//! Attempts that ended: what becomes of the task, by its policy.
//!
//! Success and permanent failure end it. Anything else is tried again, after a wait in memory when it is short
//! and in the database when it is long, until the policy says that it is enough. What ended because this worker
//! lost the partition or shuts down is no failure: the task is left to whoever comes next.

use std::time::{Duration, Instant};

use millrace_store::progress::{State, TaskProgress};
use millrace_store::{DeadLetter, Due, Ending, ParkKind, Reason};

use super::owner::Owner;
use super::partition::Running;
use super::standing::Standing;
use super::starting::park_lane;
use crate::engine::{AloneEnd, Laned as _, Mode, Policy, Verdict, Why};
use crate::handlers::{AttemptEnd, CancelReason, Finished};
use crate::work::attempts::Attempt;
use crate::work::job::Job;
use crate::work::reports::Reported;

/// Most retries that wait in memory; beyond it even short waits go into the database.
const MOST_WAITING: usize = 10_000;
/// A shorter wait is over before anybody has read of it.
const REPORTED_WAIT: Duration = Duration::from_secs(1);
/// A frontier that is this many records behind parks what blocks it.
const WIDE_SPAN: u64 = 100_000;

/// How an attempt failed.
struct Failure {
    error: String,
    /// No other attempt will succeed.
    is_permanent: bool,
    /// The delay that the handler asked for.
    after: Option<Duration>,
}

impl Failure {
    const fn new(error: String, is_permanent: bool, after: Option<Duration>) -> Self {
        Self {
            error,
            is_permanent,
            after,
        }
    }
}

/// What becomes of a task after a failed attempt.
enum After {
    End(Ending),
    Again(Duration),
    /// It is left as it is, for whoever has the partition next.
    Leave,
}

impl Owner {
    /// Takes in a batch of ended attempts.
    pub(super) fn finished(&mut self, batch: Vec<Finished>) {
        for finished in batch {
            if let Some(attempt) = self.floor.attempts.end(finished.ticket) {
                self.attempt_ended(&attempt, finished.end, finished.took);
            }
        }
    }

    fn attempt_ended(&mut self, attempt: &Attempt, end: AttemptEnd, took: Duration) {
        let (partition, lane, spot) = (attempt.offer.partition, attempt.offer.lane, attempt.spot);
        let outcome = end.outcome(attempt.asked.map(|(why, _)| why));
        self.floor.note_attempt(attempt.task_type, outcome, took);
        let policies = self.floor.policies.clone();
        let policy = policies.get(attempt.task_type);
        let stopping = self.is_stopping();
        let chance = self.floor.chance();
        let Some(running) = self.token_mut(partition, attempt.offer.token) else {
            return;
        };
        if attempt.is_void {
            self.leave_lane(partition, attempt.offer.token, lane, spot);
            return;
        }
        let failure = match end {
            AttemptEnd::Success(output) => {
                let Some((mut job, next)) = running.lanes.finish(lane, spot) else {
                    return;
                };
                let task_id = job.task.task_id;
                job.attempts += 1;
                running.settle(lane, job, Ending::Output(Box::new(output)));
                self.floor.reports.remove(task_id);
                self.lane_moved(partition, lane, next);
                return;
            }
            AttemptEnd::Permanent { error } => Failure::new(error, true, None),
            AttemptEnd::Retry { error, after } => Failure::new(error, false, after),
            AttemptEnd::Panicked { error } => Failure::new(error, false, None),
        };
        let leaving = running.is_leaving || stopping;
        let Some(job) = running.lanes.begun_mut(lane, spot) else {
            return;
        };
        let task_id = job.task.task_id;
        job.age += took;
        let after = decide(job, policy, attempt, failure, chance);
        // Also one that was not shown itself: the wait before it may have been.
        self.floor.reports.remove(task_id);
        match after {
            After::End(ending) => {
                let Some(running) = self.token_mut(partition, attempt.offer.token) else {
                    return;
                };
                let Some((job, next)) = running.lanes.remove(lane, spot) else {
                    return;
                };
                running.settle(lane, job, ending);
                self.lane_moved(partition, lane, next);
            }
            After::Again(wait) => self.try_again(attempt, policy, wait, leaving),
            After::Leave => {
                self.alone_ended(partition, spot, AloneEnd::NotStarted);
                let Some(running) = self.token_mut(partition, attempt.offer.token) else {
                    return;
                };
                if let Some((job, _)) = running.lanes.remove(lane, spot) {
                    running.let_go(&job);
                }
            }
        }
    }

    /// Lets a failed task wait: in memory, or in the database.
    fn try_again(&mut self, attempt: &Attempt, policy: &Policy, wait: Duration, leaving: bool) {
        let (offer, lane, spot) = (attempt.offer, attempt.offer.lane, attempt.spot);
        let crowded = self.floor.waiting_retries() >= MOST_WAITING;
        let in_memory =
            policy.mode == Mode::Partition || (wait <= policy.park_after && !crowded && !leaving);
        let Some(running) = self.token_mut(offer.partition, offer.token) else {
            return;
        };
        let Some(job) = running.lanes.begun_mut(lane, spot) else {
            return;
        };
        job.age += wait;
        if in_memory {
            let report = (wait >= REPORTED_WAIT).then(|| Reported::of(job, State::Retrying));
            running.lanes.wait(lane, spot);
            let claim = running.fence.claim;
            self.alone_ended(offer.partition, spot, AloneEnd::Waits);
            self.floor.wait_until(Instant::now() + wait, offer, spot);
            if let Some(report) = report {
                self.floor.reports.tell(TaskProgress {
                    next_attempt_in: Some(wait),
                    ..report.under(claim)
                });
            }
        } else {
            park_lane(running, lane, ParkKind::Retry, Due::In(wait));
        }
    }

    /// Retries whose wait is over may start.
    pub(super) fn wake_retries(&mut self, now: Instant) {
        while let Some((offer, spot)) = self.floor.due_retry(now) {
            let Some(running) = self.token_mut(offer.partition, offer.token) else {
                continue;
            };
            if running.lanes.due(offer.lane, spot) {
                self.offer(offer.partition, offer.lane);
            }
        }
    }

    /// Looks after what runs: timeouts, deadlines, grace, and tasks that run long. Once a tick.
    pub(super) fn mind_attempts(&mut self, now: Instant) {
        let wall = self.floor.wall_micros;
        let policies = self.floor.policies.clone();
        let mut long = Vec::new();
        let mut given_up = Vec::new();
        for (ticket, attempt) in self.floor.attempts.iter_mut() {
            let why = if attempt
                .deadline_micros
                .is_some_and(|deadline| deadline <= wall)
            {
                Some(CancelReason::Deadline)
            } else if attempt.has_run_for(attempt.timeout, now) {
                Some(CancelReason::Timeout)
            } else {
                None
            };
            match (attempt.asked, why) {
                (None, Some(why)) => ask_to_stop(attempt, why, now),
                (Some((_, since)), _) => {
                    let grace = policies.get(attempt.task_type).grace;
                    if now.saturating_duration_since(since) >= grace {
                        given_up.push(ticket);
                    }
                }
                (None, None) => {}
            }
            if attempt.has_run_for(attempt.long_after, now) {
                attempt.long_after = None;
                long.push((attempt.offer, attempt.spot));
            }
        }
        for (offer, spot) in long {
            if let Some(running) = self.token_mut(offer.partition, offer.token) {
                running.park_running(offer.lane, spot);
            }
        }
        for ticket in given_up {
            self.give_up(ticket, now);
        }
        self.unblock_frontiers();
    }

    /// An attempt that was asked to stop and did not: nothing more is heard of it.
    fn give_up(&mut self, ticket: u64, now: Instant) {
        let Some(attempt) = self.floor.attempts.end(ticket) else {
            return;
        };
        attempt.signal.abandon();
        let took = now.saturating_duration_since(attempt.started);
        let why = attempt
            .asked
            .map_or("it was given up", |(why, _)| why.as_str());
        let error = format!("given up after {took:.1?}: {why}, and it did not stop by itself");
        let end = AttemptEnd::Retry { error, after: None };
        self.attempt_ended(&attempt, end, took);
    }

    /// Asks attempts to stop.
    pub(super) fn stop_attempts(&mut self, why: CancelReason, of: impl Fn(&Attempt) -> bool) {
        let now = Instant::now();
        for (_, attempt) in self.floor.attempts.iter_mut() {
            if attempt.asked.is_none() && of(attempt) {
                ask_to_stop(attempt, why, now);
            }
        }
    }

    /// Where the frontier is far behind, what blocks it is parked: a task that runs goes on running, one that
    /// waits for another attempt waits in the database.
    fn unblock_frontiers(&mut self) {
        let policies = self.floor.policies.clone();
        for (_, running) in self.owned.running_mut() {
            if running.ledger.span() < WIDE_SPAN {
                continue;
            }
            let Some(oldest) = running.ledger.oldest_pending() else {
                continue;
            };
            let spot = running.spot(oldest.offset);
            let found = running
                .lanes
                .iter_mut()
                .find(|(.., job)| job.spot() == spot)
                .map(|(lane, begun, job)| (lane, begun, job.task.task_type));
            if let Some((lane, true, task_type)) = found
                && policies.get(task_type).mode != Mode::Partition
            {
                running.park_running(lane, spot);
            }
        }
    }

    /// The state of a partition under one of its claims, ours or on its way out.
    pub(super) fn token_mut(&mut self, partition: i32, token: i64) -> Option<&mut Running> {
        let owned = self
            .owned
            .partitions
            .get_mut(&partition)
            .and_then(Standing::running_mut)
            .filter(|running| running.token == token);
        if owned.is_some() {
            return owned;
        }
        self.leaving
            .as_mut()?
            .rest
            .get_mut(&partition)
            .map(Box::as_mut)
            .filter(|running| running.token == token)
    }
}

fn ask_to_stop(attempt: &mut Attempt, why: CancelReason, now: Instant) {
    attempt.signal.cancel(why);
    attempt.asked = Some((why, now));
}

/// What becomes of a task whose attempt has ended.
fn decide(
    job: &mut Job,
    policy: &Policy,
    attempt: &Attempt,
    failure: Failure,
    chance: f64,
) -> After {
    let asked = attempt.asked.map(|(why, _)| why);
    // One that was asked to stop before its handler was called is no attempt.
    let counts = u16::from(attempt.signal.began().is_some());
    let Failure {
        error,
        is_permanent,
        after,
    } = failure;
    if is_permanent && asked.is_none() {
        job.attempts += 1;
        return After::End(dead(Reason::Permanent, error));
    }
    match asked {
        Some(CancelReason::Requested) => {
            job.attempts += counts;
            return After::End(Ending::Cancelled);
        }
        Some(CancelReason::Deadline) => {
            job.attempts += counts;
            return After::End(Ending::Expired);
        }
        Some(CancelReason::PartitionLost | CancelReason::Shutdown) => return After::Leave,
        Some(CancelReason::Timeout) | None => {}
    }
    job.attempts += 1;
    match policy.after_failure(job.attempts, job.age, after, chance) {
        Verdict::Wait(wait) => {
            job.error = Some(error);
            After::Again(wait)
        }
        Verdict::Exhausted(why) => {
            let limit = match why {
                Why::Attempts => format!("after {} attempts", job.attempts),
                Why::Age => format!("after {:.0?} of work and waits", job.age),
            };
            After::End(dead(Reason::AttemptsExhausted, format!("{limit}: {error}")))
        }
    }
}

fn dead(reason: Reason, error: String) -> Ending {
    Ending::Dead(Box::new(DeadLetter::about_event(reason, error)))
}
