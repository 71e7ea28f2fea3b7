//! How tasks ended, by type, and why some became dead letters.
//!
//! Both lists of labels are closed: types are the registered ones or `other`, reasons are those of
//! the table `dead_letters` or `other`. Every series is there from the start, at zero.

use crate::definition::{Definition, Kind};
use metrics::Counter;

const TASKS: Definition = Definition {
    name: "millrace_tasks_total",
    kind: Kind::Counter,
    labels: &["topic", "task_type", "outcome"],
    help: "Tasks whose outcome is durable, by type and outcome; parked ones count again as they end.",
};
const DUPLICATES: Definition = Definition {
    name: "millrace_duplicates_total",
    kind: Kind::Counter,
    labels: &["topic"],
    help: "Events dropped because their dedup key had been settled before.",
};
const DEAD_LETTERS: Definition = Definition {
    name: "millrace_dead_letters_total",
    kind: Kind::Counter,
    labels: &["topic", "reason"],
    help: "Events set aside as dead letters, by reason.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[&TASKS, &DUPLICATES, &DEAD_LETTERS];

/// The label value for whatever is not on a closed list.
pub(crate) const OTHER: &str = "other";

const DEAD_LETTER_REASONS: [&str; 10] = [
    "undecodable",
    "id_out_of_range",
    "id_conflict",
    "dedup_conflict",
    "row_refused",
    "unknown_type",
    "permanent",
    "attempts_exhausted",
    "crashed_worker",
    OTHER,
];

/// How a task ended, or that it waits in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has a result.
    Success,
    /// It was worked on and failed for good: a dead letter with one of the reasons `permanent`,
    /// `attempts_exhausted` and `crashed_worker`.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// Its deadline passed.
    Expired,
    /// Its dedup key was settled before; it did not run, or its result was dropped.
    Duplicate,
    /// It was set aside before anybody worked on it: a dead letter with any other reason.
    DeadLetter,
    /// Its offset is settled and it waits in the database; it is counted again when it ends.
    Parked,
}

impl Outcome {
    /// In the order of the variants.
    const LABELS: [&str; 7] = [
        "success",
        "failed",
        "cancelled",
        "expired",
        "duplicate",
        "dead_letter",
        "parked",
    ];
}

#[derive(Debug)]
struct TypeCounters {
    task_type: String,
    outcomes: [Counter; Outcome::LABELS.len()],
}

impl TypeCounters {
    fn new(topic: &str, task_type: &str) -> TypeCounters {
        TypeCounters {
            task_type: task_type.to_owned(),
            outcomes: Outcome::LABELS.map(|outcome| TASKS.counter(&[topic, task_type, outcome])),
        }
    }

    fn increment(&self, outcome: Outcome, count: u64) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.increment(count);
        }
    }
}

#[derive(Debug)]
pub(crate) struct TaskCounters {
    registered: Vec<TypeCounters>,
    other: TypeCounters,
    duplicates: Counter,
    dead_letters: Vec<(&'static str, Counter)>,
}

impl TaskCounters {
    pub(crate) fn new(topic: &str, task_types: &[&str]) -> TaskCounters {
        let of_type = |task_type: &&str| TypeCounters::new(topic, task_type);
        TaskCounters {
            registered: task_types.iter().map(of_type).collect(),
            other: TypeCounters::new(topic, OTHER),
            duplicates: DUPLICATES.counter(&[topic]),
            dead_letters: DEAD_LETTER_REASONS
                .map(|reason| (reason, DEAD_LETTERS.counter(&[topic, reason])))
                .to_vec(),
        }
    }

    /// The type's index; beyond the list where nobody registered it.
    pub(crate) fn index_of(&self, task_type: &str) -> usize {
        let mut registered = self.registered.iter();
        registered
            .position(|counters| counters.task_type == task_type)
            .unwrap_or(usize::MAX)
    }

    pub(crate) fn tasks(&self, task_type: usize, outcome: Outcome, count: u64) {
        let counters = self.registered.get(task_type).unwrap_or(&self.other);
        counters.increment(outcome, count);
    }

    pub(crate) fn duplicates(&self, count: u64) {
        self.duplicates.increment(count);
    }

    pub(crate) fn dead_letters(&self, reason: &str, count: u64) {
        let known = self.dead_letters.iter().find(|(name, _)| *name == reason);
        if let Some((_, counter)) = known.or(self.dead_letters.last()) {
            counter.increment(count);
        }
    }
}
