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
//! Any number of handles may be awaited at once: those that begin to wait together share one stream. When the
//! front door is away, or ends the stream, tasks are asked for one after another with growing pauses, at whichever
//! front door answers, until a stream can be had again.

mod builder;
mod error;
mod following;
mod handle;
mod task;

use std::sync::Arc;

use following::Shared;

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
    /// [`ClientError::Refused`]. With `outcome-unknown` the task may have been accepted: hand it over again with
    /// the same idempotency key.
    pub async fn submit(&self, task: Task) -> Result<Handle, ClientError> {
        let mut tasks = self.0.tasks.clone();
        let answer = tasks.submit(self.0.request(task.0)).await?;
        Ok(self.handle(answer.into_inner().task_id))
    }

    /// A handle of a task that was handed over before, by anybody of the same tenant.
    #[must_use]
    pub fn handle(&self, task_id: impl Into<String>) -> Handle {
        Handle {
            client: self.clone(),
            task_id: task_id.into(),
            timeout: None,
        }
    }
}
