//! Callbacks and the attempts at them, for people to look at.

use millrace_schemas::TaskId;
use sqlx::{PgConnection, Row};

use crate::rows::uuid_of;
use crate::trouble::Trouble;

/// A callback as people see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    /// The task.
    pub task_id: String,
    /// 0, and one more with each redrive.
    pub run: i16,
    /// Whose task it is.
    pub tenant: String,
    /// Where it goes.
    pub target: String,
    /// Attempts so far.
    pub attempts: i32,
    /// `pending`, `delivered`, `given_up`, `disabled`.
    pub outcome: String,
    /// When it is due, RFC 3339, UTC.
    pub due_at: Option<String>,
    /// What the target answered last.
    pub status_code: Option<i32>,
    /// What went wrong last.
    pub error: Option<String>,
}

/// The latest callbacks, newest first, at most `most`: of a tenant, of a task, with an outcome.
///
/// # Errors
/// When the database cannot be read.
pub async fn latest(
    connection: &mut PgConnection,
    tenant: Option<&str>,
    task: Option<TaskId>,
    outcome: Option<&str>,
    most: i64,
) -> Result<Vec<Shown>, Trouble> {
    let rows = sqlx::query(
        "SELECT c.task_id::text AS task_id, c.run, c.tenant, c.target, c.attempts, coalesce(c.outcome, 'pending') AS outcome, \
           to_char(c.due_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS due_at, a.status_code, a.error \
         FROM callbacks c LEFT JOIN callback_attempts a ON a.callback_id = c.id AND a.attempt = c.attempts \
         WHERE ($1::text IS NULL OR c.tenant = $1) AND ($2::uuid IS NULL OR c.task_id = $2) \
           AND ($3::text IS NULL OR coalesce(c.outcome, 'pending') = $3) \
         ORDER BY c.id DESC LIMIT $4",
    )
    .bind(tenant)
    .bind(task.map(uuid_of))
    .bind(outcome)
    .bind(most)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Shown {
                task_id: row.try_get("task_id")?,
                run: row.try_get("run")?,
                tenant: row.try_get("tenant")?,
                target: row.try_get("target")?,
                attempts: row.try_get("attempts")?,
                outcome: row.try_get("outcome")?,
                due_at: row.try_get("due_at")?,
                status_code: row.try_get("status_code")?,
                error: row.try_get("error")?,
            })
        })
        .collect()
}

/// An attempt at a callback as people see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Tried {
    /// The callback's: 0, and one more with each redrive of the task.
    pub run: i16,
    /// 1, 2 and so on.
    pub attempt: i32,
    /// When it ended, RFC 3339, UTC.
    pub at: String,
    /// What the target answered.
    pub status_code: Option<i32>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: i32,
}

/// All attempts at a task's callbacks that are still kept: the latest run first, each run's in their order.
///
/// # Errors
/// When the database cannot be read.
pub async fn tries(connection: &mut PgConnection, task: TaskId) -> Result<Vec<Tried>, Trouble> {
    let rows = sqlx::query(
        "SELECT c.run, a.attempt, to_char(a.at, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS at, a.status_code, a.error, a.took_ms \
         FROM callbacks c JOIN callback_attempts a ON a.callback_id = c.id \
         WHERE c.task_id = $1 ORDER BY c.run DESC, a.attempt",
    )
    .bind(uuid_of(task))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Tried {
                run: row.try_get("run")?,
                attempt: row.try_get("attempt")?,
                at: row.try_get("at")?,
                status_code: row.try_get("status_code")?,
                error: row.try_get("error")?,
                took_ms: row.try_get("took_ms")?,
            })
        })
        .collect()
}
