//! The pure half of a worker: what was received, what is settled, and how much may be held.
//!
//! Guarantees to the rest of the consumer:
//! - nothing here does I/O, reads a clock, spawns or logs: no tokio, rdkafka or sqlx. Time is passed
//!   in, so that every state machine is tested against a model;
//! - misuse is a typed error, never a panic and never a guess. Whoever gets one drops the state of
//!   that partition, claims it again and seeks.

mod budget;
mod careful;
mod charge;
mod counts;
mod decode_window;
mod filter;
mod key_hasher;
mod lane;
mod lanes;
mod ledger;
mod misuse;
mod offsets;
pub mod retry;
mod standstill;

pub use budget::{Budget, BudgetError, BudgetLimits, Pressure};
pub use careful::{AloneEnd, CAREFUL_STARTS, Careful, Permit, UNCLEAN_STARTS};
pub use charge::Charge;
pub use counts::{Counts, Outcome};
pub use decode_window::DecodeWindow;
pub use filter::CountingFilter;
pub use key_hasher::KeyHasher;
pub use lane::{LaneKey, Laned, Placed, Resolved, Spot};
pub use lanes::Lanes;
pub use ledger::{Advanced, Ledger, Opened, Pending, Plan};
pub use misuse::LedgerError;
pub use offsets::{LeaderEpoch, Offset, Partition};
pub use retry::{Mode, Policy, PolicyError, Verdict, Why};
pub use standstill::Standstill;

#[cfg(test)]
mod budget_model_test;
#[cfg(test)]
mod careful_model;
#[cfg(test)]
mod careful_model_test;
#[cfg(test)]
mod filter_model_test;
#[cfg(test)]
mod lanes_model;
#[cfg(test)]
mod lanes_model_attempts;
#[cfg(test)]
mod lanes_model_landing;
#[cfg(test)]
mod lanes_model_owner;
#[cfg(test)]
mod lanes_model_test;
#[cfg(test)]
mod ledger_model;
#[cfg(test)]
mod ledger_model_test;
#[cfg(test)]
mod ledger_test;
#[cfg(test)]
mod retry_test;
