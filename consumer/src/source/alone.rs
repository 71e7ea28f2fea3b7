//! Tasks that run alone, since one of them may be killing its worker: noted in the database, then started.
//!
//! What may run, and when a task is set aside, is decided by [`Careful`](crate::engine::Careful); here its
//! decisions are carried out, for one task in the whole worker at a time.

use std::time::{Duration, Instant};

use millrace_store::Trouble;
use millrace_store::position::{self, Suspect};

use super::owner::Owner;
use crate::engine::{AloneEnd, Laned as _, Spot};
use crate::work::attempts::Offer;
use crate::work::floor::News;
use crate::work::waking::Noted;

/// Longest that the note may take.
const DEADLINE: Duration = Duration::from_secs(10);

impl Owner {
    /// Notes the next task that runs alone, when nothing else runs.
    pub(super) fn start_careful(&mut self, now: Instant) {
        let nothing_runs = self.floor.attempts.is_empty();
        if !self.floor.careful.may_start(now, nothing_runs) {
            return;
        }
        let Some(offer) = self.floor.careful.queue.pop_front() else {
            return;
        };
        let Some((claim, suspect)) = self.permitted(offer) else {
            self.withdraw_permit(offer);
            return;
        };
        self.floor.careful.current = Some(offer);
        let (work, back) = (self.claims.clone(), self.floor.news.clone());
        let pool = self.floor.pool.clone();
        tokio::spawn(async move {
            let note = async {
                let mut connection = pool.acquire().await?;
                let (consumer, partition) = (&work.consumer, offer.partition);
                position::note_suspect(&mut connection, consumer, partition, claim, suspect).await
            };
            let ours = match tokio::time::timeout(DEADLINE, note).await {
                Ok(ours) => ours,
                Err(_) => Err(Trouble::Outage(format!(
                    "noting a task took over {DEADLINE:?}"
                ))),
            };
            // The owner is gone only at the very end.
            let _ = back.send(News::Noted(Noted { offer, ours }));
        });
    }

    /// The task that is to run alone, while it is still the first of its lane.
    fn permitted(&mut self, offer: Offer) -> Option<(uuid::Uuid, Suspect)> {
        let running = self.at_work(offer.partition)?;
        let spot = running.lanes.next(offer.lane)?.spot();
        let suspect = Suspect {
            log_book: spot.log_book,
            offset: spot.offset,
            starts: running.careful.starts(),
        };
        (running.token == offer.token && running.careful.alone() == Some(spot))
            .then_some((running.fence.claim, suspect))
    }

    /// The task that was to run alone has ended meanwhile, or an earlier one of its key has come before it.
    fn withdraw_permit(&mut self, offer: Offer) {
        let alone = self
            .at_work(offer.partition)
            .filter(|running| running.token == offer.token)
            .and_then(|running| running.careful.alone());
        if let Some(spot) = alone {
            self.alone_ended(offer.partition, spot, AloneEnd::NotStarted);
        }
        self.offer(offer.partition, offer.lane);
    }

    /// The note is written: the task runs, or has been started often enough.
    pub(super) fn noted(&mut self, noted: Noted) {
        let offer = noted.offer;
        let is_current = self.floor.careful.current.is_some_and(|current| {
            (current.partition, current.token) == (offer.partition, offer.token)
        });
        if !is_current {
            return;
        }
        let Some(spot) = self
            .at_work(offer.partition)
            .filter(|running| running.token == offer.token)
            .and_then(|running| running.careful.alone())
        else {
            self.floor.careful.ended(offer.partition);
            return;
        };
        match noted.ours {
            Ok(true) => {}
            Ok(false) => {
                self.alone_ended(offer.partition, spot, AloneEnd::NotStarted);
                return;
            }
            Err(trouble) => {
                tracing::warn!(error = %trouble, partition = offer.partition, "a task that runs alone could not be noted: trying again");
                self.not_started(offer, spot);
                return;
            }
        }
        let Some((_, suspect)) = self.permitted(offer) else {
            self.withdraw_permit(offer);
            return;
        };
        let (partition, offset, starts) = (offer.partition, spot.offset, suspect.starts);
        if starts > 1 {
            tracing::warn!(
                partition,
                offset,
                starts,
                "running a task alone: workers have died while it ran"
            );
        } else {
            tracing::debug!(partition, offset, "running a task alone");
        }
        match self.begin_alone(offer, Instant::now()) {
            Some(order) => self.floor.attempts.start(vec![order]),
            None => self.withdraw_permit(offer),
        }
    }

    fn not_started(&mut self, offer: Offer, spot: Spot) {
        self.alone_ended(offer.partition, spot, AloneEnd::NotStarted);
        if let Some(running) = self.at_work(offer.partition)
            && let Some(job) = running.lanes.next(offer.lane)
        {
            let task_type = job.task.task_type;
            self.floor.held.push((task_type, offer));
        }
    }

    /// A task that ran alone, or was set aside, has come so far.
    pub(super) fn alone_ended(&mut self, partition: i32, spot: Spot, end: AloneEnd) {
        let Some(running) = self.at_work(partition) else {
            return;
        };
        if running.careful.alone() != Some(spot) {
            return;
        }
        if running.careful.ended(spot, end) {
            tracing::info!(partition, "tasks of this partition run side by side again");
        }
        if end == AloneEnd::Durable {
            self.floor.careful.ended(partition);
            self.offer_held();
        } else {
            // While its note is there, whatever crashes the process speaks against it.
            self.clear_notes(Instant::now());
        }
    }

    /// Notes that do not hold any more are set back; nothing of their partitions starts before.
    pub(super) fn clear_notes(&mut self, now: Instant) {
        for (partition, running) in self.owned.running_mut() {
            let careful = &mut running.careful;
            if running.at_end && running.lanes.is_empty() && careful.nothing_pending(now) {
                tracing::info!(
                    partition,
                    "nothing is pending: tasks of this partition run side by side again"
                );
            }
            if !careful.to_clear() || running.is_clearing {
                continue;
            }
            running.is_clearing = true;
            let (token, claim) = (running.token, running.fence.claim);
            let left = running.suspect();
            let has_rested = running.careful.has_rested();
            let (work, back) = (self.claims.clone(), self.floor.news.clone());
            let pool = self.floor.pool.clone();
            tokio::spawn(async move {
                let cleared = async {
                    let mut connection = pool.acquire().await?;
                    let (open, consumer) = (&mut connection, &work.consumer);
                    match left {
                        Some(suspect) => {
                            position::note_suspect(open, consumer, partition, claim, suspect).await
                        }
                        None => {
                            position::clear_suspect(open, consumer, partition, claim, has_rested)
                                .await
                        }
                    }
                };
                let done = match tokio::time::timeout(DEADLINE, cleared).await {
                    Ok(Ok(_)) => true,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, partition, "the note of a task that ran alone was not taken away");
                        false
                    }
                    Err(_) => false,
                };
                // The owner is gone only at the very end.
                let _ = back.send(News::Cleared {
                    partition,
                    token,
                    done,
                });
            });
        }
    }

    /// A note was set back, or could not be.
    pub(super) fn cleared(&mut self, partition: i32, token: i64, done: bool) {
        if let Some(running) = self.at_work(partition).filter(|r| r.token == token) {
            running.is_clearing = false;
            if done {
                running.careful.cleared();
                self.floor.careful.ended(partition);
                self.offer_held();
            }
        }
    }

    /// Lanes that had to wait are looked at again.
    pub(super) fn offer_held(&mut self) {
        for (task_type, offer) in std::mem::take(&mut self.floor.held) {
            self.floor.attempts.offer(task_type, offer);
        }
    }
}
