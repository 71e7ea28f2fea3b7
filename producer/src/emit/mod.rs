//! `producer emit`: files of events into Kafka.
//!
//! `source` opens and unpacks an input, `rows` reads it on a thread of its own and has
//! `lines` or `csv_rows` cut it up, `run` looks into each row with `pointer`, sends it and
//! keeps in `acknowledged` up to where everything has arrived. `ending` says so in words.

mod acknowledged;
mod batch;
mod csv_rows;
mod digest;
mod ending;
mod format;
mod interrupt;
mod lines;
mod misfit;
mod options;
mod outcomes;
mod pace;
mod plan;
mod pointer;
mod progress;
mod rejects;
mod rows;
mod run;
mod source;
mod summary;

pub use ending::Report;
pub use interrupt::Interrupt;
pub use options::{EmitArgs, UsageError};
pub use plan::Plan;
pub use rejects::Rejects;
pub use run::Emit;
pub use summary::Summary;
