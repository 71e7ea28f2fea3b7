//! Starting tasks: a lane's first task is checked once more and handed to the executor.
//!
//! The last look before a task runs: is it cancelled, is its deadline past, is its type or tenant paused, may
//! it be killing its worker. Only then an attempt begins.

use std::time::{Duration, Instant};

use millrace_store::{DeadLetter, Due, Ending, ParkKind, Reason};

use super::owner::Owner;
use super::partition::Running;
use crate::engine::{CAREFUL_STARTS, LaneKey, Laned as _, Mode, Permit, Spot};
use crate::handlers::Start;
use crate::work::attempts::Offer;
use crate::work::floor::Objection;
use crate::work::job::RECORD;

/// How long a paused task of a type that is never parked waits until it is looked at again.
const PAUSED_AGAIN: Duration = Duration::from_secs(1);
/// What the last look says.
enum Look {
    /// It starts beside others.
    Starts(Start),
    /// It may start once nothing else runs.
    Alone,
    /// Not yet: another one of its partition has to end first.
    Later,
    /// It ends without being started.
    End(Ending),
    /// Its type or tenant is paused.
    PutOff,
    /// The lane has nothing to start any more.
    Gone,
}

impl Owner {
    /// Queues a lane whose first task may start. A task of the stock handler ends at once.
    pub(super) fn offer(&mut self, partition: i32, lane: LaneKey) {
        while let Some(running) = self.owned.at_work(partition) {
            let token = running.token;
            let Some(job) = running.lanes.next(lane) else {
                return;
            };
            let offer = Offer {
                partition,
                token,
                lane,
            };
            if job.task.task_type != RECORD {
                let task_type = job.task.task_type;
                self.floor.attempts.offer(task_type, offer);
                return;
            }
            let spot = job.spot();
            let ending = match self.floor.objection(&self.decoders, job) {
                None => Ending::Payload,
                Some(Objection::End(ending)) => ending,
                Some(Objection::Paused) => {
                    self.put_off(offer);
                    return;
                }
            };
            let Some((mut job, next)) = running.lanes.remove(lane, spot) else {
                return;
            };
            job.attempts += u16::from(matches!(ending, Ending::Payload));
            running.settle(lane, job, ending);
            if !next {
                self.lane_moved(partition, lane, false);
                return;
            }
        }
    }

    /// Starts what may start.
    pub(super) fn start_ready(&mut self) {
        if self.is_stopping() {
            return;
        }
        let now = Instant::now();
        self.ask_what_waited();
        // What ends leaves a result behind, however small its event was: more may not pile up than is held of events.
        let unwritten: u64 = self.owned.running().map(|(_, r)| r.unwritten()).sum();
        if unwritten >= self.settings.budget.bytes {
            return;
        }
        // One that ran alone has just ended: the others have their turn first.
        if !std::mem::take(&mut self.floor.careful.others_first) {
            self.start_careful(now);
            if self.floor.careful.waits_for_silence() {
                return;
            }
        }
        let mut orders = Vec::new();
        let policies = self.floor.policies.clone();
        while let Some((task_type, offer)) = self
            .floor
            .attempts
            .next(|task_type| policies.get(task_type).max_in_flight)
        {
            match self.last_look(offer, now) {
                Look::Starts(order) => orders.push(order),
                Look::Alone => self.floor.careful.queue.push_back(offer),
                Look::Later => self.floor.held.push((task_type, offer)),
                Look::End(ending) => self.end_unstarted(offer, ending),
                Look::PutOff => self.put_off(offer),
                Look::Gone => {}
            }
        }
        if orders.is_empty() {
            // Nobody else wants to start: no need to wait for the next round.
            self.start_careful(now);
        }
        self.floor.attempts.start(orders);
    }

    /// Looks up tasks that waited for others with their deduplication key.
    fn ask_what_waited(&mut self) {
        let mut to_ask = Vec::new();
        for (partition, running) in self.owned.running_mut() {
            to_ask.extend(
                running
                    .to_ask
                    .drain(..)
                    .map(|(lane, spot)| (partition, lane, spot)),
            );
        }
        for (partition, lane, spot) in to_ask {
            self.ask_again(partition, lane, spot);
        }
    }

