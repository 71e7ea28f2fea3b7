//! The process's log: `tracing` events on standard error, as text or as JSON lines.
//!
//! Standard output belongs to results. Colours appear only on a terminal.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry};

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
    match targets_alone(filter) {
        Some(targets) => begin(targets, format),
        None => begin(parsed, format),
    }
}

/// The filter where it asks for targets and levels only, in the one way that everybody reads alike. What is
/// filtered by spans has to be looked after at each span that begins; this need not.
fn targets_alone(filter: &str) -> Option<Targets> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '=' | '-');
    filter
        .split(',')
        .all(|directive| !directive.is_empty() && directive.chars().all(is_plain))
        .then(|| filter.parse().ok())?
}

fn begin<F>(filter: F, format: LogFormat) -> Result<(), LoggingError>
where
    F: Layer<Registry> + Send + Sync,
{
    let on_terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(on_terminal);
    let filtered = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text if on_terminal => filtered.with(lines).try_init()?,
        LogFormat::Text => filtered.with(lines.fmt_fields(PlainFields)).try_init()?,
        LogFormat::Json => filtered.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::targets_alone;

    #[test]
    fn only_targets_and_levels_need_no_look_at_spans() {
        for filter in ["info", "off", "a_b::c=debug,info", "x-y=trace"] {
            assert!(targets_alone(filter).is_some(), "{filter}");
        }
        for filter in [
            "",
            "info,",
            "a[span]=debug",
            "a[{f}]=debug",
            "info, a=debug",
        ] {
            assert!(targets_alone(filter).is_none(), "{filter}");
        }
    }
}
