//! One file a subcommand.

pub mod broker;
pub mod demo;
pub mod down;
mod migrate;
pub mod run;
pub mod up;
