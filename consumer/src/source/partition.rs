//! One partition while it runs: its ledger, its lanes, what waits in the database, and what is held in memory.
//!
//! Lives from a granted claim to the next loss of it, and is dropped whole: nothing of it outlives its
//! claim. At most one flush of a partition is in the air, so `seq` is always known. What is held in memory is
//! counted here and taken over into the worker's budget by [`Running::take_charges`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use millrace_store::parked::HeldPartition;
use millrace_store::position::{Fence, Progress, Suspect};
use millrace_store::{Due, Ending, ParkKind, Settling};
use millrace_telemetry::PartitionMetrics;
use uuid::Uuid;

use super::in_air::{InAir, Tracked};
use super::parked_here::ParkedHere;
use crate::engine::{
    Careful, Charge, DecodeWindow, LaneKey, Laned as _, Lanes, LeaderEpoch, Ledger, LedgerError,
    Offset, Spot, Standstill,
};
use crate::handlers::TypeIndex;
use crate::work::job::Job;
use crate::work::keyed::Keyed;

/// Most records of one partition that may lie beyond its frontier.
pub(super) const SPAN_CAP: u64 = 1_000_000;

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
    /// Tasks that have to be looked up now, since what they waited for has left.
    pub to_ask: Vec<(LaneKey, Spot)>,
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
    /// For how long nothing has been known to hold it up.
    pub standstill: Standstill,
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
    pub(super) batch: VecDeque<(Settling, TypeIndex)>,
    pub(super) in_air: Option<InAir>,
    /// What has to happen once a task in the batch or in the air has landed, where something has to.
    pub(super) tracked: HashMap<Spot, Tracked>,
    /// Ends of tasks whose parking is in the air: they follow it.
    pub(super) following: HashMap<Spot, (LaneKey, Job, Ending)>,
    /// Rows at or below this may be there already.
    pub(super) high_offset: i64,
    pub(super) epoch: Option<LeaderEpoch>,
    pub(super) unwritten: u64,
    pub(super) charged: Charge,
    pub(super) refunded: Charge,
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
            to_ask: Vec::new(),
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
            standstill: Standstill::default(),
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
            unwritten: 0,
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

    /// Has a fetched task looked up by its deduplication key, at once or when those before it are settled. Where the
    /// answer that brought it was too old, it is not here.
    pub fn look_up_keyed(&mut self, hash: [u8; 16], lane: LaneKey, spot: Spot) {
        if self.lanes.is_to_be_known(lane, spot) && self.keyed.enter(hash, lane, spot) {
            self.to_ask.push((lane, spot));
        }
    }

    /// Tasks that have to wait in the database behind others of their key go there; those that have a row are
    /// only forgotten here.
    pub fn give_away(&mut self, lane: LaneKey, jobs: Vec<Job>) {
        for job in jobs {
            if Lanes::<Job>::goes_along(&job) {
                let ending = job.parking(ParkKind::Behind, Due::WithKey);
                self.settle(lane, job, ending);
            } else {
                // Repeats of it do not wait for what is not here.
                let next = job
                    .dedup
                    .and_then(|hash| self.keyed.settled(hash, job.spot()));
                self.to_ask.extend(next);
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

    /// Whether the log has brought again what the database holds as parked, and that is not settled yet.
    #[must_use]
    pub fn is_read_again(&self, spot: Spot) -> bool {
        spot.log_book == self.log_book && self.ledger.is_open(Offset(spot.offset))
    }

    /// What is held in memory since the last call, and what no longer.
    pub fn take_charges(&mut self) -> (Charge, Charge) {
        (
            std::mem::take(&mut self.charged),
            std::mem::take(&mut self.refunded),
        )
    }

    /// Whether all that was received is durable, and nothing that was fetched runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_written()
            && self.lanes.is_empty()
            && self.ledger.expected() == self.ledger.frontier()
    }

    /// On the way out: what was taken and did not begin is forgotten, since another one reads it again, and what
    /// waits for another attempt waits in the database from now on.
    pub fn begin_leaving(&mut self) {
        self.is_leaving = true;
        // Whoever reads on finds them parked, and runs them once more.
        let mut following = std::mem::take(&mut self.following);
        following.retain(|_, (_, job, _)| {
            let stays = !job.woken;
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
