//! A setting that cannot be used, told in a way that says what to change.

/// Why a setting was refused. Ends the program with [`exit::USAGE`](crate::exit::USAGE). Values of
/// secret settings are masked in every variant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// A setting without a default was not given.
    #[error("{flag} is missing: give it, or set {env} ({hint})")]
    Missing {
        /// The flag with its leading dashes.
        flag: &'static str,
        /// The environment variable.
        env: &'static str,
        /// Where a newcomer gets a value from.
        hint: &'static str,
    },
    /// A librdkafka property that a guarantee depends on.
    #[error("-X {name}={value} is refused: {why}; {instead}")]
    Protected {
        /// The property.
        name: String,
        /// The value that was asked for.
        value: String,
        /// What would break.
        why: &'static str,
        /// What to use instead.
        instead: &'static str,
    },
    /// A value that the setting does not take.
    #[error("{name}={value} is refused: {reason}")]
    Invalid {
        /// The flag or property.
        name: String,
        /// The value as it was given.
        value: String,
        /// What is wrong with it, or what would be right.
        reason: String,
    },
}
