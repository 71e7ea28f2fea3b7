//! A handle of one task.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};

use super::Client;
use super::error::ClientError;
use super::following::is_end;
use super::task::Returned;
use crate::v1::task_state::Outcome;
use crate::v1::{self, TaskState};

/// A task that was handed over. Awaiting it gives the result; dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) client: Client,
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
        let shared = &self.client.0;
        let get = v1::GetRequest {
            task_id: self.task_id.clone(),
        };
        let answer = shared.tasks.clone().get(shared.request(get)).await?;
        Ok(answer.into_inner())
    }

    /// Asks for it to be cancelled; how it ends is told by awaiting it.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn cancel(&self) -> Result<TaskState, ClientError> {
        let shared = &self.client.0;
        let cancel = v1::CancelRequest {
            task_id: self.task_id.clone(),
        };
        let answer = shared.tasks.clone().cancel(shared.request(cancel)).await?;
        Ok(answer.into_inner())
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
                retry_after: None,
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
