//! The lanes of one partition: tasks of one key start one after another, tasks of different keys do not wait.
//!
//! A lane exists while it holds work, or while the database is being told of work that it held. Its queue is
//! ordered by the log; what waits in the database comes behind what is here (`parking`).
//! Who looks a task up, runs it or writes it down is somebody else: a lane only says who is next.

mod parking;

use std::collections::{HashMap, HashSet, VecDeque, hash_map};
use std::hash::BuildHasherDefault;
use std::time::Instant;

use super::key_hasher::KeyHasher;
use super::lane::{Entry, First, Head, Lane, LaneKey, Laned, Placed, Resolved, Spot};

/// The lanes of one partition; see the module.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: HashMap<LaneKey, Lane<T>, BuildHasherDefault<KeyHasher>>,
    /// Of which something has landed since [`Lanes::busy_keys`] was asked last: what is read then may be older.
    landed: HashSet<LaneKey, BuildHasherDefault<KeyHasher>>,
    tasks: usize,
    /// Whether some lane may have a task for [`Lanes::to_ask`].
    some_to_ask: bool,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            lanes: HashMap::default(),
            landed: HashSet::default(),
            tasks: 0,
            some_to_ask: false,
        }
    }
}

impl<T: Laned> Lanes<T> {
    /// Takes in a task from the log, behind all of its key. `known` says that nothing is to be looked up; while
    /// [`Lanes::is_sure`] says no, that includes whether tasks of its key wait in the database.
    pub fn push(&mut self, key: LaneKey, task: T, known: bool, now: Instant) -> Placed<T> {
        let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(now));
        if lane.more {
            lane.landing += 1;
            return Placed::Full(task);
        }
        let is_unsure = std::mem::take(&mut lane.is_unsure);
        lane.queue.push_back(Entry {
            unanswered: u8::from(!known),
            vouches: is_unsure && !known,
            ..Entry::known(task)
        });
        self.tasks += 1;
        if lane.queue.len() == 1 && lane.may_start() {
            Placed::Next
        } else {
            Placed::Waits
        }
    }

    /// Whether a task waits for its look-up. An answer about any other is about a former stay of it here.
    #[must_use]
    pub fn is_to_be_known(&self, key: LaneKey, spot: Spot) -> bool {
        let lane = self.lanes.get(&key);
        let entry = lane.and_then(|lane| lane.queue.iter().find(|e| e.task.spot() == spot));
        entry.is_some_and(|entry| entry.unanswered > 0)
    }

    /// Takes in that a task was looked up; `parked` says that tasks of its key wait in the database.
    pub fn known(&mut self, key: LaneKey, spot: Spot, parked: bool) -> Resolved<T> {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return Resolved::Waits;
        };
        let asked = |entry: &Entry<T>| entry.task.spot() == spot && entry.unanswered > 0;
        let Some(at) = lane.queue.iter().position(asked) else {
            return Resolved::Waits;
        };
        // Those that wait there may have been fetched meanwhile, and this one may be one of them.
        let has_row = |entry: &Entry<T>| entry.task.has_row();
        let fetched = lane.is_fetched && !lane.more || lane.queue.get(at).is_some_and(has_row);
        if parked && !fetched {
            let given: Vec<T> = lane.queue.drain(at..).map(|entry| entry.task).collect();
            self.tasks -= given.len();
            lane.more = true;
            lane.landing += given.iter().filter(|task| Self::goes_along(task)).count();
            return Resolved::Park(given);
        }
        if let Some(entry) = lane.queue.get_mut(at) {
            entry.unanswered -= 1;
            entry.vouches &= entry.unanswered > 0;
        }
        if at == 0 && lane.may_start() {
            Resolved::Next
        } else {
            Resolved::Waits
        }
    }

    /// The first task of a lane, if it may start.
    pub fn next(&mut self, key: LaneKey) -> Option<&mut T> {
        let lane = self.lanes.get_mut(&key)?;
        if !lane.may_start() {
            return None;
        }
        lane.queue.front_mut().map(|entry| &mut entry.task)
    }

    /// The first task of a lane, if it may start, to be looked at and then started.
    pub fn first(&mut self, key: LaneKey) -> Option<First<'_, T>> {
        let lane = self.lanes.get_mut(&key)?;
        if !lane.may_start() {
            return None;
        }
        let task = &mut lane.queue.front_mut()?.task;
        let head = &mut lane.head;
        Some(First { task, head })
    }

    /// Notes that an attempt at the lane's first task runs from now on, if it may start. Returns that task.
    pub fn start(&mut self, key: LaneKey) -> Option<&mut T> {
        self.first(key).map(First::start)
    }

    /// The task at a spot, wherever it stands in its lane.
    pub fn get_mut(&mut self, key: LaneKey, spot: Spot) -> Option<&mut T> {
        let lane = self.lanes.get_mut(&key)?;
        let entry = lane.queue.iter_mut().find(|e| e.task.spot() == spot)?;
        Some(&mut entry.task)
    }

    /// The task that has begun at this spot: an attempt runs, or failed and another one comes.
    pub fn begun_mut(&mut self, key: LaneKey, spot: Spot) -> Option<&mut T> {
        let lane = self.lanes.get_mut(&key)?;
        if lane.head == Head::Still {
            return None;
        }
        let first = lane.queue.front_mut()?;
        (first.task.spot() == spot).then_some(&mut first.task)
    }

    /// Notes that an attempt has ended and another one comes later: the lane waits.
    pub fn wait(&mut self, key: LaneKey, spot: Spot) {
        if self.begun_mut(key, spot).is_some()
            && let Some(lane) = self.lanes.get_mut(&key)
        {
            lane.head = Head::Waiting;
        }
    }

    /// Ends the wait of a task. Returns whether it was waiting and may start.
    pub fn due(&mut self, key: LaneKey, spot: Spot) -> bool {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return false;
        };
        let waits =
            lane.head == Head::Waiting && lane.queue.front().is_some_and(|e| e.task.spot() == spot);
        if waits {
            lane.head = Head::Still;
        }
        waits && lane.may_start()
    }

    /// Takes out a task that has ended, or that will not run. Returns it, and whether the lane's first task
    /// may start now. Whoever takes out one that was not looked up then calls [`Lanes::to_ask`].
    pub fn remove(&mut self, key: LaneKey, spot: Spot) -> Option<(T, bool)> {
        self.take_out(key, |lane| {
            lane.queue.iter().position(|e| e.task.spot() == spot)
        })
    }

    /// The same for a lane's first task that has begun, after the last attempt at it: nothing is taken out where
    /// there is no such task at this spot.
    pub fn finish(&mut self, key: LaneKey, spot: Spot) -> Option<(T, bool)> {
        self.take_out(key, |lane| {
            let first = lane.queue.front().map(|e| e.task.spot());
            (lane.head != Head::Still && first == Some(spot)).then_some(0)
        })
    }

    fn take_out(
        &mut self,
        key: LaneKey,
        place_of: impl FnOnce(&Lane<T>) -> Option<usize>,
    ) -> Option<(T, bool)> {
        let hash_map::Entry::Occupied(mut place) = self.lanes.entry(key) else {
            return None;
        };
        let lane = place.get_mut();
        let at = place_of(lane)?;
        let entry = lane.queue.remove(at)?;
        self.tasks -= 1;
        if at == 0 {
            lane.head = Head::Still;
        }
        if entry.vouches {
            // What was fetched needs no voucher.
            match lane.queue.iter_mut().skip(at).find(|e| !e.task.has_row()) {
                Some(heir) => {
                    heir.unanswered = heir.unanswered.saturating_add(1);
                    (heir.vouches, heir.to_ask) = (true, true);
                    (lane.some_to_ask, self.some_to_ask) = (true, true);
                }
                None => lane.is_unsure = true,
            }
        }
        let next = at == 0 && lane.may_start();
        if lane.is_over() {
            place.remove();
        }
        Some((entry.task, next))
    }

    /// A task of this lane about which has to be asked, once more: whether some of its key wait in the database.
    /// Another one was to tell, and left before. Each is returned once.
    pub fn to_ask(&mut self, key: LaneKey) -> Option<Spot> {
        // Asked after each task that ends, so it must not look through the lane each time.
        if !self.some_to_ask {
            return None;
        }
        if self.lanes.is_empty() {
            self.some_to_ask = false;
        }
        let lane = self.lanes.get_mut(&key).filter(|lane| lane.some_to_ask)?;
        let entry = lane.queue.iter_mut().find(|entry| entry.to_ask);
        lane.some_to_ask = entry.is_some();
        let entry = entry?;
        entry.to_ask = false;
        Some(entry.task.spot())
    }

    /// Whether the key has a lane.
    #[must_use]
    pub fn has(&self, key: LaneKey) -> bool {
        self.lanes.contains_key(&key)
    }

    /// Whether a task is in a lane.
    #[must_use]
    pub fn has_task(&self, key: LaneKey, spot: Spot) -> bool {
        let lane = self.lanes.get(&key);
        lane.is_some_and(|lane| lane.queue.iter().any(|entry| entry.task.spot() == spot))
    }

    /// In which lane a task is, how many are before it there, and what it waits for; for whoever looks into why
    /// nothing moves.
    #[must_use]
    pub fn find(&self, spot: Spot) -> Option<(LaneKey, usize, &'static str)> {
        self.lanes.iter().find_map(|(key, lane)| {
            let at = lane
                .queue
                .iter()
                .position(|entry| entry.task.spot() == spot)?;
            let entry = lane.queue.get(at)?;
            let state = match lane.head {
                _ if entry.unanswered > 0 && entry.to_ask => "nobody has looked it up",
                _ if entry.unanswered > 0 => "it is being looked up",
                _ if at > 0 => "it waits for those before it",
                Head::Running => "an attempt runs",
                Head::Waiting => "it waits for another attempt",
                Head::Still => "it may start",
            };
            Some((*key, at, state))
        })
    }

    /// Whether some lane waits for another attempt at its first task, or for its tasks to land.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.lanes
            .values()
            .any(|lane| lane.head == Head::Waiting || lane.landing > 0)
    }

    /// Whether it is known of a key whether tasks of it wait in the database, or a task in its lane is to tell.
    #[must_use]
    pub fn is_sure(&self, key: LaneKey) -> bool {
        self.lanes.get(&key).is_some_and(|lane| !lane.is_unsure)
    }

    /// Every task in memory, with its lane and whether it has begun.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (LaneKey, bool, &mut T)> {
        self.lanes.iter_mut().flat_map(|(key, lane)| {
            let begun = lane.head != Head::Still;
            let numbered = lane.queue.iter_mut().enumerate();
            numbered.map(move |(at, entry)| (*key, begun && at == 0, &mut entry.task))
        })
    }

    /// Drops every task that does not run: on the way out, others read or fetch them again. Returns those that
    /// wait for another attempt.
    pub fn keep_running(&mut self) -> Vec<(LaneKey, T)> {
        let mut waiting = Vec::new();
        for (key, lane) in &mut self.lanes {
            let kept = usize::from(lane.head == Head::Running);
            let was_waiting = lane.head == Head::Waiting;
            let mut dropped: VecDeque<Entry<T>> = lane.queue.split_off(kept.min(lane.queue.len()));
            self.tasks -= dropped.len();
            if was_waiting {
                lane.head = Head::Still;
                waiting.extend(dropped.pop_front().map(|entry| (*key, entry.task)));
            }
        }
        self.lanes.retain(|_, lane| !lane.is_over());
        waiting
    }

    /// How many tasks are in memory.
    #[must_use]
    pub const fn tasks(&self) -> usize {
        self.tasks
    }

    /// How many lanes there are.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Drops a lane that is over. Returns whether the database holds tasks of its key.
    fn tidy(&mut self, key: LaneKey) -> bool {
        let over = self.lanes.get(&key).filter(|lane| lane.is_over());
        let more = over.is_some_and(|lane| lane.more);
        if over.is_some() {
            self.lanes.remove(&key);
        }
        more
    }
}
