//! Reading one task: its result, its dead letter, and what its id alone tells.
//!
//! No row is written when a task is submitted; an id without a row is told apart by its birth time and the
//! times up to which every partition is settled.

use millrace_schemas::TaskId;
use sqlx::{PgConnection, Row};

use crate::days;
use crate::position::Consumer;
use crate::rows::uuid_of;
use crate::trouble::Trouble;

/// All that is known of one task; absent parts are left out.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TaskReport {
    /// The id.
    pub task_id: String,
    /// When the id was minted, RFC 3339, UTC.
    pub born_at: String,
    /// `success`, `failed`, `cancelled`, `expired`; without a row `accepted`, `unknown` or `gone`.
    pub status: String,
    /// What the status means here, for a person.
    pub explanation: String,
    /// The row of `task_results`, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Its dead letters, as JSON, without the raw bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dead_letters: Vec<serde_json::Value>,
}

/// Collects what is known.
///
/// # Errors
/// When the database cannot be read.
pub async fn report(
    connection: &mut PgConnection,
    consumer: &Consumer,
    id: TaskId,
) -> Result<TaskReport, Trouble> {
    let result = result_row(connection, id).await?;
    let dead_letters = letters(connection, id).await?;
    let (status, explanation) = match &result {
        Some(row) => {
            let status = row
                .get("status")
                .and_then(serde_json::Value::as_str)
                .unwrap_or("unknown")
                .to_owned();
            let explanation = match row.get("duplicate_of").and_then(serde_json::Value::as_str) {
                Some(first) => format!("a duplicate of task {first}"),
                None => "its result is in task_results".to_owned(),
            };
            (status, explanation)
        }
        None if !dead_letters.is_empty() => (
            "failed".to_owned(),
            "it is a dead letter and has no result row".to_owned(),
        ),
        None => without_row(connection, consumer, id).await?,
    };
    let born_ms = i64::try_from(id.born_ms()).unwrap_or(i64::MAX);
    Ok(TaskReport {
        task_id: id.to_string(),
        born_at: chrono::DateTime::from_timestamp_millis(born_ms)
            .unwrap_or_default()
            .to_rfc3339(),
        status,
        explanation,
        result,
        dead_letters,
    })
}

async fn result_row(
    connection: &mut PgConnection,
    id: TaskId,
) -> Result<Option<serde_json::Value>, Trouble> {
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

async fn letters(
    connection: &mut PgConnection,
    id: TaskId,
) -> Result<Vec<serde_json::Value>, Trouble> {
    let texts: Vec<String> = sqlx::query_scalar(
        "SELECT json_build_object('reason', reason, 'error', error, 'topic', topic, 'partition', partition, \
           'offset', \"offset\", 'run', run, 'attempts', attempts, 'bytes', length(record_value), \
           'created_at', created_at, 'redriven_at', redriven_at)::text \
         FROM dead_letters WHERE task_id = $1 ORDER BY created_at",
    )
    .bind(uuid_of(id))
    .fetch_all(connection)
    .await?;
    texts.iter().map(|text| parse(text)).collect()
}

fn parse(text: &str) -> Result<serde_json::Value, Trouble> {
    serde_json::from_str(text)
        .map_err(|error| Trouble::Refused(format!("reading a row as JSON: {error}")))
}

/// An id without a row: still under way, unknown, or gone with its day.
async fn without_row(
    connection: &mut PgConnection,
    consumer: &Consumer,
    id: TaskId,
) -> Result<(String, String), Trouble> {
    let oldest = days::oldest(connection, days::Daily::Results).await?;
    if oldest.is_some_and(|oldest| id.birth_day() < oldest) {
        return Ok((
            "gone".into(),
            "it was born before the oldest day that is kept".into(),
        ));
    }
    let row = sqlx::query(
        "SELECT count(*) AS partitions, count(frontier_time) AS known, \
           (extract(epoch FROM min(frontier_time)) * 1000)::bigint AS lowest \
         FROM partition_progress WHERE group_id = $1 AND topic = $2",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .fetch_one(connection)
    .await?;
    let (partitions, known): (i64, i64) = (row.try_get("partitions")?, row.try_get("known")?);
    let lowest: Option<i64> = row.try_get("lowest")?;
    let born = i64::try_from(id.born_ms()).unwrap_or(i64::MAX);
    match lowest {
        Some(lowest) if partitions > 0 && known == partitions && lowest > born => Ok((
            "unknown".into(),
            "every partition is settled beyond its birth and nobody has seen it".into(),
        )),
        _ => Ok((
            "accepted".into(),
            "not settled yet: some partition has not passed its birth time".into(),
        )),
    }
}
