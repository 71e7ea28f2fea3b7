//! A partition's way into the database: the batch that fills, the share cut off it, and what landing means.
//!
//! Guarantees to the owner: what is cut ascends by its place and goes with the position that it leads to; one
//! flush of a partition is in the air at most; and each task ends once in the books, also one whose parking is
//! in the air when it ends, or whose copy from the log is read again: such an end follows that landing.

use std::time::Instant;

use millrace_store::position::Fence;
use millrace_store::{Advance, Due, Ending, Origin, Outcome, ParkKind, Settling, Share};

use super::in_air::{Flown, InAir, Settled, Tracked, is_end, kind_of, spot_of};
use super::partition::Running;
use crate::engine::{Charge, LaneKey, Laned as _, LedgerError, Offset, Spot};
use crate::handlers::TypeIndex;
use crate::work::job::{Job, RECORD};

impl Running {
    /// Puts a record that ended at once into the batch.
    pub fn end_at_once(&mut self, record: Settling) {
        self.write(record, RECORD);
    }

    fn write(&mut self, record: Settling, task_type: TypeIndex) {
        let bytes = record.held_bytes();
        self.charged += Charge::event(bytes);
        self.unwritten += bytes;
        self.batch.push_back((record, task_type));
    }

    /// Bytes of records that wait for their flush, or are in the air.
    #[must_use]
    pub const fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Puts a task with its ending into the batch; it is held no longer as a task.
    pub fn settle(&mut self, lane: LaneKey, job: Job, ending: Ending) {
        let spot = job.spot();
        if job.parked == Some(ParkKind::Running) && self.tracked.contains_key(&spot) {
            // Its parking has not landed: in the batch it is replaced, in the air it is followed.
            let log_book = self.log_book;
            let mut batch = self.batch.iter_mut().map(|(record, _)| record);
            if let Some(waiting) = batch.find(|record| spot_of(record, log_book) == spot) {
                self.refunded += Charge::event(waiting.held_bytes());
                self.unwritten = self.unwritten.saturating_sub(waiting.held_bytes());
                let mut record = job.settling(ending);
                record.origin = waiting.origin;
                *waiting = record;
                self.charged += Charge::event(waiting.held_bytes());
                self.unwritten += waiting.held_bytes();
                let becomes = kind_of(&waiting.ending);
                let cancelled = matches!(waiting.ending, Ending::Cancelled);
                if let Some(tracked) = self.tracked.get_mut(&spot) {
                    tracked.becomes = becomes;
                    tracked.cancelled = cancelled.then_some(job.task.task_id);
                }
                if becomes.is_none() {
                    self.parked.unnote(&job.key_hash);
                }
                self.let_go(&job);
            } else {
                self.following.insert(spot, (lane, job, ending));
            }
            return;
        }
        if job.parked.is_some() && self.is_read_again(spot) {
            // The books would count what the copy from the log says, that it is parked, and never hear of its end.
            self.following.insert(spot, (lane, job, ending));
            return;
        }
        self.let_go(&job);
        self.enqueue(lane, &job, ending);
    }

    /// Parks a task that goes on running: its offset is settled, its lane stays as it is.
    pub fn park_running(&mut self, lane: LaneKey, spot: Spot) {
        let Some(job) = self.lanes.begun_mut(lane, spot) else {
            return;
        };
        if job.parked.is_some() {
            return;
        }
        let ending = job.parking(ParkKind::Running, Due::In(std::time::Duration::ZERO));
        let record = job.settling(ending);
        let tracked = Tracked {
            lane,
            key_hash: job.key_hash,
            dedup: job.dedup,
            was: None,
            becomes: Some(ParkKind::Running),
            repeats: false,
            cancelled: None,
        };
        job.parked = Some(ParkKind::Running);
        let (key_hash, task_type) = (job.key_hash, job.task.task_type);
        self.parked.note(&key_hash);
        self.tracked.insert(spot, tracked);
        self.write(record, task_type);
    }

    fn enqueue(&mut self, lane: LaneKey, job: &Job, ending: Ending) {
        let becomes = kind_of(&ending);
        if becomes.is_some() {
            self.parked.change(job.parked, becomes, &job.key_hash);
        } else if self.careful.alone() != Some(job.spot())
            && !matches!(ending, Ending::Known(Outcome::Parked))
        {
            // However it ended, it does not come up to be started any more. A parked one does, from its row.
            self.careful.gone(job.spot());
        }
        let repeats = matches!(ending, Ending::Repeat(_));
        let cancelled = matches!(ending, Ending::Cancelled).then_some(job.task.task_id);
        let is_heard =
            job.dedup.is_some() || cancelled.is_some() || self.careful.alone() == Some(job.spot());
        if becomes.is_some() || repeats || job.parked.is_some() || is_heard {
            let tracked = Tracked {
                lane,
                key_hash: job.key_hash,
                dedup: job.dedup,
                was: job.parked,
                becomes,
                repeats,
                cancelled,
            };
            self.tracked.insert(job.spot(), tracked);
        }
        let record = job.settling(ending);
        self.write(record, job.task.task_type);
    }

    /// Whether a flush is in the air.
    #[must_use]
    pub const fn is_flying(&self) -> bool {
        self.in_air.is_some()
    }

