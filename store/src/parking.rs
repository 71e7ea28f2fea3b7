//! What a flush writes about parked tasks: new rows by COPY, changed and ended ones by their keys.
//!
//! Depth and time of each key change in the same transaction as its tasks, in one statement for all keys. The
//! time belongs to the key and the order to the offset, so nothing here ever lets a task overtake another of
//! its key. All rows belong to partitions that the flush has locked, so no two writers meet in them.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_schemas::TaskEventRef;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::copy::{CopyBuffer, CopyIn, smallint};
use crate::dead_letters::ERROR_BYTES;
use crate::draft::Draft;
use crate::fate::Fate;
use crate::fence::Locked;
use crate::position::Consumer;
use crate::rows::{Due, Origin, ParkKind, Parking, Settling, is_storable_ms, storable};
use crate::trouble::Trouble;

const COLUMNS: &str = "group_id, topic, partition, log_book, \"offset\", key_hash, task_id, kind, run, attempts, wakes, \
     age_ms, due_at, deadline, record_time, parked_at, tenant, task_type, error, headers, record_value";
const FIELDS: i16 = 21;

/// Writes what becomes of the parked tasks among the drafts.
pub(crate) async fn write(
    connection: &mut PgConnection,
    consumer: &Consumer,
    drafts: &[Draft<'_>],
    locked: &Locked,
) -> Result<(), Trouble> {
    let mut new = Vec::new();
    let (mut ended, mut again) = (Vec::new(), Vec::new());
    for draft in drafts {
        match (draft.record.origin, &draft.fate) {
            (Origin::Log, Fate::Parked(parking)) => new.push((draft, &**parking)),
            (Origin::Parked { .. }, Fate::Parked(parking)) => again.push((draft, &**parking)),
            (Origin::Log, _)
            | (Origin::Parked { .. }, Fate::Known(crate::books::Outcome::Parked)) => {}
            (Origin::Parked { .. }, _) => ended.push(draft),
        }
    }
    if new.is_empty() && ended.is_empty() && again.is_empty() {
        return Ok(());
    }
    let mut keys = Keys::default();
    delete(connection, consumer, &ended, &mut keys).await?;
    change(connection, consumer, &again, locked.now, &mut keys).await?;
    copy(connection, consumer, &new, locked.now, &mut keys).await?;
    keys.write(connection, consumer, locked.now).await
}

/// What changes for the keys of a flush, sorted.
#[derive(Debug, Default)]
struct Keys {
    changes: BTreeMap<(i32, [u8; 16]), Change>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Change {
    depth: i32,
    /// The time that the key has from now on, where one was asked for.
    due: Option<i64>,
    /// Whether the task is gone on whose account the key had its time.
    freed: bool,
}

impl Keys {
    fn of(&mut self, partition: i32, key_hash: [u8; 16]) -> &mut Change {
        self.changes.entry((partition, key_hash)).or_default()
    }

    fn left(&mut self, partition: i32, key_hash: [u8; 16], kind: &str) {
        if kind != ParkKind::Delayed.as_str() {
            self.of(partition, key_hash).depth -= 1;
        }
    }

    fn joined(&mut self, partition: i32, key_hash: [u8; 16], parking: &Parking, now: i64) {
        if parking.kind != ParkKind::Delayed {
            let change = self.of(partition, key_hash);
            change.depth += 1;
            if let Some(due) = micros(parking.due, now) {
                change.due = Some(due);
            }
        }
    }

    /// Keys that are there move, those that are not begin, and those without tasks go.
    async fn write(
        &self,
        connection: &mut PgConnection,
        consumer: &Consumer,
        now: i64,
    ) -> Result<(), Trouble> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let partitions: Vec<i32> = self.changes.keys().map(|key| key.0).collect();
        let hashes: Vec<Uuid> = self
            .changes
            .keys()
            .map(|key| Uuid::from_bytes(key.1))
            .collect();
        sqlx::query(
            "WITH f AS (SELECT * FROM unnest($3::int[], $4::uuid[], $5::int[], $6::bigint[], $7::bool[]) \
                 AS f(partition, key_hash, depth, due, freed)), \
               clock AS (SELECT timestamptz 'epoch' + $8::bigint * interval '1 microsecond' AS now), \
               moved AS (UPDATE parked_keys k SET depth = k.depth + f.depth, due_at = CASE \
                   WHEN f.due IS NOT NULL THEN timestamptz 'epoch' + f.due * interval '1 microsecond' \
                   WHEN f.freed THEN least(k.due_at, clock.now) ELSE k.due_at END \
                 FROM f, clock WHERE k.group_id = $1 AND k.topic = $2 AND k.partition = f.partition AND k.key_hash = f.key_hash \
                 RETURNING k.partition, k.key_hash) \
             INSERT INTO parked_keys (group_id, topic, partition, key_hash, due_at, depth) \
             SELECT $1, $2, f.partition, f.key_hash, \
               coalesce(timestamptz 'epoch' + f.due * interval '1 microsecond', clock.now), f.depth FROM f, clock \
             WHERE f.depth > 0 AND NOT EXISTS \
               (SELECT FROM moved m WHERE m.partition = f.partition AND m.key_hash = f.key_hash) \
             ORDER BY f.partition, f.key_hash",
        )
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .bind(&partitions)
        .bind(&hashes)
        .bind(self.changes.values().map(|change| change.depth).collect::<Vec<_>>())
        .bind(self.changes.values().map(|change| change.due).collect::<Vec<_>>())
        .bind(self.changes.values().map(|change| change.freed).collect::<Vec<_>>())
        .bind(now)
        .execute(&mut *connection)
        .await?;
        if self.changes.values().any(|change| change.depth < 0) {
            sqlx::query(
                "DELETE FROM parked_keys k USING unnest($3::int[], $4::uuid[]) AS f(partition, key_hash) \
                 WHERE k.group_id = $1 AND k.topic = $2 AND k.partition = f.partition AND k.key_hash = f.key_hash \
                   AND k.depth <= 0",
            )
            .bind(&consumer.group)
            .bind(&consumer.topic)
            .bind(&partitions)
            .bind(&hashes)
            .execute(connection)
            .await?;
        }
        Ok(())
    }
}

/// When a parked task or its key is due, in microseconds since the Unix epoch.
fn micros(due: Due, now: i64) -> Option<i64> {
    let at = match due {
        Due::In(wait) => now.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)),
        Due::At(at) => at,
        Due::WithKey => return None,
    };
    Some(at.clamp(0, millrace_schemas::limits::LATEST_MICROS))
}

