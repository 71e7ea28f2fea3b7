//! What a handler may rely on, and what the owner of the partitions may: the executor driven directly, without
//! a broker or a database.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its case has failed"
)]

mod batches;
mod endings;
mod policies;
mod registrations;
mod stage;
mod stopping;
mod told;
