//! One partition while it runs: its ledger, its lanes, the batch that fills, and the flush that is in the air.
//!
//! Lives from a granted claim to the next loss of it, and is dropped whole: nothing of it outlives its
//! claim. At most one flush of a partition is in the air, so `seq` is always known. What is held in memory is
//! counted here and taken over into the worker's budget by [`Running::take_charges`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use millrace_store::parked::HeldPartition;
use millrace_store::position::{Fence, Progress, Suspect};
use millrace_store::{Advance, Due, Ending, Origin, Outcome, ParkKind, Settling, Share};
use millrace_telemetry::PartitionMetrics;
use uuid::Uuid;

use super::in_air::{Flown, InAir, Settled, Tracked, kind_of, spot_of};
use super::parked_here::ParkedHere;
use crate::engine::{
    Careful, Charge, DecodeWindow, LaneKey, Laned as _, Lanes, LeaderEpoch, Ledger, LedgerError,
    Offset, Spot,
};
use crate::handlers::TypeIndex;
use crate::work::job::{Job, RECORD};
use crate::work::keyed::Keyed;

/// Most records of one partition that may lie beyond its frontier.
const SPAN_CAP: u64 = 1_000_000;

/// A partition that is ours and is read.
#[derive(Debug)]
pub struct Running {
    /// The claim and the seq that the next flush expects.
    pub fence: Fence,
    /// The seq at the claim: a number that only grows, for systems that handlers write to.
    pub token: i64,
    /// The book with which the log began that is read now.
    pub log_book: i32,
    /// What was received and what is settled.
    pub ledger: Ledger,
    /// Tasks that are not settled, by key.
    pub lanes: Lanes<Job>,
    /// What waits in the database.
    pub parked: ParkedHere,
    /// Deduplication keys of tasks in memory.
    pub keyed: Keyed,
    /// Which of the last records decoded.
    pub window: DecodeWindow,
    /// Up to where records that do not decode are let pass, however many they are.
    pub decode_allowed: i64,
    /// Whether tasks run one at a time, since one of them may be killing its worker.
    pub careful: Careful,
    /// Whether the table of parked tasks is being read.
    pub asked_for_parked: bool,
    /// Parked tasks that landed meanwhile: an answer that names them is stale.
    pub ended_while_asking: HashSet<Spot>,
    /// Keys of which tasks landed in that table meanwhile: an answer does not name them all.
    pub parked_while_asking: HashSet<[u8; 16]>,
    /// Tasks in memory that were fetched from the database.
    pub woken: usize,
    /// The note of a task that ran alone is being taken away.
    pub is_clearing: bool,
    /// It has been said that the frontier does not move.
    pub stuck_said: bool,
    /// On the way out: what runs may end, and nothing new is started.
    pub is_leaving: bool,
    /// When the frontier moved last, or nothing was pending.
    pub moved_at: Instant,
    /// When the frontier last moved, or had nothing to wait for, whatever it waited for since.
    pub frontier_at: Instant,
    /// The log's end was met, and no record came since.
    pub at_end: bool,
    /// Paused because too many of its tasks wait in the database.
    pub is_full: bool,
    /// One of its keys has as many tasks in the database as a key may have.
    pub deep_key: bool,
    /// Paused because it holds more than its share of the budget.
    pub held_back: bool,
    /// A record was dropped without being opened: the client's position is ahead of the ledger for good.
    pub skipped_some: bool,
    /// Wide gaps up to this offset have been vouched for by the brokers.
    pub vouched_gap: Option<Offset>,
    /// Its series.
    pub metrics: PartitionMetrics,
    /// Ended or to be parked, waiting for a flush.
    batch: VecDeque<(Settling, TypeIndex)>,
    in_air: Option<InAir>,
    /// What has to happen once a task in the batch or in the air has landed, where something has to.
    tracked: HashMap<Spot, Tracked>,
    /// Ends of tasks whose parking is in the air: they follow it.
    following: HashMap<Spot, (LaneKey, Job, Ending)>,
    /// Rows at or below this may be there already.
    high_offset: i64,
    epoch: Option<LeaderEpoch>,
    charged: Charge,
    refunded: Charge,
}

