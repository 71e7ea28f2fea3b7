//! One round of waking: what is due of parked tasks, within a bound of tasks and bytes.
//!
//! See [`crate::parked`] for what it promises. Each kind is one statement by the index of its time. What is
//! woken is locked in the order of the key, so that it waits for a flush that still holds a row and then sees
//! what that one left of it; two such statements never wait for each other in a ring.

mod keys;

use std::time::Duration;

use millrace_schemas::TaskId;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use crate::parked::{Parked, WokenKey, limit, task_columns};
use crate::position::Consumer;
use crate::rows::uuid_of;
use crate::trouble::Trouble;

/// What is to be woken.
#[derive(Debug, Clone, Copy)]
pub struct Waking<'a> {
    /// Partitions that are held.
    pub claims: &'a [HeldPartition],
    /// Keys that are in memory already: they are not woken.
    pub busy: &'a [(i32, [u8; 16])],
    /// Task types of which nothing is started: a key whose lowest task is of one is not woken.
    pub paused_types: &'a [String],
    /// Tenants of whom nothing is started: likewise.
    pub paused_tenants: &'a [String],
    /// Tasks whose end was asked for.
    pub cancels: &'a [TaskId],
    /// Most tasks of keys and for later, together; of those to be ended as many again.
    pub most_tasks: usize,
    /// Most bytes of values and headers of these tasks; a single larger one is loaded alone.
    pub most_bytes: u64,
}

/// A partition of which parked tasks are asked for.
#[derive(Debug, Clone, Copy)]
pub struct HeldPartition {
    /// The partition.
    pub partition: i32,
    /// The claim under which it is held.
    pub claim: Uuid,
    /// While the log is read again: the log book and the offset up to which it has been. What lies beyond comes again,
    /// and earlier tasks of its key may be in the log only: it is left alone until then.
    pub read_to: Option<(i32, i64)>,
}

/// What was woken.
#[derive(Debug, Default)]
pub struct Wake {
    /// Keys that are due, the longest due first.
    pub keys: Vec<WokenKey>,
    /// Tasks for later whose time has come; they block nobody and join their key's lane now.
    pub delayed: Vec<Parked>,
    /// Tasks of any kind past their deadline, also such as are in memory.
    pub expired: Vec<Parked>,
    /// Parked tasks of those whose end was asked for, also such as are in memory.
    pub cancelled: Vec<Parked>,
    /// Whether more may be due than was asked for.
    pub is_full: bool,
    /// How long until something else is due, when anything is.
    pub next_due: Option<Duration>,
    /// Partitions of which some key has a hundred thousand tasks: nothing more of it should be parked.
    pub deep: Vec<i32>,
}

/// Most tasks of one key that should be parked. The index `parked_keys_deep` names the same number.
pub const DEEPEST_KEY: i32 = 100_000;

/// The partitions that are still held, each with how far its log has been read.
macro_rules! held {
    ($books:literal, $ends:literal) => {
        concat!(
            "held AS MATERIALIZED (SELECT c.partition, c.read_book, c.read_to FROM unnest($3::int[], $4::uuid[], ",
            $books,
            "::int[], ",
            $ends,
            "::bigint[]) AS c(partition, claim, read_book, read_to) \
             JOIN partition_progress p ON p.group_id = $1 AND p.topic = $2 AND p.partition = c.partition AND p.claim = c.claim)"
        )
    };
}

use held;

/// Whether the log has been read beyond a task.
macro_rules! is_read {
    () => {
        "(t.log_book, t.\"offset\") < (h.read_book, h.read_to)"
    };
}

/// Takes the chosen tasks in order, as long as they fit, locks them by the order of the table's key and counts the
/// waking of the first of each key: those behind it start only when it has ended, and are the first of the next load then. The lock is a lateral one, so that each row is found by the key: without statistics of the table, as before
/// its first ANALYZE, a plain join reads every parked task for every chosen one.
macro_rules! woken {
    () => {
        "fitting AS (SELECT *, sum(size) OVER (ORDER BY nth, rank, partition, key_hash, log_book, o) AS used, \
             row_number() OVER (ORDER BY nth, rank, partition, key_hash, log_book, o) AS place FROM chosen), \
           locked AS (SELECT t.*, f.place, f.depth, f.nth FROM (SELECT * FROM fitting WHERE place <= $8 AND (place = 1 OR used <= $9) \
               ORDER BY partition, log_book, o) f \
             CROSS JOIN LATERAL (SELECT t.group_id, t.topic, t.partition, t.log_book, t.\"offset\" AS o FROM parked_tasks t \
               WHERE t.group_id = $1 AND t.topic = $2 AND t.partition = f.partition AND t.log_book = f.log_book \
                 AND t.\"offset\" = f.o FOR UPDATE) t) \
         UPDATE parked_tasks t SET wakes = CASE WHEN l.nth <= 1 THEN least(t.wakes + 1, 32767) ELSE t.wakes END FROM locked l \
         WHERE t.group_id = l.group_id AND t.topic = l.topic AND t.partition = l.partition AND t.log_book = l.log_book \
           AND t.\"offset\" = l.o \
         RETURNING l.place, l.depth, "
    };
}

