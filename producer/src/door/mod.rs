//! `producer serve`, the front door: tasks over HTTP, durable in Kafka before they are answered, and their results
//! to whoever asks, waits or watches.
//!
//! Any number of front doors run side by side. None has state that matters: what was accepted is in Kafka, what
//! became of it in Postgres, and who waits at which front door is only known there.
//!
//! A request comes in at the *entrance* and goes *http* or *grpc* → *gate* (who, how much) → *body* (what) → *intake* → *names* (`Idempotency-Key`) → *sender* (Kafka).
//! A question goes *http* → *lookup*, and whoever waits stands in *waiting* meanwhile. *desk* gathers what is asked of
//! the database, *pressure* bounds what is on its way, *refusal* is every way to say no.

mod accepted;
mod body;
mod caller;
mod connection;
mod descriptors;
mod desk;
mod entrance;
mod following;
mod gate;
mod grpc;
mod http;
mod intake;
mod json_text;
pub mod keys;
mod listener;
mod lookup;
mod memory;
mod names;
mod options;
mod overview;
mod pressure;
mod readers;
mod refusal;
mod run;
mod sender;
mod state;
mod waiting;

pub use options::ServeArgs;
pub use run::{Prepared, prepare};
