//! What a failed statement means for the work: wait, merge, or look for the row at fault.
//!
//! SQLSTATE alone cannot tell an outage from a refused row (a missing day is a check violation, a deep
//! JSON value a "stack depth" error), so this is only a first guess: the writer's canary has the last word.

use sqlx::error::DatabaseError;

/// A failed attempt to write, by what the caller does next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Trouble {
    /// The database is away, busy or not ready: wait, reconnect, try the same again.
    #[error("the database is not available: {0}")]
    Outage(String),
    /// Somebody holds a lock, or the statement took too long: try the same again, and smaller after a while.
    #[error("the database did not get to it: {0}")]
    Held(String),
    /// A day's table is missing: make the days, then try the same again.
    #[error("a day's table is missing: {0}")]
    MissingDay(String),
    /// A row meets one that is there already: look up what is there and write the rest.
    #[error("a row is there already: {0}")]
    Conflict(String),
    /// The database would not have some row: find out which, once the canary says it is well itself.
    #[error("the database refused a row: {0}")]
    Refused(String),
}

/// SQLSTATE classes that are never the fault of a task.
const NEVER_THE_TASK: [&str; 14] = [
    "08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "XX",
];

impl Trouble {
    /// Sorts an error of sqlx.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Self {
        match error.as_database_error() {
            Some(database) => Self::of_state(database),
            None => Self::Outage(error.to_string()),
        }
    }

    fn of_state(error: &dyn DatabaseError) -> Self {
        let state = error.code().unwrap_or_default();
        let text = format!("{} (SQLSTATE {state})", error.message());
        match state.as_ref() {
            "23505" => Self::Conflict(text),
            "23514" if error.constraint().is_none() => Self::MissingDay(text),
            "42P01" => Self::MissingDay(text),
            "57014" => Self::Held(text),
            other if other.starts_with("40") || other.starts_with("55") => Self::Held(text),
            other if NEVER_THE_TASK.contains(&other.get(..2).unwrap_or("XX")) => Self::Outage(text),
            _ => Self::Refused(text),
        }
    }
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::of(&error)
    }
}
