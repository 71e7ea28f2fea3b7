//! The laws under fire: a seeded plan of tasks and faults, played against the real binaries on real servers,
//! and a checker that judges what is left from the topic, the tables and the handlers' own journal.
//!
//! Nothing of the product is linked here. `plan` decides what must become of each record before anything
//! runs; `round` plays it with `crew`, `storm` and `proxy`; `checker` reads the evidence by its own means.

pub mod chance;
pub mod checker;
pub mod crew;
pub mod doors;
pub mod error;
pub mod journal;
pub mod law_two;
pub mod orders;
pub mod place;
pub mod plan;
pub mod proxy;
pub mod report;
pub mod round;
pub mod sender;
pub mod servers;
pub mod storm;
pub mod trail;
pub mod wire;
