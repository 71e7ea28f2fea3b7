//! The store against a real Postgres: one module a concern, one test a law or a finding.
//!
//! Findings are numbered as in the project's list of failures that the design must survive; those that a
//! store can meet have a test named after them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod api_keys;
mod aside;
mod audit;
mod books;
mod callbacks;
mod canary;
mod cancels;
mod careful;
mod claim;
mod crash;
mod days;
mod dedup;
mod ends;
mod events;
mod finished;
mod frozen;
mod history;
mod idempotency;
mod identity;
mod json;
mod known;
mod letters;
mod log_model;
mod lost_answer;
mod migrate;
mod moves;
mod outbox;
mod parking;
mod pauses;
mod progress;
mod redrive;
mod redrive_refusals;
mod refused;
mod replay;
mod report;
mod severed;
mod status;
mod tables;
mod waking;
mod withdrawals;
mod world;
