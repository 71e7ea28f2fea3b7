//! One file a subcommand.

pub mod broker;
pub mod down;
mod migrate;
pub mod run;
pub mod up;
