//! What a caller hands over, and what comes back.

use std::time::{Duration, SystemTime};

use super::error::ClientError;
use crate::v1;

/// A task to be handed over.
#[derive(Clone, Debug, Default)]
pub struct Task(pub(super) v1::SubmitRequest);

impl Task {
    /// A task with JSON as its input.
    ///
    /// # Errors
    /// [`ClientError::Input`].
    pub fn json(
        task_type: &str,
        input: &(impl serde::Serialize + ?Sized),
    ) -> Result<Self, ClientError> {
        let payload =
            serde_json::to_vec(input).map_err(|error| ClientError::Input(error.to_string()))?;
        Ok(Self::bytes(task_type, "application/json", payload))
    }

    /// A task with bytes of any type as its input.
    #[must_use]
    pub fn bytes(task_type: &str, content_type: &str, payload: impl Into<Vec<u8>>) -> Self {
        Self(v1::SubmitRequest {
            r#type: task_type.to_owned(),
            content_type: content_type.to_owned(),
            payload: payload.into(),
            ..v1::SubmitRequest::default()
        })
    }

    /// Tasks with the same key start one after another.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.0.key = key.to_owned();
        self
    }

    /// Of tasks with the same deduplication key (and key) only the first runs.
    #[must_use]
    pub fn dedup_key(mut self, key: &str) -> Self {
        self.0.dedup_key = key.to_owned();
        self
    }

    /// The name of this request: a repeat gets the same task.
    #[must_use]
    pub fn idempotency_key(mut self, key: &str) -> Self {
        self.0.idempotency_key = key.to_owned();
        self
    }

    /// Not to be started before.
    #[must_use]
    pub fn run_at(mut self, at: SystemTime) -> Self {
        self.0.run_at = Some(at.into());
        self
    }

    /// To be done within this time; a task that is not expires.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.0.timeout = time.try_into().ok();
        self
    }

    /// Where the outcome is posted to.
    #[must_use]
    pub fn callback(mut self, url: &str) -> Self {
        self.0.callback = url.to_owned();
        self
    }
}

/// What a handler returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// Media type of the body.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Returned {
    /// The body as a value.
    ///
    /// # Errors
    /// It is no JSON, or not of this form.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }
}
