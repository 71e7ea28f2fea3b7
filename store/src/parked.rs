//! Loading parked tasks: keys that are due with their lowest tasks, tasks for later, tasks past their deadline.
//!
//! A due key wakes its lowest offset and the others follow, so nothing overtakes within a key. Call it only
//! after the claim, in statements of its own: what the former owner had in the air is then there. Tasks stay
//! in the table until the flush that ends them, so a worker that dies loses nothing. All of it is fenced by the
//! claim: rows of a partition that is somebody else's are neither returned nor touched.

use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::TaskId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::headers::Headers;
use crate::position::Consumer;
use crate::rows::ParkKind;
use crate::trouble::Trouble;

pub use crate::waking::{HeldPartition, Wake, Waking, wake};

/// Keys that are read at once.
const KEYS_AT_ONCE: i64 = 10_000;

/// A parked task, loaded.
#[derive(Debug, Clone)]
pub struct Parked {
    /// The partition.
    pub partition: i32,
    /// The book with which its log began.
    pub log_book: i32,
    /// Its offset in that log.
    pub offset: i64,
    /// Whom it waits with.
    pub key_hash: [u8; 16],
    /// Why it is parked.
    pub kind: ParkKind,
    /// 0, and one more with each redrive.
    pub run: i16,
    /// Attempts that ended without success.
    pub attempts: u16,
    /// Times that it was loaded to run since it was parked, this one included.
    pub wakes: u16,
    /// Time spent running and in planned waits.
    pub age: Duration,
    /// Its id.
    pub task_id: TaskId,
    /// Whose it is.
    pub tenant: Box<str>,
    /// What it is.
    pub task_type: Box<str>,
    /// The record's timestamp, milliseconds since the Unix epoch; negative when it has none.
    pub timestamp_ms: i64,
    /// The record's headers.
    pub headers: Headers,
    /// The record's value, framed as it came.
    pub value: Arc<[u8]>,
    /// Whether tasks of its key are parked that are not for later: then it waits behind them.
    pub key_is_parked: bool,
}

/// A key that is due, with its lowest tasks.
#[derive(Debug, Clone)]
pub struct WokenKey {
    /// The partition.
    pub partition: i32,
    /// The key.
    pub key_hash: [u8; 16],
    /// Ascending by (log book, offset), with none left out in between.
    pub tasks: Vec<Parked>,
    /// Whether more of the key are parked behind these.
    pub more: bool,
}

/// What [`Parked::read`] reads, of a row `t`.
macro_rules! task_columns {
    () => {
        "t.partition, t.log_book, t.\"offset\", t.key_hash, t.kind::text AS kind, t.run, t.attempts, t.wakes, t.age_ms, \
         t.task_id, t.tenant, t.task_type, (extract(epoch FROM t.record_time) * 1000)::bigint AS record_ms, t.headers, \
         t.record_value, EXISTS (SELECT FROM parked_keys p WHERE p.group_id = t.group_id AND p.topic = t.topic \
           AND p.partition = t.partition AND p.key_hash = t.key_hash) AS key_is_parked"
    };
}

pub(crate) use task_columns;

impl Parked {
    pub(crate) fn read(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let (id, key): (Uuid, Uuid) = (row.try_get("task_id")?, row.try_get("key_hash")?);
        let kind: &str = row.try_get("kind")?;
        let kind = ParkKind::ALL.into_iter().find(|one| one.as_str() == kind);
        let (Ok(task_id), Some(kind)) = (TaskId::try_from(id), kind) else {
            tracing::error!(task_id = %id, "a parked task that this release cannot read is left where it is");
            return Ok(None);
        };
        let count = |count: i16| u16::try_from(count).unwrap_or(0);
        let (headers, value): (&[u8], &[u8]) =
            (row.try_get("headers")?, row.try_get("record_value")?);
        let (tenant, task_type): (&str, &str) = (row.try_get("tenant")?, row.try_get("task_type")?);
        let record_ms: Option<i64> = row.try_get("record_ms")?;
        let age_ms: i64 = row.try_get("age_ms")?;
        Ok(Some(Self {
            partition: row.try_get("partition")?,
            log_book: row.try_get("log_book")?,
            offset: row.try_get("offset")?,
            key_hash: key.into_bytes(),
            kind,
            run: row.try_get("run")?,
            attempts: count(row.try_get("attempts")?),
            wakes: count(row.try_get("wakes")?),
            age: Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)),
            task_id,
            tenant: tenant.into(),
            task_type: task_type.into(),
            timestamp_ms: record_ms.unwrap_or(-1),
            headers: Headers::from_bytes(headers),
            value: value.into(),
            key_is_parked: row.try_get("key_is_parked")?,
        }))
    }

    pub(crate) const fn place(&self) -> (i32, i32, i64) {
        (self.partition, self.log_book, self.offset)
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.value.len() + self.headers.as_bytes().len()) as u64
    }
}

