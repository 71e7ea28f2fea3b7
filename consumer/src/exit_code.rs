//! Which exit code an error ends the program with.

use millrace_settings::exit;
use millrace_store::Trouble;

use crate::source::claims::ClaimError;
use crate::source::log::LogError;

/// An error that decides the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    message: String,
    /// The exit code.
    pub code: u8,
}

impl Refusal {
    /// A wrong use or setting.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: exit::USAGE,
        }
    }
}

/// Gives an error an exit code; its text stays.
pub trait WithCode<T> {
    /// The same, with a code.
    ///
    /// # Errors
    /// As before, as a [`Refusal`].
    fn with_code(self, code: u8) -> Result<T, Refusal>;
}

impl<T, E: Into<anyhow::Error>> WithCode<T> for Result<T, E> {
    fn with_code(self, code: u8) -> Result<T, Refusal> {
        self.map_err(|error| Refusal {
            message: format!("{:#}", error.into()),
            code,
        })
    }
}

/// The error of a command for people: what only a setting can cure is a [`Refusal`].
#[must_use]
pub fn explained(error: anyhow::Error) -> anyhow::Error {
    let no_tables = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(Trouble::MissingDay(_)))
            || matches!(
                cause.downcast_ref(),
                Some(ClaimError::Database(Trouble::MissingDay(_)))
            )
    };
    let no_topic = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(LogError::TopicMissing { .. }))
    };
    if error.chain().any(no_tables) {
        Refusal::usage(format!(
            "the schema has no tables of ours: run `consumer migrate` first ({error:#})"
        ))
        .into()
    } else if error.chain().any(no_topic) {
        Refusal::usage(format!("{error:#}")).into()
    } else {
        error
    }
}

/// The code for an error that reached `main`: its own, or 1.
#[must_use]
pub fn of(error: &anyhow::Error) -> u8 {
    error
        .downcast_ref::<Refusal>()
        .map_or(exit::REJECTED, |refusal| refusal.code)
}
