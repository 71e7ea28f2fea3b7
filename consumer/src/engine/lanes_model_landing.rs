//! The other half of the worker in small: what comes back from the database, and the end of a claim.

use std::collections::{BTreeMap, BTreeSet};

use super::lanes_model::{Due, Ending, Job, Kind, LOG_BOOK, Record, Row, World};
use super::lanes_model_owner::{Asking, Owner, kind_of};
use super::{LaneKey, Spot};

impl Owner {
    /// One step of a flush: it is cut, written, and heard of.
    pub fn flush(&mut self, world: &mut World, most: usize) {
        match &mut self.in_air {
            None => {
                let count = most.clamp(1, self.batch.len().max(1)).min(self.batch.len());
                let mut records: Vec<Record> = self.batch.drain(..count).collect();
                records.sort_by_key(|record| (record.spot, !record.from_log));
                if !records.is_empty() {
                    self.in_air = Some((records, None));
                }
            }
            Some((records, parked @ None)) => *parked = Some(world.write(records)),
            Some((_, Some(_))) => self.land(),
        }
    }

    fn land(&mut self) {
        let Some((records, Some(parked))) = self.in_air.take() else {
            return;
        };
        for (record, parked) in records.into_iter().zip(parked) {
            let spot = record.spot;
            let Some(tracked) = self.tracked.remove(&(spot, record.from_log)) else {
                continue;
            };
            if !record.from_log && self.asking.is_some() {
                self.gone_while_asking.insert(spot);
            }
            if !parked {
                let counted = tracked.becomes.or(tracked.was);
                self.change(counted, None, tracked.key_hash);
            }
            match tracked.becomes {
                Some(Kind::Retry | Kind::Behind) => {
                    self.lanes.landed(tracked.lane);
                }
                Some(Kind::Running) => self.running_landed(tracked.lane, spot, parked),
                Some(Kind::Delayed) | None => {}
            }
        }
    }

    fn running_landed(&mut self, lane: LaneKey, spot: Spot, parked: bool) {
        match self.following.remove(&spot) {
            Some((lane, job, ending)) if parked => self.enqueue(lane, job, ending),
            Some((lane, _, Ending::Parked(..))) => {
                self.lanes.landed(lane);
            }
            Some(_) => {}
            None if parked => {}
            None => {
                if let Some((_, next)) = self.lanes.remove(lane, spot) {
                    self.lane_moved(lane, next);
                }
            }
        }
    }

    /// One step of a question for parked tasks: it goes out, each kind is read, then the answer comes.
    pub fn ask_for_parked(&mut self, world: &mut World, most: usize) {
        // What lies in the part of the log that is read again joins its lane in its turn.
        let caught_up = self.expected >= world.high;
        let Some(asking) = &mut self.asking else {
            if !self.is_leaving && caught_up {
                let busy = self.lanes.busy_keys().into_iter().collect();
                self.asking = Some(Asking {
                    busy,
                    ..Asking::default()
                });
                self.gone_while_asking.clear();
            }
            return;
        };
        if asking.delayed.is_none() {
            let due = world.rows.iter().filter(|(spot, row)| {
                row.kind == Kind::Delayed
                    && row.due <= world.now
                    && !asking.busy.contains(&world.key_hash(**spot))
            });
            let found = due.map(|(spot, row)| {
                let parked = world.parked_with(world.key_hash(*spot));
                (*spot, *row, !parked.is_empty())
            });
            asking.delayed = Some(found.collect());
        } else if asking.keys.is_none() {
            let due = world.due_keys.iter().filter(|(_, due)| **due <= world.now);
            let free = due.filter(|(key_hash, _)| !asking.busy.contains(*key_hash));
            let keys = free.map(|(key_hash, _)| {
                let spots = world.parked_with(*key_hash);
                let row = |spot: &Spot| Some((*spot, *world.rows.get(spot)?));
                let tasks = spots.iter().take(most.max(1)).filter_map(row);
                (tasks.collect(), spots.len() > most.max(1))
            });
            asking.keys = Some(keys.collect());
        } else if asking.cancelled.is_none() {
            let rows = world.rows.iter().map(|(spot, row)| (*spot, *row));
            let cancels = &self.cancels;
            asking.cancelled = Some(rows.filter(|(spot, _)| cancels.contains(spot)).collect());
        } else if let Some(asking) = self.asking.take() {
            if !self.is_leaving {
                self.woken(world, asking);
            }
            self.gone_while_asking.clear();
        }
    }