impl Running {
    /// Starts at the claimed position.
    #[must_use]
    pub fn new(
        progress: &Progress,
        claim: Uuid,
        parked: ParkedHere,
        metrics: PartitionMetrics,
    ) -> Self {
        metrics.position(progress.next_offset);
        let suspect = progress
            .suspect
            .map(|suspect| (suspect.log_book, suspect.offset, suspect.starts));
        Self {
            fence: Fence {
                claim,
                seq: progress.seq,
            },
            token: progress.seq,
            log_book: progress.log_book,
            ledger: Ledger::new(Offset(progress.next_offset), SPAN_CAP),
            lanes: Lanes::default(),
            parked,
            keyed: Keyed::default(),
            window: DecodeWindow::from_stored(progress.decode_window),
            decode_allowed: 0,
            careful: Careful::at_claim(progress.unclean_starts, suspect),
            asked_for_parked: false,
            ended_while_asking: HashSet::new(),
            parked_while_asking: HashSet::new(),
            woken: 0,
            is_clearing: false,
            stuck_said: false,
            is_leaving: false,
            moved_at: Instant::now(),
            frontier_at: Instant::now(),
            at_end: false,
            is_full: false,
            deep_key: false,
            held_back: false,
            skipped_some: false,
            vouched_gap: None,
            metrics,
            batch: VecDeque::new(),
            in_air: None,
            tracked: HashMap::new(),
            following: HashMap::new(),
            high_offset: progress.high_offset,
            epoch: progress.leader_epoch.and_then(LeaderEpoch::known),
            charged: Charge::NONE,
            refunded: Charge::NONE,
        }
    }

    /// Opens a record in the ledger.
    ///
    /// # Errors
    /// When the offset does not follow: the log and the ledger disagree.
    pub fn open(
        &mut self,
        offset: Offset,
        timestamp_ms: i64,
        epoch: Option<LeaderEpoch>,
        decoded: bool,
    ) -> Result<(), LedgerError> {
        self.ledger.open(offset, timestamp_ms)?;
        self.window.push(decoded);
        self.at_end = false;
        if epoch.is_some() {
            self.epoch = epoch;
        }
        Ok(())
    }

    /// Whether an earlier claim may have settled this offset.
    #[must_use]
    pub const fn may_be_settled(&self, offset: Offset) -> bool {
        offset.0 < self.high_offset
    }

    /// Where an offset of the log that is read now lies.
    #[must_use]
    pub const fn spot(&self, offset: Offset) -> Spot {
        Spot {
            log_book: self.log_book,
            offset: offset.0,
        }
    }

    /// Puts a record that ended at once into the batch.
    pub fn end_at_once(&mut self, record: Settling) {
        self.charged += Charge::event(record.held_bytes());
        self.batch.push_back((record, RECORD));
    }

    /// Counts a task as held in memory.
    pub fn hold(&mut self, job: &Job) {
        self.charged += job.charge();
        self.woken += usize::from(job.woken);
    }

    /// Counts a task as held no longer: the database or the log has it, or it is on its way there.
    pub fn let_go(&mut self, job: &Job) {
        self.refunded += job.charge();
        self.woken = self.woken.saturating_sub(usize::from(job.woken));
    }

    /// The partition as parked tasks of it are asked for. What was settled beyond the position before this claim is
    /// read again: until then earlier tasks of a parked one's key may be in the log only.
    #[must_use]
    pub fn held(&self, partition: i32) -> HeldPartition {
        let read_to = self.ledger.expected().0;
        HeldPartition {
            partition,
            claim: self.fence.claim,
            read_to: (read_to < self.high_offset).then_some((self.log_book, read_to)),
        }
    }

    /// Puts fetched tasks into their lane. Returns whether its first task may start.
    pub fn wake(&mut self, lane: LaneKey, jobs: Vec<Job>, more: bool, now: Instant) -> bool {
        // A lane that has given tasks away was not asked for: this answer is older than that.
        if self.lanes.has_given(lane) {
            return false;
        }
        for job in &jobs {
            // What is here already is told to the lane all the same: it may be about to leave.
            if !self.lanes.has_task(lane, job.spot()) {
                self.hold(job);
            }
        }
        self.lanes.wake(lane, jobs, more, now).unwrap_or(false)
    }

    /// Tasks that have to wait in the database behind others of their key go there; those that have a row are
    /// only forgotten here.
    pub fn give_away(&mut self, lane: LaneKey, jobs: Vec<Job>) {
        for job in jobs {
            if Lanes::<Job>::goes_along(&job) {
                let ending = job.parking(ParkKind::Behind, Due::WithKey);
                self.settle(lane, job, ending);
            } else {
                self.let_go(&job);
            }
        }
    }

    /// Whether more is known here of a parked task than the table said: it is on its way there, or has just
    /// landed.
    #[must_use]
    pub fn is_known_here(&self, spot: Spot) -> bool {
        self.tracked.contains_key(&spot)
            || self.following.contains_key(&spot)
            || self.ended_while_asking.contains(&spot)
    }

