//! Why an attempt did not succeed, as its handler says: try again, or do not.
//!
//! Any error becomes "try again" by `?`, since most of what goes wrong in a handler passes. Whatever is said
//! is kept where people look for it, so it is cut to [`ERROR_BYTES`] and holds no NUL character.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use millrace_store::storable;

use super::attempt::AttemptEnd;

/// Most bytes of an error that are kept.
pub const ERROR_BYTES: usize = 2_000;

/// Why an attempt did not succeed, and whether another one makes sense.
///
/// `?` turns any `std` error, an `anyhow::Error` or a plain string into [`TaskError::retry`] with the whole chain of
/// causes as its reason. Like `anyhow::Error`, and for the same reason, it is no [`std::error::Error`] itself.
///
/// ```
/// use millrace_consumer::TaskError;
/// use std::time::Duration;
///
/// fn port(text: &str) -> Result<u16, TaskError> {
///     if text.is_empty() {
///         return Err(TaskError::permanent("no port was given"));
///     }
///     if text == "busy" {
///         return Err(TaskError::retry("the other side is busy").after(Duration::from_secs(30)));
///     }
///     Ok(text.parse()?)
/// }
/// # assert!(port("http").is_err_and(|error| !error.is_permanent()));
/// # assert!(port("").is_err_and(|error| error.is_permanent()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    reason: String,
    again: Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    ByPolicy,
    After(Duration),
    Never,
}

impl TaskError {
    /// Another attempt may succeed. When it is made is for the policy of the task's type to say.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::new(&reason, Again::ByPolicy)
    }

    /// No attempt will ever succeed: the task becomes a dead letter now.
    pub fn permanent(reason: impl fmt::Display) -> Self {
        Self::new(&reason, Again::Never)
    }

    /// Makes the next attempt so much later, instead of what the policy's backoff says. The policy's limits on
    /// attempts and age hold as ever. Changes nothing about a permanent failure.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        if self.again != Again::Never {
            self.again = Again::After(delay);
        }
        self
    }

    /// Whether no other attempt is to be made.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.again == Again::Never
    }

    /// What went wrong.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    fn new(reason: &dyn fmt::Display, again: Again) -> Self {
        Self {
            reason: storable(&reason.to_string(), ERROR_BYTES),
            again,
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl<E> From<E> for TaskError
where
    E: Into<Box<dyn Error + Send + Sync + 'static>>,
{
    fn from(error: E) -> Self {
        Self::retry(Chain(error.into().as_ref()))
    }
}

/// An error with its causes, outermost first.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors end with the text of their cause.
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}

impl From<TaskError> for AttemptEnd {
    fn from(error: TaskError) -> Self {
        let (error, again) = (error.reason, error.again);
        match again {
            Again::ByPolicy => Self::Retry { error, after: None },
            Again::After(delay) => Self::Retry {
                error,
                after: Some(delay),
            },
            Again::Never => Self::Permanent { error },
        }
    }
}
