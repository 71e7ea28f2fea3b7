//! The process's log: `tracing` events on standard error, as text or as JSON lines.
//!
//! Standard output belongs to results. Colours appear only on a terminal.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::plain_fields::PlainFields;

/// What is logged when nothing else is asked for.
pub const DEFAULT_FILTER: &str = "info";

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter does not parse: a wrong setting.
    #[error(
        "log filter {filter:?}: {source}; use a level (info) or directives (millrace_consumer=debug,info)"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The process has a subscriber already.
    #[error("logging is set up already: {0}")]
    AlreadySet(#[from] TryInitError),
}

/// Sends the log to standard error. `filter` is in `RUST_LOG` syntax; without one,
/// [`DEFAULT_FILTER`].
///
/// # Errors
/// The filter does not parse, or logging was set up before.
pub fn init(filter: Option<&str>, format: LogFormat) -> Result<(), LoggingError> {
    let filter = filter.unwrap_or(DEFAULT_FILTER);
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LoggingError::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let on_terminal = io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(io::stderr)
        .with_ansi(on_terminal);
    match format {
        LogFormat::Text if on_terminal => subscriber.finish().try_init()?,
        LogFormat::Text => subscriber.fmt_fields(PlainFields).finish().try_init()?,
        LogFormat::Json => subscriber.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}
