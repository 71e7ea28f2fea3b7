//! What handlers did: every run of every task, with when it began and ended, in the order in which they began.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use millrace_consumer::Context;
use serde::Deserialize;

/// The payload of the tests' tasks.
#[derive(Deserialize)]
pub struct Numbered {
    pub n: usize,
}

/// One run of a handler.
#[derive(Clone, Debug)]
pub struct Run {
    pub key: String,
    pub n: usize,
    pub began: Instant,
    /// None while it runs, and for ever when its worker was killed before the end of the test's look.
    pub ended: Option<Instant>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Trail(Arc<Mutex<Vec<Run>>>);

/// A run under way; it ends when this is dropped.
pub struct Running {
    trail: Trail,
    at: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(mut runs) = self.trail.0.lock() {
            runs[self.at].ended = Some(Instant::now());
        }
    }
}

impl Trail {
    /// A handler has begun.
    pub fn enter(&self, context: &Context, n: usize) -> Running {
        let mut runs = self.0.lock().unwrap();
        runs.push(Run {
            key: context.key().unwrap_or_default().to_owned(),
            n,
            began: Instant::now(),
            ended: None,
        });
        Running {
            trail: self.clone(),
            at: runs.len() - 1,
        }
    }

    pub fn runs(&self) -> Vec<Run> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// How often the task with this number was begun.
    pub fn times(&self, n: usize) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|run| run.n == n)
            .count()
    }

    /// How many runs have not ended.
    pub fn running(&self) -> usize {
        let runs = self.0.lock().unwrap();
        runs.iter().filter(|run| run.ended.is_none()).count()
    }

    /// The most runs that went on at the same moment, of those that the filter lets pass.
    pub fn most_at_once(&self, of: impl Fn(&Run) -> bool) -> usize {
        let mut moments = Vec::new();
        for run in self.0.lock().unwrap().iter().filter(|run| of(run)) {
            moments.push((run.began, 1_isize));
            moments.extend(run.ended.map(|ended| (ended, -1)));
        }
        moments.sort_unstable();
        let sums = moments.iter().scan(0, |sum, (_, step)| {
            *sum += step;
            Some(*sum)
        });
        usize::try_from(sums.max().unwrap_or(0)).unwrap()
    }

    /// Law 4: within a key a task never starts before the one before it has started for the last time.
    pub fn assert_key_order(&self) {
        let mut last: BTreeMap<(String, usize), usize> = BTreeMap::new();
        for (at, run) in self.0.lock().unwrap().iter().enumerate() {
            last.insert((run.key.clone(), run.n), at);
        }
        let mut before: Option<((String, usize), usize)> = None;
        for (task, at) in last {
            if let Some((earlier, earlier_at)) = &before
                && earlier.0 == task.0
            {
                assert!(
                    *earlier_at < at,
                    "{}: {} began for the last time after {}",
                    task.0,
                    earlier.1,
                    task.1
                );
            }
            before = Some((task, at));
        }
    }

    /// Within a key one run ends before the next begins: only where no worker was killed.
    pub fn assert_one_at_a_time(&self) {
        let mut ended: BTreeMap<String, (usize, Option<Instant>)> = BTreeMap::new();
        for run in self.0.lock().unwrap().iter() {
            if let Some((n, before)) = ended.insert(run.key.clone(), (run.n, run.ended)) {
                assert!(
                    before.is_some_and(|before| before <= run.began),
                    "{}: {} began while {n} ran",
                    run.key,
                    run.n
                );
            }
        }
    }
}
