//! A handle of one task.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};

use super::Client;
use super::error::ClientError;
use super::following::is_end;
use super::task::Returned;
use crate::v1::TaskState;
use crate::v1::task_state::Outcome;

/// A task that was handed over. Awaiting it gives the result; dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) client: Client,
    /// In the form in which front doors write it: states are told by it.
    pub(super) task_id: String,
    pub(super) timeout: Option<Duration>,
}

impl Handle {
    /// The task's id, by which it can be found again.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.task_id
    }

    /// The same, awaited for no longer than this. The task goes on.
    #[must_use]
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = Some(time);
        self
    }

    /// How it stands now.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn state(&self) -> Result<TaskState, ClientError> {
        Ok(self.client.0.calls.get(&self.task_id).await?)
    }

    /// Asks for it to be cancelled; how it ends is told by awaiting it.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn cancel(&self) -> Result<TaskState, ClientError> {
        Ok(self.client.0.calls.cancel(&self.task_id).await?)
    }

    /// Each change of how it stands, the end included.
    pub fn progress(&self) -> impl Stream<Item = TaskState> + Send + use<> {
        let receiver = Some(self.client.0.follow(&self.task_id));
        // The client has to live as long as whoever follows.
        let client = self.client.clone();
        stream::unfold((receiver, client), async |(receiver, client)| {
            let mut receiver = receiver?;
            receiver.changed().await.ok()?;
            let state = receiver.borrow_and_update().clone()?;
            let rest = (!is_end(&state)).then_some(receiver);
            Some((state, (rest, client)))
        })
    }

    async fn result(self) -> Result<Returned, ClientError> {
        let mut receiver = self.client.0.follow(&self.task_id);
        let ended = receiver.wait_for(|seen| seen.as_ref().is_some_and(is_end));
        let ended = match self.timeout {
            None => ended.await,
            Some(time) => match tokio::time::timeout(time, ended).await {
                Ok(ended) => ended,
                Err(_) => return Err(ClientError::TimedOut(time)),
            },
        };
        let outcome = ended.ok().and_then(|seen| seen.as_ref()?.outcome.clone());
        match outcome {
            Some(Outcome::Result(result)) => Ok(Returned {
                content_type: result.content_type,
                body: result.body,
            }),
            Some(Outcome::Problem(problem)) if problem.kind.starts_with("task-") => {
                Err(ClientError::Failed {
                    problem: problem.kind,
                    message: problem.detail,
                })
            }
            Some(Outcome::Problem(problem)) => Err(ClientError::Refused {
                problem: problem.kind,
                message: problem.detail,
                retry_after: problem.retry_after.and_then(|time| time.try_into().ok()),
            }),
            None => Err(ClientError::Refused {
                problem: "unreachable".to_owned(),
                message: "the client ended".to_owned(),
                retry_after: None,
            }),
        }
    }
}

impl IntoFuture for Handle {
    type Output = Result<Returned, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.result())
    }
}
