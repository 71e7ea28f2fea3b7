//! What a task says of itself while it runs long or waits for another attempt: for people and front doors.
//!
//! A short task leaves no row here. Rows carry the claim under which they were written: one of an owner that
//! lost the partition is not written while its claim is not the partition's, and is not read once it is not.
//! The table is not logged: a crash of the server empties it, and the next report writes it again.

use std::collections::HashMap;
use std::time::Duration;

use millrace_schemas::TaskId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::position::Consumer;
use crate::rows::{is_storable_ms, storable, uuid_of};
use crate::trouble::Trouble;

/// Longest note kept, in bytes.
pub const NOTE_BYTES: usize = 1_000;

/// What the task is doing; the texts are those of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// An attempt runs.
    Processing,
    /// An attempt failed, and another one is planned.
    Retrying,
}

impl State {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Retrying => "retrying",
        }
    }
}

/// One task's report.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskProgress {
    /// Its partition.
    pub partition: i32,
    /// The claim of its owner: without it being the partition's, nothing is written.
    pub claim: Uuid,
    /// The task.
    pub task_id: TaskId,
    /// Whose it is.
    pub tenant: Box<str>,
    /// What it is doing.
    pub state: State,
    /// 0, and one more with each redrive.
    pub run: i16,
    /// The number of the attempt that runs, or that failed last; the first is 1.
    pub attempt: u16,
    /// How much is done, from 0 to 1, where the handler says so.
    pub fraction: Option<f32>,
    /// What the handler says of it.
    pub note: Option<Box<str>>,
    /// When this run's first attempt began, milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// How long until the next attempt, from now on, where one is planned.
    pub next_attempt_in: Option<Duration>,
}

/// Writes reports over what was said before. Of two reports about one task the later in the list counts.
///
/// The claim is read without a lock, so a report that meets a claim in the air may still land: it carries the
/// old claim, and nobody shows it.
///
/// # Errors
/// When the database cannot be written; the next report says it again.
pub async fn report(
    connection: &mut PgConnection,
    consumer: &Consumer,
    reports: &[TaskProgress],
) -> Result<(), Trouble> {
    let mut latest: HashMap<TaskId, &TaskProgress> = HashMap::with_capacity(reports.len());
    for report in reports {
        latest.insert(report.task_id, report);
    }
    if latest.is_empty() {
        return Ok(());
    }
    let column = Columns::of(latest.into_values());
    sqlx::query(
        "INSERT INTO task_progress (task_id, group_id, topic, partition, claim, tenant, state, run, attempt, fraction, note, \
           started_at, next_attempt_at, updated_at) \
         SELECT t.task_id, $1, $2, t.partition, t.claim, t.tenant, t.state, t.run, t.attempt, t.fraction, t.note, \
           to_timestamp(t.started_ms / 1000.0), now() + t.next_ms * interval '1 ms', now() \
         FROM unnest($3::uuid[], $4::int[], $5::uuid[], $6::text[], $7::text[], $8::smallint[], $9::smallint[], $10::real[], \
             $11::text[], $12::bigint[], $13::bigint[]) \
           AS t(task_id, partition, claim, tenant, state, run, attempt, fraction, note, started_ms, next_ms) \
         JOIN partition_progress p ON p.group_id = $1 AND p.topic = $2 AND p.partition = t.partition AND p.claim = t.claim \
         ORDER BY t.task_id \
         ON CONFLICT (task_id) DO UPDATE SET group_id = excluded.group_id, topic = excluded.topic, \
           partition = excluded.partition, claim = excluded.claim, tenant = excluded.tenant, state = excluded.state, \
           run = excluded.run, attempt = excluded.attempt, fraction = excluded.fraction, note = excluded.note, \
           started_at = excluded.started_at, next_attempt_at = excluded.next_attempt_at, updated_at = excluded.updated_at",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&column.task_id)
    .bind(&column.partition)
    .bind(&column.claim)
    .bind(&column.tenant)
    .bind(&column.state)
    .bind(&column.run)
    .bind(&column.attempt)
    .bind(&column.fraction)
    .bind(&column.note)
    .bind(&column.started_ms)
    .bind(&column.next_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes what tasks said of themselves, once they are done or parked. Not fenced: what a former owner
/// removes so, the next report of the new one brings back.
///
/// # Errors
/// When the database cannot be written; the rows go with the next [`sweep`], and a result counts before them.
pub async fn remove(connection: &mut PgConnection, tasks: &[TaskId]) -> Result<(), Trouble> {
    let ids: Vec<Uuid> = tasks.iter().copied().map(uuid_of).collect();
    sqlx::query("DELETE FROM task_progress WHERE task_id = ANY($1)")
        .bind(&ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes the rows of a partition that were written under other claims than this one.
///
/// # Errors
/// When the database cannot be written; nobody shows these rows anyway.
pub async fn sweep(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    claim: Uuid,
) -> Result<(), Trouble> {
    sqlx::query(
        "DELETE FROM task_progress WHERE group_id = $1 AND topic = $2 AND partition = $3 AND claim <> $4",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(claim)
    .execute(connection)
    .await?;
    Ok(())
}

/// Reports by column, as Postgres takes many rows at once.
#[derive(Default)]
struct Columns {
    task_id: Vec<Uuid>,
    partition: Vec<i32>,
    claim: Vec<Uuid>,
    tenant: Vec<String>,
    state: Vec<&'static str>,
    run: Vec<i16>,
    attempt: Vec<i16>,
    fraction: Vec<Option<f32>>,
    note: Vec<Option<String>>,
    started_ms: Vec<i64>,
    next_ms: Vec<Option<i64>>,
}

impl Columns {
    fn of<'a>(reports: impl Iterator<Item = &'a TaskProgress>) -> Self {
        let mut column = Self::default();
        for report in reports {
            column.task_id.push(uuid_of(report.task_id));
            column.partition.push(report.partition);
            column.claim.push(report.claim);
            column.tenant.push(storable(&report.tenant, 255));
            column.state.push(report.state.as_str());
            column.run.push(report.run);
            column
                .attempt
                .push(i16::try_from(report.attempt).unwrap_or(i16::MAX));
            column.fraction.push(
                report
                    .fraction
                    .filter(|fraction| fraction.is_finite())
                    .map(|fraction| fraction.clamp(0.0, 1.0)),
            );
            column.note.push(
                report
                    .note
                    .as_deref()
                    .map(|note| storable(note, NOTE_BYTES)),
            );
            column.started_ms.push(
                Some(report.started_ms)
                    .filter(is_storable_ms)
                    .unwrap_or_default(),
            );
            column
                .next_ms
                .push(report.next_attempt_in.map(milliseconds));
        }
        column
    }
}

/// At most a hundred years, so that no time lies beyond what Postgres holds.
fn milliseconds(wait: Duration) -> i64 {
    const CENTURY: i64 = 36_525 * 86_400_000;
    i64::try_from(wait.as_millis()).map_or(CENTURY, |wait| wait.min(CENTURY))
}
