//! The position of a partition and the fence around it: claim, seq, and the open book.
//!
//! `claim` says who may write, `seq` from where. Only a claim changes the first and every write changes
//! the second, so a writer that lost the partition, or a database that went back in time, matches no row.
//! Rows are locked in partition order everywhere, so that two workers never wait for each other in a ring.

use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::books::Counts;
use crate::rows::is_storable_ms;
use crate::trouble::Trouble;

/// One group on one topic: the first half of every key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
}

/// Who may write a partition, and from which flush on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Random at each claim.
    pub claim: Uuid,
    /// Counts claims and flushes of the partition, for ever.
    pub seq: i64,
}

/// A partition's row: its fence, its position and its open book.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The partition's number.
    pub partition: i32,
    /// Who holds it; `None` when it was released cleanly and nobody came since.
    pub claim: Option<Uuid>,
    /// Name of the worker that claimed last.
    pub owner: Option<String>,
    /// Counts claims and flushes.
    pub seq: i64,
    /// Number of the open book.
    pub book: i32,
    /// Where the open book begins.
    pub first_offset: i64,
    /// The first offset that is not settled.
    pub next_offset: i64,
    /// One past the highest offset ever settled; never below `next_offset`.
    pub high_offset: i64,
    /// Leader epoch of the last settled record, where the broker told one.
    pub leader_epoch: Option<i32>,
    /// Up to when every record is settled, in milliseconds since the Unix epoch.
    pub frontier_ms: Option<i64>,
    /// Claims since the position last moved or the last clean release.
    pub unclean_starts: i32,
    /// The book with which the log began that is read now: offsets of another log name other records.
    pub log_book: i32,
    /// In careful mode, the task that was about to run.
    pub suspect: Option<Suspect>,
    /// Which of the last records did not decode: a bit each, the latest lowest, below a leading 1.
    pub decode_window: Option<i64>,
    /// How the offsets of the open book ended.
    pub counts: Counts,
}

/// The task that ran alone when the worker was last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    /// The book with which its log began.
    pub log_book: i32,
    /// Its offset.
    pub offset: i64,
    /// How often it was started without an end.
    pub starts: u16,
}

impl Progress {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            partition: row.try_get("partition")?,
            claim: row.try_get("claim")?,
            owner: row.try_get("owner")?,
            seq: row.try_get("seq")?,
            book: row.try_get("book")?,
            first_offset: row.try_get("first_offset")?,
            next_offset: row.try_get("next_offset")?,
            high_offset: row.try_get("high_offset")?,
            leader_epoch: row.try_get("leader_epoch")?,
            frontier_ms: row.try_get("frontier_ms")?,
            unclean_starts: row.try_get("unclean_starts")?,
            log_book: row.try_get("log_book")?,
            suspect: suspect(row)?,
            decode_window: row.try_get("decode_window")?,
            counts: Counts {
                results: row.try_get("results")?,
                duplicates: row.try_get("duplicates")?,
                dead_letters: row.try_get("dead_letters")?,
                parked: row.try_get("parked")?,
                gaps: row.try_get("gaps")?,
                lost: row.try_get("lost")?,
            },
        })
    }
}

fn suspect(row: &PgRow) -> Result<Option<Suspect>, sqlx::Error> {
    let log_book: Option<i32> = row.try_get("suspect_log_book")?;
    let offset: Option<i64> = row.try_get("suspect_offset")?;
    let starts: Option<i16> = row.try_get("suspect_starts")?;
    Ok(log_book.zip(offset).map(|(log_book, offset)| Suspect {
        log_book,
        offset,
        starts: starts
            .and_then(|starts| u16::try_from(starts).ok())
            .unwrap_or(0),
    }))
}

macro_rules! progress_columns {
    () => {
        "p.partition, p.claim, p.owner, p.seq, p.book, p.first_offset, p.next_offset, p.high_offset, \
         p.leader_epoch, (extract(epoch FROM p.frontier_time) * 1000)::bigint AS frontier_ms, \
         p.unclean_starts, p.log_book, p.suspect_log_book, p.suspect_offset, p.suspect_starts, p.decode_window, p.results, p.duplicates, p.dead_letters, p.parked, p.gaps, p.lost"
    };
}