use woken;

/// Loads what is due: tasks for later at most half of what fits, then keys.
///
/// # Errors
/// When the database cannot be read or a flush holds the rows too long. What was counted as woken then counts
/// once too often, and no more.
pub async fn wake(
    connection: &mut PgConnection,
    consumer: &Consumer,
    waking: &Waking<'_>,
) -> Result<Wake, Trouble> {
    if waking.claims.is_empty() {
        return Ok(Wake::default());
    }
    let half = (waking.most_tasks.div_ceil(2), waking.most_bytes.div_ceil(2));
    let delayed = delayed(connection, consumer, waking, half).await?;
    let used: u64 = delayed.iter().map(Parked::bytes).sum();
    let left = (
        waking.most_tasks.saturating_sub(delayed.len()),
        waking.most_bytes.saturating_sub(used),
    );
    let keys = keys::due(connection, consumer, waking, left).await?;
    let (expired, cancelled) = to_be_ended(connection, consumer, waking).await?;
    let next_due = next_due(connection, consumer, waking).await?;
    let deep = deep(connection, consumer, waking).await?;
    let loaded = delayed.len() + keys.iter().map(|key| key.tasks.len()).sum::<usize>();
    let bytes = keys.iter().flat_map(|key| &key.tasks).map(Parked::bytes);
    let bytes = used + bytes.sum::<u64>();
    let is_full = delayed.len() >= half.0
        || loaded >= waking.most_tasks
        // One that did not fit is not told: it may have been as large as half of what fits.
        || used >= half.1 / 2
        || bytes >= waking.most_bytes / 2
        || keys.iter().any(|key| key.more);
    Ok(Wake {
        keys,
        delayed,
        expired,
        cancelled,
        is_full,
        next_due,
        deep,
    })
}

async fn deep(
    connection: &mut PgConnection,
    consumer: &Consumer,
    waking: &Waking<'_>,
) -> Result<Vec<i32>, Trouble> {
    let (partitions, _) = claims(waking);
    // The number stands in the statement, since only then the partial index is used.
    Ok(sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT DISTINCT partition FROM parked_keys WHERE group_id = $1 AND topic = $2 AND partition = ANY($3) \
         AND depth >= {DEEPEST_KEY}"
    )))
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&partitions)
    .fetch_all(connection)
    .await?)
}

fn claims(waking: &Waking<'_>) -> (Vec<i32>, Vec<Uuid>) {
    let held = waking.claims.iter();
    held.map(|held| (held.partition, held.claim)).unzip()
}

async fn delayed(
    connection: &mut PgConnection,
    consumer: &Consumer,
    waking: &Waking<'_>,
    most: (usize, u64),
) -> Result<Vec<Parked>, Trouble> {
    let (partitions, claims) = claims(waking);
    let (most_tasks, most_bytes) = limit(most.0, most.1);
    let (busy_partitions, busy_keys) = busy(waking);
    let (books, ends) = read_to(waking);
    let rows = sqlx::query(concat!(
        "WITH ",
        held!("$11", "$12"),
        ", chosen AS (SELECT t.partition, t.key_hash, t.log_book, t.\"offset\" AS o, 0 AS nth, 0 AS depth, \
             row_number() OVER (ORDER BY t.due_at) AS rank, octet_length(t.record_value) + octet_length(t.headers) AS size \
           FROM held h CROSS JOIN LATERAL (SELECT * FROM parked_tasks t WHERE t.group_id = $1 AND t.topic = $2 \
             AND t.partition = h.partition AND t.kind = 'delayed' AND t.due_at <= clock_timestamp() \
             AND t.task_type <> ALL($5) AND t.tenant <> ALL($6) AND ",
        is_read!(),
        " AND NOT EXISTS (SELECT FROM unnest($7::int[], $10::uuid[]) AS b(partition, key_hash) \
               WHERE b.partition = t.partition AND b.key_hash = t.key_hash) \
             ORDER BY t.due_at LIMIT $8) t), ",
        woken!(),
        task_columns!()
    ))
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&partitions)
    .bind(&claims)
    .bind(waking.paused_types)
    .bind(waking.paused_tenants)
    .bind(&busy_partitions)
    .bind(most_tasks)
    .bind(most_bytes)
    .bind(&busy_keys)
    .bind(&books)
    .bind(&ends)
    .fetch_all(connection)
    .await?;
    let mut tasks = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(task) = Parked::read(row)? {
            tasks.push((row.try_get::<i64, _>("place")?, task));
        }
    }
    tasks.sort_unstable_by_key(|(place, _)| *place);
    Ok(tasks.into_iter().map(|(_, task)| task).collect())
}

