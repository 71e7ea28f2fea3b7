//! A task as callers hand it over, by HTTP and by gRPC.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::v1::SubmitRequest;

const TYPE: &str = "door.test";

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    /// Its name, its ordering key, and its idempotency key if it has one.
    pub name: String,
    /// Tasks of one name and another version have another payload.
    pub version: u8,
    /// Whether it has an idempotency key.
    pub has_key: bool,
    /// Not to be started before.
    pub run_at: Option<DateTime<Utc>>,
}

impl Task {
    /// To be started at once, or so long after now.
    pub(super) fn new(name: String, has_key: bool, delay: Option<Duration>) -> Self {
        Self {
            name,
            version: 0,
            has_key,
            run_at: delay.map(|delay| Utc::now() + delay),
        }
    }

    /// The same name with another payload.
    pub(super) fn with_other_payload(&self) -> Self {
        Self {
            version: self.version + 1,
            ..self.clone()
        }
    }

    /// What goes in and, by the stock worker's hand, comes out.
    pub(super) fn payload(&self) -> Value {
        json!({"name": self.name, "version": self.version})
    }

    pub(super) fn json(&self) -> Value {
        let mut task = json!({"type": TYPE, "payload": self.payload(), "key": self.name});
        if let Some(fields) = task.as_object_mut() {
            if self.has_key {
                fields.insert("idempotency_key".to_owned(), json!(self.name));
            }
            if let Some(run_at) = self.run_at {
                let run_at = run_at.to_rfc3339_opts(SecondsFormat::Millis, true);
                fields.insert("run_at".to_owned(), json!(run_at));
            }
        }
        task
    }

    pub(super) fn request(&self) -> SubmitRequest {
        SubmitRequest {
            r#type: TYPE.to_owned(),
            payload: self.payload().to_string().into_bytes(),
            key: self.name.clone(),
            run_at: self.run_at.map(|at| prost_types::Timestamp {
                seconds: at.timestamp(),
                nanos: i32::try_from(at.timestamp_subsec_millis() * 1_000_000).unwrap_or_default(),
            }),
            idempotency_key: if self.has_key {
                self.name.clone()
            } else {
                String::new()
            },
            ..SubmitRequest::default()
        }
    }
}
