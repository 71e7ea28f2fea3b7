//! Outcomes that are to be posted to whoever submitted the task: written by the flush that ends it, sent by workers.
//!
//! A row is there exactly when its task has ended, so none is forgotten and none is sent for what never happened.
//! Whoever takes a row pushes its time ahead, so two workers do not send the same one in normal running, and one
//! that dies leaves it to the next.

use std::time::Duration;

use chrono::{DateTime, Utc};
use millrace_schemas::TaskId;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use crate::draft::Draft;
use crate::operations_log::{self, Entry};
use crate::position::Consumer;
use crate::rows::{storable, uuid_of};
use crate::trouble::Trouble;

mod shown;

pub use self::shown::{Shown, Tried, latest, tries};

/// Longest error kept of an attempt, in bytes.
const ERROR_BYTES: usize = 1_000;

/// A callback that is ours to send until its lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// The row's number.
    pub id: i64,
    /// The task that ended.
    pub task_id: TaskId,
    /// 0, and one more with each redrive of the task.
    pub run: i16,
    /// Whose task it is.
    pub tenant: String,
    /// Where to post.
    pub target: String,
    /// Attempts before this one, since it was written or sent again by command.
    pub attempts: i32,
    /// What to sign with, the newest first; none: it cannot be sent.
    pub secrets: Vec<String>,
    /// Whether the target said that it wants no more.
    pub is_disabled: bool,
    /// Host and port of the target, in lower case.
    pub host: String,
    /// When it stops being ours, by the database's clock.
    pub until: DateTime<Utc>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// The callback's number.
    pub id: i64,
    /// [`Callback::until`].
    pub until: DateTime<Utc>,
    /// The target's answer, if there was one.
    pub status_code: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// What follows.
    pub next: Next,
}

/// What there is no place for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Full {
    /// Tenants that have all the places that they may have.
    pub tenants: Vec<String>,
    /// Tenants, each with a host of theirs as in [`Callback::host`].
    pub hosts: Vec<(String, String)>,
}

impl Full {
    fn has(&self, tenant: &str, host: &str) -> bool {
        self.tenants.iter().any(|full| full == tenant)
            || self
                .hosts
                .iter()
                .any(|(of, full)| of == tenant && full == host)
    }
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It was delivered.
    Delivered,
    /// Another attempt after this time.
    Again(Duration),
    /// It was the last attempt.
    GiveUp,
    /// The target wants no more: nothing of the tenant is sent there any more.
    Disable,
}

