//! What a redrive reads and writes, a statement each. All but the reading happens under the lock of the
//! partition's row, in one transaction.

use chrono::{DateTime, Utc};
use millrace_schemas::TaskId;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::judge::Ready;
use crate::letters::LetterPlace;
use crate::position::Consumer;
use crate::rows::{ParkKind, storable, uuid_of};
use crate::trouble::Trouble;

/// Where a partition stands, and what time the database has.
pub(super) struct Standing {
    pub log_book: i32,
    pub first_offset: i64,
    pub next_offset: i64,
    pub now: DateTime<Utc>,
}

/// Keeps the owner's flushes out until the transaction ends. A flush that is in the air is waited for, and
/// what it left is read by the statements after this one.
pub(super) async fn lock(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
) -> Result<(), Trouble> {
    sqlx::query(
        "SELECT FROM partition_progress WHERE group_id = $1 AND topic = $2 AND partition = $3 FOR UPDATE",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn standing(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
) -> Result<Option<Standing>, Trouble> {
    let row = sqlx::query(
        "SELECT log_book, first_offset, next_offset, clock_timestamp() AS now FROM partition_progress \
         WHERE group_id = $1 AND topic = $2 AND partition = $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Standing {
        log_book: row.try_get("log_book")?,
        first_offset: row.try_get("first_offset")?,
        next_offset: row.try_get("next_offset")?,
        now: row.try_get("now")?,
    }))
}

/// Which of them have a result of their own that is no failure. One statement a birth day, so that each
/// reads one table by its primary key.
pub(super) async fn with_result(
    connection: &mut PgConnection,
    consumer: &Consumer,
    ready: &[Ready],
) -> Result<std::collections::HashSet<LetterPlace>, Trouble> {
    let mut found = std::collections::HashSet::new();
    for (day, of_day) in by_day(ready, |one| Some(one.task_id)) {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT task_id, \"offset\" FROM task_results WHERE day = DATE '1970-01-01' + $1 AND task_id = ANY($2) \
             AND topic = $3 AND partition = $4 AND status <> 'failed'",
        )
        .bind(day)
        .bind(of_day.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(&consumer.topic)
        .bind(of_day.first().map(|(_, place)| place.partition))
        .fetch_all(&mut *connection)
        .await?;
        let there = of_day
            .iter()
            .filter(|(id, place)| rows.contains(&(*id, place.offset)))
            .map(|(_, place)| *place);
        found.extend(there);
    }
    Ok(found)
}

/// Which places are taken by parked tasks: only a flush parks, and it needs the row that is locked.
pub(super) async fn parked(
    connection: &mut PgConnection,
    consumer: &Consumer,
    ready: &[Ready],
) -> Result<std::collections::HashSet<(i32, i64)>, Trouble> {
    let rows: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT log_book, \"offset\" FROM parked_tasks WHERE group_id = $1 AND topic = $2 AND partition = $3 \
         AND (log_book, \"offset\") IN (SELECT * FROM unnest($4::int[], $5::bigint[]))",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(ready.first().map(|one| one.place.partition))
    .bind(log_books(ready))
    .bind(offsets(ready))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Marks those that are still open and returns them.
pub(super) async fn mark(
    connection: &mut PgConnection,
    consumer: &Consumer,
    ready: &[Ready],
    by: &str,
) -> Result<std::collections::HashSet<LetterPlace>, Trouble> {
    let rows: Vec<(i32, i32, i64, i16)> = sqlx::query_as(
        "UPDATE dead_letters d SET redriven_at = clock_timestamp(), redriven_by = $7 \
         FROM unnest($4::int[], $5::bigint[], $6::smallint[]) AS k(log_book, \"offset\", run) \
         WHERE d.group_id = $1 AND d.topic = $2 AND d.partition = $3 AND d.log_book = k.log_book \
           AND d.\"offset\" = k.\"offset\" AND d.run = k.run AND d.redriven_at IS NULL AND d.discarded_at IS NULL \
         RETURNING d.partition, d.log_book, d.\"offset\", d.run",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(ready.first().map(|one| one.place.partition))
    .bind(log_books(ready))
    .bind(offsets(ready))
    .bind(runs(ready))
    .bind(storable(by, 255))
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(partition, log_book, offset, run)| LetterPlace {
            partition,
            log_book,
            offset,
            run,
        })
        .collect())
}

