//! The judge of a round. It shares no code with the product: it reads the topic, the tables and the journal
//! itself and holds them against the plan and the laws.
//!
//! A law's file says what exactly is checked of it. Every broken law is told with the task, where there is
//! one, and with the evidence; everything that was held up is counted.

mod attempts;
mod books;
mod evidence;
mod fence;
mod leftovers;
mod lookup;
mod order;
mod outcomes;
mod tables;
mod tenure;
pub(crate) mod topic;

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

pub use evidence::Evidence;

use crate::error::ChaosError;
use crate::round::Played;
use crate::servers::{Servers, connect};
use lookup::Lookup;

/// A law, by its number in `docs/ARCHITECTURE.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// Accepted means durable.
    Accepted = 1,
    /// Offset after result.
    OffsetAfterResult = 2,
    /// One terminal result per task, and the one that was planned.
    OneResult = 3,
    /// Key order.
    KeyOrder = 4,
    /// A worker that lost its partition cannot write.
    Fence = 5,
    /// Nothing vanishes.
    NothingVanishes = 6,
    /// An outage is not a failure of the task.
    Outage = 7,
    /// Everything is bounded.
    Bounded = 8,
}

/// A law that was broken.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub law: Law,
    /// The task, when it is about one.
    pub task: Option<Uuid>,
    /// The evidence.
    pub evidence: String,
}

/// What a round came to.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How often each law was held against something.
    pub checks: BTreeMap<Law, u64>,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// Tasks whose end was compared with the plan.
    pub tasks: usize,
    /// Attempts in the journal.
    pub attempts: usize,
}

impl Verdict {
    /// Counts a check, and keeps the violation when it failed.
    fn check(
        &mut self,
        law: Law,
        task: Option<Uuid>,
        holds: bool,
        evidence: impl FnOnce() -> String,
    ) {
        *self.checks.entry(law).or_default() += 1;
        if !holds {
            self.violations.push(Violation {
                law,
                task,
                evidence: evidence(),
            });
        }
    }

    /// Checks made of all laws.
    #[must_use]
    pub fn checked(&self) -> u64 {
        self.checks.values().sum()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "law {}", self.law as u8)?;
        if let Some(task) = self.task {
            write!(f, ", task {task}")?;
        }
        write!(f, ": {}", self.evidence)
    }
}

/// Reads the evidence of a round and judges it.
///
/// # Errors
/// When the evidence cannot be read.
pub async fn judge(servers: &Servers, played: &Played) -> Result<Verdict, ChaosError> {
    let evidence = Evidence::gather(servers, played).await?;
    let lookup = Lookup::of(&evidence, played);
    let mut verdict = Verdict {
        attempts: lookup.starts,
        ..Verdict::default()
    };
    outcomes::check(&mut verdict, &evidence, &lookup, played);
    order::check(&mut verdict, &evidence, &lookup, played);
    fence::check(&mut verdict, &evidence, &lookup, played);
    attempts::check(&mut verdict, &evidence, &lookup, played);
    books::check(&mut verdict, &evidence, &lookup);
    leftovers::check(&mut verdict, &evidence, &lookup, played);
    verdict.violations.sort_by_key(|violation| violation.law);
    Ok(verdict)
}

/// The round's tables, each by its name, one row a line.
///
/// # Errors
/// When the database does not answer.
pub async fn tables_of(
    servers: &Servers,
    played: &Played,
) -> Result<Vec<(String, String)>, ChaosError> {
    let mut connection = connect(servers.database_url(), &played.place.schema()).await?;
    Ok(tables::all(&mut connection).await?)
}