    /// Whether there is something to write: records, or a position that moved over gaps alone.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.in_air.is_none()
            && (!self.batch.is_empty()
                || (self.ledger.pending() == 0 && self.ledger.expected() > self.ledger.frontier()))
    }

    /// Whether nothing is on its way into the database.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.in_air.is_none() && self.batch.is_empty() && self.following.is_empty()
    }

    /// Cuts the next share off the batch, at most so many records and bytes, and notes it as in the air.
    ///
    /// # Errors
    /// When the ledger does not know what the batch holds.
    pub fn cut(&mut self, partition: i32, most: Charge) -> Result<Share, LedgerError> {
        let mut charge = Charge::NONE;
        let mut count = 0;
        for (record, _) in &self.batch {
            let one = Charge::event(record.held_bytes());
            if count > 0 && (charge + one).exceeds(most) {
                break;
            }
            charge += one;
            count += 1;
        }
        let log_book = self.log_book;
        let spot = |(record, _): &(Settling, TypeIndex)| spot_of(record, log_book);
        if !self.batch.range(..count).is_sorted_by_key(spot)
            && let Some(cut) = self.batch.make_contiguous().get_mut(..count)
        {
            cut.sort_unstable_by_key(spot);
        }
        let mut flown = Vec::with_capacity(count);
        let mut records = Vec::with_capacity(count);
        for (record, task_type) in self.batch.drain(..count) {
            flown.push(Flown::of(&record, task_type, log_book));
            records.push(record);
        }
        let offsets: Vec<Offset> = records
            .iter()
            .filter(|record| record.origin == Origin::Log)
            .map(|record| Offset(record.offset))
            .collect();
        let alone = self.careful.alone();
        let clears_suspect = records
            .iter()
            .filter(|record| Some(spot_of(record, log_book)) == alone)
            .any(|record| is_end(&record.ending));
        let plan = self.ledger.plan(&offsets)?;
        let first = offsets.first().map_or(i64::MAX, |offset| offset.0);
        self.in_air = Some(InAir {
            flown,
            next_offset: plan.next_offset,
            charge,
            gaps: plan.counted.gaps,
        });
        Ok(Share {
            partition,
            fence: self.fence,
            records,
            advance: Advance {
                next_offset: plan.next_offset.0,
                counted: plan.counted,
                leader_epoch: self.epoch.map(|epoch| epoch.0),
                frontier_ms: plan.timestamp_ms.filter(|time| *time >= 0),
                decode_window: self.window.to_stored(),
                clears_suspect,
            },
            may_repeat: first < self.high_offset,
        })
    }

    /// Takes in that the flush in the air is durable.
    ///
    /// # Errors
    /// When the answer does not fit what was sent.
    pub fn land(
        &mut self,
        fence: Fence,
        outcomes: &[Outcome],
        now: Instant,
    ) -> Result<Settled, LedgerError> {
        self.fence = fence;
        let mut settled = Settled {
            next_offset: self.ledger.frontier(),
            gaps: 0,
            counted: Vec::new(),
            heard: Vec::new(),
        };
        let Some(flown) = self.in_air.take() else {
            return Ok(settled);
        };
        let mut read_again = Vec::new();
        for (one, &outcome) in flown.flown.iter().zip(outcomes) {
            let (spot, from_log) = (one.spot, one.from_log);
            settled.count(one, outcome);
            if from_log {
                self.ledger.settle(Offset(spot.offset), outcome)?;
                let was_parked = self.following.get(&spot);
                // One that was parked while it runs here follows its own row instead.
                let was_parked = was_parked.is_some_and(|(_, job, _)| job.woken);
                if was_parked {
                    read_again.push(spot);
                }
            } else if spot.log_book == self.log_book {
                self.ledger.change(Offset(spot.offset), outcome);
            }
            if !self.tracked.is_empty()
                && let Some(tracked) = self.tracked.remove(&spot)
            {
                if self.asked_for_parked {
                    if !from_log {
                        self.ended_while_asking.insert(spot);
                    }
                    if outcome == Outcome::Parked {
                        self.parked_while_asking.insert(tracked.key_hash);
                    }
                }
                if outcome != Outcome::Parked {
                    let counted = tracked.becomes.or(tracked.was);
                    self.parked.change(counted, None, &tracked.key_hash);
                } else if tracked.repeats && tracked.was.is_none() {
                    self.parked.note(&tracked.key_hash);
                }
                settled.heard.push((spot, tracked, outcome));
            }
        }
        if flown.next_offset > self.ledger.frontier() {
            self.careful.frontier_moved();
            self.standstill.moved();
        }
        if flown.next_offset > self.ledger.frontier() || self.ledger.pending() == 0 {
            self.moved_at = now;
            self.frontier_at = now;
        }
        self.ledger.advance_to(flown.next_offset)?;
        self.high_offset = self.high_offset.max(flown.next_offset.0);
        self.metrics.position(flown.next_offset.0);
        self.refunded += flown.charge;
        self.unwritten = self.unwritten.saturating_sub(flown.charge.bytes);
        settled.next_offset = flown.next_offset;
        settled.gaps = flown.gaps;
        for spot in read_again {
            self.follow(spot, true);
        }
        Ok(settled)
    }

    /// A task whose parking has landed: its end, if it came meanwhile, follows now. One that turned out not to
    /// be parked but a repeat has ended with that.
    pub fn follow(&mut self, spot: Spot, parked: bool) {
        if let Some((lane, job, ending)) = self.following.remove(&spot) {
            self.let_go(&job);
            if parked {
                self.enqueue(lane, &job, ending);
            } else if kind_of(&ending).is_some() {
                // The lane expects to hear of it.
                self.lanes.landed(lane);
            }
        }
    }
}
