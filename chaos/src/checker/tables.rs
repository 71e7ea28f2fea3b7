//! Reads the tables by SQL of its own, from the columns that are fixed for everybody.

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

/// A row of `task_results`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ResultRow {
    /// The task.
    pub task_id: Uuid,
    /// The partition of its record.
    pub partition: i32,
    /// The offset of its record.
    pub place: i64,
    /// How it ended.
    pub status: String,
    /// The run.
    pub run: i16,
    /// Attempts of that run.
    pub attempts: i16,
    /// The task that it repeats.
    pub duplicate_of: Option<Uuid>,
    /// The result.
    pub result: Option<String>,
    /// Whether there is an error.
    pub has_error: bool,
}

/// A row of `dead_letters`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct LetterRow {
    /// The partition of its record.
    pub partition: i32,
    /// The offset of its record.
    pub place: i64,
    /// The run.
    pub run: i16,
    /// The task.
    pub task_id: Option<Uuid>,
    /// Why.
    pub reason: String,
    /// What was wrong.
    pub error: String,
    /// Attempts of that run.
    pub attempts: i16,
}

/// A row of `partition_progress`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ProgressRow {
    /// The partition.
    pub partition: i32,
    /// Where the book begins.
    pub first_offset: i64,
    /// The position.
    pub next_offset: i64,
    /// Offsets that became results.
    pub results: i64,
    /// Offsets that repeat others.
    pub duplicates: i64,
    /// Offsets that became dead letters.
    pub dead_letters: i64,
    /// Offsets that wait.
    pub parked: i64,
    /// Offsets without a record.
    pub gaps: i64,
    /// Offsets given up by hand.
    pub lost: i64,
}

/// All results.
pub async fn results(connection: &mut PgConnection) -> Result<Vec<ResultRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT task_id, partition, \"offset\" AS place, status::text AS status, run, attempts, duplicate_of, \
           coalesce(result::text, convert_from(result_bytes, 'UTF8')) AS result, error IS NOT NULL AS has_error \
         FROM task_results",
    )
    .fetch_all(connection)
    .await
}

/// All dead letters.
pub async fn letters(connection: &mut PgConnection) -> Result<Vec<LetterRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT partition, \"offset\" AS place, run, task_id, reason, error, attempts FROM dead_letters",
    )
    .fetch_all(connection)
    .await
}

/// All positions.
pub async fn progress(connection: &mut PgConnection) -> Result<Vec<ProgressRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT partition, first_offset, next_offset, results, duplicates, dead_letters, parked, gaps, lost \
         FROM partition_progress ORDER BY partition",
    )
    .fetch_all(connection)
    .await
}

/// What is left in tables that must be empty when all work is done: table and rows.
pub async fn left(connection: &mut PgConnection) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT 'parked_tasks', count(*) FROM parked_tasks \
         UNION ALL SELECT 'parked_keys', count(*) FROM parked_keys \
         UNION ALL SELECT 'outbox', count(*) FROM outbox \
         UNION ALL SELECT 'task_progress', count(*) FROM task_progress",
    )
    .fetch_all(connection)
    .await
}

/// Tasks that are still parked, in words.
pub async fn parked(connection: &mut PgConnection) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT t.task_id, t.kind::text || ' at ' || t.partition || '/' || t.\"offset\" || ', attempts ' || t.attempts \
           || ', wakes ' || t.wakes || ', parked ' || t.parked_at || ', due ' \
           || coalesce(t.due_at::text, 'with its key') || ', key due ' || coalesce(k.due_at::text, 'never') \
         FROM parked_tasks t LEFT JOIN parked_keys k USING (group_id, topic, partition, key_hash) \
         ORDER BY t.partition, t.\"offset\" LIMIT 20",
    )
    .fetch_all(connection)
    .await
}

/// All tables of the round's schema as text, one row a line: what is kept beside a verdict that found something.
///
/// # Errors
/// When the database does not answer.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<(String, String)>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT row_to_json(t)::text FROM \"{name}\" t"
        )))
        .fetch_all(&mut *connection)
        .await?;
        tables.push((name, rows.join("\n")));
    }
    Ok(tables)
}
