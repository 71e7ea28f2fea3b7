//! The answers of attempts, on their way to the owner.
//!
//! Whoever has answers adds them, the owner takes all that are there at once: one lock and at most one
//! wake-up for many answers. What is held is bounded by the attempts that the owner has started.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::attempt::Finished;

#[derive(Debug, Default)]
struct Tray {
    finished: Mutex<Vec<Finished>>,
    added: Notify,
}

/// The owner's end.
#[derive(Debug)]
pub struct Completions(Arc<Tray>);

/// The attempts' end.
#[derive(Debug, Clone)]
pub(super) struct Finisher(Arc<Tray>);

pub(super) fn channel() -> (Finisher, Completions) {
    let tray = Arc::new(Tray::default());
    (Finisher(Arc::clone(&tray)), Completions(tray))
}

impl Completions {
    /// Waits for answers and takes all that are there. Nothing is lost when it is dropped while it waits.
    pub async fn recv(&mut self) -> Vec<Finished> {
        loop {
            if let Some(finished) = self.try_recv() {
                return finished;
            }
            // A notification between the look and the wait is kept, so it is not missed.
            self.0.added.notified().await;
        }
    }

    /// Takes the answers that are there.
    pub fn try_recv(&mut self) -> Option<Vec<Finished>> {
        let mut there = self
            .0
            .finished
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (!there.is_empty()).then(|| std::mem::take(&mut *there))
    }
}

impl Finisher {
    pub(super) fn push(&self, finished: Finished) {
        self.add(|there| there.push(finished));
    }

    /// Adds them all and leaves the vector empty.
    pub(super) fn append(&self, finished: &mut Vec<Finished>) {
        if !finished.is_empty() {
            self.add(|there| there.append(finished));
        }
    }

    fn add(&self, add: impl FnOnce(&mut Vec<Finished>)) {
        let was_empty = {
            let mut there = self
                .0
                .finished
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let was_empty = there.is_empty();
            add(&mut there);
            was_empty
        };
        if was_empty {
            self.0.added.notify_one();
        }
    }
}
