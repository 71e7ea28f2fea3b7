//! What callers were told, and how often of each kind.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::lives::Excuse;
use super::task::Task;

/// How callers hand tasks over, and how they wait for what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One task a request.
    Submit,
    /// The same key and task once more, after it was accepted.
    Again,
    /// The same key and task at two front doors at the same time.
    Race,
    /// The same key at two front doors at the same time, with another payload each.
    RaceOfTwo,
    /// An array of tasks.
    Array,
    /// A stream of lines.
    Lines,
    /// `Submit` of gRPC.
    GrpcSubmit,
    /// One task a request, with `Prefer: wait`.
    Prefer,
    /// `GET …/result?wait=`.
    Result,
    /// `GET …/events`.
    Events,
    /// `GET /v1/events?ids=`.
    ManyEvents,
    /// `Wait` of gRPC.
    GrpcWait,
    /// `Watch` of gRPC.
    GrpcWatch,
}

impl Kind {
    /// All, those that hand over first.
    pub const ALL: [Self; 13] = [
        Self::Submit,
        Self::Prefer,
        Self::Again,
        Self::Race,
        Self::RaceOfTwo,
        Self::Array,
        Self::Lines,
        Self::GrpcSubmit,
        Self::Result,
        Self::Events,
        Self::ManyEvents,
        Self::GrpcWait,
        Self::GrpcWatch,
    ];

    /// Whether a task that was accepted is waited for.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(
            self,
            Self::Result | Self::Events | Self::ManyEvents | Self::GrpcWait | Self::GrpcWatch
        )
    }

    /// Whether tasks are followed to their end, and asked for their results then.
    pub(super) const fn follows(self) -> bool {
        matches!(self, Self::Events | Self::ManyEvents | Self::GrpcWatch)
    }

    /// Whether front doors are asked for one key at the same time.
    pub(super) const fn is_race(self) -> bool {
        matches!(self, Self::Race | Self::RaceOfTwo)
    }

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Again => "once more with its key",
            Self::Race => "a key at both doors, one payload",
            Self::RaceOfTwo => "a key at both doors, two payloads",
            Self::Array => "bulk, an array",
            Self::Lines => "bulk, lines",
            Self::GrpcSubmit => "gRPC Submit",
            Self::Prefer => "submit with Prefer: wait",
            Self::Result => "result?wait=",
            Self::Events => "events of one task",
            Self::ManyEvents => "events of many tasks",
            Self::GrpcWait => "gRPC Wait",
            Self::GrpcWatch => "gRPC Watch",
        }
    }
}

/// How often, of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Tasks handed over, or waited for.
    pub begun: usize,
    /// Tasks that were accepted, or whose result was told.
    pub answered: usize,
    /// Answers 422: the key is another task's.
    pub reused: usize,
    /// Refusals that said to come again.
    pub later: usize,
    /// Requests cut off by the kill of their front door.
    pub cut: usize,
    /// Requests made while their front door was down.
    pub down: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub counts: BTreeMap<Kind, Count>,
    /// The ids of tasks that were accepted.
    pub accepted: BTreeMap<Uuid, Task>,
    /// All ids that an idempotency key was answered with.
    pub by_key: BTreeMap<String, BTreeSet<Uuid>>,
    /// Tasks without a key of which a front door said that it had not taken them.
    pub not_taken: BTreeSet<String>,
    /// What is not as promised.
    pub violations: Vec<String>,
}

impl Told {
    pub(super) fn count(&mut self, kind: Kind) -> &mut Count {
        self.counts.entry(kind).or_default()
    }

    pub(super) fn accepted(&mut self, kind: Kind, id: Uuid, task: &Task) {
        self.count(kind).answered += 1;
        self.accepted.insert(id, task.clone());
        if task.has_key {
            self.by_key.entry(task.name.clone()).or_default().insert(id);
        }
    }

    pub(super) fn cut(&mut self, kind: Kind, excuse: Excuse) {
        let count = self.count(kind);
        match excuse {
            Excuse::Killed => count.cut += 1,
            Excuse::Down => count.down += 1,
        }
    }

    pub(super) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub(super) fn add(&mut self, other: Self) {
        for (kind, more) in other.counts {
            let count = self.count(kind);
            count.begun += more.begun;
            count.answered += more.answered;
            count.reused += more.reused;
            count.later += more.later;
            count.cut += more.cut;
            count.down += more.down;
        }
        self.accepted.extend(other.accepted);
        for (key, ids) in other.by_key {
            self.by_key.entry(key).or_default().extend(ids);
        }
        self.not_taken.extend(other.not_taken);
        self.violations.extend(other.violations);
    }
}
