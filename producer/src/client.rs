//! A client of the front door: hand over a task and hold a handle that is a future of its result.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use millrace_producer::client::{Client, Task};
//!
//! let client = Client::connect("http://127.0.0.1:8080").await?;
//! let handle = client.submit(Task::json("email.send", &["ann@example.com"])?).await?;
//! let result = handle.await?;
//! println!("{}", String::from_utf8_lossy(&result.body));
//! # Ok(())
//! # }
//! ```
//!
//! Any number of handles may be awaited at once: they share a few streams, and one that is dropped is followed no
//! further. When the front door is away, or refuses or ends a stream, tasks are asked for with growing pauses, at
//! whichever front door answers, until a stream can be had again. No call waits longer for an answer than
//! [`Builder::call_timeout`].

mod builder;
mod calls;
mod error;
mod following;
mod gathering;
mod group;
mod handle;
mod task;

use std::sync::Arc;

use following::Shared;
use millrace_schemas::TaskId;

pub use builder::Builder;
pub use error::ClientError;
pub use handle::Handle;
pub use task::{Returned, Task};

/// A client of one or more front doors. Clones share connections and streams.
#[derive(Clone, Debug)]
pub struct Client(Arc<Shared>);

impl Client {
    /// A client without a key; see [`Client::builder`].
    ///
    /// # Errors
    /// [`ClientError::Address`].
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        Self::builder(address).connect().await
    }

    /// What a client is to be like: with an API key, with a certificate authority of one's own. `address` is a URL;
    /// with `https` the front door, or what stands before it, has to show a certificate for that host.
    #[must_use]
    pub fn builder(address: &str) -> Builder {
        Builder::new(address)
    }

    /// Hands over a task; answered once all in-sync replicas of Kafka have it.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: nothing was accepted. [`ClientError::OutcomeUnknown`]: the task may have been; hand
    /// it over again with the same idempotency key.
    pub async fn submit(&self, task: Task) -> Result<Handle, ClientError> {
        let task_id = self.0.calls.submit(task.0).await?;
        self.handle(task_id)
    }

    /// A handle of a task that was handed over before, by anybody of the same tenant. The id may be written in any
    /// form of a UUID.
    ///
    /// # Errors
    /// [`ClientError::TaskId`].
    pub fn handle(&self, task_id: impl AsRef<str>) -> Result<Handle, ClientError> {
        let task_id: TaskId = task_id.as_ref().parse()?;
        Ok(Handle {
            client: self.clone(),
            task_id: task_id.to_string(),
            timeout: None,
        })
    }
}
