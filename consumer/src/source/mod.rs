//! Out of Kafka: one owner task holds the client and the state of every partition by value.
//!
//! Everything that happens to a partition happens in that task, so nothing here is shared or locked.
//! Claims, questions to the brokers and flushes run beside it and come back as plain values.

mod admission;
mod alone;
mod batch;
mod claiming;
pub mod claims;
pub mod closing;
pub mod context;
pub mod diagnosis;
mod ended;
mod errand;
mod flow;
mod group;
mod halting;
mod in_air;
mod intake;
pub mod leader_epoch;
pub mod log;
#[cfg(test)]
mod log_test;
pub mod owner;
mod parked_here;
mod partition;
mod pressure;
mod standing;
mod starting;
mod statistics;
pub mod stop;
mod topic_id;
mod vigil;
mod waking;
mod watch;
