//! A worker in small: it drives the lanes of one partition exactly as the owner does, over answers that may be
//! as old as they like, and asserts after every step that nothing is lost, doubled or forgotten.

#![expect(
    clippy::expect_used,
    reason = "a model that contradicts itself has failed"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::lanes_model::{Due, Ending, Job, Kind, LOG_BOOK, Record, Row, World, in_log};
use super::{LaneKey, Lanes, Placed, Resolved, Spot};

/// What happens in the air: of whose landing somebody has to hear.
#[derive(Clone, Copy, Debug)]
pub struct Tracked {
    pub(super) lane: LaneKey,
    pub(super) key_hash: [u8; 16],
    pub(super) was: Option<Kind>,
    pub(super) becomes: Option<Kind>,
}

#[derive(Debug)]
pub struct Question {
    pub(super) lane: LaneKey,
    pub(super) spot: Spot,
    pub(super) settled_before: bool,
    pub(super) key: Option<[u8; 16]>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    pub(super) settled: bool,
    pub(super) repeats: bool,
    pub(super) parked: bool,
}

/// Tasks of one key, and whether others were left.
pub type FetchedKey = (Vec<(Spot, Row)>, bool);

/// A question for parked tasks, as far as it has been read.
#[derive(Debug, Default)]
pub struct Asking {
    pub(super) busy: BTreeSet<[u8; 16]>,
    pub(super) cancelled: Option<Vec<(Spot, Row)>>,
    pub(super) delayed: Option<Vec<(Spot, Row, bool)>>,
    pub(super) keys: Option<Vec<FetchedKey>>,
}

pub fn kind_of(ending: Ending) -> Option<Kind> {
    match ending {
        Ending::Parked(kind, _) => Some(kind),
        Ending::Done | Ending::Known => None,
    }
}

/// One claim, from its start to the next one's.
#[derive(Debug)]
pub struct Owner {
    pub(super) lanes: Lanes<Job>,
    pub(super) began: Instant,
    /// Keys that may be parked, as the filter counts them.
    pub(super) filter: BTreeMap<[u8; 16], i64>,
    pub(super) expected: i64,
    pub(super) batch: VecDeque<Record>,
    pub(super) in_air: Option<(Vec<Record>, Option<Vec<bool>>)>,
    pub(super) tracked: BTreeMap<(Spot, bool), Tracked>,
    pub(super) following: BTreeMap<Spot, (LaneKey, Job, Ending)>,
    pub(super) gone_while_asking: BTreeSet<Spot>,
    pub(super) asking: Option<Asking>,
    pub(super) offers: VecDeque<LaneKey>,
    pub(super) attempts: BTreeMap<Spot, LaneKey>,
    pub(super) waiting: Vec<(u64, LaneKey, Spot)>,
    pub(super) to_ask: Vec<Question>,
    pub(super) asked: Option<(Vec<Question>, Vec<Known>, bool)>,
    pub(super) cancels: BTreeSet<Spot>,
    /// Tasks that this worker has ended, written or not.
    pub(super) over: BTreeSet<Spot>,
    /// What was settled at the claim: an ending of what is read again there changes nothing.
    pub(super) settled_before: BTreeSet<i64>,
    pub(super) is_leaving: bool,
}

impl Owner {
    pub fn claim(world: &mut World, began: Instant) -> Self {
        world.forget_worker();
        let mut filter = BTreeMap::new();
        for (spot, row) in &world.rows {
            if row.kind != Kind::Delayed {
                *filter.entry(world.key_hash(*spot)).or_default() += 1;
            }
        }
        Self {
            lanes: Lanes::default(),
            began,
            filter,
            expected: world.next_offset,
            batch: VecDeque::new(),
            in_air: None,
            tracked: BTreeMap::new(),
            following: BTreeMap::new(),
            gone_while_asking: BTreeSet::new(),
            asking: None,
            offers: VecDeque::new(),
            attempts: BTreeMap::new(),
            waiting: Vec::new(),
            to_ask: Vec::new(),
            asked: None,
            cancels: BTreeSet::new(),
            over: BTreeSet::new(),
            settled_before: world.settled.clone(),
            is_leaving: false,
        }
    }

    pub(super) fn may_be_parked(&self, key_hash: [u8; 16]) -> bool {
        self.filter.get(&key_hash).is_some_and(|count| *count > 0)
    }

    pub(super) fn change(&mut self, was: Option<Kind>, becomes: Option<Kind>, key_hash: [u8; 16]) {
        let waits = |kind: Option<Kind>| i64::from(kind.is_some_and(|kind| kind != Kind::Delayed));
        *self.filter.entry(key_hash).or_default() += waits(becomes) - waits(was);
    }

    /// Reads one record.
    pub fn read(&mut self, world: &mut World) {
        if self.is_leaving || self.expected == world.log_end {
            return;
        }
        let spot = in_log(self.expected);
        self.expected += 1;
        world.take(spot);
        let (lane, plan) = (world.lane(spot), world.plan(spot));
        let job = Job {
            spot,
            key_hash: world.key_hash(spot),
            parked: None,
        };
        if plan.run_at > world.now {
            let ending = Ending::Parked(Kind::Delayed, Due::At(plan.run_at));
            self.settle(lane, job, ending);
            return;
        }
        let key_may_wait = matches!(lane, LaneKey::Key(_))
            && !self.lanes.is_sure(lane)
            && self.may_be_parked(job.key_hash);
        let settled_before = spot.offset < world.high;
        let ask = settled_before || plan.repeats || key_may_wait;
        match self.lanes.push(lane, job, !ask, self.began) {
            Placed::Next => self.offer(lane),
            Placed::Waits if ask => self.to_ask.push(Question {
                lane,
                spot,
                settled_before,
                key: key_may_wait.then_some(job.key_hash),
            }),
            Placed::Waits => {}
            Placed::Full(job) => {
                let ending = Ending::Parked(Kind::Behind, Due::WithKey);
                self.settle(lane, job, ending);
            }
        }
    }

