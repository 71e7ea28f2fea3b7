//! Attempts in flight, and the lanes whose first task may start: what runs, and who is next.
//!
//! Plain bookkeeping between the owner and the executor. Types take turns, lanes of one type start in the order
//! in which they became ready, and no more run at once than the worker and the type allow.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_schemas::Decoders;

use crate::engine::{KeyHasher, LaneKey, Spot};
use crate::handlers::{CancelReason, Executor, Signal, Start, Task, TypeIndex};

/// Lanes of one type that start before another type has its turn.
const TURN: usize = 16;

/// A lane whose first task may start. By the time that its turn comes this may no longer be so.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// The partition.
    pub partition: i32,
    /// The seq at its claim.
    pub token: i64,
    /// The lane.
    pub lane: LaneKey,
}

/// An attempt that was started and has not ended.
#[derive(Debug)]
pub struct Attempt {
    /// Where its task is.
    pub offer: Offer,
    /// Where its record lies.
    pub spot: Spot,
    /// The type of its task.
    pub task_type: TypeIndex,
    /// How it is reached.
    pub signal: Arc<Signal>,
    /// When it was handed out.
    pub started: Instant,
    /// How long it may run, by its type's policy.
    pub timeout: Option<Duration>,
    /// The caller's deadline, microseconds since the Unix epoch.
    pub deadline_micros: Option<i64>,
    /// How long it runs until its task is parked meanwhile; `None` when that is done, or of no use.
    pub long_after: Option<Duration>,
    /// Why and when it was asked to stop.
    pub asked: Option<(CancelReason, Instant)>,
    /// Whether it runs alone, since its task may be killing its worker.
    pub careful: bool,
    /// Whether its task has ended meanwhile, as a repeat of another: what the handler says counts no more.
    pub is_void: bool,
    /// Whether its task has a row in the table of progress.
    pub reported: bool,
    /// The last word of its handler: how far it is, and a note.
    pub progress: Option<(f32, Box<str>)>,
    /// Whether that word is new.
    pub progress_is_new: bool,
}

impl Attempt {
    /// Whether its handler was called so long ago. Waiting for a thread, or for a batch to fill, is no running.
    #[must_use]
    pub fn has_run_for(&self, limit: Option<Duration>, now: Instant) -> bool {
        limit
            .zip(self.signal.began())
            .is_some_and(|(limit, began)| now.saturating_duration_since(began) >= limit)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Attempts {
    executor: Executor,
    in_flight: HashMap<u64, Attempt, BuildHasherDefault<KeyHasher>>,
    ready: Vec<VecDeque<Offer>>,
    running: Vec<usize>,
    limit: usize,
    turn: usize,
    picked: usize,
    next_ticket: u64,
}

impl Attempts {
    /// Nothing runs. `types` is the number of registered types, `limit` the most attempts at once.
    #[must_use]
    pub fn new(executor: Executor, types: usize, limit: usize) -> Self {
        Self {
            executor,
            in_flight: HashMap::default(),
            ready: vec![VecDeque::new(); types],
            running: vec![0; types],
            limit: limit.max(1),
            turn: 0,
            picked: 0,
            next_ticket: 0,
        }
    }

    /// Queues a lane whose first task is of this type and may start.
    pub fn offer(&mut self, task_type: TypeIndex, offer: Offer) {
        if let Some(queue) = self.ready.get_mut(usize::from(task_type.0)) {
            queue.push_back(offer);
        }
    }

    /// The next lane in turn among the types that may run more, with `most` telling each type's own limit.
    pub fn next(
        &mut self,
        most: impl Fn(TypeIndex) -> Option<usize>,
    ) -> Option<(TypeIndex, Offer)> {
        if self.in_flight.len() >= self.limit {
            return None;
        }
        let types = self.ready.len();
        for step in 0..types {
            let at = (self.turn + step) % types;
            let index = TypeIndex(u16::try_from(at).unwrap_or(u16::MAX));
            let running = self.running.get(at).copied().unwrap_or(0);
            let (Some(queue), true) = (
                self.ready.get_mut(at).filter(|queue| !queue.is_empty()),
                most(index).is_none_or(|most| running < most),
            ) else {
                continue;
            };
            if let Some(offer) = queue.pop_front() {
                // The same type goes on for a while: turns cost more than they bring when all are short.
                self.picked = self.picked.wrapping_add(1);
                if self.picked.is_multiple_of(TURN) {
                    self.turn = at + 1;
                }
                return Some((index, offer));
            }
        }
        None
    }

    /// Notes an attempt and makes the order for it.
    pub fn begin(&mut self, task: Arc<Task>, attempt: u16, begun: Attempt) -> Start {
        self.next_ticket += 1;
        if let Some(running) = self.running.get_mut(usize::from(begun.task_type.0)) {
            *running += 1;
        }
        let start = Start {
            task,
            attempt,
            signal: Arc::clone(&begun.signal),
            ticket: self.next_ticket,
        };
        self.in_flight.insert(self.next_ticket, begun);
        start
    }

    /// Hands orders to the executor.
    pub fn start(&self, orders: Vec<Start>) {
        if !orders.is_empty() {
            self.executor.start(orders);
        }
    }

    /// Schemas were learned: tasks written with them may be started from now on.
    pub fn learned(&self, decoders: Decoders) {
        self.executor.learned(decoders);
    }

    /// Takes an attempt out that has ended. `None` when it was given up before.
    pub fn end(&mut self, ticket: u64) -> Option<Attempt> {
        let attempt = self.in_flight.remove(&ticket)?;
        if let Some(running) = self.running.get_mut(usize::from(attempt.task_type.0)) {
            *running = running.saturating_sub(1);
        }
        Some(attempt)
    }

    /// An attempt in flight.
    pub fn get_mut(&mut self, ticket: u64) -> Option<&mut Attempt> {
        self.in_flight.get_mut(&ticket)
    }

    /// Those in flight.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Attempt)> {
        self.in_flight
            .iter()
            .map(|(ticket, attempt)| (*ticket, attempt))
    }

    /// Those in flight.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Attempt)> {
        self.in_flight
            .iter_mut()
            .map(|(ticket, attempt)| (*ticket, attempt))
    }

    /// How many are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether some attempt of this partition, under the claim with this seq, is in flight.
    #[must_use]
    pub fn any_of(&self, partition: i32, token: i64) -> bool {
        self.in_flight
            .values()
            .any(|attempt| attempt.offer.partition == partition && attempt.offer.token == token)
    }

    /// Whether a handler has been called for a task of this partition, and has not answered.
    #[must_use]
    pub fn any_begun_of(&self, partition: i32, token: i64) -> bool {
        self.in_flight.values().any(|attempt| {
            (attempt.offer.partition, attempt.offer.token) == (partition, token)
                && attempt.signal.began().is_some()
        })
    }

    /// Whether tasks wait for the end of others.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        !self.in_flight.is_empty() && self.ready.iter().any(|queue| !queue.is_empty())
    }

    /// Most attempts of all types that may run at once.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Attempts in flight of each type.
    #[must_use]
    pub fn running(&self) -> &[usize] {
        &self.running
    }
}
