//! What is done to workers, brokers, the database and the lines between them, and when.
//!
//! Every round kills and freezes workers and cuts lines; servers are killed in some. One broker and one
//! database are in trouble at a time, since more than that is an outage of the whole place: a pause of
//! everything is a fault of its own.

use std::fmt;

use super::Size;
use crate::chance::Chance;
use crate::round::PARTITIONS;

/// One thing that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When, in milliseconds from the beginning.
    pub at_ms: u32,
    /// What.
    pub kind: FaultKind,
}

/// Where a line leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One broker, from 0.
    Broker(usize),
    /// All brokers.
    Brokers,
    /// Postgres.
    Postgres,
}

/// What can be done. Times are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// SIGKILL to the worker in this slot; another takes its place.
    KillWorker {
        /// The slot.
        slot: usize,
    },
    /// SIGSTOP, and SIGCONT later.
    FreezeWorker {
        /// The slot.
        slot: usize,
        /// For how long; longer than a session at times.
        ms: u32,
    },
    /// Workers join one after another, and leave again, some by SIGKILL.
    Storm {
        /// How many.
        joins: u32,
        /// Time between two of them, and between two that leave.
        every_ms: u32,
    },
    /// SIGKILL to a broker, and a start later.
    KillBroker {
        /// Which, from 0.
        broker: usize,
        /// Time in between.
        down_ms: u32,
    },
    /// SIGSTOP and SIGCONT to a broker.
    FreezeBroker {
        /// Which, from 0.
        broker: usize,
        /// For how long.
        ms: u32,
    },
    /// SIGKILL to the database and all its backends, and a start later.
    KillPostgres {
        /// Time in between.
        down_ms: u32,
    },
    /// SIGSTOP and SIGCONT to the database and all its backends.
    FreezePostgres {
        /// For how long.
        ms: u32,
    },
    /// Connections are cut; new ones are taken.
    Cut(Target),
    /// New connections are refused.
    Refuse(Target, u32),
    /// Bytes come slowly and late.
    Slow(Target, u32),
    /// Bytes do not come, and both ends stay connected.
    Hole(Target, u32),
    /// SIGSTOP to all workers, brokers and the database, and SIGCONT later.
    FreezeAll {
        /// For how long.
        ms: u32,
    },
    /// The claim of a worker that died before it could be answered arrives late: the partition's owner has lost it
    /// and does not know.
    LateClaim {
        /// The partition.
        partition: i32,
    },
    /// A task type is paused by an operator, and resumed.
    PauseType {
        /// For how long.
        ms: u32,
    },
}

impl FaultKind {
    /// The kind, for counting.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::KillWorker { .. } => "worker killed",
            Self::FreezeWorker { .. } => "worker frozen",
            Self::Storm { .. } => "rebalance storm",
            Self::KillBroker { .. } => "broker killed",
            Self::FreezeBroker { .. } => "broker frozen",
            Self::KillPostgres { .. } => "postgres killed",
            Self::FreezePostgres { .. } => "postgres frozen",
            Self::Cut(Target::Postgres) => "postgres cut off",
            Self::Cut(_) => "kafka cut off",
            Self::Refuse(Target::Postgres, _) => "postgres refused",
            Self::Refuse(..) => "kafka refused",
            Self::Slow(Target::Postgres, _) => "postgres slow",
            Self::Slow(..) => "kafka slow",
            Self::Hole(Target::Postgres, _) => "postgres black-holed",
            Self::Hole(..) => "kafka black-holed",
            Self::FreezeAll { .. } => "everything paused",
            Self::LateClaim { .. } => "late claim",
            Self::PauseType { .. } => "task type paused",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ms: {:?}", self.at_ms, self.kind)
    }
}

/// The faults of a round, in order.
pub(super) fn schedule(chance: &mut Chance, size: Size) -> Vec<Fault> {
    let mut kinds = vec![
        kill(chance, size),
        kill(chance, size),
        freeze(chance, size, 300, 1_200),
        // Longer than a session: another has the partitions when it wakes.
        freeze(chance, size, 2_000, 3_500),
        FaultKind::Storm {
            joins: number(chance, 2, 3),
            every_ms: number(chance, 150, 500),
        },
        FaultKind::Cut(Target::Postgres),
        FaultKind::Cut(target(chance, size)),
        FaultKind::PauseType {
            ms: number(chance, 400, 1_500),
        },
    ];
    for _ in 0..2 {
        let partition = i32::try_from(chance.below(PARTITIONS.unsigned_abs().into()));
        let partition = partition.unwrap_or_default();
        kinds.push(FaultKind::LateClaim { partition });
    }
    let broker = usize::try_from(chance.below(size.brokers as u64)).unwrap_or_default();
    kinds.push(match chance.below(5) {
        0 | 1 => FaultKind::KillBroker {
            broker,
            down_ms: number(chance, 200, 1_500),
        },
        2 => FaultKind::FreezeBroker {
            broker,
            ms: number(chance, 300, 2_000),
        },
        3 => FaultKind::Slow(target(chance, size), number(chance, 500, 2_000)),
        _ => FaultKind::Hole(target(chance, size), number(chance, 300, 2_500)),
    });
    kinds.push(match chance.below(5) {
        0 | 1 => FaultKind::KillPostgres {
            down_ms: number(chance, 100, 1_000),
        },
        2 => FaultKind::FreezePostgres {
            ms: number(chance, 300, 2_000),
        },
        3 => FaultKind::Slow(Target::Postgres, number(chance, 500, 2_000)),
        _ => FaultKind::Hole(Target::Postgres, number(chance, 300, 2_500)),
    });
    kinds.push(match chance.below(4) {
        0 => FaultKind::FreezeAll {
            ms: number(chance, 500, 2_500),
        },
        1 => FaultKind::Refuse(Target::Postgres, number(chance, 300, 1_500)),
        2 => FaultKind::Refuse(target(chance, size), number(chance, 300, 1_500)),
        _ => kill(chance, size),
    });
    let last = u64::from(size.storm_ms).saturating_sub(500);
    let faults = kinds.into_iter().map(|kind| Fault {
        at_ms: number(chance, 800, last.max(900)),
        kind,
    });
    let mut faults: Vec<Fault> = faults.collect();
    // While the backlog is worked off and nothing else has happened yet: it wakes with flushes in its hands.
    faults.push(Fault {
        at_ms: number(chance, 1_600, 2_400),
        kind: freeze(chance, size, 2_000, 3_500),
    });
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

fn kill(chance: &mut Chance, size: Size) -> FaultKind {
    let slot = slot(chance, size);
    FaultKind::KillWorker { slot }
}

fn freeze(chance: &mut Chance, size: Size, least: u64, most: u64) -> FaultKind {
    FaultKind::FreezeWorker {
        slot: slot(chance, size),
        ms: number(chance, least, most),
    }
}

fn slot(chance: &mut Chance, size: Size) -> usize {
    usize::try_from(chance.below(size.workers as u64)).unwrap_or_default()
}

fn target(chance: &mut Chance, size: Size) -> Target {
    match usize::try_from(chance.below(size.brokers as u64 + 1)) {
        Ok(broker) if broker < size.brokers => Target::Broker(broker),
        _ => Target::Brokers,
    }
}

fn number(chance: &mut Chance, least: u64, most: u64) -> u32 {
    u32::try_from(chance.between(least, most)).unwrap_or(u32::MAX)
}
