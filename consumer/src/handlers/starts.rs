//! The queue of attempts to be started, which all executors take from.
//!
//! An executor takes a share of what is there, small enough that a handler that keeps its executor busy holds
//! up few others; what such an executor cannot get to goes back to the front. Order is kept as far as several
//! executors can: the order that a law depends on is kept by the owner, who hands out one task of a key at a
//! time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::task::Start;

/// Most attempts that an executor takes at once.
const SHARE_MOST: usize = 32;

#[derive(Debug)]
pub(super) struct Starts {
    queue: Mutex<VecDeque<Start>>,
    added: Notify,
    executors: usize,
}

impl Starts {
    pub(super) fn new(executors: usize) -> Self {
        Self {
            queue: Mutex::new(VecDeque::new()),
            added: Notify::new(),
            executors: executors.max(1),
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Start>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, starts: Vec<Start>) {
        if starts.is_empty() {
            return;
        }
        self.queue().extend(starts);
        self.added.notify_one();
    }

    /// Gives back what an executor took and did not get to.
    pub(super) fn give_back(&self, starts: impl DoubleEndedIterator<Item = Start>) {
        let mut queue = self.queue();
        for start in starts.rev() {
            queue.push_front(start);
        }
        drop(queue);
        self.added.notify_one();
    }

    /// Waits for attempts to start and takes a share of them.
    pub(super) async fn take(&self, into: &mut Vec<Start>) {
        loop {
            if self.try_take(into) {
                return;
            }
            // A notification between the look and the wait is kept, so it is not missed.
            self.added.notified().await;
        }
    }

    fn try_take(&self, into: &mut Vec<Start>) -> bool {
        let mut queue = self.queue();
        let share = queue.len().div_ceil(self.executors).min(SHARE_MOST);
        into.extend(queue.drain(..share));
        let more = !queue.is_empty();
        drop(queue);
        if more {
            self.added.notify_one();
        }
        !into.is_empty()
    }

    /// How many wait to be started.
    pub(super) fn len(&self) -> usize {
        self.queue().len()
    }
}
