//! What a round sends, what each record must become, and what is done to the servers meanwhile.
//!
//! All of it follows from the seed and the sizes, so a seed that found something finds it again, as far as
//! the timing of processes allows. What a record must become is decided here, from the laws alone, before
//! anything runs.

mod faults;
mod sowing;

use crate::chance::Chance;
use crate::orders::Orders;

pub use faults::{Fault, FaultKind, Target};

/// How large a round is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Records sent, about.
    pub records: u32,
    /// How long they are sent and faults are injected, in milliseconds.
    pub storm_ms: u32,
    /// Workers that run at a time, storms of joining ones aside.
    pub workers: usize,
    /// Brokers of the cluster.
    pub brokers: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            records: 2_100,
            storm_ms: 7_000,
            workers: 3,
            brokers: 3,
        }
    }
}

/// Who works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handlers {
    /// `chaos-worker`, whose handlers follow their orders.
    Planned,
    /// The stock `consumer run`, which records whatever comes.
    Stock,
}

/// A round's plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// What is sent, in order.
    pub records: Vec<Record>,
    /// What is done to servers and workers, in order.
    pub faults: Vec<Fault>,
    /// Which records are asked to be cancelled: when, in milliseconds, and the record's index.
    pub cancels: Vec<(u32, usize)>,
}

/// One record to be sent.
#[derive(Debug, Clone)]
pub struct Record {
    /// When, in milliseconds from the beginning.
    pub at_ms: u32,
    /// What it holds.
    pub body: Body,
    /// What may become of it: exactly one of these.
    pub ends: Vec<End>,
}

/// What a record holds.
#[derive(Debug, Clone)]
pub enum Body {
    /// A task.
    Event(Planned),
    /// Bytes that are no event.
    Garbage {
        /// The record's key.
        key: String,
        /// What is wrong with them.
        flaw: Flaw,
    },
}

/// How bytes fail to be an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// An event cut short, under a known schema.
    CutShort,
    /// The frame of a known schema, and noise.
    Noise,
}

/// A planned task.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Whose id it has.
    pub id: Identity,
    /// Which handler runs it.
    pub task_type: &'static str,
    /// On whose behalf.
    pub tenant: &'static str,
    /// The ordering key.
    pub key: Option<String>,
    /// The caller's name for the request.
    pub dedup_key: Option<String>,
    /// Whether somebody may ask for the result.
    pub reply: bool,
    /// Milliseconds after it is sent before which it must not start.
    pub run_after_ms: Option<u32>,
    /// Its deadline, in milliseconds after it is sent; may have passed already.
    pub deadline_ms: Option<i32>,
    /// What its attempts do.
    pub orders: Orders,
}

/// Whose id a planned task has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Its own.
    Own,
    /// That of an earlier record.
    Of(usize),
    /// One that was born before the days that are kept.
    Ancient,
}

/// What may become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A result row with status success.
    Success,
    /// A dead letter with this reason.
    Dead(&'static str),
    /// Counted as a repeat of the record with this index.
    Duplicate(usize),
    /// A result row with status cancelled.
    Cancelled,
    /// A result row with status expired.
    Expired,
}

/// Task types by what their policy is; see the worker.
pub mod types {
    /// In key order, with a timeout of a second and at most [`MOST_ATTEMPTS`] attempts.
    pub const QUICK: &str = "chaos.quick";
    /// In key order, without a timeout.
    pub const PATIENT: &str = "chaos.patient";
    /// In no order at all.
    pub const LOOSE: &str = "chaos.loose";
    /// Nobody handles it.
    pub const NOBODY: &str = "chaos.nobody";
    /// Attempts of a run.
    pub const MOST_ATTEMPTS: u16 = 8;
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64, size: Size, handlers: Handlers) -> Self {
        let mut chance = Chance::new(seed);
        let (records, cancels) = sowing::sow(&mut chance, size, handlers);
        Self {
            seed,
            records,
            faults: faults::schedule(&mut chance, size),
            cancels,
        }
    }
}

impl Body {
    /// The event, when it is one.
    #[must_use]
    pub const fn event(&self) -> Option<&Planned> {
        match self {
            Self::Event(planned) => Some(planned),
            Self::Garbage { .. } => None,
        }
    }
}

impl Planned {
    /// The key of its Kafka record.
    #[must_use]
    pub fn record_key(&self) -> Option<&str> {
        self.key.as_deref().or(self.dedup_key.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::{End, Handlers, Plan, Size};

    #[test]
    fn a_seed_makes_one_plan() {
        let plan = |seed| format!("{:?}", Plan::new(seed, Size::default(), Handlers::Planned));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_way_to_end_is_in_a_plan_and_repeats_follow_what_they_repeat() {
        let plan = Plan::new(7, Size::default(), Handlers::Planned);
        let mut dead = std::collections::BTreeSet::new();
        let (mut cancelled, mut expired) = (false, false);
        for (index, record) in plan.records.iter().enumerate() {
            assert!(!record.ends.is_empty());
            for end in &record.ends {
                match end {
                    End::Dead(reason) => _ = dead.insert(*reason),
                    End::Duplicate(first) => assert!(*first < index),
                    End::Cancelled => cancelled = true,
                    End::Expired => expired = true,
                    End::Success => {}
                }
            }
        }
        assert!(cancelled && expired);
        assert!(plan.records.is_sorted_by_key(|record| record.at_ms));
        for reason in [
            "undecodable",
            "id_out_of_range",
            "id_conflict",
            "dedup_conflict",
            "unknown_type",
            "permanent",
            "attempts_exhausted",
            "crashed_worker",
        ] {
            assert!(dead.contains(reason), "{reason}");
        }
    }
}
