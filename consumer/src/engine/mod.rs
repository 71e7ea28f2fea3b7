//! The pure half of a worker: what was received, what is settled, and how much may be held.
//!
//! Guarantees to the rest of the consumer:
//! - nothing here does I/O, reads a clock, spawns or logs: no tokio, rdkafka or sqlx. Time is passed
//!   in, so that every state machine is tested against a model;
//! - misuse is a typed error, never a panic and never a guess. Whoever gets one drops the state of
//!   that partition, claims it again and seeks.

mod budget;
mod charge;
mod counts;
mod ledger;
mod misuse;
mod offsets;

pub use budget::{Budget, BudgetError, BudgetLimits, Pressure};
pub use charge::Charge;
pub use counts::{Counts, Outcome};
pub use ledger::{Advanced, Ledger, Opened, Pending, Plan};
pub use misuse::LedgerError;
pub use offsets::{LeaderEpoch, Offset, Partition};

#[cfg(test)]
mod budget_model_test;
#[cfg(test)]
mod ledger_model;
#[cfg(test)]
mod ledger_model_test;
#[cfg(test)]
mod ledger_test;
