//! How many tasks may be on their way to Kafka at a time: as many as it acknowledges promptly.
//!
//! The limit grows by a quarter with each limit's worth of prompt acknowledgements, and halves, at most once a
//! second, when they fail or come late. So while Kafka is away a front door soon holds a handful of requests that
//! find out when it is back, refuses the others at once, and its memory stays flat.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least limit: those find out whether Kafka is back.
const LEAST: usize = 16;
/// An acknowledgement that takes longer counts against the limit.
const PROMPT: Duration = Duration::from_secs(1);
/// The limit halves at most once in this time: what comes back together tells one thing.
const PAUSE: Duration = Duration::from_secs(1);

/// The decisions, without a clock.
#[derive(Debug)]
struct Limit {
    limit: usize,
    most: usize,
    in_flight: usize,
    prompt: usize,
    halved: Option<Instant>,
}

impl Limit {
    fn new(most: usize) -> Self {
        Self {
            limit: most,
            most,
            in_flight: 0,
            prompt: 0,
            halved: None,
        }
    }

    /// A request of many tasks goes in whenever there is room at all, so that none is too large for ever.
    fn enter(&mut self, tasks: usize) -> bool {
        if self.in_flight >= self.limit {
            return false;
        }
        self.in_flight += tasks;
        true
    }

    fn leave(&mut self, tasks: usize, went: Went, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(tasks);
        match went {
            Went::Promptly => {
                self.prompt += tasks;
                while self.prompt >= self.limit && self.limit < self.most {
                    self.prompt -= self.limit;
                    // Back to full strength within seconds, not minutes.
                    self.limit = (self.limit + self.limit.div_ceil(4)).min(self.most);
                }
                self.prompt = self.prompt.min(self.most);
            }
            Went::Badly => {
                if self
                    .halved
                    .is_none_or(|halved| now.duration_since(halved) >= PAUSE)
                {
                    self.limit = (self.limit / 2).max(LEAST).min(self.most);
                    self.prompt = 0;
                    self.halved = Some(now);
                }
            }
            Went::Nowhere => {}
        }
    }
}

/// How tasks went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    Promptly,
    Badly,
    /// It says nothing of Kafka.
    Nowhere,
}

/// The limit of one front door. Clones are the same limit.
#[derive(Clone, Debug)]
pub(crate) struct Pressure(Arc<Mutex<Limit>>);

/// Room for tasks on their way; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    pressure: Pressure,
    tasks: usize,
    since: Instant,
    went: Went,
}

impl Pressure {
    /// At most `most` tasks at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Limit::new(most.max(1)))))
    }

    /// Room for so many tasks, if there is any.
    pub(crate) fn enter(&self, tasks: usize) -> Option<Room> {
        let entered = self.with(|limit| limit.enter(tasks));
        entered.then(|| Room {
            pressure: self.clone(),
            tasks,
            since: Instant::now(),
            went: Went::Nowhere,
        })
    }

    /// Whether there is no room at present.
    pub(crate) fn is_full(&self) -> bool {
        self.with(|limit| limit.in_flight >= limit.limit)
    }

    /// Tasks on their way, and how many there may be at present.
    pub(crate) fn reading(&self) -> (usize, usize) {
        self.with(|limit| (limit.in_flight, limit.limit))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Limit) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Room {
    /// Kafka has the tasks.
    pub(crate) fn acknowledged(&mut self) {
        self.went = if self.since.elapsed() <= PROMPT {
            Went::Promptly
        } else {
            Went::Badly
        };
    }

    /// Kafka did not take them, or did not say.
    pub(crate) fn failed(&mut self) {
        self.went = Went::Badly;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.pressure
            .with(|limit| limit.leave(self.tasks, self.went, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use super::*;

    #[test]
    fn failures_shrink_the_limit_once_a_second_and_never_below_the_least() {
        let start = Instant::now();
        let mut limit = Limit::new(1_000);
        for _ in 0..100 {
            assert!(limit.enter(1));
        }
        for _ in 0..100 {
            limit.leave(1, Went::Badly, start);
        }
        assert_eq!(limit.limit, 500, "what fails together counts once");
        for second in 1..20 {
            limit.leave(0, Went::Badly, start + PAUSE * second);
        }
        assert_eq!((limit.limit, limit.in_flight), (LEAST, 0));
    }

    #[test]
    fn prompt_acknowledgements_bring_it_back_and_never_above_the_most() {
        let now = Instant::now();
        let mut limit = Limit::new(1_000);
        for second in 0..10 {
            limit.leave(0, Went::Badly, now + PAUSE * second);
        }
        let mut acknowledged = 0;
        while limit.limit < 1_000 {
            limit.leave(1, Went::Promptly, now);
            acknowledged += 1;
            assert!(acknowledged < 20_000, "it does not come back");
        }
        assert_eq!(limit.limit, 1_000);
    }

    #[test]
    fn a_full_house_refuses_and_a_dropped_room_is_free_again() {
        let pressure = Pressure::new(2);
        let first = pressure.enter(5).unwrap();
        assert!(pressure.enter(1).is_none());
        drop(first);
        assert!(pressure.enter(1).is_some());
        assert_eq!(pressure.reading(), (0, 2));
    }
}
