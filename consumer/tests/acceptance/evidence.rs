//! What the handlers of a test saw, told by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use millrace_consumer::Context;

/// The runs of a task's handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// How often a handler was called.
    pub calls: u32,
    /// The number of the last attempt, as the handler was told.
    pub attempt: u16,
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<usize, Seen>,
    partitions: BTreeMap<&'static str, BTreeSet<i32>>,
}

/// Shared by the handlers of a test.
#[derive(Clone, Default)]
pub struct Evidence(Arc<Mutex<Inner>>);

impl Evidence {
    /// A handler of this worker begins with the task of this number.
    pub fn called(&self, worker: &'static str, n: usize, context: &Context) {
        let mut inner = self.0.lock().unwrap();
        let seen = inner.tasks.entry(n).or_default();
        seen.calls += 1;
        seen.attempt = context.attempt();
        let partition = context.fencing_token().partition;
        inner
            .partitions
            .entry(worker)
            .or_default()
            .insert(partition);
    }

    pub fn tasks(&self) -> BTreeMap<usize, Seen> {
        self.0.lock().unwrap().tasks.clone()
    }

    pub fn calls(&self) -> u64 {
        let inner = self.0.lock().unwrap();
        inner.tasks.values().map(|seen| u64::from(seen.calls)).sum()
    }

    /// Of which partitions this worker has had tasks since the last time that this was asked.
    pub fn take_partitions(&self, worker: &'static str) -> BTreeSet<i32> {
        let mut inner = self.0.lock().unwrap();
        inner.partitions.remove(worker).unwrap_or_default()
    }

    /// The same, without forgetting.
    pub fn partitions(&self, worker: &'static str) -> BTreeSet<i32> {
        let inner = self.0.lock().unwrap();
        inner.partitions.get(worker).cloned().unwrap_or_default()
    }
}
