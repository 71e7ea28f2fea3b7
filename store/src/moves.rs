//! Moving a position by hand: the old book is closed and archived, a new one begins, with a reason.
//!
//! A range that is skipped forward is booked as lost at the head of the new book, so the books still cover
//! every offset; moving back re-reads, and what has a result stays as it is, unless the range is withdrawn: then
//! all that became of it goes in the same transaction. The claim goes, too, so a worker that runs meanwhile
//! claims again and starts at the new position.

use sqlx::{Connection, PgConnection, Row};

use crate::books::Counts;
use crate::deployment::{self, Deployment};
use crate::operations_log::{self, Entry};
use crate::position::{self, Consumer};
use crate::trouble::Trouble;
use crate::withdrawal::{self, Span};

pub use crate::withdrawal::Withdrawn;

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
    /// Kafka's committed offset at this moment. It is taken note of, so that it does not look later as if
    /// the database had gone back.
    pub seen: Option<i64>,
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
    /// What was taken back of the range that is read again, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Withdrawn>,
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
    let done = all(&mut transaction, consumer, moves, why, Kept::Everything).await?;
    pin(&mut transaction, log).await?;
    transaction.commit().await?;
    Ok(done)
}

/// Moves the partitions back and takes away, in the same transaction, all that became of the offsets from the
/// target on, so that they run again; noted in `operations_log`. A target in front of the position withdraws
/// what had landed beyond it. The partitions stand still while this reads the results from end to end; so does
/// every flush that has a share of theirs.
///
/// # Errors
/// When the database cannot be written, or a flush holds a partition's row too long; then nothing happened.
/// [`Trouble::Refused`] when a move leads into another log: its results are not this log's to take.
pub async fn withdraw(
    connection: &mut PgConnection,
    consumer: &Consumer,
    moves: &[Move],
    log: &Deployment,
    why: &Why,
) -> Result<Vec<Moved>, Trouble> {
    if moves.iter().any(|one| one.another_log) {
        return Err(Trouble::Refused(
            "another log's offsets have nothing to withdraw here".into(),
        ));
    }
    let mut transaction = connection.begin().await?;
    position::lock_creation(&mut transaction, consumer).await?;
    let spans = spans(moves);
    for span in &spans {
        position_of(&mut transaction, consumer, span.partition).await?;
    }
    let taken = withdrawal::take(&mut transaction, consumer, &spans).await?;
    let mut done = all(&mut transaction, consumer, moves, why, Kept::BelowTarget).await?;
    for moved in &mut done {
        moved.withdrawn = taken
            .iter()
            .copied()
            .find(|taken| taken.partition == moved.partition);
    }
    let entry = Entry {
        by: &why.by,
        action: "position set --withdraw",
        reason: Some(&why.reason),
        detail: &serde_json::json!({ "partitions": done }),
    };
    operations_log::append(&mut transaction, &entry).await?;
    pin(&mut transaction, log).await?;
    transaction.commit().await?;
    Ok(done)
}

/// What [`withdraw`] would take, without a lock or a change. It takes as long.
///
/// # Errors
/// When the database cannot be read.
pub async fn count_withdrawn(
    connection: &mut PgConnection,
    consumer: &Consumer,
    moves: &[Move],
) -> Result<Vec<Withdrawn>, Trouble> {
    withdrawal::count(connection, consumer, &spans(moves)).await
}

/// By partition, which is the order of locks.
fn spans(moves: &[Move]) -> Vec<Span> {
    let mut spans: Vec<Span> = moves
        .iter()
        .map(|one| Span {
            partition: one.partition,
            from: one.to,
        })
        .collect();
    spans.sort_unstable_by_key(|span| span.partition);
    spans
}

/// Which rows of a partition's log stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Everything,
    /// Those from the target on are gone already.
    BelowTarget,
}

async fn all(
    connection: &mut PgConnection,
    consumer: &Consumer,
    moves: &[Move],
    why: &Why,
    kept: Kept,
) -> Result<Vec<Moved>, Trouble> {
    let mut sorted = moves.to_vec();
    sorted.sort_unstable_by_key(|one| one.partition);
    let mut done = Vec::with_capacity(sorted.len());
    for one in sorted {
        done.push(apply_one(connection, consumer, one, why, kept).await?);
    }
    Ok(done)
}

async fn pin(connection: &mut PgConnection, log: &Deployment) -> Result<(), Trouble> {
    if deployment::pinned(connection).await?.is_none() {
        deployment::pin(connection, log).await?;
    } else {
        deployment::repin(connection, log).await?;
    }
    Ok(())
}