    pub(super) fn offer(&mut self, lane: LaneKey) {
        self.offers.push_back(lane);
    }

    /// One step of a look-up: it is sent, results and rows are read, then keys, then the answer comes.
    pub fn look_up(&mut self, world: &World) {
        match &mut self.asked {
            None => {
                let questions = std::mem::take(&mut self.to_ask);
                if questions.is_empty() {
                    return;
                }
                let known = questions.iter().map(|question| Known {
                    settled: question.settled_before
                        && (world.rows.contains_key(&question.spot)
                            || world.ended.contains(&question.spot)),
                    repeats: world.plan(question.spot).repeats,
                    parked: false,
                });
                let known = known.collect();
                self.asked = Some((questions, known, false));
            }
            Some((questions, known, read @ false)) => {
                *read = true;
                for (question, known) in questions.iter().zip(known) {
                    let key = question.key.map(|hash| world.parked_with(hash));
                    known.parked = key.is_some_and(|parked| !parked.is_empty());
                }
            }
            Some((_, _, true)) => {
                if let Some((questions, known, _)) = self.asked.take() {
                    for (question, known) in questions.iter().zip(known) {
                        self.known(question, known);
                    }
                }
            }
        }
    }

    fn known(&mut self, question: &Question, known: Known) {
        let (lane, spot) = (question.lane, question.spot);
        if !self.lanes.is_to_be_known(lane, spot) {
            return;
        }
        let is_fetched = self
            .lanes
            .get_mut(lane, spot)
            .is_some_and(|job| job.parked.is_some());
        if known.settled && !is_fetched {
            self.end_in_lane(lane, spot, Ending::Known);
        } else if known.repeats {
            self.end_in_lane(lane, spot, Ending::Done);
        } else {
            match self.lanes.known(lane, spot, known.parked) {
                Resolved::Next => self.offer(lane),
                Resolved::Waits => {}
                Resolved::Park(jobs) => self.give_away(lane, jobs),
            }
        }
    }

    pub(super) fn end_in_lane(&mut self, lane: LaneKey, spot: Spot, ending: Ending) {
        let removed = self.lanes.remove(lane, spot);
        self.end_removed(lane, removed, ending);
    }

    pub(super) fn end_removed(
        &mut self,
        lane: LaneKey,
        removed: Option<(Job, bool)>,
        ending: Ending,
    ) {
        if let Some((job, next)) = removed {
            self.settle(lane, job, ending);
            self.lane_moved(lane, next);
        }
    }

    pub(super) fn lane_moved(&mut self, lane: LaneKey, next: bool) {
        if next {
            self.offer(lane);
        }
        if let Some(spot) = self.lanes.to_ask(lane) {
            let job = self.lanes.get_mut(lane, spot).expect("it is in its lane");
            let key_hash = job.key_hash;
            let settled_before = spot.log_book == LOG_BOOK;
            self.to_ask.push(Question {
                lane,
                spot,
                settled_before,
                key: self.may_be_parked(key_hash).then_some(key_hash),
            });
        }
    }

    fn give_away(&mut self, lane: LaneKey, jobs: Vec<Job>) {
        for job in jobs {
            if Lanes::<Job>::goes_along(&job) {
                let ending = Ending::Parked(Kind::Behind, Due::WithKey);
                self.settle(lane, job, ending);
            }
        }
    }

    pub(super) fn park_lane(&mut self, lane: LaneKey, due: Due) {
        let mut jobs = self.lanes.park(lane).into_iter();
        if let Some(first) = jobs.next() {
            self.settle(lane, first, Ending::Parked(Kind::Retry, due));
        }
        self.give_away(lane, jobs.collect());
    }

    pub(super) fn settle(&mut self, lane: LaneKey, job: Job, ending: Ending) {
        let spot = job.spot;
        let is_repeat = job.parked.is_none() && self.settled_before.contains(&spot.offset);
        if matches!(ending, Ending::Done) && !is_repeat {
            assert!(self.over.insert(spot), "{spot:?} is ended twice");
        }
        if job.parked == Some(Kind::Running) && self.tracked.contains_key(&(spot, true)) {
            let mut batch = self.batch.iter_mut();
            if let Some(record) = batch.find(|record| record.spot == spot && record.from_log) {
                record.ending = ending;
                let becomes = kind_of(ending);
                if let Some(tracked) = self.tracked.get_mut(&(spot, true)) {
                    tracked.becomes = becomes;
                }
                if becomes.is_none() {
                    self.change(Some(Kind::Running), None, job.key_hash);
                }
            } else {
                self.following.insert(spot, (lane, job, ending));
            }
            return;
        }
        self.enqueue(lane, job, ending);
    }

    pub(super) fn enqueue(&mut self, lane: LaneKey, job: Job, ending: Ending) {
        let (spot, becomes) = (job.spot, kind_of(ending));
        if becomes.is_some() {
            self.change(job.parked, becomes, job.key_hash);
        }
        let from_log = job.parked.is_none();
        if becomes.is_some() || job.parked.is_some() {
            let tracked = Tracked {
                lane,
                key_hash: job.key_hash,
                was: job.parked,
                becomes,
            };
            self.tracked.insert((spot, from_log), tracked);
        }
        self.batch.push_back(Record {
            spot,
            from_log,
            ending,
        });
    }

    /// Memory is short.
    pub fn trim(&mut self, depth: usize) {
        if !self.is_leaving {
            for (lane, jobs) in self.lanes.trim(depth, self.began) {
                self.give_away(lane, jobs);
            }
        }
    }
}
