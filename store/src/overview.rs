//! What the tables say of every partition at once, for `consumer status`: owner, position, what waits, what failed.
//!
//! One snapshot. Parked tasks and dead letters are counted, which takes a look at each of their rows.

use std::collections::HashMap;

use sqlx::{Connection, PgConnection, Row};

use crate::position::Consumer;
use crate::trouble::Trouble;

/// One partition.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PartitionOverview {
    /// Its number.
    pub partition: i32,
    /// Who holds it; `None` when it was released and nobody came since.
    pub owner: Option<String>,
    /// Since when, RFC 3339, UTC.
    pub claimed_at: Option<String>,
    /// Counts claims and flushes.
    pub seq: i64,
    /// The first offset that is not settled.
    pub position: i64,
    /// Results in the open book.
    pub results: i64,
    /// Duplicates in the open book.
    pub duplicates: i64,
    /// Dead letters in the open book.
    pub dead_letters: i64,
    /// Dead letters that were neither sent to work again nor discarded, in any book.
    pub dead_letters_open: i64,
    /// Parked tasks in the open book.
    pub parked: i64,
    /// Parked tasks by what they wait for, in any book.
    pub parked_by_kind: ParkedByKind,
    /// Keys whose parked tasks are due.
    pub parked_keys_due: i64,
    /// Up to when every record is settled, RFC 3339, UTC.
    pub settled_up_to: Option<String>,
    /// Claims since the last flush or clean release.
    pub unclean_starts: i32,
    /// In careful mode: the offset of the task that is about to run alone.
    pub suspect_offset: Option<i64>,
    /// Of the last records that were looked at, how many did not decode.
    pub undecodable: u32,
    /// Which they were: see [`crate::Advance::decode_window`].
    #[serde(skip)]
    pub decode_window: Option<i64>,
    /// Up to which offset the partition may go on although most records do not decode.
    pub allowed_until: Option<i64>,
}

/// How many parked tasks wait for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ParkedByKind {
    /// For their next attempt.
    pub retry: i64,
    /// Behind an earlier task of their key.
    pub behind: i64,
    /// For their time.
    pub delayed: i64,
    /// For nothing: they run for long.
    pub running: i64,
    /// For their turn, after having been dead letters.
    pub redrive: i64,
}

impl ParkedByKind {
    fn slot(&mut self, kind: &str) -> Option<&mut i64> {
        match kind {
            "retry" => Some(&mut self.retry),
            "behind" => Some(&mut self.behind),
            "delayed" => Some(&mut self.delayed),
            "running" => Some(&mut self.running),
            "redrive" => Some(&mut self.redrive),
            _ => None,
        }
    }
}

/// All partitions that have a row, and what belongs to none.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Overview {
    /// By partition.
    pub partitions: Vec<PartitionOverview>,
    /// Requests to cancel a task that are not answered yet.
    pub cancels_pending: i64,
    /// What is still to be sent after its transaction: copies of dead letters.
    pub outbox_pending: i64,
}

/// Reads it all.
///
/// # Errors
/// When the database cannot be read.
pub async fn overview(
    connection: &mut PgConnection,
    consumer: &Consumer,
) -> Result<Overview, Trouble> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut *transaction)
        .await?;
    let mut partitions = partitions(&mut transaction, consumer).await?;
    let by_kind = by_kind(&mut transaction, consumer).await?;
    let due = numbers(
        &mut transaction,
        consumer,
        "SELECT partition, count(*) AS rows FROM parked_keys WHERE group_id = $1 AND topic = $2 AND due_at <= now() \
         GROUP BY partition",
    )
    .await?;
    let open = numbers(
        &mut transaction,
        consumer,
        "SELECT partition, count(*) AS rows FROM dead_letters WHERE group_id = $1 AND topic = $2 \
           AND redriven_at IS NULL AND discarded_at IS NULL GROUP BY partition",
    )
    .await?;
    for one in &mut partitions {
        one.parked_by_kind = by_kind.get(&one.partition).copied().unwrap_or_default();
        one.parked_keys_due = due.get(&one.partition).copied().unwrap_or(0);
        one.dead_letters_open = open.get(&one.partition).copied().unwrap_or(0);
    }
    let cancels_pending = crate::cancels::count(&mut transaction).await?;
    let outbox_pending: i64 =
        sqlx::query_scalar("SELECT count(*) FROM outbox WHERE group_id = $1 AND topic = $2")
            .bind(&consumer.group)
            .bind(&consumer.topic)
            .fetch_one(&mut *transaction)
            .await?;
    transaction.rollback().await?;
    Ok(Overview {
        partitions,
        cancels_pending,
        outbox_pending,
    })
}

async fn partitions(
    connection: &mut PgConnection,
    consumer: &Consumer,
) -> Result<Vec<PartitionOverview>, Trouble> {
    let rows = sqlx::query(
        "SELECT p.partition, p.owner, p.seq, p.next_offset, p.results, p.duplicates, p.dead_letters, p.parked, \
           CASE WHEN p.claim IS NOT NULL THEN to_char(p.claimed_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') END AS claimed_at, \
           to_char(p.frontier_time, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS settled_up_to, \
           p.unclean_starts, p.suspect_offset, p.decode_window, a.until_offset AS allowed_until \
         FROM partition_progress p LEFT JOIN decode_allowances a ON a.group_id = p.group_id AND a.topic = p.topic \
           AND a.partition = p.partition AND a.log_book = p.log_book AND a.until_offset > p.next_offset \
         WHERE p.group_id = $1 AND p.topic = $2 ORDER BY p.partition",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(PartitionOverview {
                partition: row.try_get("partition")?,
                owner: row.try_get("owner")?,
                claimed_at: row.try_get("claimed_at")?,
                seq: row.try_get("seq")?,
                position: row.try_get("next_offset")?,
                results: row.try_get("results")?,
                duplicates: row.try_get("duplicates")?,
                dead_letters: row.try_get("dead_letters")?,
                dead_letters_open: 0,
                parked: row.try_get("parked")?,
                parked_by_kind: ParkedByKind::default(),
                parked_keys_due: 0,
                settled_up_to: row.try_get("settled_up_to")?,
                unclean_starts: row.try_get("unclean_starts")?,
                suspect_offset: row.try_get("suspect_offset")?,
                undecodable: undecodable(row.try_get("decode_window")?),
                decode_window: row.try_get("decode_window")?,
                allowed_until: row.try_get("allowed_until")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Trouble::from)
}

/// A bit for each of the last records, below a leading 1.
fn undecodable(window: Option<i64>) -> u32 {
    window.map_or(0, |window| window.count_ones().saturating_sub(1))
}

async fn by_kind(
    connection: &mut PgConnection,
    consumer: &Consumer,
) -> Result<HashMap<i32, ParkedByKind>, Trouble> {
    let rows: Vec<(i32, String, i64)> = sqlx::query_as(
        "SELECT partition, kind::text, count(*) FROM parked_tasks WHERE group_id = $1 AND topic = $2 \
         GROUP BY partition, kind",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .fetch_all(connection)
    .await?;
    let mut found: HashMap<i32, ParkedByKind> = HashMap::new();
    for (partition, kind, count) in rows {
        if let Some(slot) = found.entry(partition).or_default().slot(&kind) {
            *slot = count;
        }
    }
    Ok(found)
}

async fn numbers(
    connection: &mut PgConnection,
    consumer: &Consumer,
    query: &'static str,
) -> Result<HashMap<i32, i64>, Trouble> {
    let rows: Vec<(i32, i64)> = sqlx::query_as(query)
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().collect())
}