/// Takes the fence of every partition in the list that has a row, and returns the rows as they are from
/// now on. The position in the answer includes any flush of the former owner that was still in the air:
/// the update waits for it and reads what it left. Partitions without a row are missing in the answer.
///
/// # Errors
/// When the database cannot be reached or a lock is not had in time; then nothing was claimed, or it was
/// and the next claim renews it.
pub async fn claim(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partitions: &[i32],
    owner: &str,
) -> Result<Vec<Progress>, Trouble> {
    let claims: Vec<Uuid> = partitions.iter().map(|_| Uuid::new_v4()).collect();
    let rows = sqlx::query(concat!(
        "WITH held AS (SELECT h.partition FROM partition_progress h \
           WHERE h.group_id = $1 AND h.topic = $2 AND h.partition = ANY($3) ORDER BY h.partition FOR UPDATE) \
         UPDATE partition_progress p SET claim = c.claim, owner = $5, seq = p.seq + 1, claimed_at = now(), \
           unclean_starts = p.unclean_starts + 1 \
         FROM held JOIN unnest($3::int[], $4::uuid[]) AS c(partition, claim) USING (partition) \
         WHERE p.group_id = $1 AND p.topic = $2 AND p.partition = held.partition \
         RETURNING ",
        progress_columns!()
    ))
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partitions)
    .bind(&claims)
    .bind(owner)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(Progress::read).collect::<Result<_, _>>()?)
}

