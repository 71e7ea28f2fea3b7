//! How a command prints its result.

use clap::{Args, ValueEnum};

/// The flag that chooses how a result is printed.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct OutputArgs {
    /// How the result is printed on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: Format,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs: one JSON value
    Json,
}
