//! The engine at work: handlers, key order, retries, parking, cancelling, on a real broker's protocol and a real
//! Postgres, with workers inside the test so that it sees what its handlers do.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test states what must hold"
)]

mod bounds;
mod cancel;
mod duplicates;
mod endings;
mod examples;
mod long;
mod modes;
mod order;
mod parked;
mod pauses;
mod restart;
mod scene;
mod trail;
