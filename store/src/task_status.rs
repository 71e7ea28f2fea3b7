//! How a task stands, from what its id leads to: one look-up by key in each table, cheap enough to ask often.
//!
//! The result, the parked row, the dead letters and the positions are read by one statement, so a task that
//! moves from one to the other meanwhile is never seen in none. What it says of itself comes after that and
//! decides nothing about the end. No row is written when a task is submitted: an id without one is told apart
//! by its birth time and the times up to which every partition is settled.

use std::collections::HashMap;
use std::time::Duration;

use millrace_schemas::{Day, TaskId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::days::{self, Daily};
use crate::position::Consumer;
use crate::rows::uuid_of;
use crate::trouble::Trouble;

/// Where a task stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusWord {
    /// It is in the log, or waits for its time or behind its key; no attempt has begun, as far as is known.
    Accepted,
    /// An attempt runs.
    Processing,
    /// An attempt failed, or somebody sent it to work again, and the next attempt is due some time.
    Retrying,
    /// Done.
    Success,
    /// Given up: its dead letter says why.
    Failed,
    /// Not finished, since somebody asked for that.
    Cancelled,
    /// Not finished when its deadline passed.
    Expired,
    /// Every partition is settled beyond its birth, and nobody has seen it.
    Unknown,
    /// Born before the days that are kept: whatever became of it is not known any more.
    Gone,
}

impl StatusWord {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Processing => "processing",
            Self::Retrying => "retrying",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Gone => "gone",
        }
    }

    /// Whether nothing more will happen to it by itself.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Success | Self::Failed | Self::Cancelled | Self::Expired
        )
    }

    pub(crate) fn of_result(word: &str) -> Result<Self, Trouble> {
        [Self::Success, Self::Failed, Self::Cancelled, Self::Expired]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| Trouble::Refused(format!("{word} is no status of a result")))
    }
}

/// How a task stands; absent parts are not known, or do not apply.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TaskStatus {
    /// In one word.
    pub status: StatusWord,
    /// What that means here, for a person.
    pub explanation: String,
    /// Whose it is, where a row tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// 0, and one more with each redrive.
    pub run: i16,
    /// Attempts of this run that began, as far as is known.
    pub attempts: i16,
    /// How much is done, from 0 to 1, where the handler says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f32>,
    /// What the handler says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When the next attempt, or the first, is due at the earliest, RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<String>,
    /// Whether somebody asked for it to be cancelled, and its owner has not answered yet.
    pub cancel_requested: bool,
    /// The tenants who asked for that; empty: an operator, whosever it is.
    #[serde(skip)]
    pub cancelled_by: Vec<String>,
    /// Whose row in `task_results` holds the result: its own, or that of the task which it is a duplicate of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskId>,
}

impl TaskStatus {
    /// Whether a request to cancel it counts if it is this tenant's; of nobody in particular, whether there is one.
    #[must_use]
    pub fn is_cancelled_by(&self, tenant: Option<&str>) -> bool {
        let mut by = self.cancelled_by.iter();
        by.any(|by| by.is_empty() || tenant.is_none_or(|tenant| tenant == by))
    }

    fn new(status: StatusWord, explanation: impl Into<String>) -> Self {
        Self {
            status,
            explanation: explanation.into(),
            tenant: None,
            run: 0,
            attempts: 0,
            progress: None,
            note: None,
            due_at: None,
            cancel_requested: false,
            cancelled_by: Vec::new(),
            result: None,
        }
    }
}

/// How long after its birth an event may still come into the log, as far as clocks differ: so much later than that
/// every partition has to be settled before nobody has a task. What has an idempotency key may come at any time,
/// under the id that stands beside the key.
pub const ON_ITS_WAY: Duration = Duration::from_secs(20);

/// How far ahead of the database's clock an id may be born: further ahead nobody makes one.
const CLOCKS_DIFFER: Duration = Duration::from_secs(600);

