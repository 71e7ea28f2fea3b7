//! A task event: one submitted task as it travels through Kafka.
//!
//! [`TaskEventRef`] borrows from the bytes it was decoded from, so the hot path copies only what it
//! keeps; [`TaskEvent`] owns its fields. Both have the fields of `avro/task_event.avsc`, in its
//! order, where each field is described in full.

use crate::fingerprint::{DedupHash, Fingerprint};
use crate::task_id::TaskId;

/// A task event that owns its fields. Times are microseconds since the Unix epoch, UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEvent {
    /// The task's identity.
    pub task_id: TaskId,
    /// Which handler runs the task.
    pub task_type: String,
    /// On whose behalf the task runs.
    pub tenant: String,
    /// The ordering key: tasks of a tenant with the same key start one after another.
    pub key: Option<String>,
    /// The caller's name for this request, by which repeats are recognised.
    pub dedup_key: Option<String>,
    /// When the producer accepted the task.
    pub submitted_at: i64,
    /// Not to be started before.
    pub run_at: Option<i64>,
    /// The caller's wall-clock limit.
    pub deadline: Option<i64>,
    /// Media type of the payload.
    pub content_type: String,
    /// Whether somebody may ask for the result.
    pub reply: bool,
    /// URL that the outcome is posted to.
    pub callback: Option<String>,
    /// The task's input.
    pub payload: Vec<u8>,
}

/// A task event that borrows its fields. Times are microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskEventRef<'a> {
    /// The task's identity.
    pub task_id: TaskId,
    /// Which handler runs the task.
    pub task_type: &'a str,
    /// On whose behalf the task runs.
    pub tenant: &'a str,
    /// The ordering key: tasks of a tenant with the same key start one after another.
    pub key: Option<&'a str>,
    /// The caller's name for this request, by which repeats are recognised.
    pub dedup_key: Option<&'a str>,
    /// When the producer accepted the task.
    pub submitted_at: i64,
    /// Not to be started before.
    pub run_at: Option<i64>,
    /// The caller's wall-clock limit.
    pub deadline: Option<i64>,
    /// Media type of the payload.
    pub content_type: &'a str,
    /// Whether somebody may ask for the result.
    pub reply: bool,
    /// URL that the outcome is posted to.
    pub callback: Option<&'a str>,
    /// The task's input.
    pub payload: &'a [u8],
}

impl TaskEvent {
    /// The same event, borrowed.
    pub fn as_ref(&self) -> TaskEventRef<'_> {
        TaskEventRef {
            task_id: self.task_id,
            task_type: &self.task_type,
            tenant: &self.tenant,
            key: self.key.as_deref(),
            dedup_key: self.dedup_key.as_deref(),
            submitted_at: self.submitted_at,
            run_at: self.run_at,
            deadline: self.deadline,
            content_type: &self.content_type,
            reply: self.reply,
            callback: self.callback.as_deref(),
            payload: &self.payload,
        }
    }
}

impl<'a> TaskEventRef<'a> {
    /// A copy that owns its fields.
    pub fn to_owned(&self) -> TaskEvent {
        TaskEvent {
            task_id: self.task_id,
            task_type: self.task_type.into(),
            tenant: self.tenant.into(),
            key: self.key.map(Into::into),
            dedup_key: self.dedup_key.map(Into::into),
            submitted_at: self.submitted_at,
            run_at: self.run_at,
            deadline: self.deadline,
            content_type: self.content_type.into(),
            reply: self.reply,
            callback: self.callback.map(Into::into),
            payload: self.payload.into(),
        }
    }

    /// What the task asks for, whatever its id and times: see [`Fingerprint`].
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self)
    }

    /// Under which name repeats of this request are looked up, when it has a dedup key: see
    /// [`DedupHash`].
    pub fn dedup_hash(&self) -> Option<DedupHash> {
        DedupHash::of(self)
    }

    /// The lane that it runs in, 128 bits over tenant and record key: tasks with the same hash start one after
    /// another. `None` without a record key: nobody waits for such a task.
    pub fn lane_hash(&self) -> Option<[u8; 16]> {
        crate::fingerprint::lane_hash(self)
    }

    /// The key of the Kafka record: the ordering key, without one the dedup key, without either
    /// none. So tasks that are to run in order, and duplicates, meet in one partition.
    pub fn record_key(&self) -> Option<&'a [u8]> {
        self.key.or(self.dedup_key).map(str::as_bytes)
    }
}
