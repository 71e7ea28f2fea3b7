//! Millrace's consumer: out of Kafka, through a handler, into Postgres.
//!
//! `engine` decides and does no I/O, `source` polls and owns the partitions, `work` lands flushes,
//! `handlers` do the work itself, `ops` are the commands for people. Data moves one way: poll, open,
//! handle, flush, settle, commit.
//!
//! # A worker of one's own
//!
//! ```no_run
//! use millrace_consumer::{Context, TaskError, Worker};
//!
//! #[derive(serde::Deserialize)]
//! struct Email { to: String, body: String }
//!
//! #[derive(serde::Serialize)]
//! struct Sent { id: String }
//!
//! async fn send(email: Email, context: Context) -> Result<Sent, TaskError> {
//!     if !email.to.contains('@') {
//!         return Err(TaskError::permanent("no address"));
//!     }
//!     Ok(Sent { id: context.idempotency_key() })
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     Worker::from_args().register("email.send", send).run()
//! }
//! ```
//!
//! - [`Worker`] takes handlers by task type: async functions, values that are a [`Handler`], functions of raw
//!   bytes, of many tasks at once ([`Batching`]), or functions that block.
//! - [`Context`] tells a handler whose task it has and hears of its progress; through it the worker asks
//!   the handler to stop ([`CancelReason`]).
//! - [`TaskError`] says whether another attempt makes sense. `?` means that it does, and so does a panic.
//! - [`Policy`] says how often, how long and in which order tasks of a type are tried; operators change it
//!   in a file, without a restart.
//!
//! A handler may run more than once for a task: its worker may be killed before the result is durable, or lose
//! the partition while the handler runs. The result is kept once, whatever happens. For effects elsewhere
//! there are [`Context::idempotency_key`] and [`Context::fencing_token`].

pub mod callbacks;
pub mod engine;
pub mod exit_code;
pub mod handlers;
mod maintenance;
pub mod ops;
pub mod options;
pub mod outbox;
mod shutdown;
pub mod source;
mod topic_presence;
mod topic_retention;
pub mod work;
pub mod worker;

pub use engine::{Mode, Policy};
pub use handlers::{
    Batching, CancelReason, Context, FencingToken, Handler, IntoHandler, Payload, TaskError,
    Unknown, Worker,
};
pub use millrace_schemas::TaskId;
pub use millrace_store::Output;
pub use options::RunArgs;
