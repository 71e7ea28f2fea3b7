//! Requests to cancel a task. A request decides nothing: the owner of the task writes how it ended.
//!
//! So there is no unfenced terminal write: whoever asks leaves a row here, the owner sees it before it starts
//! the task, when it wakes it, while it runs and when it flushes it, and a task that is done stays as it is.

use millrace_schemas::TaskId;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::notices::{self, Notice};
use crate::rows::{storable, uuid_of};
use crate::task_status::ON_ITS_WAY;
use crate::trouble::Trouble;

/// Longest name kept of a tenant or of whoever asks, in bytes.
const NAME_BYTES: usize = 255;

/// A request to cancel a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CancelRequest {
    /// The task.
    pub task: TaskId,
    /// It counts only if the task is this tenant's; empty: whosever it is.
    pub tenant: Box<str>,
}

/// Asks for a task to be cancelled, and tells the workers. Asking again changes nothing. With a `tenant` it counts
/// only for a task of that tenant.
///
/// # Errors
/// When the database cannot be written; then nobody heard of it.
pub async fn request(
    connection: &mut PgConnection,
    task: TaskId,
    tenant: Option<&str>,
    by: &str,
) -> Result<(), Trouble> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "INSERT INTO task_cancels (task_id, tenant, by) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(uuid_of(task))
    .bind(storable(tenant.unwrap_or_default(), NAME_BYTES))
    .bind(storable(by, NAME_BYTES))
    .execute(&mut *transaction)
    .await?;
    notices::tell(&mut transaction, Notice::Cancels).await?;
    transaction.commit().await?;
    Ok(())
}

/// The same for many tasks, each with the tenant who asks, who may have at most `most` requests open. Returns for each
/// whether it is open now; of what is beyond `most`, nothing was asked.
///
/// # Errors
/// When the database cannot be written. Whether the workers heard of it is unknown then.
pub async fn request_within(
    connection: &mut PgConnection,
    asked: &[(TaskId, Box<str>)],
    by: &str,
    most: i64,
) -> Result<Vec<bool>, Trouble> {
    let ids: Vec<Uuid> = asked.iter().map(|(task, _)| uuid_of(*task)).collect();
    let tenants: Vec<_> = asked
        .iter()
        .map(|(_, tenant)| storable(tenant, NAME_BYTES))
        .collect();
    let mut transaction = connection.begin().await?;
    // Written in one order at every front door, so that none waits for another in a circle.
    let are_open = sqlx::query_scalar(
        "WITH asked AS (SELECT * FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS a(task_id, tenant, place)), \
           tenants AS (SELECT d.tenant, (SELECT count(*) FROM \
               (SELECT FROM task_cancels c WHERE c.tenant = d.tenant LIMIT $4) c) AS open \
             FROM (SELECT DISTINCT tenant FROM asked) d), \
           known AS (SELECT a.*, EXISTS (SELECT FROM task_cancels c \
               WHERE c.task_id = a.task_id AND c.tenant = a.tenant) AS is_open FROM asked a), \
           judged AS (SELECT k.*, is_open OR t.open + dense_rank() OVER (PARTITION BY tenant, is_open ORDER BY task_id) <= $4 \
               AS is_within FROM known k JOIN tenants t USING (tenant)), \
           written AS (INSERT INTO task_cancels (task_id, tenant, by) \
             SELECT DISTINCT task_id, tenant, $3 FROM judged WHERE is_within AND NOT is_open \
             ORDER BY task_id, tenant ON CONFLICT DO NOTHING) \
         SELECT is_within FROM judged ORDER BY place",
    )
    .bind(&ids)
    .bind(&tenants)
    .bind(storable(by, NAME_BYTES))
    .bind(most)
    .fetch_all(&mut *transaction)
    .await?;
    notices::tell(&mut transaction, Notice::Cancels).await?;
    transaction.commit().await?;
    Ok(are_open)
}