/// Its own time; only a delayed task has one.
fn own_due(parking: &Parking, now: i64) -> Option<i64> {
    (parking.kind == ParkKind::Delayed).then(|| micros(parking.due, now).unwrap_or(now))
}

fn age_ms(parking: &Parking) -> i64 {
    i64::try_from(parking.age.as_millis()).unwrap_or(i64::MAX)
}

/// What went wrong in the last attempt, in the form of every error column.
fn error_json(parking: &Parking) -> Option<String> {
    let error = parking.error.as_ref()?;
    let message = storable(error, ERROR_BYTES);
    Some(serde_json::json!({ "code": "attempt_failed", "message": message }).to_string())
}

async fn delete(
    connection: &mut PgConnection,
    consumer: &Consumer,
    ended: &[&Draft<'_>],
    keys: &mut Keys,
) -> Result<(), Trouble> {
    if ended.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(
        "DELETE FROM parked_tasks t USING unnest($3::int[], $4::int[], $5::bigint[]) AS f(partition, log_book, o) \
         WHERE t.group_id = $1 AND t.topic = $2 AND t.partition = f.partition AND t.log_book = f.log_book \
           AND t.\"offset\" = f.o RETURNING t.partition, t.key_hash, t.kind::text AS kind",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(column(ended.iter().copied(), |draft| draft.partition))
    .bind(column(ended.iter().copied(), |draft| draft.log_book))
    .bind(column(ended.iter().copied(), |draft| draft.record.offset))
    .fetch_all(connection)
    .await?;
    if rows.len() != ended.len() {
        tracing::error!(
            expected = ended.len(),
            found = rows.len(),
            "parked tasks ended that have no row: run `consumer audit`"
        );
    }
    for row in &rows {
        let hash: Uuid = row.try_get("key_hash")?;
        let (partition, kind): (i32, &str) = (row.try_get("partition")?, row.try_get("kind")?);
        keys.left(partition, hash.into_bytes(), kind);
        let without_time = [ParkKind::Behind, ParkKind::Delayed].map(ParkKind::as_str);
        if !without_time.contains(&kind) {
            keys.of(partition, hash.into_bytes()).freed = true;
        }
    }
    Ok(())
}

async fn change(
    connection: &mut PgConnection,
    consumer: &Consumer,
    again: &[(&Draft<'_>, &Parking)],
    now: i64,
    keys: &mut Keys,
) -> Result<(), Trouble> {
    if again.is_empty() {
        return Ok(());
    }
    let drafts = || again.iter().map(|(draft, _)| *draft);
    let parkings = || again.iter().map(|(_, parking)| *parking);
    // An age never shrinks, and an error stays until there is another.
    let rows = sqlx::query(
        "UPDATE parked_tasks t SET kind = f.kind::park_kind, attempts = f.attempts, wakes = 0, \
           age_ms = greatest(t.age_ms, f.age_ms), error = coalesce(f.error::json, t.error), \
           due_at = timestamptz 'epoch' + f.due * interval '1 microsecond', \
           parked_at = timestamptz 'epoch' + $11::bigint * interval '1 microsecond' \
         FROM unnest($3::int[], $4::int[], $5::bigint[], $6::text[], $7::smallint[], $8::bigint[], $9::text[], $10::bigint[]) \
             WITH ORDINALITY AS f(partition, log_book, o, kind, attempts, age_ms, error, due, nth) \
           JOIN parked_tasks old ON old.group_id = $1 AND old.topic = $2 AND old.partition = f.partition \
             AND old.log_book = f.log_book AND old.\"offset\" = f.o \
         WHERE t.group_id = old.group_id AND t.topic = old.topic AND t.partition = old.partition \
           AND t.log_book = old.log_book AND t.\"offset\" = old.\"offset\" \
         RETURNING f.nth, t.partition, t.key_hash, old.kind::text AS kind",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(column(drafts(), |draft| draft.partition))
    .bind(column(drafts(), |draft| draft.log_book))
    .bind(column(drafts(), |draft| draft.record.offset))
    .bind(column(parkings(), |parking| parking.kind.as_str()))
    .bind(column(drafts(), |draft| smallint(draft.record.attempts)))
    .bind(column(parkings(), age_ms))
    .bind(column(parkings(), error_json))
    .bind(column(parkings(), |parking| own_due(parking, now)))
    .bind(now)
    .fetch_all(connection)
    .await?;
    if rows.len() != again.len() {
        tracing::error!(
            expected = again.len(),
            found = rows.len(),
            "tasks are parked anew that have no row: run `consumer audit`"
        );
    }
    let mut changed = Vec::with_capacity(rows.len());
    for row in &rows {
        let (nth, hash): (i64, Uuid) = (row.try_get("nth")?, row.try_get("key_hash")?);
        let kind: &str = row.try_get("kind")?;
        let nth = usize::try_from(nth - 1).unwrap_or(usize::MAX);
        changed.push((nth, row.try_get("partition")?, hash.into_bytes(), kind));
    }
    // In log order, since of several times for one key the last one stands.
    changed.sort_unstable();
    for (nth, partition, hash, kind) in changed {
        if let Some((_, parking)) = again.get(nth) {
            keys.left(partition, hash, kind);
            keys.joined(partition, hash, parking, now);
        }
    }
    Ok(())
}

async fn copy(
    connection: &mut PgConnection,
    consumer: &Consumer,
    new: &[(&Draft<'_>, &Parking)],
    now: i64,
    keys: &mut Keys,
) -> Result<(), Trouble> {
    if new.is_empty() {
        return Ok(());
    }
    let mut copy = CopyIn::begin(connection, "parked_tasks", COLUMNS).await?;
    for (draft, parking) in new {
        // Only what decodes is parked.
        if let Some(event) = &draft.event() {
            let task = Task {
                partition: draft.partition,
                log_book: draft.log_book,
                record: draft.record,
                event,
            };
            encode(copy.buffer(), consumer, &task, parking, now);
        }
        copy.drain().await?;
        keys.joined(draft.partition, parking.key_hash, parking, now);
    }
    copy.finish().await?;
    Ok(())
}

/// Writes a task as it is parked, for the canary, which takes it back.
pub(crate) async fn try_row(
    connection: &mut PgConnection,
    consumer: &Consumer,
    record: &Settling,
    event: &TaskEventRef<'_>,
) -> Result<(), Trouble> {
    let task = Task {
        partition: 0,
        log_book: 0,
        record,
        event,
    };
    let parking = Parking {
        kind: ParkKind::Behind,
        key_hash: *event.task_id.as_bytes(),
        due: Due::WithKey,
        age: Duration::ZERO,
        error: None,
    };
    let now = event.submitted_at;
    let mut copy = CopyIn::begin(&mut *connection, "parked_tasks", COLUMNS).await?;
    encode(copy.buffer(), consumer, &task, &parking, now);
    copy.finish().await?;
    let mut keys = Keys::default();
    keys.joined(task.partition, parking.key_hash, &parking, now);
    keys.write(connection, consumer, now).await
}

/// A task about to be parked.
struct Task<'a> {
    partition: i32,
    log_book: i32,
    record: &'a Settling,
    event: &'a TaskEventRef<'a>,
}

fn encode(
    buffer: &mut CopyBuffer,
    consumer: &Consumer,
    task: &Task<'_>,
    parking: &Parking,
    now: i64,
) {
    let Task { record, event, .. } = task;
    let record_time = Some(record.timestamp_ms).filter(is_storable_ms);
    buffer.row(FIELDS);
    buffer.field(consumer.group.as_bytes());
    buffer.field(consumer.topic.as_bytes());
    buffer.field(&task.partition.to_be_bytes());
    buffer.field(&task.log_book.to_be_bytes());
    buffer.field(&record.offset.to_be_bytes());
    buffer.field(&parking.key_hash);
    buffer.field(event.task_id.as_bytes());
    buffer.field(parking.kind.as_str().as_bytes());
    buffer.field(&record.run().to_be_bytes());
    buffer.field(&smallint(record.attempts).to_be_bytes());
    buffer.field(&0_i16.to_be_bytes());
    buffer.field(&age_ms(parking).to_be_bytes());
    buffer.time(own_due(parking, now));
    buffer.time(event.deadline);
    buffer.time(record_time.map(|ms| ms * 1_000));
    buffer.time(Some(now));
    buffer.field(event.tenant.as_bytes());
    buffer.field(event.task_type.as_bytes());
    buffer.optional(error_json(parking).as_deref().map(str::as_bytes));
    buffer.field(record.headers.as_bytes());
    buffer.field(&record.value);
}

fn column<I, T>(of: impl Iterator<Item = I>, field: impl FnMut(I) -> T) -> Vec<T> {
    of.map(field).collect()
}
