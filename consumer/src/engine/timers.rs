//! What is to happen when: retries, deadlines, timeouts, graces and marks, each due at an instant.
//!
//! Guarantees to the owner: each timer fires once, in order of time and, at the same instant, in the order in
//! which they were set; never after it was cancelled or set anew. Setting and cancelling cost O(log n) on
//! average. Cancelled timers are swept once they outnumber the live ones, so memory follows what is live.

use std::cmp::{Ordering, Reverse};
use std::collections::hash_map::Entry as Slot;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hash};
use std::time::Instant;

use super::key_hasher::KeyHasher;

/// Cancelled timers that are always tolerated: below that, sweeping is not worth it.
const SLACK: usize = 64;

/// What a timer is for. Something has at most one of each at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerKind {
    /// The wait before the next attempt is over.
    Retry,
    /// The caller's deadline has passed.
    Deadline,
    /// The attempt has run as long as its type's policy allows.
    Timeout,
    /// The attempt was cancelled and has not ended in time.
    Grace,
    /// The attempt runs long: the frontier should not wait for it.
    RunLong,
}

impl TimerKind {
    const COUNT: usize = 5;
}

/// The stamps of the live timers of one id, by kind; 0 where there is none.
type Stamps = [u64; TimerKind::COUNT];

#[derive(Debug)]
struct Timer<Id> {
    at: Instant,
    /// Counts up with each timer that is set: which of two is the later one, and which is still meant.
    stamp: u64,
    kind: TimerKind,
    id: Id,
}

impl<Id> Ord for Timer<Id> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.stamp).cmp(&(other.at, other.stamp))
    }
}

impl<Id> PartialOrd for Timer<Id> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<Id> PartialEq for Timer<Id> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<Id> Eq for Timer<Id> {}

/// Timers of things named by `Id`; see the module.
#[derive(Debug)]
pub struct Timers<Id> {
    /// The first one is live, always; others may be cancelled.
    heap: BinaryHeap<Reverse<Timer<Id>>>,
    stamps: HashMap<Id, Stamps, BuildHasherDefault<KeyHasher>>,
    live: usize,
    last_stamp: u64,
}

impl<Id> Default for Timers<Id> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            stamps: HashMap::default(),
            live: 0,
            last_stamp: 0,
        }
    }
}

impl<Id: Copy + Eq + Hash> Timers<Id> {
    /// No timers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a timer. One of the same id and kind that was set before does not fire any more.
    pub fn set(&mut self, at: Instant, id: Id, kind: TimerKind) {
        self.last_stamp += 1;
        let stamp = self.last_stamp;
        if let Some(slot) = self.stamps.entry(id).or_default().get_mut(kind as usize) {
            self.live += usize::from(*slot == 0);
            *slot = stamp;
        }
        self.heap.push(Reverse(Timer {
            at,
            stamp,
            kind,
            id,
        }));
        self.sweep();
    }

    /// Cancels every timer of an id. Returns whether there was one.
    pub fn cancel(&mut self, id: Id) -> bool {
        let Some(stamps) = self.stamps.remove(&id) else {
            return false;
        };
        self.live -= stamps.iter().filter(|stamp| **stamp > 0).count();
        self.sweep();
        true
    }

    /// Cancels one kind of timer of an id. Returns whether there was one.
    pub fn cancel_kind(&mut self, id: Id, kind: TimerKind) -> bool {
        let cancelled = self.clear(id, kind);
        self.sweep();
        cancelled
    }

    /// Takes out the next timer that is due at `now`; none, once all of them were taken.
    pub fn due(&mut self, now: Instant) -> Option<(Id, TimerKind)> {
        if self.next_at()? > now {
            return None;
        }
        let Reverse(timer) = self.heap.pop()?;
        self.clear(timer.id, timer.kind);
        self.sweep();
        Some((timer.id, timer.kind))
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(timer)| timer.at)
    }

    /// How many timers are set.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Whether none is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// How many timers are held in memory, cancelled ones included.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.heap.len()
    }

    fn clear(&mut self, id: Id, kind: TimerKind) -> bool {
        let Slot::Occupied(mut slots) = self.stamps.entry(id) else {
            return false;
        };
        let was_set = slots
            .get_mut()
            .get_mut(kind as usize)
            .is_some_and(|slot| std::mem::take(slot) > 0);
        if slots.get().iter().all(|stamp| *stamp == 0) {
            slots.remove();
        }
        self.live -= usize::from(was_set);
        was_set
    }

    /// Drops cancelled timers from the top, so that the first is live; and all of them when they are many.
    fn sweep(&mut self) {
        let stamps = &self.stamps;
        let is_live = |timer: &Timer<Id>| {
            let stamp = stamps
                .get(&timer.id)
                .and_then(|s| s.get(timer.kind as usize));
            stamp == Some(&timer.stamp)
        };
        if self.heap.len() > 2 * self.live + SLACK {
            self.heap.retain(|Reverse(timer)| is_live(timer));
            if self.heap.capacity() > 8 * (self.live + SLACK) {
                self.heap.shrink_to(2 * self.live + SLACK);
            }
        }
        while self
            .heap
            .peek()
            .is_some_and(|Reverse(timer)| !is_live(timer))
        {
            self.heap.pop();
        }
    }
}