/// The requests that are open, at most `most`: of each tenant as many as of any other, its newest first, so that no
/// tenant's push out another's.
///
/// # Errors
/// When the database cannot be read.
pub async fn pending(
    connection: &mut PgConnection,
    most: i64,
) -> Result<Vec<CancelRequest>, Trouble> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT task_id, tenant FROM (SELECT task_id, tenant, requested_at, \
           row_number() OVER (PARTITION BY tenant ORDER BY requested_at DESC) AS place FROM task_cancels) c \
         ORDER BY place, requested_at DESC LIMIT $1",
    )
    .bind(most)
    .fetch_all(connection)
    .await?;
    let requests = rows.into_iter().filter_map(|(id, tenant)| {
        Some(CancelRequest {
            task: task_id(id)?,
            tenant: tenant.into(),
        })
    });
    Ok(requests.collect())
}

/// How many requests are open.
///
/// # Errors
/// When the database cannot be read.
pub async fn count(connection: &mut PgConnection) -> Result<i64, Trouble> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM task_cancels")
        .fetch_one(connection)
        .await?)
}

/// Removes requests that were answered: their tasks are durably done.
///
/// # Errors
/// When the database cannot be written; [`sweep`] finds them later.
pub async fn forget(connection: &mut PgConnection, tasks: &[TaskId]) -> Result<(), Trouble> {
    let ids: Vec<Uuid> = tasks.iter().copied().map(uuid_of).collect();
    sqlx::query("DELETE FROM task_cancels WHERE task_id = ANY($1)")
        .bind(&ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes requests whose task has a result, those whose task nobody has (every partition of every group is settled
/// beyond its birth, and it is not parked), and those that were made before the oldest day of results that is kept.
/// Returns how many went.
///
/// # Errors
/// When the database cannot be written.
pub async fn sweep(connection: &mut PgConnection) -> Result<u64, Trouble> {
    let mut transaction = connection.begin().await?;
    // Requests are few and results many: one look-up a request, whatever the statistics say.
    for setting in [
        "SET LOCAL enable_hashjoin = off",
        "SET LOCAL enable_mergejoin = off",
        "SET LOCAL enable_seqscan = off",
    ] {
        sqlx::query(setting).execute(&mut *transaction).await?;
    }
    let oldest = crate::days::oldest(&mut transaction, crate::days::Daily::Results).await?;
    // The first 48 bits of an id are the milliseconds of its birth, which name its day.
    let done = sqlx::query(
        "WITH c AS MATERIALIZED (SELECT task_id, tenant, requested_at, \
             ('x' || left(replace(task_id::text, '-', ''), 12))::bit(48)::bigint AS born FROM task_cancels), \
           f AS (SELECT (extract(epoch FROM min(frontier_time)) * 1000)::bigint AS lowest FROM partition_progress \
             HAVING count(frontier_time) = count(*)) \
         DELETE FROM task_cancels USING c WHERE task_cancels.task_id = c.task_id \
           AND task_cancels.tenant = c.tenant AND ( \
           c.requested_at < DATE '1970-01-01' + $1::int OR EXISTS (SELECT FROM task_results r \
             WHERE r.task_id = c.task_id AND r.day = DATE '1970-01-01' + (c.born / 86400000)::int) \
           OR c.born + $2 < (SELECT lowest FROM f) \
             AND NOT EXISTS (SELECT FROM parked_tasks k WHERE k.task_id = c.task_id) \
             AND NOT EXISTS (SELECT FROM idempotency_keys i WHERE i.task_id = c.task_id))",
    )
    .bind(oldest.map(millrace_schemas::Day::days_since_epoch))
    .bind(i64::try_from(ON_ITS_WAY.as_millis()).unwrap_or(i64::MAX))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(done.rows_affected())
}

fn task_id(id: Uuid) -> Option<TaskId> {
    TaskId::from_bytes(id.into_bytes()).ok()
}
