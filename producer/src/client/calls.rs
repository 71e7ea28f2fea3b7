//! Calls to the front door: each with the key, and each answered or given up within the same time.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::error::ClientError;
use crate::v1::tasks_client::TasksClient;
use crate::v1::{self, TaskState};

#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) tasks: TasksClient<Channel>,
    pub(super) key: Option<MetadataValue<Ascii>>,
    /// How long an answer is waited for; of a stream, its begin.
    pub(super) timeout: Duration,
}

impl Calls {
    /// The id of the task that was accepted.
    ///
    /// # Errors
    /// [`ClientError::Refused`] only where it is certain that the task was not accepted.
    pub(super) async fn submit(&self, task: v1::SubmitRequest) -> Result<String, ClientError> {
        let mut tasks = self.tasks.clone();
        let answer = self.in_time(tasks.submit(self.request(task))).await;
        answer
            .map(|accepted| accepted.task_id)
            .map_err(ClientError::of_submit)
    }

    pub(super) async fn get(&self, task_id: &str) -> Result<TaskState, Status> {
        let get = v1::GetRequest {
            task_id: task_id.to_owned(),
        };
        let mut tasks = self.tasks.clone();
        self.in_time(tasks.get(self.request(get))).await
    }

    pub(super) async fn cancel(&self, task_id: &str) -> Result<TaskState, Status> {
        let cancel = v1::CancelRequest {
            task_id: task_id.to_owned(),
        };
        let mut tasks = self.tasks.clone();
        self.in_time(tasks.cancel(self.request(cancel))).await
    }

    pub(super) async fn watch(&self, task_ids: &[String]) -> Result<Streaming<TaskState>, Status> {
        let watch = v1::WatchRequest {
            task_ids: task_ids.to_vec(),
        };
        let mut tasks = self.tasks.clone();
        self.in_time(tasks.watch(self.request(watch))).await
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.clone());
        }
        request
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "no answer within {:?}",
                self.timeout
            ))),
        }
    }
}
