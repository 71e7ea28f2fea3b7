//! The commands for people: each opens what it needs, asks, prints a table or JSON, and ends.

pub mod audit;
pub mod callbacks;
pub mod cancel;
pub mod dead_letters;
mod deep;
pub mod migrate;
pub mod pause;
mod place;
pub mod position;
mod print;
pub mod status;
pub mod task;
