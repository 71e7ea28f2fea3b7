//! The settings that both binaries share: flags with their environment variables, what they turn
//! into, and the exit codes.
//!
//! Each module is one group of flags, a clap `Args` struct to flatten into a command. A wrong
//! setting is refused at start by a [`SettingError`] with its name, its value and what would be
//! right; a secret is never part of any text.

pub mod exit;

mod database;
mod error;
mod framing;
mod group;
mod kafka;
mod operator;
mod output;
mod property;
mod protected;
mod replication;
mod role;
mod secret;
mod telemetry;

pub use database::{DatabaseArgs, SchemaName};
pub use error::SettingError;
pub use framing::FramingArgs;
pub use group::GroupArgs;
pub use kafka::KafkaArgs;
pub use operator::operator;
pub use output::{Format, OutputArgs};
pub use property::Property;
pub use replication::{ReplicationError, Shortfall, check_replication};
pub use role::Role;
pub use telemetry::{LogFormat, TelemetryArgs};
