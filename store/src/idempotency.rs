//! The names that callers give to their requests: the first request of a name owns it for a window.
//!
//! A front door takes the name before it sends the event, and says when Kafka has it. Between the two the name
//! is busy, for no longer than a lease: should the front door die, the next request of the name sends the same
//! event under the same id again, which is harmless. So a name never stands for two tasks, whoever dies when.
//! A front door that slept beyond its lease may still say that the event arrived; it can no longer free the name.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use millrace_schemas::{Fingerprint, TaskId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::rows::uuid_of;
use crate::trouble::Trouble;

/// A request that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Whose it is: names of different tenants never meet.
    pub tenant: Box<str>,
    /// The name.
    pub key: Box<str>,
    /// The id that the task is to have if the name is new.
    pub task_id: TaskId,
    /// What is asked for.
    pub fingerprint: Fingerprint,
}

/// A name that is ours to send until its lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The id under which the event is to be sent: the one that was offered, or that of an earlier request of the
    /// name of which nobody knows whether its event was sent.
    pub task_id: TaskId,
    /// Whether it is that of an earlier request.
    pub is_repeat: bool,
    /// When the lease ends, by the database's clock; no two holders of a name have the same.
    until: DateTime<Utc>,
}

/// What a request with a name has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Send the event, then [`settle`].
    Send(Hold),
    /// The event is in Kafka under this id.
    Accepted(TaskId),
    /// Another request of the name is being worked on, at most for so long.
    Busy(Duration),
    /// The name was used for something else.
    OtherContent,
}

/// What became of an event that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Kafka has it.
    Accepted,
    /// It may be in Kafka: the next request of the name sends it again, at once.
    Unknown,
    /// It is not in Kafka: the name is free again, unless an earlier request's event may be there.
    No,
}

/// How the sending of a name's event ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Whose the name is.
    pub tenant: Box<str>,
    /// The name.
    pub key: Box<str>,
    /// What [`take`] gave.
    pub hold: Hold,
    /// What became of the event.
    pub sent: Sent,
}

/// How long names are busy, and how long they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Longer than a front door may take to send an event and say so.
    pub lease: Duration,
    /// How long a name belongs to its first request.
    pub window: Duration,
}

/// Takes the names of these requests, each at most once in the list, and answers in their order.
///
/// # Errors
/// When the database cannot be written; names that were taken meanwhile stay busy for the lease.
pub async fn take(
    connection: &mut PgConnection,
    requests: &[Named],
    terms: Terms,
) -> Result<Vec<Taken>, Trouble> {
    let columns = Columns::of(requests);
    let ours = sqlx::query(
        "INSERT INTO idempotency_keys AS k (tenant, key, task_id, fingerprint, taken_at, busy_until) \
         SELECT tenant, key, task_id, fingerprint, now(), now() + make_interval(secs => $5) \
         FROM unnest($1::text[], $2::text[], $3::uuid[], $4::uuid[]) AS a(tenant, key, task_id, fingerprint) \
         ORDER BY tenant, key \
         ON CONFLICT (tenant, key) DO UPDATE SET \
           task_id = CASE WHEN k.taken_at < now() - make_interval(secs => $6) THEN excluded.task_id ELSE k.task_id END, \
           taken_at = CASE WHEN k.taken_at < now() - make_interval(secs => $6) THEN excluded.taken_at ELSE k.taken_at END, \
           fingerprint = excluded.fingerprint, busy_until = excluded.busy_until \
         WHERE k.taken_at < now() - make_interval(secs => $6) \
           OR (k.busy_until <= now() AND k.fingerprint = excluded.fingerprint) \
         RETURNING tenant, key, task_id, busy_until",
    )
    .bind(&columns.tenant)
    .bind(&columns.key)
    .bind(&columns.task_id)
    .bind(&columns.fingerprint)
    .bind(terms.lease.as_secs_f64())
    .bind(terms.window.as_secs_f64())
    .fetch_all(&mut *connection)
    .await?;
    let mut taken = HashMap::with_capacity(requests.len());
    let mut held = HashMap::with_capacity(ours.len());
    for row in &ours {
        held.insert(name(row)?, (task_id(row)?, row.try_get("busy_until")?));
    }
    for request in requests {
        let name = (request.tenant.clone(), request.key.clone());
        if let Some((task_id, until)) = held.remove(&name) {
            let hold = Hold {
                task_id,
                is_repeat: task_id != request.task_id,
                until,
            };
            taken.insert(name, Taken::Send(hold));
        }
    }
    if taken.len() < requests.len() {
        others(connection, requests, &mut taken).await?;
    }
    // A name that vanished between the two statements was given back this moment.
    let gone = Taken::Busy(Duration::ZERO);
    Ok(requests
        .iter()
        .map(|request| {
            let name = (request.tenant.clone(), request.key.clone());
            taken.get(&name).copied().unwrap_or(gone)
        })
        .collect())
}