/// How far the log of each held partition has been read: book and offset.
fn read_to(waking: &Waking<'_>) -> (Vec<i32>, Vec<i64>) {
    let held = waking.claims.iter();
    held.map(|held| held.read_to.unwrap_or((i32::MAX, i64::MAX)))
        .unzip()
}

fn busy(waking: &Waking<'_>) -> (Vec<i32>, Vec<Uuid>) {
    let key = |(partition, hash): &(i32, [u8; 16])| (*partition, Uuid::from_bytes(*hash));
    waking.busy.iter().map(key).unzip()
}

/// Tasks past their deadline and tasks whose end was asked for. They are not run, so nothing is counted.
async fn to_be_ended(
    connection: &mut PgConnection,
    consumer: &Consumer,
    waking: &Waking<'_>,
) -> Result<(Vec<Parked>, Vec<Parked>), Trouble> {
    let (partitions, claims) = claims(waking);
    let (most_tasks, most_bytes) = limit(waking.most_tasks, waking.most_bytes);
    let (books, ends) = read_to(waking);
    let cancels: Vec<Uuid> = waking.cancels.iter().map(|id| uuid_of(*id)).collect();
    let rows = sqlx::query(concat!(
        "WITH ",
        held!("$8", "$9"),
        ", found AS (SELECT t.partition, t.log_book, t.\"offset\" AS o, true AS expired, t.deadline, \
             octet_length(t.record_value) + octet_length(t.headers) AS size \
           FROM held h CROSS JOIN LATERAL (SELECT * FROM parked_tasks t WHERE t.group_id = $1 AND t.topic = $2 \
             AND t.partition = h.partition AND t.deadline <= clock_timestamp() AND ",
        is_read!(),
        " ORDER BY t.deadline LIMIT $5) t \
           UNION ALL SELECT t.partition, t.log_book, t.\"offset\", false, NULL, \
             octet_length(t.record_value) + octet_length(t.headers) \
           FROM parked_tasks t JOIN held h USING (partition) \
           WHERE t.group_id = $1 AND t.topic = $2 AND t.task_id = ANY($7) \
             AND EXISTS (SELECT FROM task_cancels c WHERE c.task_id = t.task_id AND c.tenant IN ('', t.tenant)) AND ",
        is_read!(),
        "), \
         fitting AS (SELECT *, row_number() OVER w AS place, sum(size) OVER w AS used FROM found \
           WINDOW w AS (ORDER BY expired, deadline, partition, log_book, o)) \
         SELECT f.expired, ",
        task_columns!(),
        " FROM fitting f JOIN parked_tasks t ON t.group_id = $1 AND t.topic = $2 AND t.partition = f.partition \
           AND t.log_book = f.log_book AND t.\"offset\" = f.o \
         WHERE f.place <= $5 AND (f.place = 1 OR f.used <= $6) ORDER BY f.place"
    ))
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&partitions)
    .bind(&claims)
    .bind(most_tasks)
    .bind(most_bytes)
    .bind(&cancels)
    .bind(&books)
    .bind(&ends)
    .fetch_all(connection)
    .await?;
    let (mut expired, mut cancelled): (Vec<Parked>, Vec<Parked>) = (Vec::new(), Vec::new());
    for row in &rows {
        let Some(task) = Parked::read(row)? else {
            continue;
        };
        if !row.try_get::<bool, _>("expired")? {
            cancelled.push(task);
        } else if !cancelled.iter().any(|one| one.place() == task.place()) {
            expired.push(task);
        }
    }
    Ok((expired, cancelled))
}

async fn next_due(
    connection: &mut PgConnection,
    consumer: &Consumer,
    waking: &Waking<'_>,
) -> Result<Option<Duration>, Trouble> {
    let (partitions, claims) = claims(waking);
    let (books, ends) = read_to(waking);
    let micros: Option<i64> = sqlx::query_scalar(concat!(
        "WITH ",
        held!("$5", "$6"),
        " SELECT ceil(extract(epoch FROM min(least(k.at, d.at, l.at)) - clock_timestamp()) * 1000000)::bigint FROM held h \
         LEFT JOIN LATERAL (SELECT due_at AS at FROM parked_keys WHERE group_id = $1 AND topic = $2 AND partition = h.partition \
           AND due_at > clock_timestamp() ORDER BY due_at LIMIT 1) k ON true \
         LEFT JOIN LATERAL (SELECT due_at AS at FROM parked_tasks WHERE group_id = $1 AND topic = $2 AND partition = h.partition \
           AND kind = 'delayed' AND due_at > clock_timestamp() ORDER BY due_at LIMIT 1) d ON true \
         LEFT JOIN LATERAL (SELECT deadline AS at FROM parked_tasks WHERE group_id = $1 AND topic = $2 AND partition = h.partition \
           AND deadline > clock_timestamp() ORDER BY deadline LIMIT 1) l ON true"
    ))
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&partitions)
    .bind(&claims)
    .bind(&books)
    .bind(&ends)
    .fetch_one(connection)
    .await?;
    Ok(micros.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or(0))))
}
