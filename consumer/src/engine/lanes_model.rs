//! What is true of every task, whatever a worker believes: the log, the tables, and the rules of order.
//!
//! The rules are asserted where they can break: a task may start only when nothing of its key that comes before
//! it is unfinished, and a flush may only carry what the tables can take.

#![expect(
    clippy::expect_used,
    reason = "a model that contradicts itself has failed"
)]

use std::collections::{BTreeMap, BTreeSet};

use super::{LaneKey, Laned, Spot};

/// Whom a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    Key(u8),
    Partition,
    Nobody,
}

/// What a task is like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub waits: Waits,
    /// When it is to run; what lies behind already delays nothing.
    pub run_at: u64,
    /// It asks for the same as a task that has ended long ago, and a look-up tells.
    pub repeats: bool,
    /// The database refuses to park it: it ends instead.
    pub unstorable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Retry,
    Behind,
    Delayed,
    Running,
}

/// When a parked task, or its key, is due.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    In(u64),
    At(u64),
    WithKey,
}

#[derive(Clone, Copy, Debug)]
pub enum Ending {
    Done,
    Parked(Kind, Due),
    /// Settled at its offset by somebody before.
    Known,
}

/// A record of a flush.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub spot: Spot,
    pub from_log: bool,
    pub ending: Ending,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub kind: Kind,
    pub due: u64,
}

/// A task in memory.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub spot: Spot,
    pub key_hash: [u8; 16],
    pub parked: Option<Kind>,
}

impl Laned for Job {
    fn spot(&self) -> Spot {
        self.spot
    }

    fn joins_last(&self) -> bool {
        self.parked == Some(Kind::Delayed)
    }

    fn has_row(&self) -> bool {
        self.parked.is_some()
    }

    fn key_hash(&self) -> [u8; 16] {
        self.key_hash
    }
}

pub const LOG_BOOK: i32 = 1;

pub fn in_log(offset: i64) -> Spot {
    Spot {
        log_book: LOG_BOOK,
        offset,
    }
}

/// The tables, the log and the clock.
#[derive(Debug)]
pub struct World {
    pub plans: BTreeMap<Spot, Plan>,
    pub log_end: i64,
    pub rows: BTreeMap<Spot, Row>,
    pub due_keys: BTreeMap<[u8; 16], u64>,
    /// Offsets of the open log.
    pub settled: BTreeSet<i64>,
    pub ended: BTreeSet<Spot>,
    pub next_offset: i64,
    /// Settled offsets lie below this.
    pub high: i64,
    pub now: u64,
    /// Handlers at work, in whichever worker. A worker that is gone has none.
    pub running: BTreeSet<Spot>,
    moments: u64,
    /// When each was read from the log first by whoever has it; parked ones keep it.
    taken: BTreeMap<Spot, u64>,
    /// When each delayed task came back to stand with its key.
    joined: BTreeMap<Spot, u64>,
}

impl World {
    /// `old` were parked when another log was read, all of them waiting with their keys.
    pub fn new(old: &[Plan], log: &[Plan]) -> Self {
        let spots = |log_book, plans: &[Plan]| -> Vec<(Spot, Plan)> {
            let spot = |offset| Spot { log_book, offset };
            (0..).map(spot).zip(plans.iter().copied()).collect()
        };
        let old = spots(LOG_BOOK - 1, old);
        let mut world = Self {
            log_end: i64::try_from(log.len()).unwrap_or(i64::MAX),
            plans: old.iter().copied().chain(spots(LOG_BOOK, log)).collect(),
            rows: BTreeMap::new(),
            due_keys: BTreeMap::new(),
            settled: BTreeSet::new(),
            ended: BTreeSet::new(),
            next_offset: 0,
            high: 0,
            now: 0,
            running: BTreeSet::new(),
            moments: 0,
            taken: BTreeMap::new(),
            joined: BTreeMap::new(),
        };
        for (spot, plan) in old {
            if matches!(plan.waits, Waits::Key(_)) {
                world.insert(spot, Kind::Behind, Due::WithKey);
            } else {
                world.insert(spot, Kind::Delayed, Due::At(plan.run_at));
            }
        }
        world
    }

    pub fn plan(&self, spot: Spot) -> Plan {
        *self.plans.get(&spot).expect("a task that there is")
    }

    pub fn key_hash(&self, spot: Spot) -> [u8; 16] {
        let mut hash = [0; 16];
        match self.plan(spot).waits {
            Waits::Key(key) => hash[0] = key + 1,
            Waits::Partition | Waits::Nobody => {
                hash[8..].copy_from_slice(&spot.offset.to_be_bytes());
                hash[7] = u8::try_from(spot.log_book).unwrap_or(0) + 1;
            }
        }
        hash
    }

    pub fn lane(&self, spot: Spot) -> LaneKey {
        match self.plan(spot).waits {
            Waits::Key(_) => LaneKey::Key(self.key_hash(spot)),
            Waits::Partition => LaneKey::Partition,
            Waits::Nobody => LaneKey::Alone(spot),
        }
    }

    fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }

    /// A worker has read a task from the log.
    pub fn take(&mut self, spot: Spot) {
        let moment = self.moment();
        if self.settled.contains(&spot.offset) {
            return;
        }
        self.taken.insert(spot, moment);
        if self.plan(spot).run_at <= self.now {
            self.join(spot);
        }
    }

    /// A worker has taken in a delayed task that is due.
    pub fn join(&mut self, spot: Spot) {
        let moment = self.moment();
        self.joined.entry(spot).or_insert(moment);
    }

    /// A worker is gone, and what it held is as if it had never been.
    pub fn forget_worker(&mut self) {
        self.running.clear();
        let rows = &self.rows;
        let waits = |spot: &Spot| rows.get(spot).is_some_and(|row| row.kind == Kind::Delayed);
        self.joined.retain(|spot, _| !waits(spot));
    }

    /// A handler is called for a task, by a worker that has ended others, though that may not be written yet.
    pub fn start(&mut self, job: Job, over: &BTreeSet<Spot>) {
        let spot = job.spot;
        let is_over = |spot: &Spot| self.ended.contains(spot) || over.contains(spot);
        // One that the database refused to park is stopped only when its worker hears of it.
        let ends = is_over(&spot) && !self.plan(spot).unstorable;
        assert!(!ends, "{spot:?} has ended already");
        let is_parked = self.rows.contains_key(&spot);
        assert!(
            job.parked.is_some() || !is_parked,
            "{spot:?} was read from the log and waits in the database, too"
        );
        let lane = self.lane(spot);
        assert!(!self.running.contains(&spot), "{spot:?} runs already");
        let taken = self.taken.get(&spot).copied().unwrap_or(0);
        for (&other, plan) in &self.plans {
            if other == spot || self.lane(other) != lane || is_over(&other) {
                continue;
            }
            assert!(
                !self.running.contains(&other),
                "{spot:?} starts beside {other:?}"
            );
            let counts = plan.run_at == 0
                || self
                    .joined
                    .get(&other)
                    .is_some_and(|joined| *joined < taken);
            assert!(other > spot || !counts, "{spot:?} starts before {other:?}");
        }
        self.running.insert(spot);
    }

    /// Writes what a flush carries. Returns of each whether it is parked now.
    pub fn write(&mut self, records: &[Record]) -> Vec<bool> {
        records.iter().map(|record| self.settle(*record)).collect()
    }

    fn settle(&mut self, record: Record) -> bool {
        let spot = record.spot;
        if record.from_log {
            let is_new = self.settled.insert(spot.offset);
            self.high = self.high.max(spot.offset + 1);
            while self.settled.contains(&self.next_offset) {
                self.next_offset += 1;
            }
            if !is_new {
                return self.rows.contains_key(&spot);
            }
        }
        let refused = record.from_log && self.plan(spot).unstorable;
        match record.ending {
            Ending::Parked(kind, due) if !refused => {
                if !record.from_log {
                    self.remove(spot);
                }
                self.insert(spot, kind, due);
            }
            Ending::Parked(..) | Ending::Done => {
                if !record.from_log {
                    self.remove(spot);
                }
                assert!(self.ended.insert(spot), "{spot:?} ended twice");
            }
            Ending::Known => assert!(!record.from_log, "{spot:?} was not settled"),
        }
        self.rows.contains_key(&spot)
    }

    fn insert(&mut self, spot: Spot, kind: Kind, due: Due) {
        let at = match due {
            Due::In(wait) => Some(self.now + wait),
            Due::At(at) => Some(at),
            Due::WithKey => None,
        };
        let row = Row {
            kind,
            due: at.unwrap_or(0),
        };
        let twice = self.rows.insert(spot, row);
        assert!(twice.is_none(), "{spot:?} is parked twice");
        if kind == Kind::Delayed {
            return;
        }
        let key_hash = self.key_hash(spot);
        match at {
            Some(at) => drop(self.due_keys.insert(key_hash, at)),
            None => drop(self.due_keys.entry(key_hash).or_insert(self.now)),
        }
    }

    fn remove(&mut self, spot: Spot) {
        let row = self.rows.remove(&spot);
        assert!(row.is_some(), "{spot:?} has no row");
        let key_hash = self.key_hash(spot);
        if self.parked_with(key_hash).is_empty() {
            self.due_keys.remove(&key_hash);
        } else if row.is_some_and(|row| matches!(row.kind, Kind::Retry | Kind::Running)) {
            let due = self.due_keys.entry(key_hash).or_insert(self.now);
            *due = self.now.min(*due);
        }
    }

    /// Tasks that wait in the database with this key, in order.
    pub fn parked_with(&self, key_hash: [u8; 16]) -> Vec<Spot> {
        let waits =
            |spot: &Spot, row: &Row| row.kind != Kind::Delayed && self.key_hash(*spot) == key_hash;
        let rows = self.rows.iter().filter(|(spot, row)| waits(spot, row));
        rows.map(|(spot, _)| *spot).collect()
    }
}