/// Writes a row for each task that ends with this flush and wants to be told of.
pub(crate) async fn write(
    connection: &mut PgConnection,
    consumer: &Consumer,
    drafts: &[Draft<'_>],
) -> Result<(), Trouble> {
    let (mut ids, mut runs, mut tenants, mut targets) = (vec![], vec![], vec![], vec![]);
    for draft in drafts {
        if let Some((event, target)) = draft.called_back() {
            ids.push(uuid_of(event.task_id));
            runs.push(draft.record.run());
            tenants.push(event.tenant.to_owned());
            targets.push(target.to_owned());
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO callbacks (group_id, topic, task_id, run, tenant, target) \
         SELECT $1, $2, * FROM unnest($3::uuid[], $4::smallint[], $5::text[], $6::text[]) \
         ON CONFLICT (task_id, run) DO NOTHING",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&ids)
    .bind(&runs)
    .bind(&tenants)
    .bind(&targets)
    .execute(connection)
    .await?;
    Ok(())
}

/// Hosts that are looked at together.
const HOSTS_AT_ONCE: i32 = 1_000;

/// How far a sender has looked among the hosts, tenant by tenant, to which something is to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    tenant: String,
    host: String,
    /// Whether something was due since the beginning.
    met: bool,
}

impl Looked {
    /// Whether all were looked at since the beginning.
    #[must_use]
    pub fn at_all(&self) -> bool {
        self.tenant.is_empty()
    }

    /// Whether something was due since the beginning, taken or not.
    #[must_use]
    pub const fn has_met(&self) -> bool {
        self.met
    }
}

/// Takes due callbacks for as long as `lease`, the longest due first, at most `most`, none of those in `without`, and
/// of the next hosts only after those that were looked at before.
///
/// What is due to one host of a tenant is found by an index of its own, so that a million callbacks to a full one, or
/// as many that are due later, are not read past; and with very many hosts a look stays short.
///
/// # Errors
/// When the database cannot be written; those that were taken meanwhile become due again by themselves.
pub async fn take(
    connection: &mut PgConnection,
    consumer: &Consumer,
    most: usize,
    lease: Duration,
    without: &Full,
    looked: &mut Looked,
) -> Result<Vec<Callback>, Trouble> {
    // Each host is met at its longest due row.
    let found: Vec<(String, String, bool)> = sqlx::query_as(
        "WITH RECURSIVE place AS (\
           (SELECT tenant, target_host, due_at, 1 AS number FROM callbacks \
              WHERE due_at IS NOT NULL AND group_id = $1 AND topic = $2 AND (tenant, target_host) > ($3, $4) \
              ORDER BY tenant, target_host, due_at LIMIT 1) \
           UNION ALL \
           SELECT n.tenant, n.target_host, n.due_at, p.number + 1 FROM place p CROSS JOIN LATERAL (\
              SELECT tenant, target_host, due_at FROM callbacks WHERE due_at IS NOT NULL AND group_id = $1 AND topic = $2 \
                AND (tenant, target_host) > (p.tenant, p.target_host) \
              ORDER BY tenant, target_host, due_at LIMIT 1) n WHERE p.number < $5) \
         SELECT tenant, target_host, due_at <= statement_timestamp() FROM place ORDER BY number",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&looked.tenant)
    .bind(&looked.host)
    .bind(HOSTS_AT_ONCE)
    .fetch_all(&mut *connection)
    .await?;
    let met = (looked.met && !looked.at_all()) || found.iter().any(|(_, _, is_due)| *is_due);
    *looked = match found.last() {
        Some((tenant, host, _)) if found.len() >= HOSTS_AT_ONCE.unsigned_abs() as usize => Looked {
            tenant: tenant.clone(),
            host: host.clone(),
            met,
        },
        _ => Looked {
            met,
            ..Looked::default()
        },
    };
    let (tenants, hosts): (Vec<String>, Vec<String>) = found
        .into_iter()
        .filter(|(tenant, host, is_due)| *is_due && !without.has(tenant, host))
        .map(|(tenant, host, _)| (tenant, host))
        .unzip();
    if tenants.is_empty() {
        return Ok(Vec::new());
    }
    // Some more than are taken: another sender may have locked the first ones.
    let rows = sqlx::query(
        "WITH first AS (SELECT c.id, c.due_at FROM unnest($5::text[], $6::text[]) AS p(tenant, host) CROSS JOIN LATERAL (\
              SELECT id, due_at FROM callbacks WHERE group_id = $1 AND topic = $2 AND tenant = p.tenant \
                AND target_host = p.host AND due_at <= statement_timestamp() ORDER BY due_at, id LIMIT greatest($3 * 8 / cardinality($5::text[]), 8)) c \
            ORDER BY c.due_at, c.id LIMIT $3 * 8), \
         due AS (SELECT c.id FROM callbacks c JOIN first USING (id) WHERE c.due_at <= clock_timestamp() \
            ORDER BY c.due_at, c.id LIMIT $3 FOR UPDATE OF c SKIP LOCKED), \
         taken AS (UPDATE callbacks c SET due_at = clock_timestamp() + make_interval(secs => $4) FROM due \
           WHERE c.id = due.id RETURNING c.*) \
         SELECT t.id, t.task_id, t.run, t.tenant, t.target, t.target_host AS host, \
           t.due_at AS until, t.attempts - t.former AS attempts, \
           coalesce((SELECT array_agg(s.secret ORDER BY s.created_at DESC, s.id) FROM callback_secrets s \
             WHERE s.tenant = t.tenant AND s.revoked_at IS NULL), '{}') AS secrets, \
           EXISTS (SELECT FROM callback_targets_disabled d WHERE d.tenant = t.tenant AND d.target = t.target) AS is_disabled \
         FROM taken t ORDER BY t.id",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(i64::try_from(most).unwrap_or(i64::MAX / 8))
    .bind(lease.as_secs_f64())
    .bind(tenants)
    .bind(hosts)
    .fetch_all(connection)
    .await?;
    let mut taken = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: Uuid = row.try_get("task_id")?;
        taken.push(Callback {
            id: row.try_get("id")?,
            task_id: TaskId::from_bytes(id.into_bytes())
                .map_err(|error| Trouble::Refused(format!("an id in callbacks: {error}")))?,
            run: row.try_get("run")?,
            tenant: row.try_get("tenant")?,
            target: row.try_get("target")?,
            attempts: row.try_get("attempts")?,
            secrets: row.try_get("secrets")?,
            is_disabled: row.try_get("is_disabled")?,
            host: row.try_get("host")?,
            until: row.try_get("until")?,
        });
    }
    Ok(taken)
}

/// Makes callbacks that were taken and not tried due again.
///
/// # Errors
/// When the database cannot be written; they become due by themselves at the end of their lease.
pub async fn give_back(
    connection: &mut PgConnection,
    callbacks: &[Callback],
) -> Result<(), Trouble> {
    if callbacks.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = callbacks.iter().map(|callback| callback.id).collect();
    let until: Vec<DateTime<Utc>> = callbacks.iter().map(|callback| callback.until).collect();
    sqlx::query(
        "UPDATE callbacks c SET due_at = clock_timestamp() FROM unnest($1::bigint[], $2::timestamptz[]) AS a(id, until) \
         WHERE c.id = a.id AND c.due_at = a.until",
    )
    .bind(ids)
    .bind(until)
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps how attempts ended, and what follows. What is no longer ours, since its lease ended or a command made it due
/// again, is left as it is.
///
/// # Errors
/// When the database cannot be written: the callbacks become due at the end of their lease, and those that were
/// delivered are delivered again, under the same id.
pub async fn attempted(
    connection: &mut PgConnection,
    attempts: &[Attempted],
) -> Result<(), Trouble> {
    let mut transaction = connection.begin().await?;
    for one in attempts {
        let (wait, outcome) = match one.next {
            Next::Again(wait) => (Some(wait.as_secs_f64()), None),
            Next::Delivered => (None, Some("delivered")),
            Next::GiveUp => (None, Some("given_up")),
            Next::Disable => (None, Some("disabled")),
        };
        sqlx::query(
            "WITH done AS (UPDATE callbacks SET attempts = attempts + 1, outcome = $2, \
               due_at = clock_timestamp() + make_interval(secs => $3) \
               WHERE id = $1 AND due_at = $7 RETURNING id, attempts, tenant, target), \
             off AS (INSERT INTO callback_targets_disabled (tenant, target) SELECT tenant, target FROM done \
               WHERE $2 = 'disabled' ON CONFLICT DO NOTHING) \
             INSERT INTO callback_attempts (callback_id, attempt, at, status_code, error, took_ms) \
             SELECT id, attempts, clock_timestamp(), $4, $5, $6 FROM done ON CONFLICT DO NOTHING",
        )
        .bind(one.id)
        .bind(outcome)
        .bind(wait)
        .bind(one.status_code.map(i32::from))
        .bind(one.error.as_deref().map(|error| storable(error, ERROR_BYTES)))
        .bind(i32::try_from(one.took.as_millis()).unwrap_or(i32::MAX))
        .bind(one.until)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Makes callbacks due at once, from their first attempt on: those of a task that ended, or failed and wait for
/// another attempt, or all of a tenant's that were given up. Returns how many. One that is on its way meanwhile may
/// arrive twice, under the same id.
///
/// # Errors
/// When the database cannot be written.
pub async fn send_again(
    connection: &mut PgConnection,
    which: &Which<'_>,
    by: &str,
) -> Result<u64, Trouble> {
    let mut transaction = connection.begin().await?;
    let (task, tenant) = match which {
        Which::Task(id) => (Some(uuid_of(*id)), None),
        Which::GivenUpOf(tenant) => (None, Some(*tenant)),
    };
    let done = sqlx::query(
        "UPDATE callbacks SET due_at = clock_timestamp(), outcome = NULL, former = attempts \
         WHERE (task_id = $1 AND (outcome IS NOT NULL OR attempts > former)) OR (tenant = $2 AND outcome IN ('given_up', 'disabled'))",
    )
    .bind(task)
    .bind(tenant)
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    let detail = serde_json::json!({"task": task, "tenant": tenant, "callbacks": done});
    let entry = Entry {
        by,
        action: "callbacks_sent_again",
        reason: None,
        detail: &detail,
    };
    operations_log::append(&mut transaction, &entry).await?;
    transaction.commit().await?;
    Ok(done)
}

/// Which callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// Those of a task, but none whose first attempt is still to come.
    Task(TaskId),
    /// All of a tenant's that were given up, or whose target wanted no more.
    GivenUpOf(&'a str),
}

/// Forgets callbacks that ended before so long ago, with their attempts; at most `most`.
///
/// # Errors
/// When the database cannot be written.
pub async fn forget(
    connection: &mut PgConnection,
    kept: Duration,
    most: i64,
) -> Result<u64, Trouble> {
    let done = sqlx::query(
        "DELETE FROM callbacks WHERE id IN (SELECT id FROM callbacks \
           WHERE created_at < now() - make_interval(secs => $1) AND outcome IS NOT NULL LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(kept.as_secs_f64())
    .bind(most)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
