//! A task as its lane sees it: where its record lies, whom it waits for, and what becomes of it.
//!
//! Everything that goes through lanes implements [`Laned`]; what it is beside that, a lane never asks. A lane
//! answers with [`Placed`] and [`Resolved`]: who may start, and who has to wait in the database instead.

use std::collections::VecDeque;
use std::time::Instant;

/// Where a task's record lies within its partition: which log, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// The book with which that log began.
    pub log_book: i32,
    /// The offset.
    pub offset: i64,
}

/// Whom a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneKey {
    /// Tasks with the same hash of tenant and key.
    Key([u8; 16]),
    /// Every task of the partition whose type asks for it.
    Partition,
    /// Nobody.
    Alone(Spot),
}

/// What a lane has to know of a task.
pub trait Laned {
    /// Where its record lies.
    fn spot(&self) -> Spot;
    /// Whether it waits for no earlier task and joins its lane at the end: one that was delayed on purpose.
    fn joins_last(&self) -> bool;
    /// Whether the database holds a row of it, so that it may be forgotten here.
    fn has_row(&self) -> bool;
    /// With whom it waits in the database.
    fn key_hash(&self) -> [u8; 16];
    /// Whether a task that was fetched from the database has still to be looked up before it starts.
    fn is_to_be_looked_up(&self) -> bool {
        false
    }
}

/// What became of a task that came from the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed<T> {
    /// It is the first of its lane and may start.
    Next,
    /// It waits in memory, for its look-up or for those before it.
    Waits,
    /// Some of its key wait in the database, behind those of its lane: it has to go there, too. The lane expects
    /// to hear that it has landed.
    Full(T),
}

/// What the answer to a look-up means for a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Resolved<T> {
    /// The lane's first task may start.
    Next,
    /// Nothing can start because of it.
    Waits,
    /// Earlier tasks of the key wait in the database: these, in order, have to go there, too. The lane expects
    /// to hear that those have landed that have to be written; the others have their rows there.
    Park(Vec<T>),
}

/// What the first task of a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Not started, or there is none.
    Still,
    /// An attempt runs.
    Running,
    /// An attempt failed, the next one comes later.
    Waiting,
}

/// A task in its lane.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) task: T,
    /// Answers that have to come before it may start.
    pub(super) unanswered: u8,
    /// Its look-up tells whether earlier tasks of the key wait in the database, for all behind it as well.
    pub(super) vouches: bool,
    /// Nobody has asked yet on behalf of those behind one that vouched and left.
    pub(super) to_ask: bool,
}

impl<T> Entry<T> {
    pub(super) const fn known(task: T) -> Self {
        Self {
            task,
            unanswered: 0,
            vouches: false,
            to_ask: false,
        }
    }
}

/// The first task of a lane, which may start.
#[derive(Debug)]
pub struct First<'a, T> {
    pub(super) task: &'a mut T,
    pub(super) head: &'a mut Head,
}

impl<'a, T> First<'a, T> {
    /// The task.
    #[must_use]
    pub const fn task(&self) -> &T {
        self.task
    }

    /// Notes that an attempt at it runs from now on.
    pub const fn start(self) -> &'a mut T {
        *self.head = Head::Running;
        self.task
    }
}

/// The tasks of one key that are here, and what is known of those that are not.
#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) queue: VecDeque<Entry<T>>,
    pub(super) head: Head,
    /// The database holds tasks of this key that come behind those in the queue.
    pub(super) more: bool,
    /// All that it held of this key was brought here.
    pub(super) is_fetched: bool,
    /// Whether earlier tasks of the key wait there is unknown, and the next that comes has to find out.
    pub(super) is_unsure: bool,
    /// Whether some entry may be [`Entry::to_ask`].
    pub(super) some_to_ask: bool,
    /// Tasks on their way into the database.
    pub(super) landing: usize,
    /// Since when it has held something without a break.
    pub(super) since: Instant,
}

impl<T> Lane<T> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            // Most lanes hold one task and are gone with it.
            queue: VecDeque::with_capacity(1),
            head: Head::Still,
            more: false,
            is_fetched: false,
            is_unsure: true,
            some_to_ask: false,
            landing: 0,
            since: now,
        }
    }

    pub(super) fn may_start(&self) -> bool {
        self.head == Head::Still
            && self
                .queue
                .front()
                .is_some_and(|entry| entry.unanswered == 0)
    }

    pub(super) fn is_over(&self) -> bool {
        self.queue.is_empty() && self.landing == 0
    }
}