const EVERYTHING: &str = "WITH \
    a AS (SELECT * FROM unnest($3::uuid[], $4::int[], $5::bigint[]) WITH ORDINALITY AS a(id, day, born, place)), \
    f AS (SELECT count(*) > 0 AND count(frontier_time) = count(*) AS known, \
        (extract(epoch FROM min(frontier_time)) * 1000)::bigint AS lowest \
      FROM partition_progress WHERE group_id = $1 AND topic = $2) \
    SELECT r.status, r.tenant AS r_tenant, r.run AS r_run, r.attempts AS r_attempts, r.duplicate_of, \
      k.kind, k.tenant AS k_tenant, k.run AS k_run, k.attempts AS k_attempts, k.due_at, \
      l.reason, l.tenant AS l_tenant, l.run AS l_run, l.attempts AS l_attempts, \
      (coalesce(f.known AND f.lowest > a.born + $6, false) \
          OR a.born > extract(epoch FROM clock_timestamp()) * 1000 + $7) \
        AND NOT EXISTS (SELECT FROM idempotency_keys i WHERE i.task_id = a.id) AS passed, \
      ARRAY(SELECT c.tenant FROM task_cancels c WHERE c.task_id = a.id) AS cancelled_by \
    FROM a CROSS JOIN f \
    LEFT JOIN LATERAL (SELECT t.status::text AS status, t.tenant, t.run, t.attempts, t.duplicate_of FROM task_results t \
      WHERE t.day = DATE '1970-01-01' + a.day AND t.task_id = a.id) r ON true \
    LEFT JOIN LATERAL (SELECT t.kind::text AS kind, t.tenant, t.run, t.attempts, \
        to_char(CASE WHEN t.kind = 'delayed' THEN t.due_at WHEN t.kind IN ('retry', 'redrive') THEN \
          (SELECT y.due_at FROM parked_keys y WHERE y.group_id = t.group_id AND y.topic = t.topic \
             AND y.partition = t.partition AND y.key_hash = t.key_hash) END, \
          'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS due_at \
      FROM parked_tasks t WHERE t.task_id = a.id AND t.group_id || '' = $1 AND t.topic || '' = $2 \
      ORDER BY t.log_book DESC LIMIT 1) k ON true \
    LEFT JOIN LATERAL (SELECT d.reason, d.tenant, d.run, d.attempts FROM dead_letters d \
      WHERE d.task_id = a.id AND d.group_id || '' = $1 AND d.topic || '' = $2 AND d.redriven_at IS NULL \
      ORDER BY d.run DESC LIMIT 1) l ON true \
    ORDER BY a.place";

/// How a task stands. A replica tells no progress, since that table is not replicated.
///
/// # Errors
/// When the database cannot be read.
pub async fn status(
    connection: &mut PgConnection,
    consumer: &Consumer,
    id: TaskId,
) -> Result<TaskStatus, Trouble> {
    let mut found = statuses(connection, consumer, &[id]).await?;
    found
        .pop()
        .ok_or_else(|| Trouble::Outage("the look-up of a task gave no row".to_owned()))
}

