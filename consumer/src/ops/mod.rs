//! The commands for people: each opens what it needs, asks, prints a table or JSON, and ends.

pub mod audit;
mod deep;
pub mod migrate;
mod place;
pub mod position;
mod print;
pub mod status;
pub mod task;