/// Locks a partition's row and reads where it stands.
async fn position_of(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
) -> Result<Option<i64>, Trouble> {
    Ok(sqlx::query_scalar(
        "SELECT next_offset FROM partition_progress WHERE group_id = $1 AND topic = $2 AND partition = $3 FOR UPDATE",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .fetch_optional(connection)
    .await?)
}

async fn apply_one(
    connection: &mut PgConnection,
    consumer: &Consumer,
    one: Move,
    why: &Why,
    kept: Kept,
) -> Result<Moved, Trouble> {
    let Some(from) = position_of(connection, consumer, one.partition).await? else {
        sqlx::query(
            "INSERT INTO partition_progress (group_id, topic, partition, seq, first_offset, next_offset, high_offset) \
             VALUES ($1, $2, $3, 0, $4, $4, greatest($4, $5))",
        )
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .bind(one.partition)
        .bind(one.to)
        .bind(one.seen)
        .execute(connection)
        .await?;
        return Ok(Moved {
            partition: one.partition,
            from: None,
            to: one.to,
            lost: 0,
            replayed: 0,
            withdrawn: None,
        });
    };
    sqlx::query(
        "INSERT INTO position_history (group_id, topic, partition, book, first_offset, next_offset, high_offset, moved_to, \
           results, duplicates, dead_letters, parked, gaps, lost, reason, moved_by, moved_at) \
         SELECT group_id, topic, partition, book, first_offset, next_offset, greatest(high_offset, $7), $4, \
           results, duplicates, dead_letters, parked, gaps, lost, $5, $6, clock_timestamp() \
         FROM partition_progress WHERE group_id = $1 AND topic = $2 AND partition = $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(one.partition)
    .bind(one.to)
    .bind(&why.reason)
    .bind(&why.by)
    .bind(one.seen)
    .execute(&mut *connection)
    .await?;
    let (skipped, replayed) = if one.another_log {
        (0, 0)
    } else {
        ((one.to - from).max(0), (from - one.to).max(0))
    };
    let settled =
        settled_beyond(connection, consumer, one.partition, from, one.to, skipped).await?;
    let lost = skipped - settled.total();
    // In another log nothing is settled yet, and of a withdrawn range nothing any more.
    let nothing_beyond = one.another_log || kept == Kept::BelowTarget;
    sqlx::query(
        "UPDATE partition_progress SET seq = seq + 1, book = book + 1, claim = NULL, owner = NULL, \
           log_book = CASE WHEN $6 THEN book + 1 ELSE log_book END, \
           first_offset = $4::bigint - $5::bigint, next_offset = $4, \
           high_offset = CASE WHEN $11 THEN $4 ELSE greatest(high_offset, $4) END, \
           leader_epoch = NULL, frontier_time = NULL, unclean_starts = 0, decode_window = NULL, \
           suspect_log_book = NULL, suspect_offset = NULL, suspect_starts = NULL, \
           results = $7, duplicates = 0, dead_letters = $8, parked = $10, gaps = 0, lost = $9 \
         WHERE group_id = $1 AND topic = $2 AND partition = $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(one.partition)
    .bind(one.to)
    .bind(skipped)
    .bind(one.another_log)
    .bind(settled.results)
    .bind(settled.dead_letters)
    .bind(lost)
    .bind(settled.parked)
    .bind(nothing_beyond)
    .execute(connection)
    .await?;
    Ok(Moved {
        partition: one.partition,
        from: Some(from),
        to: one.to,
        lost,
        replayed,
        withdrawn: None,
    })
}

/// What is settled in a range that is skipped: rows come before the position passes their offsets.
async fn settled_beyond(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    from: i64,
    to: i64,
    skipped: i64,
) -> Result<Counts, Trouble> {
    if skipped == 0 {
        return Ok(Counts::default());
    }
    // No index leads to a range of offsets, and this is a person's command: it may take its time.
    sqlx::query("SET LOCAL statement_timeout = '10min'")
        .execute(&mut *connection)
        .await?;
    let (results, dead_letters, parked): (i64, i64, i64) = sqlx::query_as(
        "SELECT \
           (SELECT count(*) FROM task_results r WHERE r.topic = $2 AND r.partition = $3 \
             AND r.\"offset\" >= $4 AND r.\"offset\" < $5 AND r.duplicate_of IS NULL AND r.status <> 'failed' \
             AND r.completed_at >= coalesce(h.moved_at, '-infinity')), \
           (SELECT count(*) FROM dead_letters d WHERE d.group_id = $1 AND d.topic = $2 AND d.partition = $3 \
             AND d.log_book = p.log_book AND d.\"offset\" >= $4 AND d.\"offset\" < $5 AND d.redriven_at IS NULL), \
           (SELECT count(*) FROM parked_tasks t WHERE t.group_id = $1 AND t.topic = $2 AND t.partition = $3 \
             AND t.log_book = p.log_book AND t.\"offset\" >= $4 AND t.\"offset\" < $5) \
         FROM partition_progress p LEFT JOIN position_history h ON h.group_id = p.group_id AND h.topic = p.topic \
           AND h.partition = p.partition AND h.book = p.log_book - 1 \
         WHERE p.group_id = $1 AND p.topic = $2 AND p.partition = $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(from)
    .bind(to)
    .fetch_one(connection)
    .await?;
    Ok(Counts {
        results,
        dead_letters,
        parked,
        ..Counts::default()
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