/// How each of many tasks stands, in the order of their ids: as many statements as for one.
///
/// # Errors
/// When the database cannot be read.
pub async fn statuses(
    connection: &mut PgConnection,
    consumer: &Consumer,
    ids: &[TaskId],
) -> Result<Vec<TaskStatus>, Trouble> {
    let uuids: Vec<Uuid> = ids.iter().map(|id| uuid_of(*id)).collect();
    let days: Vec<i32> = ids
        .iter()
        .map(|id| id.birth_day().days_since_epoch())
        .collect();
    let born: Vec<i64> = ids
        .iter()
        .map(|id| i64::try_from(id.born_ms()).unwrap_or(i64::MAX))
        .collect();
    let rows = sqlx::query(EVERYTHING)
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .bind(&uuids)
        .bind(&days)
        .bind(&born)
        .bind(i64::try_from(ON_ITS_WAY.as_millis()).unwrap_or(i64::MAX))
        .bind(i64::try_from(CLOCKS_DIFFER.as_millis()).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await?;
    let mut open = Vec::new();
    for (row, uuid) in rows.iter().zip(&uuids) {
        if row.try_get::<Option<&str>, _>("status")?.is_none() {
            open.push(*uuid);
        }
    }
    let mut said = said(connection, consumer, &open).await?;
    let mut oldest = Oldest::default();
    let mut found = Vec::with_capacity(ids.len());
    for (row, id) in rows.iter().zip(ids) {
        if let Some(word) = row.try_get::<Option<&str>, _>("status")? {
            found.push(of_result(row, word, *id)?);
            continue;
        }
        let said = said.remove(&uuid_of(*id));
        let mut status = if let Some(kind) = row.try_get::<Option<&str>, _>("kind")? {
            of_parked(row, kind, said)?
        } else if let Some(said) = said {
            said
        } else if let Some(reason) = row.try_get::<Option<&str>, _>("reason")? {
            of_letter(row, reason)?
        } else {
            let kept = oldest.ask(connection).await?;
            without_row(*id, row.try_get("passed")?, kept)
        };
        status.cancelled_by = row.try_get("cancelled_by")?;
        status.cancel_requested = status.is_cancelled_by(status.tenant.as_deref());
        found.push(status);
    }
    Ok(found)
}

/// The oldest day that is kept, asked for once and only where it matters.
#[derive(Default)]
struct Oldest(Option<Option<Day>>);

impl Oldest {
    async fn ask(&mut self, connection: &mut PgConnection) -> Result<Option<Day>, Trouble> {
        if let Some(known) = self.0 {
            return Ok(known);
        }
        let oldest = days::oldest(connection, Daily::Results).await?;
        self.0 = Some(oldest);
        Ok(oldest)
    }
}

fn of_letter(row: &PgRow, reason: &str) -> Result<TaskStatus, Trouble> {
    Ok(TaskStatus {
        tenant: row.try_get("l_tenant")?,
        run: row.try_get("l_run")?,
        attempts: row.try_get("l_attempts")?,
        ..TaskStatus::new(
            StatusWord::Failed,
            format!("it is a dead letter ({reason}) and has no result row"),
        )
    })
}

fn of_result(row: &PgRow, word: &str, id: TaskId) -> Result<TaskStatus, Trouble> {
    let first: Option<uuid::Uuid> = row.try_get("duplicate_of")?;
    let explanation = match first {
        Some(first) => format!("a duplicate of task {first}"),
        None => "its result is in task_results".to_owned(),
    };
    let holder = first.map_or(Some(id), |first| {
        TaskId::from_bytes(first.into_bytes()).ok()
    });
    Ok(TaskStatus {
        tenant: row.try_get("r_tenant")?,
        run: row.try_get("r_run")?,
        attempts: row.try_get("r_attempts")?,
        result: holder,
        ..TaskStatus::new(StatusWord::of_result(word)?, explanation)
    })
}

/// A parked task that was woken keeps its row while it runs: what it says of itself is newer.
fn of_parked(row: &PgRow, kind: &str, said: Option<TaskStatus>) -> Result<TaskStatus, Trouble> {
    let run: i16 = row.try_get("k_run")?;
    if let Some(said) = said.filter(|said| said.run == run) {
        return Ok(said);
    }
    let (status, explanation) = match kind {
        "running" => (StatusWord::Processing, "it runs for long"),
        "retry" => (StatusWord::Retrying, "it waits for its next attempt"),
        "redrive" => (StatusWord::Retrying, "it was sent to work again"),
        "delayed" => (StatusWord::Accepted, "it waits for its time"),
        _ => (
            StatusWord::Accepted,
            "it waits behind an earlier task of its key",
        ),
    };
    Ok(TaskStatus {
        tenant: row.try_get("k_tenant")?,
        run,
        attempts: row.try_get("k_attempts")?,
        due_at: row.try_get("due_at")?,
        ..TaskStatus::new(status, explanation)
    })
}

/// What these tasks said of themselves under the claims that count now.
async fn said(
    connection: &mut PgConnection,
    consumer: &Consumer,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, TaskStatus>, Trouble> {
    let mut found = HashMap::with_capacity(ids.len());
    if ids.is_empty() || is_replica(connection).await? {
        return Ok(found);
    }
    let rows = sqlx::query(
        "SELECT t.task_id, t.state, t.tenant, t.run, t.attempt, t.fraction, t.note, \
           to_char(t.next_attempt_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS next_attempt_at \
         FROM task_progress t JOIN partition_progress p USING (group_id, topic, partition, claim) \
         WHERE t.task_id = ANY($3) AND t.group_id = $1 AND t.topic = $2",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    for row in &rows {
        let (status, explanation) = match row.try_get("state")? {
            "processing" => (StatusWord::Processing, "an attempt runs"),
            _ => (StatusWord::Retrying, "it waits for its next attempt"),
        };
        let status = TaskStatus {
            tenant: row.try_get("tenant")?,
            run: row.try_get("run")?,
            attempts: row.try_get("attempt")?,
            progress: row.try_get("fraction")?,
            note: row.try_get("note")?,
            due_at: row.try_get("next_attempt_at")?,
            ..TaskStatus::new(status, explanation)
        };
        found.insert(row.try_get("task_id")?, status);
    }
    Ok(found)
}

async fn is_replica(connection: &mut PgConnection) -> Result<bool, Trouble> {
    Ok(sqlx::query_scalar("SELECT pg_is_in_recovery()")
        .fetch_one(connection)
        .await?)
}

/// An id without a row: still under way, unknown, or gone with its day.
fn without_row(id: TaskId, passed: bool, oldest: Option<Day>) -> TaskStatus {
    if oldest.is_some_and(|oldest| id.birth_day() < oldest) {
        TaskStatus::new(
            StatusWord::Gone,
            "it was born before the oldest day that is kept",
        )
    } else if passed {
        TaskStatus::new(
            StatusWord::Unknown,
            "nobody has seen it, and every partition is settled beyond its birth (or it would be born in the future)",
        )
    } else {
        TaskStatus::new(
            StatusWord::Accepted,
            "not settled yet: some partition has not passed its birth time",
        )
    }
}
