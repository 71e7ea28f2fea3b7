//! What is done with a task: handlers, and what runs them.
//!
//! A program registers handlers with a [`Worker`]. While it runs, the owner of the partitions hands out
//! [`Start`]s and gets [`Finished`]s back; all between the two is here: reading the event, calling the handler,
//! catching what goes wrong, telling it to stop. Nothing here decides what follows a failed attempt, and nothing
//! here knows Kafka or Postgres.
//!
//! The stock worker has no handlers and keeps every task's own payload: [`record`].

mod attempt;
mod batch;
mod builder;
mod caught;
mod completions;
mod context;
mod executor;
mod fields;
mod handler;
mod json;
mod kind;
mod policies;
mod policy_file;
mod progress;
pub mod record;
mod registry;
mod signal;
mod starts;
mod task;
mod task_error;

pub use attempt::{AttemptEnd, Finished};
pub use batch::Batching;
pub use builder::{Prepared, Worker};
pub use completions::Completions;
pub use context::Context;
pub use executor::{Executor, ExecutorOptions, MAX_RESULT_BYTES};
pub use fields::Spans;
pub use handler::{ByContext, ByInput, ByTrait, FunctionHandler, Handler, IntoHandler};
pub use kind::Payload;
pub use policies::{LOOK_AGAIN, Policies, PolicyArgs, PolicySet};
pub use policy_file::PolicyFileError;
pub use progress::{NOTE_BYTES, ProgressNote, ProgressNotes};
pub use registry::{Found, Registry, RegistryError, Unknown};
pub use signal::{CancelReason, Signal};
pub use task::{FencingToken, Place, Start, Task, TypeIndex};
pub use task_error::{ERROR_BYTES, TaskError};
