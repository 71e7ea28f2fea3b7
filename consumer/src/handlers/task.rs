//! What the owner of the partitions hands to the executor: a task, and the order to start an attempt of it.
//!
//! A task does not change while it lives: its attempts share it. Which of its fields a handler sees, and how,
//! is the concern of [`super::Context`].

use std::fmt;
use std::sync::Arc;

use millrace_schemas::TaskId;
use millrace_store::Headers;

use super::fields::Spans;
use super::signal::Signal;

/// Where a task's record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The book with which the record's log began; a log that was made again has another.
    pub log_book: i32,
    /// The record's offset in that log.
    pub offset: i64,
}

/// A registered task type, by its place in the [`Registry`](super::Registry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeIndex(pub u16);

/// Says which of two owners of a partition is the later one.
///
/// Hand it to the systems that a handler writes to, and let them refuse a write whose `seq` is lower than one
/// that they have seen from the same partition. This worker may have lost the partition without knowing;
/// Millrace's own tables are fenced, an effect outside of them is not.
///
/// `seq` never goes down within a partition: it grows with each claim of the partition and each flush, and a
/// task carries the value that its worker held when it took the task. Tokens of different partitions say
/// nothing about each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken {
    /// The partition of the task.
    pub partition: i32,
    /// The partition's sequence number.
    pub seq: i64,
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.seq)
    }
}

/// A task as the owner hands it out. Its other fields are read from the record's value.
#[derive(Debug)]
pub struct Task {
    /// Where its record is.
    pub place: Place,
    /// Its id.
    pub task_id: TaskId,
    /// Its type.
    pub task_type: TypeIndex,
    /// On whose behalf it runs. Tenants are few and tasks are many, so the text is shared.
    pub tenant: Arc<str>,
    /// 0, and one more with each redrive.
    pub run: i16,
    /// From which claim it was handed out.
    pub fencing: FencingToken,
    /// The record's value, framed as it came.
    pub value: Arc<[u8]>,
    /// Where in it the event's fields are; `None` when that is not known, and the attempt has to decode it.
    pub spans: Option<Spans>,
    /// The record's headers.
    pub headers: Headers,
    /// The caller's deadline, microseconds since the Unix epoch.
    pub deadline_micros: Option<i64>,
}

/// The order to start one attempt.
#[derive(Debug)]
pub struct Start {
    /// The task.
    pub task: Arc<Task>,
    /// 1 for the first attempt of a run.
    pub attempt: u16,
    /// How the owner reaches the attempt.
    pub signal: Arc<Signal>,
    /// The owner's name for this attempt; comes back with its end.
    pub ticket: u64,
}
