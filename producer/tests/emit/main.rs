//! `producer emit` as a user runs it: the real binary against a real protocol, and everything that
//! arrived read back and decoded.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its case has failed"
)]

mod broker_trouble;
mod going_on;
mod inputs;
mod interrupts;
mod keys;
mod rejected_lines;
mod scene;
mod throughput;
