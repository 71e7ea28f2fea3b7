//! Reading one task: all that the tables hold of it, for `consumer task`.
//!
//! How it stands is decided by [`status`]; this adds the rows themselves, as JSON, without raw bytes.

use millrace_schemas::TaskId;
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::position::Consumer;
use crate::rows::uuid_of;
use crate::trouble::Trouble;

pub use crate::task_status::{ON_ITS_WAY, StatusWord, TaskStatus, status, statuses};

/// All that is known of one task; absent parts are left out.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TaskReport {
    /// The id.
    pub task_id: String,
    /// When the id was minted, RFC 3339, UTC.
    pub born_at: String,
    /// `success`, `failed`, `cancelled`, `expired`; before that `accepted`, `processing`, `retrying`; without
    /// a trace `unknown` or `gone`.
    pub status: String,
    /// What the status means here, for a person.
    pub explanation: String,
    /// The row of `task_results`, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The row of `parked_tasks`, as JSON, without its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked: Option<Value>,
    /// What the task last said of itself under the claim that counts now, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Value>,
    /// The request to cancel it, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_request: Option<Value>,
    /// Its dead letters of all runs, as JSON, without the raw bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dead_letters: Vec<Value>,
}

/// Collects what is known, from one snapshot.
///
/// # Errors
/// When the database cannot be read.
pub async fn report(
    connection: &mut PgConnection,
    consumer: &Consumer,
    id: TaskId,
) -> Result<TaskReport, Trouble> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut *transaction)
        .await?;
    let status = status(&mut transaction, consumer, id).await?;
    let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()")
        .fetch_one(&mut *transaction)
        .await?;
    let progress = match standby {
        true => None,
        false => one(&mut transaction, PROGRESS, consumer, id).await?,
    };
    let report = TaskReport {
        task_id: id.to_string(),
        born_at: born_at(id),
        status: status.status.as_str().to_owned(),
        explanation: status.explanation,
        result: result_row(&mut transaction, id).await?,
        parked: one(&mut transaction, PARKED, consumer, id).await?,
        progress,
        cancel_request: one(&mut transaction, CANCEL_REQUEST, consumer, id).await?,
        dead_letters: many(&mut transaction, DEAD_LETTERS, consumer, id).await?,
    };
    transaction.rollback().await?;
    Ok(report)
}

fn born_at(id: TaskId) -> String {
    let born_ms = i64::try_from(id.born_ms()).unwrap_or(i64::MAX);
    chrono::DateTime::from_timestamp_millis(born_ms)
        .unwrap_or_default()
        .to_rfc3339()
}

async fn result_row(connection: &mut PgConnection, id: TaskId) -> Result<Option<Value>, Trouble> {
    let text: Option<String> = sqlx::query_scalar(
        "SELECT json_build_object('status', status, 'tenant', tenant, 'task_type', task_type, 'run', run, \
           'attempts', attempts, 'key', key, 'content_type', content_type, 'result', result::text, \
           'result_bytes', encode(result_bytes, 'base64'), 'error', error, 'duplicate_of', duplicate_of, \
           'topic', topic, 'partition', partition, 'offset', \"offset\", \
           'submitted_at', submitted_at, 'completed_at', completed_at)::text \
         FROM task_results WHERE day = DATE '1970-01-01' + $1 AND task_id = $2",
    )
    .bind(id.birth_day().days_since_epoch())
    .bind(uuid_of(id))
    .fetch_optional(connection)
    .await?;
    let Some(text) = text else { return Ok(None) };
    let mut row = parse(&text)?;
    // Postgres takes JSON that no Rust value holds, such as half a surrogate pair: that is shown as text.
    if let Some(result) = row.get_mut("result")
        && let Some(value) = result
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok())
    {
        *result = value;
    }
    Ok(Some(row))
}

const PARKED: &str = "SELECT json_build_object('kind', t.kind, 'run', t.run, 'attempts', t.attempts, 'wakes', t.wakes, \
      'partition', t.partition, 'log_book', t.log_book, 'offset', t.\"offset\", 'tenant', t.tenant, 'task_type', t.task_type, \
      'due_at', coalesce(t.due_at, k.due_at), 'deadline', t.deadline, 'parked_at', t.parked_at, 'age_ms', t.age_ms, \
      'error', t.error, 'tasks_of_its_key', k.depth)::text \
    FROM parked_tasks t LEFT JOIN parked_keys k ON k.group_id = t.group_id AND k.topic = t.topic \
      AND k.partition = t.partition AND k.key_hash = t.key_hash AND t.kind <> 'delayed' \
    WHERE t.group_id = $1 AND t.topic = $2 AND t.task_id = $3 ORDER BY t.log_book DESC LIMIT 1";

const PROGRESS: &str = "SELECT json_build_object('state', t.state, 'run', t.run, 'attempt', t.attempt, \
      'fraction', t.fraction, 'note', t.note, 'started_at', t.started_at, 'next_attempt_at', t.next_attempt_at, \
      'updated_at', t.updated_at)::text \
    FROM task_progress t JOIN partition_progress p USING (group_id, topic, partition, claim) \
    WHERE t.group_id = $1 AND t.topic = $2 AND t.task_id = $3";

const CANCEL_REQUEST: &str = "SELECT json_build_object('requested_at', requested_at, 'by', by, 'tenant', tenant)::text \
    FROM task_cancels WHERE $1::text IS NOT NULL AND $2::text IS NOT NULL AND task_id = $3";

const DEAD_LETTERS: &str = "SELECT json_build_object('reason', reason, 'error', error, 'topic', topic, 'partition', partition, \
      'log_book', log_book, 'offset', \"offset\", 'run', run, 'attempts', attempts, 'bytes', length(record_value), \
      'created_at', created_at, 'redriven_at', redriven_at, 'redriven_by', redriven_by, 'discarded_at', discarded_at, \
      'discarded_by', discarded_by, 'discard_reason', discard_reason)::text \
    FROM dead_letters WHERE group_id = $1 AND topic = $2 AND task_id = $3 ORDER BY created_at, run";

async fn one(
    connection: &mut PgConnection,
    query: &'static str,
    consumer: &Consumer,
    id: TaskId,
) -> Result<Option<Value>, Trouble> {
    Ok(many(connection, query, consumer, id)
        .await?
        .into_iter()
        .next())
}

/// The rows that a query gives for a task, each as one JSON text.
async fn many(
    connection: &mut PgConnection,
    query: &'static str,
    consumer: &Consumer,
    id: TaskId,
) -> Result<Vec<Value>, Trouble> {
    let texts: Vec<String> = sqlx::query_scalar(query)
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .bind(uuid_of(id))
        .fetch_all(connection)
        .await?;
    texts.iter().map(|text| parse(text)).collect()
}

fn parse(text: &str) -> Result<Value, Trouble> {
    serde_json::from_str(text)
        .map_err(|error| Trouble::Refused(format!("reading a row as JSON: {error}")))
}
