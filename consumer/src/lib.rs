//! Millrace's consumer: out of Kafka, through a handler, into Postgres.
//!
//! `engine` decides and does no I/O, `source` polls and owns the partitions, `work` lands flushes,
//! `handlers` do the work itself, `ops` are the commands for people. Data moves one way: poll, open,
//! handle, flush, settle, commit.

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
    Batching, CancelReason, Context, FencingToken, Handler, IntoHandler, Payload, TaskError, Unknown,
    Worker,
};
pub use millrace_schemas::TaskId;
pub use millrace_store::Output;
pub use options::RunArgs;
