//! How tasks ended, for whoever waits: many ids by one statement, with what the handlers returned.
//!
//! Short bodies come along; a long one is read by itself, so that an answer about many tasks stays small
//! whatever their results are.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_schemas::{Day, TaskId};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use crate::days::Daily;
use crate::rows::uuid_of;
use crate::task_status::StatusWord;
use crate::trouble::Trouble;

/// Longest body that comes along with many others, in bytes.
pub const SHORT_BYTES: i32 = 16 * 1024;

/// What a handler returned, or what it left undone for.
#[derive(Debug, Clone, PartialEq)]
pub enum Returned {
    /// A result and its media type.
    Body {
        /// Such as `application/json`.
        content_type: Box<str>,
        /// The bytes as they were returned.
        bytes: Box<[u8]>,
    },
    /// A result of more than [`SHORT_BYTES`]: see [`body`].
    Long {
        /// Its media type.
        content_type: Box<str>,
    },
    /// There is no result: why, as a JSON object, where the row tells.
    Nothing {
        /// The text of the object.
        error: Option<Box<str>>,
    },
}

/// The end of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// One of the four words of an end.
    pub status: StatusWord,
    /// Whose it is.
    pub tenant: Box<str>,
    /// Its type.
    pub task_type: Box<str>,
    /// 0, and one more with each redrive.
    pub run: i16,
    /// Attempts of this run that ended.
    pub attempts: i16,
    /// When it was submitted, milliseconds since the Unix epoch.
    pub submitted_ms: i64,
    /// When it ended, milliseconds since the Unix epoch.
    pub completed_ms: i64,
    /// The task whose result this is, where it was found to be a repeat of that one.
    pub duplicate_of: Option<TaskId>,
    /// What came of it. A repeat returns what the first task returned, as long as that is kept.
    pub returned: Returned,
}

const ROWS: &str = "SELECT t.task_id, t.status::text AS status, t.tenant, t.task_type, t.run, t.attempts, \
      (extract(epoch FROM t.submitted_at) * 1000)::bigint AS submitted_ms, \
      (extract(epoch FROM t.completed_at) * 1000)::bigint AS completed_ms, t.duplicate_of, t.content_type, \
      CASE WHEN octet_length(t.result::text) <= $3 THEN t.result::text END AS result, \
      CASE WHEN octet_length(t.result_bytes) <= $3 THEN t.result_bytes END AS result_bytes, \
      t.result IS NOT NULL OR t.result_bytes IS NOT NULL AS has_body, t.error::text AS error \
    FROM unnest($1::uuid[], $2::int[]) AS a(id, day) \
    JOIN {table} t ON t.day = DATE '1970-01-01' + a.day AND t.task_id = a.id";

/// The ends of those of these tasks that have ended with a row.
///
/// # Errors
/// When the database cannot be read.
pub async fn finished(
    connection: &mut PgConnection,
    ids: &[TaskId],
) -> Result<HashMap<TaskId, Finished>, Trouble> {
    let mut found = rows(connection, ids).await?;
    let firsts: Vec<TaskId> = found.values().filter_map(|end| end.duplicate_of).collect();
    if firsts.is_empty() {
        return Ok(found);
    }
    let first_ends = rows(connection, &firsts).await?;
    for end in found.values_mut() {
        if let Some(first) = end.duplicate_of.and_then(|first| first_ends.get(&first)) {
            // It copies how the first one ended, redriven meanwhile or not.
            end.status = first.status;
            end.returned = first.returned.clone();
        }
    }
    Ok(found)
}

/// The table that has the rows of these tasks. A day that is long ago, or to come, may have none of its own.
fn table_for(ids: &[TaskId]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let today = Day::from_unix_ms(now);
    let days = ids.iter().map(|id| id.birth_day());
    if days
        .clone()
        .all(|day| day == today || day == today.plus(-1))
    {
        Daily::Results.table_for(days)
    } else {
        Daily::Results.table().to_owned()
    }
}

async fn rows(
    connection: &mut PgConnection,
    ids: &[TaskId],
) -> Result<HashMap<TaskId, Finished>, Trouble> {
    let uuids: Vec<Uuid> = ids.iter().map(|id| uuid_of(*id)).collect();
    let days: Vec<i32> = ids
        .iter()
        .map(|id| id.birth_day().days_since_epoch())
        .collect();
    let mut table = table_for(ids);
    let rows = loop {
        let rows = sqlx::query(AssertSqlSafe(ROWS.replace("{table}", &table)))
            .bind(&uuids)
            .bind(&days)
            .bind(SHORT_BYTES)
            .fetch_all(&mut *connection)
            .await
            .map_err(Trouble::from);
        match rows {
            // Not made yet, or dropped by now.
            Err(Trouble::MissingDay(_)) if table != Daily::Results.table() => {
                table = Daily::Results.table().to_owned();
            }
            rows => break rows?,
        }
    };
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let id: Uuid = row.try_get("task_id")?;
        if let Ok(id) = TaskId::from_bytes(id.into_bytes()) {
            found.insert(id, end(row)?);
        }
    }
    Ok(found)
}

fn end(row: &PgRow) -> Result<Finished, Trouble> {
    let first: Option<Uuid> = row.try_get("duplicate_of")?;
    Ok(Finished {
        status: StatusWord::of_result(row.try_get("status")?)?,
        tenant: row.try_get("tenant")?,
        task_type: row.try_get("task_type")?,
        run: row.try_get("run")?,
        attempts: row.try_get("attempts")?,
        submitted_ms: row.try_get("submitted_ms")?,
        completed_ms: row.try_get("completed_ms")?,
        duplicate_of: first.and_then(|id| TaskId::from_bytes(id.into_bytes()).ok()),
        returned: returned(row)?,
    })
}

fn returned(row: &PgRow) -> Result<Returned, Trouble> {
    let content_type: Box<str> = row.try_get("content_type")?;
    if let Some(text) = row.try_get::<Option<String>, _>("result")? {
        let bytes = text.into_bytes().into_boxed_slice();
        return Ok(Returned::Body {
            content_type,
            bytes,
        });
    }
    if let Some(bytes) = row.try_get::<Option<Vec<u8>>, _>("result_bytes")? {
        let bytes = bytes.into_boxed_slice();
        return Ok(Returned::Body {
            content_type,
            bytes,
        });
    }
    Ok(if row.try_get("has_body")? {
        Returned::Long { content_type }
    } else {
        Returned::Nothing {
            error: row.try_get("error")?,
        }
    })
}

/// The body of one task's result, whatever its length; `None` when it has none, or none any more.
///
/// # Errors
/// When the database cannot be read.
pub async fn body(connection: &mut PgConnection, id: TaskId) -> Result<Option<Vec<u8>>, Trouble> {
    Ok(sqlx::query_scalar(
        "SELECT coalesce(convert_to(result::text, 'UTF8'), result_bytes) FROM task_results \
         WHERE day = DATE '1970-01-01' + $1 AND task_id = $2",
    )
    .bind(id.birth_day().days_since_epoch())
    .bind(uuid_of(id))
    .fetch_optional(connection)
    .await?
    .flatten())
}