/// Makes the row of a partition that has none, with an empty book that begins at `first_offset`.
/// Somebody else's row of the same partition stays as it is.
///
/// # Errors
/// When the database cannot be written.
pub async fn create(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    first_offset: i64,
) -> Result<(), Trouble> {
    let mut transaction = sqlx::Connection::begin(connection).await?;
    lock_creation(&mut transaction, consumer).await?;
    sqlx::query(
        "INSERT INTO partition_progress (group_id, topic, partition, seq, first_offset, next_offset, high_offset) \
         SELECT $1, $2, $3, 0, $4, $4, $4 WHERE NOT EXISTS \
           (SELECT FROM partition_progress WHERE group_id = $1 AND topic = $2 AND partition = $3)",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(first_offset)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// The lock under which a partition's row is made, since no unique index can forbid a second one.
pub(crate) async fn lock_creation(
    connection: &mut PgConnection,
    consumer: &Consumer,
) -> Result<(), Trouble> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('millrace.rows.' || current_schema() || $1 || $2, 0))")
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives the fence back after a clean end: the partition is nobody's, and the start counts as clean. `suspect`
/// is the task of whose starts some never ended; it stays noted. Returns whether the fence was still ours.
///
/// # Errors
/// When the database cannot be reached; then the next claim counts one unclean start more.
pub async fn release(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    fence: Fence,
    suspect: Option<Suspect>,
) -> Result<bool, Trouble> {
    let done = sqlx::query(
        "UPDATE partition_progress SET claim = NULL, owner = NULL, seq = seq + 1, unclean_starts = 0, \
           suspect_log_book = $6, suspect_offset = $7, suspect_starts = $8 \
         WHERE group_id = $1 AND topic = $2 AND partition = $3 AND seq = $4 AND claim = $5",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(fence.seq)
    .bind(fence.claim)
    .bind(suspect.map(|one| one.log_book))
    .bind(suspect.map(|one| one.offset))
    .bind(suspect.map(|one| i16::try_from(one.starts).unwrap_or(i16::MAX)))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes which task is about to run alone, before it does, and how many of its starts never ended, this one
/// included. Returns whether the claim is still ours. `seq` stays, since no flush depends on it.
///
/// # Errors
/// When the database cannot be written; then the task must not be started.
pub async fn note_suspect(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    claim: Uuid,
    suspect: Suspect,
) -> Result<bool, Trouble> {
    let done = sqlx::query(
        "UPDATE partition_progress SET suspect_log_book = $5, suspect_offset = $6, suspect_starts = $7 \
         WHERE group_id = $1 AND topic = $2 AND partition = $3 AND claim = $4",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(claim)
    .bind(suspect.log_book)
    .bind(suspect.offset)
    .bind(i16::try_from(suspect.starts).unwrap_or(i16::MAX))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets the task that ran alone: it ended, or the partition is careful no more. With `has_rested` the unclean
/// starts go, too: nothing was pending that could have caused them. Returns whether the claim is still ours.
///
/// # Errors
/// When the database cannot be written.
pub async fn clear_suspect(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    claim: Uuid,
    has_rested: bool,
) -> Result<bool, Trouble> {
    let done = sqlx::query(
        "UPDATE partition_progress SET suspect_log_book = NULL, suspect_offset = NULL, suspect_starts = NULL, \
           unclean_starts = CASE WHEN $5 THEN 0 ELSE unclean_starts END \
         WHERE group_id = $1 AND topic = $2 AND partition = $3 AND claim = $4",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(claim)
    .bind(has_rested)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The book with which the log of each of these partitions began. The latest seq is met first, so that dead
/// versions of a row cost nothing.
pub(crate) async fn log_books(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partitions: impl Iterator<Item = i32>,
) -> Result<std::collections::HashMap<i32, i32>, Trouble> {
    let partitions: std::collections::BTreeSet<i32> = partitions.collect();
    let rows: Vec<(i32, i32)> = sqlx::query_as(
        "SELECT f.partition, p.log_book FROM unnest($3::int[]) AS f(partition) CROSS JOIN LATERAL \
           (SELECT log_book FROM partition_progress p WHERE p.group_id = $1 AND p.topic = $2 AND p.partition = f.partition \
            ORDER BY p.seq DESC LIMIT 1) p",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partitions.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Every partition's row, by partition.
///
/// # Errors
/// When the database cannot be read.
pub async fn all(
    connection: &mut PgConnection,
    consumer: &Consumer,
) -> Result<Vec<Progress>, Trouble> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        progress_columns!(),
        " FROM partition_progress p WHERE p.group_id = $1 AND p.topic = $2 ORDER BY p.partition"
    ))
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(Progress::read).collect::<Result<_, _>>()?)
}

/// The highest offset that each partition ever stood at, in this book or an earlier one: Kafka's own
/// committed offset beyond it means that the database went back to an older state.
///
/// # Errors
/// When the database cannot be read.
pub async fn highest_ever(
    connection: &mut PgConnection,
    consumer: &Consumer,
) -> Result<std::collections::HashMap<i32, i64>, Trouble> {
    let rows: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT partition, max(highest) FROM ( \
           SELECT partition, high_offset AS highest FROM partition_progress WHERE group_id = $1 AND topic = $2 \
           UNION ALL \
           SELECT partition, greatest(high_offset, moved_to) FROM position_history WHERE group_id = $1 AND topic = $2 \
         ) heights GROUP BY partition",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Refreshes the time up to which idle partitions are known to be settled, so that an id without a row can
/// be told from one that is still under way. Fenced by the claim; it leaves `seq` alone, since nothing that
/// a flush depends on changes. Returns the partitions that did not match: if no flush of theirs landed
/// meanwhile, the fence is lost or the database went back, which an idle partition learns nowhere else.
///
/// # Errors
/// When the database cannot be written; the next round tries again.
pub async fn refresh_frontier(
    connection: &mut PgConnection,
    consumer: &Consumer,
    idle: &[(i32, Fence, i64)],
) -> Result<Vec<i32>, Trouble> {
    let mut partitions: Vec<i32> = idle.iter().map(|(partition, ..)| *partition).collect();
    let seqs: Vec<i64> = idle.iter().map(|(_, fence, _)| fence.seq).collect();
    let claims: Vec<Uuid> = idle.iter().map(|(_, fence, _)| fence.claim).collect();
    let times: Vec<Option<i64>> = idle
        .iter()
        .map(|(.., time)| Some(*time).filter(is_storable_ms))
        .collect();
    let matched: Vec<i32> = sqlx::query_scalar(
        "WITH f AS (SELECT * FROM unnest($3::int[], $4::bigint[], $5::uuid[], $6::bigint[]) AS f(partition, seq, claim, ms)), \
         held AS (SELECT p.partition, p.seq, f.ms FROM partition_progress p JOIN f USING (partition, seq) \
           WHERE p.group_id = $1 AND p.topic = $2 AND p.claim = f.claim ORDER BY p.partition FOR UPDATE OF p) \
         UPDATE partition_progress p SET frontier_time = coalesce(to_timestamp(held.ms / 1000.0), p.frontier_time) FROM held \
         WHERE p.group_id = $1 AND p.topic = $2 AND p.partition = held.partition AND p.seq = held.seq \
         RETURNING p.partition",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&partitions)
    .bind(&seqs)
    .bind(&claims)
    .bind(&times)
    .fetch_all(connection)
    .await?;
    partitions.retain(|partition| !matched.contains(partition));
    Ok(partitions)
}