/// Looks up the names that belong to other requests.
async fn others(
    connection: &mut PgConnection,
    requests: &[Named],
    taken: &mut HashMap<(Box<str>, Box<str>), Taken>,
) -> Result<(), Trouble> {
    let theirs: Vec<Named> = requests
        .iter()
        .filter(|request| !taken.contains_key(&(request.tenant.clone(), request.key.clone())))
        .cloned()
        .collect();
    let columns = Columns::of(&theirs);
    let rows = sqlx::query(
        "SELECT k.tenant, k.key, k.task_id, k.fingerprint = a.fingerprint AS same, k.busy_until IS NULL AS accepted, \
           coalesce(extract(epoch FROM k.busy_until - clock_timestamp()), 0)::float8 AS busy_for \
         FROM unnest($1::text[], $2::text[], $3::uuid[]) AS a(tenant, key, fingerprint) \
         JOIN idempotency_keys k ON k.tenant = a.tenant AND k.key = a.key",
    )
    .bind(&columns.tenant)
    .bind(&columns.key)
    .bind(&columns.fingerprint)
    .fetch_all(connection)
    .await?;
    for row in &rows {
        let answer = if !row.try_get::<bool, _>("same")? {
            Taken::OtherContent
        } else if row.try_get("accepted")? {
            Taken::Accepted(task_id(row)?)
        } else {
            let busy_for: f64 = row.try_get("busy_for")?;
            Taken::Busy(Duration::try_from_secs_f64(busy_for.max(0.0)).unwrap_or_default())
        };
        taken.insert(name(row)?, answer);
    }
    Ok(())
}

/// Says what became of events that were to be sent. That Kafka has one is heard from whoever sent it; the rest only
/// from the name's present holder.
///
/// # Errors
/// When the database cannot be written: the names stay busy until their lease ends, and then the next request
/// of each sends its event again.
pub async fn settle(connection: &mut PgConnection, all: &[Settled]) -> Result<(), Trouble> {
    for (which, statement) in [
        (Sent::Accepted, ACCEPTED),
        (Sent::Unknown, UNKNOWN),
        (Sent::No, NOT_SENT),
    ] {
        let those = || all.iter().filter(|one| one.leaves() == which);
        if those().next().is_none() {
            continue;
        }
        sqlx::query(statement)
            .bind(those().map(|one| &*one.tenant).collect::<Vec<_>>())
            .bind(those().map(|one| &*one.key).collect::<Vec<_>>())
            .bind(
                those()
                    .map(|one| uuid_of(one.hold.task_id))
                    .collect::<Vec<_>>(),
            )
            .bind(those().map(|one| one.hold.until).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

impl Settled {
    /// How it leaves the name.
    fn leaves(&self) -> Sent {
        match self.sent {
            // The earlier request's event may be in Kafka under this id.
            Sent::No if self.hold.is_repeat => Sent::Unknown,
            sent => sent,
        }
    }
}

/// The rows of these requests that are still theirs, locked in the order in which [`take`] locks them.
macro_rules! theirs {
    ($still:literal) => {
        concat!(
            "WITH theirs AS (SELECT k.tenant, k.key \
               FROM unnest($1::text[], $2::text[], $3::uuid[], $4::timestamptz[]) AS a(tenant, key, task_id, until) \
               JOIN idempotency_keys k ON k.tenant = a.tenant AND k.key = a.key AND k.task_id = a.task_id \
               WHERE ", $still, " ORDER BY k.tenant, k.key FOR UPDATE OF k) "
        )
    };
}

const ACCEPTED: &str = concat!(
    theirs!("k.busy_until IS NOT NULL"),
    "UPDATE idempotency_keys k SET busy_until = NULL FROM theirs t WHERE k.tenant = t.tenant AND k.key = t.key"
);
const UNKNOWN: &str = concat!(
    theirs!("k.busy_until = a.until"),
    "UPDATE idempotency_keys k SET busy_until = now() FROM theirs t WHERE k.tenant = t.tenant AND k.key = t.key"
);
const NOT_SENT: &str = concat!(
    theirs!("k.busy_until = a.until"),
    "DELETE FROM idempotency_keys k USING theirs t WHERE k.tenant = t.tenant AND k.key = t.key"
);

/// Forgets names whose window has closed, at most `most`, and says how many there were.
///
/// # Errors
/// When the database cannot be written.
pub async fn forget(
    connection: &mut PgConnection,
    window: Duration,
    most: i64,
) -> Result<u64, Trouble> {
    let done = sqlx::query(
        "DELETE FROM idempotency_keys WHERE (tenant, key) IN (SELECT tenant, key FROM idempotency_keys \
           WHERE taken_at < now() - make_interval(secs => $1) ORDER BY taken_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(window.as_secs_f64())
    .bind(most)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

fn name(row: &PgRow) -> Result<(Box<str>, Box<str>), Trouble> {
    Ok((row.try_get("tenant")?, row.try_get("key")?))
}

fn task_id(row: &PgRow) -> Result<TaskId, Trouble> {
    let id: Uuid = row.try_get("task_id")?;
    TaskId::from_bytes(id.into_bytes())
        .map_err(|error| Trouble::Refused(format!("an id in idempotency_keys: {error}")))
}

/// The requests as arrays, one for each column.
struct Columns<'a> {
    tenant: Vec<&'a str>,
    key: Vec<&'a str>,
    task_id: Vec<Uuid>,
    fingerprint: Vec<Uuid>,
}

impl<'a> Columns<'a> {
    fn of(requests: &'a [Named]) -> Self {
        Self {
            tenant: requests.iter().map(|request| &*request.tenant).collect(),
            key: requests.iter().map(|request| &*request.key).collect(),
            task_id: requests
                .iter()
                .map(|request| uuid_of(request.task_id))
                .collect(),
            fingerprint: requests
                .iter()
                .map(|request| Uuid::from_bytes(request.fingerprint.0))
                .collect(),
        }
    }
}
