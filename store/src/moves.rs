//! Moving a position by hand: the old book is closed and archived, a new one begins, with a reason.
//!
//! A range that is skipped forward is booked as lost at the head of the new book, so the books still cover
//! every offset; moving back re-reads, and what has a result stays as it is. The claim is withdrawn in the
//! same transaction, so a worker that runs meanwhile claims again and starts at the new position.

use sqlx::{Connection, PgConnection, Row};

use crate::deployment::{self, Deployment};
use crate::position::{self, Consumer};
use crate::trouble::Trouble;

/// One partition's move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub partition: i32,
    /// Where it goes on.
    pub to: i64,
    /// Whether the offsets so far were another log's: then nothing is booked as lost, and the new book
    /// begins at the target.
    pub another_log: bool,
}

/// Who moved it and why.
#[derive(Debug, Clone)]
pub struct Why {
    /// The reason, as given.
    pub reason: String,
    /// The person or host.
    pub by: String,
}

/// What a move did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// The partition.
    pub partition: i32,
    /// Where it stood; `None` when it had no row.
    pub from: Option<i64>,
    /// Where it goes on.
    pub to: i64,
    /// Offsets skipped and booked as lost.
    pub lost: i64,
    /// Offsets that will be read again.
    pub replayed: i64,
}

/// Moves the partitions in one transaction and pins `log` as the log they now belong to.
///
/// # Errors
/// When the database cannot be written; then nothing moved.
pub async fn apply(
    connection: &mut PgConnection,
    consumer: &Consumer,
    moves: &[Move],
    log: &Deployment,
    why: &Why,
) -> Result<Vec<Moved>, Trouble> {
    let mut transaction = connection.begin().await?;
    position::lock_creation(&mut transaction, consumer).await?;
    let mut sorted = moves.to_vec();
    sorted.sort_unstable_by_key(|one| one.partition);
    let mut done = Vec::with_capacity(sorted.len());
    for one in sorted {
        done.push(apply_one(&mut transaction, consumer, one, why).await?);
    }
    if deployment::pinned(&mut transaction).await?.is_none() {
        deployment::pin(&mut transaction, log).await?;
    } else {
        deployment::repin(&mut transaction, log).await?;
    }
    transaction.commit().await?;
    Ok(done)
}

async fn apply_one(
    connection: &mut PgConnection,
    consumer: &Consumer,
    one: Move,
    why: &Why,
) -> Result<Moved, Trouble> {
    let row = sqlx::query(
        "SELECT next_offset FROM partition_progress WHERE group_id = $1 AND topic = $2 AND partition = $3 FOR UPDATE",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(one.partition)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else {
        sqlx::query(
            "INSERT INTO partition_progress (group_id, topic, partition, seq, first_offset, next_offset, high_offset) \
             VALUES ($1, $2, $3, 0, $4, $4, $4)",
        )
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .bind(one.partition)
        .bind(one.to)
        .execute(connection)
        .await?;
        return Ok(Moved {
            partition: one.partition,
            from: None,
            to: one.to,
            lost: 0,
            replayed: 0,
        });
    };
    let from: i64 = row.try_get("next_offset")?;
    sqlx::query(
        "INSERT INTO position_history (group_id, topic, partition, book, first_offset, next_offset, high_offset, moved_to, \
           results, duplicates, dead_letters, parked, gaps, lost, reason, moved_by) \
         SELECT group_id, topic, partition, book, first_offset, next_offset, high_offset, $4, \
           results, duplicates, dead_letters, parked, gaps, lost, $5, $6 \
         FROM partition_progress WHERE group_id = $1 AND topic = $2 AND partition = $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(one.partition)
    .bind(one.to)
    .bind(&why.reason)
    .bind(&why.by)
    .execute(&mut *connection)
    .await?;
    let lost = if one.another_log {
        0
    } else {
        (one.to - from).max(0)
    };
    let replayed = if one.another_log {
        0
    } else {
        (from - one.to).max(0)
    };
    // In another log nothing is settled yet, whatever the old one's height was.
    sqlx::query(
        "UPDATE partition_progress SET seq = seq + 1, book = book + 1, claim = NULL, owner = NULL, \
           first_offset = $4::bigint - $5::bigint, next_offset = $4, \
           high_offset = CASE WHEN $6 THEN $4 ELSE greatest(high_offset, $4) END, \
           leader_epoch = NULL, frontier_time = NULL, unclean_starts = 0, \
           results = 0, duplicates = 0, dead_letters = 0, parked = 0, gaps = 0, lost = $5 \
         WHERE group_id = $1 AND topic = $2 AND partition = $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(one.partition)
    .bind(one.to)
    .bind(lost)
    .bind(one.another_log)
    .execute(connection)
    .await?;
    Ok(Moved {
        partition: one.partition,
        from: Some(from),
        to: one.to,
        lost,
        replayed,
    })
}

/// A closed book, for `position show`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ClosedBook {
    /// The partition.
    pub partition: i32,
    /// Its number.
    pub book: i32,
    /// Where it began.
    pub first_offset: i64,
    /// Where it ended.
    pub next_offset: i64,
    /// Where the position went.
    pub moved_to: i64,
    /// Why.
    pub reason: String,
    /// By whom.
    pub moved_by: String,
    /// When, RFC 3339.
    pub moved_at: String,
}

/// Closed books, newest first, at most `most`.
///
/// # Errors
/// When the database cannot be read.
pub async fn history(
    connection: &mut PgConnection,
    consumer: &Consumer,
    most: i64,
) -> Result<Vec<ClosedBook>, Trouble> {
    let rows = sqlx::query(
        "SELECT partition, book, first_offset, next_offset, moved_to, reason, moved_by, \
           to_char(moved_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS moved_at \
         FROM position_history WHERE group_id = $1 AND topic = $2 ORDER BY position_history.moved_at DESC, partition LIMIT $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(most)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(ClosedBook {
                partition: row.try_get("partition")?,
                book: row.try_get("book")?,
                first_offset: row.try_get("first_offset")?,
                next_offset: row.try_get("next_offset")?,
                moved_to: row.try_get("moved_to")?,
                reason: row.try_get("reason")?,
                moved_by: row.try_get("moved_by")?,
                moved_at: row.try_get("moved_at")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Trouble::from)
}
