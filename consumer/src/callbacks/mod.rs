//! Callbacks: the outcome of a task, posted to whoever submitted it, as Standard Webhooks 1.0.0 writes it.
//!
//! A flush writes a row beside the end that it tells of; this sends it, signed, until the target takes it or the
//! schedule ends. Sent at least once, under one id, so a target can tell a repeat. Nothing else waits for it.

mod attempt;
mod guard;
mod message;
mod places;
mod schedule;
mod sender;
mod signature;

pub use self::sender::{CallbackSettings, Callbacks};
pub use self::signature::{SecretError, check_secret, mint_secret};
