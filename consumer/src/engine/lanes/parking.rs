//! What the lanes give to the database, and what comes back from there.
//!
//! What waits in the database comes behind what is here, so once a lane has given tasks away, later ones of its
//! key are given away, too, until what was given away has been fetched back. Guarantees to the tasks of a key
//! that they keep their order on the way there and back, and to whoever asks for parked tasks that an answer
//! which is older than what was given away is not taken for all there is.

use std::time::Instant;

use super::super::lane::{Entry, Head, Lane, LaneKey, Laned};
use super::Lanes;

impl<T: Laned> Lanes<T> {
    /// Takes the tail of each lane by key that has held something since `before` without a break, down to
    /// `depth` tasks: with its lane, in order. Those for which [`Lanes::goes_along`] holds have to go into the
    /// database, and the lane expects to hear that they have landed; the others have their rows there.
    pub fn trim(&mut self, depth: usize, before: Instant) -> Vec<(LaneKey, Vec<T>)> {
        let mut trimmed = Vec::new();
        for (key, lane) in &mut self.lanes {
            let slow = matches!(key, LaneKey::Key(_)) && lane.since <= before;
            if !slow || lane.queue.len() <= depth.max(1) {
                continue;
            }
            let tail = lane.queue.split_off(depth.max(1));
            let tasks: Vec<T> = tail.into_iter().map(|entry| entry.task).collect();
            self.tasks -= tasks.len();
            lane.more = true;
            lane.landing += tasks.iter().filter(|task| Self::goes_along(task)).count();
            trimmed.push((*key, tasks));
        }
        trimmed
    }

    /// How many lanes by key have held something since `before` without a break.
    #[must_use]
    pub fn slow(&self, before: Instant) -> usize {
        let lanes = self.lanes.iter();
        lanes
            .filter(|(key, lane)| matches!(key, LaneKey::Key(_)) && lane.since <= before)
            .count()
    }

    /// Takes in tasks that were fetched from the database, ascending; `more` says that others were left there.
    /// They come before everything that has not begun. What is here already is not taken twice. Returns
    /// whether the lane's first task may start; `None`, and the tasks are dropped, where [`Lanes::has_given`]
    /// holds: what was read is not all there is.
    pub fn wake(
        &mut self,
        key: LaneKey,
        tasks: impl IntoIterator<Item = T>,
        more: bool,
        now: Instant,
    ) -> Option<bool> {
        if self.has_given(key) {
            return None;
        }
        let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(now));
        lane.is_fetched = !more;
        let begun = usize::from(lane.head != Head::Still).min(lane.queue.len());
        for task in tasks {
            let spot = task.spot();
            if let Some(entry) = lane.queue.iter_mut().find(|e| e.task.spot() == spot) {
                // Read from the log again, and not looked up yet: it will leave, and its row stays.
                let leaves = entry.unanswered > 0 && !entry.task.has_row();
                entry.vouches |= leaves;
                lane.is_fetched &= !leaves;
                continue;
            }
            let behind = |entry: &Entry<T>| !entry.task.joins_last() && entry.task.spot() < spot;
            let at = if task.joins_last() {
                lane.queue.len()
            } else {
                begun
                    + lane
                        .queue
                        .iter()
                        .skip(begun)
                        .take_while(|entry| behind(entry))
                        .count()
            };
            let unanswered = u8::from(task.is_to_be_looked_up());
            lane.queue.insert(
                at,
                Entry {
                    unanswered,
                    ..Entry::known(task)
                },
            );
            self.tasks += 1;
        }
        lane.more = more;
        lane.is_unsure = false;
        let may_start = lane.may_start();
        self.tidy(key);
        Some(may_start)
    }

    /// Notes that a task of this key goes into the database, to wait there with the others, without having been
    /// in its lane. The lane expects to hear that it has landed.
    pub fn sent(&mut self, key: LaneKey, now: Instant) {
        let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(now));
        lane.more = true;
        lane.landing += 1;
    }

    /// Empties a lane whose first task has to wait in the database: all its tasks, in order. The lane expects
    /// to hear, by [`Lanes::landed`], of the first, and of those for which [`Lanes::goes_along`] holds; the
    /// others have their rows and are only forgotten here.
    pub fn park(&mut self, key: LaneKey) -> Vec<T> {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return Vec::new();
        };
        let tasks: Vec<T> = lane.queue.drain(..).map(|entry| entry.task).collect();
        self.tasks -= tasks.len();
        lane.head = Head::Still;
        lane.more = true;
        let followers = tasks.iter().skip(1).filter(|task| Self::goes_along(task));
        lane.landing += usize::from(!tasks.is_empty()) + followers.count();
        self.tidy(key);
        tasks
    }

    /// Whether a task that is parked behind another has to be written: it has no row, or one that does not
    /// wait with its key.
    pub fn goes_along(task: &T) -> bool {
        !task.has_row() || task.joins_last()
    }

    /// Takes in that a task of this lane has landed in the database. Returns whether the lane is over while
    /// the database holds tasks of its key: the next are to be fetched from there.
    pub fn landed(&mut self, key: LaneKey) -> bool {
        self.landed.insert(key);
        let Some(lane) = self.lanes.get_mut(&key) else {
            return false;
        };
        lane.landing = lane.landing.saturating_sub(1);
        self.tidy(key)
    }

    /// Whether a lane has given tasks to the database that are not back, or some have landed there since
    /// [`Lanes::busy_keys`]: an answer may have been read before that, and others of its key go there, too.
    #[must_use]
    pub fn has_given(&self, key: LaneKey) -> bool {
        let lane = self.lanes.get(&key);
        lane.is_some_and(|lane| lane.more || lane.landing > 0) || self.landed.contains(&key)
    }

    /// Keys of lanes of whose tasks some have rows, or that have given tasks away: not to be fetched now. Call it
    /// right before the others are asked for, and never while an answer is out.
    pub fn busy_keys(&mut self) -> Vec<[u8; 16]> {
        self.landed.clear();
        let mut busy = Vec::new();
        for (key, lane) in &self.lanes {
            let mut rows = lane
                .queue
                .iter()
                .map(|entry| &entry.task)
                .filter(|task| task.has_row());
            match key {
                LaneKey::Key(hash) if lane.more || lane.landing > 0 => busy.push(*hash),
                LaneKey::Key(hash) => busy.extend(rows.next().map(|_| *hash)),
                LaneKey::Partition | LaneKey::Alone(_) => busy.extend(rows.map(T::key_hash)),
            }
        }
        busy
    }
}
