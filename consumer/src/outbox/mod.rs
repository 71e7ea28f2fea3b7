//! The outbox's sender: copies of dead letters reach the topic that other tools read, whatever is away meanwhile.
//!
//! A flush writes a row beside each dead letter; this takes rows, produces the copies and deletes the rows that
//! were delivered. Sent at least once, never lost: while the topic is missing or the brokers are away the rows
//! wait, each longer after each attempt. Nothing else in the worker waits for it.

mod headers;
mod letter_producer;
mod sender;

pub use self::headers::copy_headers;
pub use self::sender::Outbox;

/// The topic that dead letters are copied to: the one that was given, else the tasks' own with `.dlq` behind it.
#[must_use]
pub fn dlq_topic(given: Option<&str>, topic: &str) -> String {
    given.map_or_else(|| format!("{topic}.dlq"), str::to_owned)
}