/// Most tasks and bytes, as the database counts.
pub(crate) fn limit(most_tasks: usize, most_bytes: u64) -> (i64, i64) {
    (
        i64::try_from(most_tasks).unwrap_or(i64::MAX),
        i64::try_from(most_bytes).unwrap_or(i64::MAX),
    )
}

/// Loads more tasks of a key, those behind `after`, which is a (log book, offset). Their waking is counted.
/// Without any when the claim is not ours any more.
///
/// # Errors
/// When the database cannot be read or a flush holds the rows too long.
pub async fn more_of_key(
    connection: &mut PgConnection,
    consumer: &Consumer,
    (partition, claim): (i32, Uuid),
    key_hash: [u8; 16],
    after: (i32, i64),
    most_tasks: usize,
    most_bytes: u64,
) -> Result<WokenKey, Trouble> {
    let (most_tasks, most_bytes) = limit(most_tasks.max(1), most_bytes);
    let rows = sqlx::query(concat!(
        "WITH chosen AS (SELECT t.log_book, t.\"offset\" AS o, octet_length(t.record_value) + octet_length(t.headers) AS size \
           FROM parked_tasks t WHERE t.group_id = $1 AND t.topic = $2 AND t.partition = $3 AND t.key_hash = $5 \
             AND t.kind <> 'delayed' AND (t.log_book, t.\"offset\") > ($6, $7) \
             AND EXISTS (SELECT FROM partition_progress p WHERE p.group_id = $1 AND p.topic = $2 AND p.partition = $3 \
               AND p.claim = $4) \
           ORDER BY t.log_book, t.\"offset\" LIMIT $8 + 1), \
         fitting AS (SELECT *, row_number() OVER w AS place, sum(size) OVER w AS used, count(*) OVER () AS found FROM chosen \
           WINDOW w AS (ORDER BY log_book, o)), \
         locked AS (SELECT t.log_book, t.\"offset\" AS o, f.found FROM fitting f \
           JOIN parked_tasks t ON t.group_id = $1 AND t.topic = $2 AND t.partition = $3 AND t.log_book = f.log_book \
             AND t.\"offset\" = f.o \
           WHERE f.place <= $8 AND (f.place = 1 OR f.used <= $9) ORDER BY t.log_book, t.\"offset\" FOR UPDATE OF t) \
         UPDATE parked_tasks t SET wakes = least(t.wakes + 1, 32767) FROM locked l \
         WHERE t.group_id = $1 AND t.topic = $2 AND t.partition = $3 AND t.log_book = l.log_book AND t.\"offset\" = l.o \
         RETURNING l.found, ",
        task_columns!()
    ))
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(claim)
    .bind(Uuid::from_bytes(key_hash))
    .bind(after.0)
    .bind(after.1)
    .bind(most_tasks)
    .bind(most_bytes)
    .fetch_all(connection)
    .await?;
    let mut tasks = Vec::with_capacity(rows.len());
    let mut found = 0_i64;
    for row in &rows {
        found = row.try_get("found")?;
        tasks.extend(Parked::read(row)?);
    }
    tasks.sort_unstable_by_key(Parked::place);
    Ok(WokenKey {
        partition,
        key_hash,
        more: usize::try_from(found).is_ok_and(|found| found > tasks.len()),
        tasks,
    })
}

/// Names every key of a partition that is parked, one after the other, and how many of its tasks are, delayed ones
/// not counted. Call it after the claim.
///
/// # Errors
/// When the database cannot be read.
pub async fn each_key(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    mut name: impl FnMut([u8; 16], i32),
) -> Result<(), Trouble> {
    // In pages by the primary key: neither side ever holds more than one of them.
    let mut after = Uuid::nil();
    let mut from_start = true;
    loop {
        let page: Vec<(Uuid, i32)> = sqlx::query_as(
            "SELECT key_hash, depth FROM parked_keys WHERE group_id = $1 AND topic = $2 AND partition = $3 \
               AND (key_hash > $4 OR ($5 AND key_hash = $4)) ORDER BY key_hash LIMIT $6",
        )
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .bind(partition)
        .bind(after)
        .bind(from_start)
        .bind(KEYS_AT_ONCE)
        .fetch_all(&mut *connection)
        .await?;
        page.iter()
            .for_each(|(key, depth)| name(key.into_bytes(), *depth));
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        (after, from_start) = (*last, false);
    }
}

/// How many tasks of a partition are parked, of every kind.
///
/// # Errors
/// When the database cannot be read.
pub async fn depth_of(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
) -> Result<i64, Trouble> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM parked_tasks WHERE group_id = $1 AND topic = $2 AND partition = $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .fetch_one(connection)
    .await?)
}
