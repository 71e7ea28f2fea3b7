//! Tasks that run alone, since one of them may be killing its worker: noted in the database, then started.
//!
//! What may run, and when a task is set aside, is decided by [`Careful`](crate::engine::Careful); here its
//! decisions are carried out, for one task in the whole worker at a time.

use std::time::{Duration, Instant};

use millrace_store::{Purpose, Trouble, position};

use super::owner::Owner;
use super::starting::crashed;
use crate::engine::{AloneEnd, CAREFUL_STARTS, Laned as _, Spot};
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
        let Some((claim, spot)) = self.at_work(offer.partition).and_then(|running| {
            let spot = running.lanes.next(offer.lane)?.spot();
            (running.token == offer.token && running.careful.alone() == Some(spot))
                .then_some((running.fence.claim, spot))
        }) else {
            return;
        };
        self.floor.careful.current = Some(offer);
        let (work, back) = (self.claims.clone(), self.floor.news.clone());
        tokio::spawn(async move {
            let note = async {
                let mut connection = work.database.connect(Purpose::Operations).await?;
                let (consumer, partition) = (&work.consumer, offer.partition);
                let (log_book, offset) = (spot.log_book, spot.offset);
                position::note_suspect(
                    &mut connection,
                    consumer,
                    partition,
                    claim,
                    log_book,
                    offset,
                )
                .await
            };
            let starts = match tokio::time::timeout(DEADLINE, note).await {
                Ok(starts) => starts,
                Err(_) => Err(Trouble::Outage(format!(
                    "noting a task took over {DEADLINE:?}"
                ))),
            };
            // The owner is gone only at the very end.
            let _ = back.send(News::Noted(Noted { offer, starts }));
        });
    }

    /// The note is written: the task runs, or has been started often enough.
    pub(super) fn noted(&mut self, noted: Noted) {
        let offer = noted.offer;
        let is_current = self.floor.careful.current.is_some_and(|current| {
            (current.partition, current.token) == (offer.partition, offer.token)
        });
        let Some(spot) = self
            .at_work(offer.partition)
            .filter(|running| is_current && running.token == offer.token)
            .and_then(|running| running.careful.alone())
        else {
            self.floor.careful.ended(offer.partition);
            return;
        };
        let starts = match noted.starts {
            Ok(Some(starts)) => starts,
            Ok(None) => {
                self.alone_ended(offer.partition, spot, AloneEnd::NotStarted);
                return;
            }
            Err(trouble) => {
                tracing::warn!(error = %trouble, partition = offer.partition, "a task that runs alone could not be noted: trying again");
                self.not_started(offer, spot);
                return;
            }
        };
        if starts > CAREFUL_STARTS {
            tracing::error!(
                partition = offer.partition,
                offset = spot.offset,
                starts,
                "a task kills its worker: it is set aside"
            );
            self.end_unstarted(offer, crashed());
            return;
        }
        tracing::warn!(
            partition = offer.partition,
            offset = spot.offset,
            starts,
            "running a task alone: workers have died in this partition"
        );
        match self.begin(offer, Instant::now(), true) {
            Some(order) => self.floor.attempts.start(vec![order]),
            None => self.alone_ended(offer.partition, spot, AloneEnd::NotStarted),
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
        let left = running.careful.ended(spot, end);
        let (claim, careful) = (running.fence.claim, running.careful.is_careful());
        if left {
            tracing::info!(partition, "tasks of this partition run side by side again");
        }
        self.floor.careful.ended(partition);
        if end == AloneEnd::Durable || !careful {
            self.clear_suspect(partition, claim);
        }
    }

    /// Takes the note of a suspect away.
    pub(super) fn clear_suspect(&self, partition: i32, claim: uuid::Uuid) {
        let work = self.claims.clone();
        tokio::spawn(async move {
            let cleared = async {
                let mut connection = work.database.connect(Purpose::Operations).await?;
                position::clear_suspect(&mut connection, &work.consumer, partition, claim).await
            };
            if let Err(error) = cleared.await {
                tracing::debug!(%error, partition, "the note of a task that ran alone was not taken away");
            }
        });
    }

    /// Lanes that had to wait are looked at again.
    pub(super) fn offer_held(&mut self) {
        for (task_type, offer) in std::mem::take(&mut self.floor.held) {
            self.floor.attempts.offer(task_type, offer);
        }
    }
}