    /// What is to be done with a lane's first task now that its turn has come. One that may start has begun with
    /// this answer.
    fn last_look(&mut self, offer: Offer, now: Instant) -> Look {
        let Some(running) = self
            .owned
            .at_work(offer.partition)
            .filter(|r| r.token == offer.token)
        else {
            return Look::Gone;
        };
        let Some(first) = running.lanes.first(offer.lane) else {
            return Look::Gone;
        };
        let job = first.task();
        match self.floor.objection(&self.decoders, job) {
            None => {}
            Some(Objection::End(ending)) => return Look::End(ending),
            Some(Objection::Paused) => return Look::PutOff,
        }
        let permit = running
            .careful
            .may_start(job.spot(), job.wakes, self.floor.now);
        match permit {
            Permit::Freely => Look::Starts(self.floor.order(offer, first.start(), now, false)),
            Permit::Alone => Look::Alone,
            Permit::NotYet => Look::Later,
            Permit::SetAside => Look::End(crashed()),
        }
    }

    /// Makes the order for an attempt that runs alone, at a lane's first task.
    pub(super) fn begin_alone(&mut self, offer: Offer, now: Instant) -> Option<Start> {
        let running = self
            .owned
            .at_work(offer.partition)
            .filter(|r| r.token == offer.token)?;
        let first = running.lanes.first(offer.lane)?;
        Some(self.floor.order(offer, first.start(), now, true))
    }

    /// Ends a lane's first task, which was not started.
    pub(super) fn end_unstarted(&mut self, offer: Offer, ending: Ending) {
        let Some(running) = self.at_work(offer.partition) else {
            return;
        };
        let Some(spot) = running.lanes.next(offer.lane).map(|job| job.spot()) else {
            return;
        };
        self.end_in_lane(offer.partition, offer.lane, spot, ending);
    }

    /// Ends a task wherever it stands in its lane.
    pub(super) fn end_in_lane(
        &mut self,
        partition: i32,
        lane: LaneKey,
        spot: Spot,
        ending: Ending,
    ) {
        let Some(running) = self.at_work(partition) else {
            return;
        };
        let Some((job, next)) = running.lanes.remove(lane, spot) else {
            return;
        };
        let task_id = job.task.task_id;
        running.settle(lane, job, ending);
        self.floor.reports.remove(task_id);
        self.lane_moved(partition, lane, next);
    }

    /// A lane has lost its first task: the next may start, or the rest of the key is in the database.
    pub(super) fn lane_moved(&mut self, partition: i32, lane: LaneKey, next: bool) {
        let heir = self
            .at_work(partition)
            .and_then(|running| running.lanes.to_ask(lane));
        if let Some(spot) = heir {
            // The one that was to tell whether some of the key wait in the database has left before its answer.
            self.ask_again(partition, lane, spot);
        }
        if next {
            self.offer(partition, lane);
        } else if let LaneKey::Key(hash) = lane
            && let Some(running) = self.at_work(partition)
            && running.parked.keys.may_contain(&hash)
            && !running.lanes.has(lane)
        {
            self.floor.waking.soon();
        }
    }

    /// A task that is not to be started now waits in the database, with all of its key; where its type is never
    /// parked, it waits here.
    fn put_off(&mut self, offer: Offer) {
        let at = Instant::now() + PAUSED_AGAIN;
        let policies = self.floor.policies.clone();
        let Some(running) = self.at_work(offer.partition) else {
            return;
        };
        let Some(job) = running.lanes.next(offer.lane) else {
            return;
        };
        if policies.get(job.task.task_type).mode == Mode::Partition {
            let spot = job.spot();
            running.lanes.start(offer.lane);
            running.lanes.wait(offer.lane, spot);
            self.floor.wait_until(at, offer, spot);
        } else {
            park_lane(
                running,
                offer.lane,
                ParkKind::Retry,
                Due::In(Duration::ZERO),
            );
        }
    }

    /// The state of a partition of ours that may start tasks.
    pub(super) fn at_work(&mut self, partition: i32) -> Option<&mut Running> {
        self.owned.at_work(partition)
    }
}

/// A lane's first task has to wait in the database: it goes there, and those behind it.
pub(super) fn park_lane(running: &mut Running, lane: LaneKey, kind: ParkKind, due: Due) {
    let mut jobs = running.lanes.park(lane).into_iter();
    if let Some(first) = jobs.next() {
        let ending = first.parking(kind, due);
        running.settle(lane, first, ending);
    }
    running.give_away(lane, jobs.collect());
}

/// The ending of a task that was started alone as often as it may be and never ended.
pub(super) fn crashed() -> Ending {
    let error = format!(
        "the worker died {CAREFUL_STARTS} times while this task ran alone: it is set aside"
    );
    Ending::Dead(Box::new(DeadLetter::about_event(
        Reason::CrashedWorker,
        error,
    )))
}
