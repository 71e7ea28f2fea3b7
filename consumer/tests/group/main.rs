//! The consumer as an operator runs it: the real binaries, a real database, a real protocol.
//!
//! Group logic is tried on the embedded broker, everything that concerns the log itself on Apache
//! Kafka. Each test has a topic, a group and a schema of its own, so that tests run side by side.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its case has failed"
)]

mod backpressure;
mod books;
mod callbacks;
mod commands;
mod dead_letter_commands;
mod dead_letter_copies;
mod dead_letters;
mod deep_audit;
mod endings;
mod events;
mod log_cut;
mod log_grown;
mod log_made_again;
mod memory_of_the_group;
mod metrics;
mod operations;
mod planted;
mod positions;
mod scene;
mod schemas;
mod settings;
mod sharing;
mod transactions;
mod worker;
