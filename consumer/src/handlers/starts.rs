//! The queue of attempts to be started, which all executors take from.
//!
//! An executor takes a share of what is there, small enough that a handler that keeps its executor busy holds
//! up few others; what such an executor cannot get to goes back to the front. Order is kept as far as several
//! executors can: the order that a law depends on is kept by the owner, who hands out one task of a key at a
//! time.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::task::Start;

/// Most attempts that an executor takes at once.
const SHARE_MOST: usize = 32;

#[derive(Debug)]
pub(super) struct Starts {
    queue: Mutex<Queue>,
    added: Condvar,
    executors: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Start>,
    /// Executors that sleep; waking one is a system call, so nobody is woken in vain.
    idle: usize,
    is_closed: bool,
}

impl Starts {
    pub(super) fn new(executors: usize) -> Self {
        Self {
            queue: Mutex::default(),
            added: Condvar::new(),
            executors: executors.max(1),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, starts: Vec<Start>) {
        let mut queue = self.queue();
        queue.waiting.extend(starts);
        self.wake_for(queue);
    }

    /// Gives back what an executor took and did not get to.
    pub(super) fn give_back(&self, starts: impl DoubleEndedIterator<Item = Start>) {
        let mut queue = self.queue();
        for start in starts.rev() {
            queue.waiting.push_front(start);
        }
        self.wake_for(queue);
    }

    /// Sleeps until there are attempts to start and takes a share of them; false once the queue is closed.
    pub(super) fn take(&self, into: &mut Vec<Start>) -> bool {
        let mut queue = self.queue();
        while queue.waiting.is_empty() && !queue.is_closed {
            queue.idle += 1;
            queue = self
                .added
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
        if queue.is_closed {
            return false;
        }
        let share = queue.waiting.len().div_ceil(self.executors).min(SHARE_MOST);
        into.extend(queue.waiting.drain(..share));
        self.wake_for(queue);
        true
    }

    /// Whoever leaves something in the queue wakes the next one to take it.
    fn wake_for(&self, queue: MutexGuard<'_, Queue>) {
        let is_wanted = queue.idle > 0 && !queue.waiting.is_empty();
        drop(queue);
        if is_wanted {
            self.added.notify_one();
        }
    }

    /// Sends the executors home and forgets what was not begun.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.is_closed = true;
        let forgotten = std::mem::take(&mut queue.waiting);
        drop(queue);
        drop(forgotten);
        self.added.notify_all();
    }

    /// How many wait to be started.
    pub(super) fn len(&self) -> usize {
        self.queue().waiting.len()
    }
}