    fn woken(&mut self, world: &mut World, asking: Asking) {
        let admit = |world: &World, spot, row: Row| Job {
            spot,
            key_hash: world.key_hash(spot),
            parked: Some(row.kind),
        };
        for (spot, row) in asking.cancelled.unwrap_or_default() {
            let lane = world.lane(spot);
            if !self.is_known_here(spot) && !self.lanes.has_task(lane, spot) {
                self.settle(lane, admit(world, spot, row), Ending::Done);
            }
        }
        for (tasks, more) in asking.keys.unwrap_or_default() {
            let tasks = tasks
                .into_iter()
                .filter(|(spot, _)| !self.is_known_here(*spot));
            let jobs: Vec<Job> = tasks.map(|(spot, row)| admit(world, spot, row)).collect();
            let Some(first) = jobs.first() else { continue };
            let lane = world.lane(first.spot);
            let more = more && matches!(lane, LaneKey::Key(_));
            self.wake(lane, jobs, more);
        }
        for (spot, row, behind) in asking.delayed.unwrap_or_default() {
            let lane = world.lane(spot);
            if self.is_known_here(spot) || self.lanes.has_task(lane, spot) {
                continue;
            }
            let job = admit(world, spot, row);
            if behind || self.lanes.has_given(lane) {
                self.lanes.sent(lane, self.began);
                self.settle(lane, job, Ending::Parked(Kind::Behind, Due::WithKey));
                world.join(spot);
            } else if self.wake(lane, vec![job], false) {
                world.join(spot);
            }
        }
    }

    fn wake(&mut self, lane: LaneKey, jobs: Vec<Job>, more: bool) -> bool {
        let woken = self.lanes.wake(lane, jobs, more, self.began);
        if woken == Some(true) {
            self.offer(lane);
        }
        woken.is_some()
    }

    fn is_known_here(&self, spot: Spot) -> bool {
        self.tracked.contains_key(&(spot, true))
            || self.tracked.contains_key(&(spot, false))
            || self.following.contains_key(&spot)
            || self.gone_while_asking.contains(&spot)
    }

    /// On the way out: what runs may end, what waits for another attempt waits in the database, and all else is
    /// read or fetched again by whoever comes next.
    pub fn begin_leaving(&mut self) {
        self.is_leaving = true;
        for (lane, job) in self.lanes.keep_running() {
            if lane != LaneKey::Partition {
                self.settle(lane, job, Ending::Parked(Kind::Retry, Due::In(0)));
            }
        }
    }

    /// Whether everything is written, nothing runs, and nothing waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.batch.is_empty()
            && self.in_air.is_none()
            && self.following.is_empty()
            && self.attempts.is_empty()
    }

    /// What has to hold after every step.
    pub fn check(&mut self, world: &World) {
        let mut held: BTreeMap<Spot, LaneKey> = BTreeMap::new();
        let mut tasks = 0;
        for (lane, _, job) in self.lanes.iter_mut() {
            tasks += 1;
            let twice = held.insert(job.spot, lane);
            assert!(twice.is_none(), "{:?} is twice in memory", job.spot);
            assert_eq!(lane, world.lane(job.spot));
            let row =
                world.rows.contains_key(&job.spot) || self.tracked.contains_key(&(job.spot, true));
            assert!(row || job.parked.is_none(), "{:?} has no row", job.spot);
        }
        assert_eq!(self.lanes.tasks(), tasks);
        let written: BTreeSet<Spot> = self
            .batch
            .iter()
            .chain(self.in_air.iter().flat_map(|(records, _)| records))
            .map(|record| record.spot)
            .chain(self.following.keys().copied())
            .collect();
        for spot in world
            .plans
            .keys()
            .filter(|spot| !world.ended.contains(spot))
        {
            let unread = spot.log_book == LOG_BOOK && spot.offset >= self.expected;
            let is_here = held.contains_key(spot) || written.contains(spot);
            let is_open = !world.settled.contains(&spot.offset) && spot.log_book == LOG_BOOK;
            let is_left = self.is_leaving && is_open;
            assert!(
                unread || is_here || is_left || world.rows.contains_key(spot),
                "{spot:?} is lost"
            );
        }
        for (spot, row) in &world.rows {
            let counts = row.kind == Kind::Delayed || self.may_be_parked(world.key_hash(*spot));
            let ends = self.tracked.contains_key(&(*spot, true))
                || self.tracked.contains_key(&(*spot, false));
            assert!(
                counts || ends,
                "{spot:?} is parked, and its key is not known to be"
            );
        }
        if !self.is_leaving {
            self.check_lanes(&held);
        }
    }

    /// A lane exists as long as it holds a task, or hears of one on its way; no longer.
    fn check_lanes(&self, held: &BTreeMap<Spot, LaneKey>) {
        let parks = |kind| matches!(kind, Kind::Retry | Kind::Behind);
        let landing = self
            .tracked
            .values()
            .filter(|tracked| tracked.becomes.is_some_and(parks));
        let follows = self
            .following
            .values()
            .filter(|(.., ending)| kind_of(*ending).is_some_and(parks));
        let lanes: BTreeSet<LaneKey> = held
            .values()
            .copied()
            .chain(landing.map(|tracked| tracked.lane))
            .chain(follows.map(|(lane, ..)| *lane))
            .collect();
        assert_eq!(self.lanes.lanes(), lanes.len(), "{lanes:?}");
        for lane in lanes {
            assert!(self.lanes.has(lane), "{lane:?} is gone");
        }
    }
}