    /// Whether a parked task is in memory, in whichever lane.
    #[must_use]
    pub fn busy_with(&self, key_hash: &[u8; 16], spot: Spot) -> bool {
        let lanes = [
            LaneKey::Key(*key_hash),
            LaneKey::Alone(spot),
            LaneKey::Partition,
        ];
        lanes.iter().any(|lane| self.lanes.has_task(*lane, spot))
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
                let mut record = job.settling(ending);
                record.origin = waiting.origin;
                *waiting = record;
                self.charged += Charge::event(waiting.held_bytes());
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

    /// Whether the log has brought again what the database holds as parked, and that is not settled yet.
    #[must_use]
    pub fn is_read_again(&self, spot: Spot) -> bool {
        spot.log_book == self.log_book && self.ledger.is_open(Offset(spot.offset))
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
        self.charged += Charge::event(record.held_bytes());
        self.tracked.insert(spot, tracked);
        self.batch.push_back((record, task_type));
    }

    fn enqueue(&mut self, lane: LaneKey, job: &Job, ending: Ending) {
        let becomes = kind_of(&ending);
        if becomes.is_some() {
            self.parked.change(job.parked, becomes, &job.key_hash);
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
        self.charged += Charge::event(record.held_bytes());
        self.batch.push_back((record, job.task.task_type));
    }

    /// What is held in memory since the last call, and what no longer.
    pub fn take_charges(&mut self) -> (Charge, Charge) {
        (
            std::mem::take(&mut self.charged),
            std::mem::take(&mut self.refunded),
        )
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

    /// Whether all that was received is durable, and nothing that was fetched runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_written()
            && self.lanes.is_empty()
            && self.ledger.expected() == self.ledger.frontier()
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
        let mut cut: Vec<(Settling, TypeIndex)> = self.batch.drain(..count).collect();
        if !cut.is_sorted_by_key(|(record, _)| spot_of(record, log_book)) {
            cut.sort_unstable_by_key(|(record, _)| spot_of(record, log_book));
        }
        let mut flown = Vec::with_capacity(cut.len());
        let mut records = Vec::with_capacity(cut.len());
        for (record, task_type) in cut {
            flown.push(Flown::of(&record, task_type, log_book));
            records.push(record);
        }
        let offsets: Vec<Offset> = records
            .iter()
            .filter(|record| record.origin == Origin::Log)
            .map(|record| Offset(record.offset))
            .collect();
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
                let was_parked =
                    was_parked.is_some_and(|(_, job, _)| job.parked != Some(ParkKind::Running));
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
                } else if tracked.repeats {
                    self.parked.note(&tracked.key_hash);
                }
                settled.heard.push((spot, tracked, outcome));
            }
        }
        if flown.next_offset > self.ledger.frontier() {
            self.careful.frontier_moved();
        }
        if flown.next_offset > self.ledger.frontier() || self.ledger.pending() == 0 {
            self.moved_at = now;
            self.frontier_at = now;
        }
        self.ledger.advance_to(flown.next_offset)?;
        self.high_offset = self.high_offset.max(flown.next_offset.0);
        self.metrics.position(flown.next_offset.0);
        self.refunded += flown.charge;
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
            }
        }
    }

    /// On the way out: what was taken and did not begin is forgotten, since another one reads it again, and what
    /// waits for another attempt waits in the database from now on.
    pub fn begin_leaving(&mut self) {
        self.is_leaving = true;
        // Whoever reads on finds them parked, and runs them once more.
        let mut following = std::mem::take(&mut self.following);
        following.retain(|_, (_, job, _)| {
            let stays = job.parked == Some(ParkKind::Running);
            if !stays {
                self.let_go(job);
            }
            stays
        });
        self.following = following;
        self.batch
            .retain(|(record, _)| !matches!(record.ending, Ending::Payload));
        for (lane, job) in self.lanes.keep_running() {
            // Later tasks of the partition do not ask for parked ones: it comes again from the log, before them.
            if lane == LaneKey::Partition {
                self.let_go(&job);
                continue;
            }
            let ending = job.parking(ParkKind::Retry, Due::In(std::time::Duration::ZERO));
            self.settle(lane, job, ending);
        }
    }

    /// The task of whose starts some never ended.
    #[must_use]
    pub fn suspect(&self) -> Option<Suspect> {
        self.careful.suspect().map(|(spot, starts)| Suspect {
            log_book: spot.log_book,
            offset: spot.offset,
            starts,
        })
    }

    /// The leader epoch of the last record taken.
    #[must_use]
    pub const fn epoch(&self) -> Option<LeaderEpoch> {
        self.epoch
    }
}
