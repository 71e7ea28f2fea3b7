//! Tasks that this front door handed over a moment ago and has not heard the end of. Whoever waits for one of them need
//! not ask the database whether it has ended already, which nearly all would: they wait right after they submit.
//!
//! It is a hint. An end that was not heard, since no notice was sent or the connection broke, is found by the looks
//! that are made for everybody who waits.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_schemas::TaskId;

/// How long a task counts as handed over a moment ago.
const MOMENT: Duration = Duration::from_secs(10);
/// Most that are remembered.
const MOST: usize = 50_000;

/// What was handed over a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Accepted(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether ends are heard at present.
    listening: bool,
    open: HashSet<TaskId>,
    in_order: VecDeque<(Instant, TaskId)>,
}

impl Accepted {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends are heard from now on, or not any more; of what was handed over before, nothing is certain.
    pub(crate) fn listens(&self, listening: bool) {
        self.with(|inner| {
            *inner = Inner {
                listening,
                ..Inner::default()
            }
        });
    }

    /// These are about to be sent: an end can be heard before the acknowledgement is.
    pub(crate) fn sending(&self, ids: impl Iterator<Item = TaskId>) {
        let now = Instant::now();
        self.with(|inner| {
            if !inner.listening {
                return;
            }
            for id in ids {
                if inner.open.insert(id) {
                    inner.in_order.push_back((now, id));
                }
            }
            while let Some((at, id)) = inner.in_order.front()
                && (inner.in_order.len() > MOST || now.duration_since(*at) > MOMENT)
            {
                inner.open.remove(id);
                inner.in_order.pop_front();
            }
        });
    }

    /// These have ended.
    pub(crate) fn ended(&self, ids: &[TaskId]) {
        self.with(|inner| {
            for id in ids {
                inner.open.remove(id);
            }
        });
    }

    /// Whether a task was handed over a moment ago and had not ended by now, as far as was heard.
    pub(crate) fn is_open(&self, id: TaskId) -> bool {
        self.with(|inner| inner.open.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_open_until_its_end_is_heard_and_only_while_ends_are_heard() {
        let accepted = Accepted::default();
        let [first, second] = [TaskId::mint(), TaskId::mint()];
        accepted.sending([first].into_iter());
        assert!(!accepted.is_open(first), "nobody listens");
        accepted.listens(true);
        accepted.sending([first, second].into_iter());
        accepted.ended(&[first]);
        assert!(!accepted.is_open(first));
        assert!(accepted.is_open(second));
        accepted.listens(false);
        assert!(!accepted.is_open(second));
    }

    #[test]
    fn no_more_are_remembered_than_there_may_be() {
        let accepted = Accepted::default();
        accepted.listens(true);
        let first = TaskId::mint();
        accepted.sending([first].into_iter());
        accepted.sending(std::iter::repeat_with(TaskId::mint).take(MOST));
        assert!(!accepted.is_open(first));
        let held = accepted.with(|inner| (inner.open.len(), inner.in_order.len()));
        assert_eq!(held, (MOST, MOST));
    }
}
