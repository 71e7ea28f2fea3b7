//! The contract, held from outside: encoder and decoder against the Avro library, released
//! versions against today's reader, and both framings against strangers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod agreement;
mod events;
mod evolution;
mod field_rules;
mod released;
mod strangers;
