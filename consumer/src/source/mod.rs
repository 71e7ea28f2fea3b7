//! Placeholder.
pub mod leader_epoch;
pub mod log;
#[cfg(test)]
mod log_test;
mod topic_id;