/// Takes away the failed results that went with the letters: the rows of the same records, and no others. A cancel
/// request that came too late for the former run goes with them, or it would end the new one.
pub(super) async fn withdraw_failed_results(
    connection: &mut PgConnection,
    consumer: &Consumer,
    ready: &[Ready],
) -> Result<(), Trouble> {
    for (day, of_day) in by_day(ready, |one| one.letter_id) {
        sqlx::query(
            "DELETE FROM task_results r USING unnest($2::uuid[], $3::bigint[]) AS k(task_id, \"offset\") \
             WHERE r.day = DATE '1970-01-01' + $1 AND r.task_id = k.task_id AND r.\"offset\" = k.\"offset\" \
               AND r.topic = $4 AND r.partition = $5 AND r.status = 'failed' AND r.duplicate_of IS NULL",
        )
        .bind(day)
        .bind(of_day.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(of_day.iter().map(|(_, place)| place.offset).collect::<Vec<_>>())
        .bind(&consumer.topic)
        .bind(of_day.first().map(|(_, place)| place.partition))
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query("DELETE FROM task_cancels WHERE task_id = ANY($1)")
        .bind(
            ready
                .iter()
                .map(|one| uuid_of(one.task_id))
                .collect::<Vec<_>>(),
        )
        .execute(connection)
        .await?;
    Ok(())
}

/// Parks the tasks. One whose time to start lies ahead blocks nobody until then; the others make their key due.
pub(super) async fn park(
    connection: &mut PgConnection,
    consumer: &Consumer,
    ready: &[Ready],
    now: DateTime<Utc>,
) -> Result<(), Trouble> {
    let ahead = |one: &Ready| one.run_at.filter(|at| *at > now);
    let kind = |one: &Ready| match ahead(one) {
        Some(_) => ParkKind::Delayed,
        None => ParkKind::Redrive,
    };
    sqlx::query(
        "INSERT INTO parked_tasks (group_id, topic, partition, log_book, \"offset\", key_hash, task_id, kind, run, attempts, \
           age_ms, due_at, deadline, record_time, parked_at, tenant, task_type, error, headers, record_value) \
         SELECT d.group_id, d.topic, d.partition, d.log_book, d.\"offset\", n.key_hash, n.task_id, n.kind::park_kind, \
           (d.run + 1)::smallint, 0, 0, n.due_at, n.deadline, d.record_time, clock_timestamp(), n.tenant, n.task_type, \
           json_build_object('code', d.reason, 'message', d.error), n.headers, d.record_value \
         FROM unnest($4::int[], $5::bigint[], $6::smallint[], $7::uuid[], $8::uuid[], $9::text[], $10::timestamptz[], \
             $11::timestamptz[], $12::text[], $13::text[], $14::bytea[]) \
           AS n(log_book, \"offset\", run, key_hash, task_id, kind, due_at, deadline, tenant, task_type, headers) \
         JOIN dead_letters d ON d.log_book = n.log_book AND d.\"offset\" = n.\"offset\" AND d.run = n.run \
         WHERE d.group_id = $1 AND d.topic = $2 AND d.partition = $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(ready.first().map(|one| one.place.partition))
    .bind(log_books(ready))
    .bind(offsets(ready))
    .bind(runs(ready))
    .bind(ready.iter().map(|one| Uuid::from_bytes(one.key_hash)).collect::<Vec<_>>())
    .bind(ready.iter().map(|one| uuid_of(one.task_id)).collect::<Vec<_>>())
    .bind(ready.iter().map(|one| kind(one).as_str().to_owned()).collect::<Vec<_>>())
    .bind(ready.iter().map(ahead).collect::<Vec<_>>())
    .bind(ready.iter().map(|one| one.deadline).collect::<Vec<_>>())
    .bind(ready.iter().map(|one| one.tenant.clone()).collect::<Vec<_>>())
    .bind(ready.iter().map(|one| one.task_type.clone()).collect::<Vec<_>>())
    .bind(ready.iter().map(|one| one.headers.as_bytes().to_vec()).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    let due: Vec<Uuid> = ready
        .iter()
        .filter(|one| ahead(one).is_none())
        .map(|one| Uuid::from_bytes(one.key_hash))
        .collect();
    sqlx::query(
        "INSERT INTO parked_keys (group_id, topic, partition, key_hash, due_at, depth) \
         SELECT $1, $2, $3, k.key_hash, clock_timestamp(), count(*)::int FROM unnest($4::uuid[]) AS k(key_hash) \
         GROUP BY k.key_hash ORDER BY k.key_hash \
         ON CONFLICT (group_id, topic, partition, key_hash) DO UPDATE SET depth = parked_keys.depth + excluded.depth, \
           due_at = least(parked_keys.due_at, excluded.due_at)",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(ready.first().map(|one| one.place.partition))
    .bind(due)
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves the counts of the open book. Claim and seq stay, so a flush that comes next finds its row.
pub(super) async fn move_books(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    count: usize,
) -> Result<(), Trouble> {
    if count == 0 {
        return Ok(());
    }
    sqlx::query(
        "UPDATE partition_progress SET dead_letters = dead_letters - $4, parked = parked + $4 \
         WHERE group_id = $1 AND topic = $2 AND partition = $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(i64::try_from(count).unwrap_or(0))
    .execute(connection)
    .await?;
    Ok(())
}

fn by_day(
    ready: &[Ready],
    id: impl Fn(&Ready) -> Option<TaskId>,
) -> std::collections::BTreeMap<i32, Vec<(Uuid, LetterPlace)>> {
    let mut days: std::collections::BTreeMap<i32, Vec<_>> = std::collections::BTreeMap::new();
    for one in ready {
        if let Some(id) = id(one) {
            days.entry(id.birth_day().days_since_epoch())
                .or_default()
                .push((uuid_of(id), one.place));
        }
    }
    days
}

fn log_books(ready: &[Ready]) -> Vec<i32> {
    ready.iter().map(|one| one.place.log_book).collect()
}

fn offsets(ready: &[Ready]) -> Vec<i64> {
    ready.iter().map(|one| one.place.offset).collect()
}

fn runs(ready: &[Ready]) -> Vec<i16> {
    ready.iter().map(|one| one.place.run).collect()
}
