//! The fence inside a flush: the locks that open it and the compare-and-set that closes it.
//!
//! [`lock`] returns the partitions that are still exactly where the flush expects them and holds their
//! rows until COMMIT, so whatever is written in between is written by the owner. [`advance`] moves seq,
//! position and books of just these. A partition that does not match is explained by [`explain`].

use millrace_schemas::Day;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::books::Counts;
use crate::position::{Consumer, Fence};
use crate::rows::{Advance, is_storable_ms};
use crate::trouble::Trouble;

/// Where a partition stands while its row is locked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub partition: i32,
    /// The book with which its log began.
    pub log_book: i32,
    /// Where its open book begins.
    pub first_offset: i64,
    /// Its position before this flush.
    pub next_offset: i64,
}

/// What the database said when the rows were locked.
#[derive(Debug)]
pub(crate) struct Locked {
    /// Partitions that matched, ascending.
    pub partitions: Vec<Open>,
    /// The database's clock, microseconds since the Unix epoch.
    pub now: i64,
    /// The database's day.
    pub today: Day,
}

impl Locked {
    /// Where the partition stands; `None` when it did not match.
    pub(crate) fn open(&self, partition: i32) -> Option<&Open> {
        let at = self
            .partitions
            .binary_search_by_key(&partition, |open| open.partition)
            .ok()?;
        self.partitions.get(at)
    }

    /// The book with which the partition's log began; `None` when the partition did not match.
    pub(crate) fn log_book(&self, partition: i32) -> Option<i32> {
        self.open(partition).map(|open| open.log_book)
    }

    /// Whether the partition matched.
    pub(crate) fn holds(&self, partition: i32) -> bool {
        self.open(partition).is_some()
    }
}

/// Locks the rows that match, in partition order.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    consumer: &Consumer,
    fences: &[(i32, Fence)],
) -> Result<Locked, Trouble> {
    let (partitions, seqs, claims) = columns(fences);
    let rows = sqlx::query(
        "SELECT p.partition, p.log_book, p.first_offset, p.next_offset, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now, \
           (now() AT TIME ZONE 'UTC')::date - DATE '1970-01-01' AS today \
         FROM partition_progress p \
         JOIN unnest($3::int[], $4::bigint[], $5::uuid[]) AS f(partition, seq, claim) USING (partition, seq) \
         WHERE p.group_id = $1 AND p.topic = $2 AND p.claim = f.claim \
         ORDER BY p.partition FOR UPDATE OF p",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&partitions)
    .bind(&seqs)
    .bind(&claims)
    .fetch_all(connection)
    .await?;
    let mut locked = Locked {
        partitions: Vec::with_capacity(rows.len()),
        now: 0,
        today: Day::new(0),
    };
    for row in &rows {
        locked.partitions.push(Open {
            partition: row.try_get("partition")?,
            log_book: row.try_get("log_book")?,
            first_offset: row.try_get("first_offset")?,
            next_offset: row.try_get("next_offset")?,
        });
        locked.now = row.try_get("now")?;
        locked.today = Day::new(row.try_get("today")?);
    }
    Ok(locked)
}

/// What moves for one partition at the end of a flush.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    pub partition: i32,
    pub fence: Fence,
    /// `None` leaves the position where it is: more of this flush is to come.
    pub advance: Option<Advance>,
    /// One past the highest offset settled from the log.
    pub high_offset: i64,
    pub counts: Counts,
}

/// Moves seq, position and books of the locked partitions; `seq` grows by one.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    consumer: &Consumer,
    moves: &[Move],
) -> Result<(), Trouble> {
    let column = |of: fn(&Move) -> i64| moves.iter().map(of).collect::<Vec<i64>>();
    let fences: Vec<(i32, Fence)> = moves.iter().map(|m| (m.partition, m.fence)).collect();
    let (partitions, seqs, claims) = columns(&fences);
    let epochs: Vec<Option<i32>> = moves
        .iter()
        .map(|m| m.advance.and_then(|a| a.leader_epoch))
        .collect();
    let frontiers: Vec<Option<i64>> = moves
        .iter()
        .map(|m| m.advance.and_then(|a| a.frontier_ms).filter(is_storable_ms))
        .collect();
    let nexts: Vec<Option<i64>> = moves
        .iter()
        .map(|m| m.advance.map(|a| a.next_offset))
        .collect();
    let windows: Vec<Option<i64>> = moves
        .iter()
        .map(|m| m.advance.and_then(|a| a.decode_window))
        .collect();
    let clears: Vec<bool> = moves
        .iter()
        .map(|m| m.advance.is_some_and(|a| a.clears_suspect))
        .collect();
    let done = sqlx::query(
        "UPDATE partition_progress p SET seq = p.seq + 1, flushed_at = now(), \
           unclean_starts = CASE WHEN f.next_offset > p.next_offset THEN 0 ELSE p.unclean_starts END, \
           suspect_log_book = CASE WHEN NOT f.clears_suspect THEN p.suspect_log_book END, \
           suspect_offset = CASE WHEN NOT f.clears_suspect THEN p.suspect_offset END, \
           suspect_starts = CASE WHEN NOT f.clears_suspect THEN p.suspect_starts END, \
           decode_window = coalesce(f.decode_window, p.decode_window), \
           next_offset = coalesce(f.next_offset, p.next_offset), \
           high_offset = greatest(p.high_offset, f.high_offset, f.next_offset), \
           leader_epoch = coalesce(f.leader_epoch, p.leader_epoch), \
           frontier_time = coalesce(to_timestamp(f.frontier_ms / 1000.0), p.frontier_time), \
           results = p.results + f.results, duplicates = p.duplicates + f.duplicates, \
           dead_letters = p.dead_letters + f.dead_letters, parked = p.parked + f.parked, gaps = p.gaps + f.gaps, \
           lost = p.lost + f.lost \
         FROM unnest($3::int[], $4::bigint[], $5::uuid[], $6::bigint[], $7::bigint[], $8::int[], $9::bigint[], \
           $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bool[]) \
           AS f(partition, seq, claim, next_offset, high_offset, leader_epoch, frontier_ms, \
             results, duplicates, dead_letters, parked, gaps, lost, decode_window, clears_suspect) \
         WHERE p.group_id = $1 AND p.topic = $2 AND p.partition = f.partition AND p.seq = f.seq AND p.claim = f.claim",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&partitions)
    .bind(&seqs)
    .bind(&claims)
    .bind(&nexts)
    .bind(column(|m| m.high_offset))
    .bind(&epochs)
    .bind(&frontiers)
    .bind(column(|m| m.counts.results))
    .bind(column(|m| m.counts.duplicates))
    .bind(column(|m| m.counts.dead_letters))
    .bind(column(|m| m.counts.parked))
    .bind(column(|m| m.counts.gaps))
    .bind(column(|m| m.counts.lost))
    .bind(&windows)
    .bind(&clears)
    .execute(connection)
    .await?;
    if done.rows_affected() == u64::try_from(moves.len()).unwrap_or(u64::MAX) {
        Ok(())
    } else {
        // The rows were locked a moment ago in this very transaction, so this is no fence loss.
        Err(Trouble::Outage(format!(
            "{} of {} locked partitions moved",
            done.rows_affected(),
            moves.len()
        )))
    }
}

/// Why a partition did not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceLoss {
    /// Somebody else claimed it.
    Taken,
    /// The claim is ours, the seq is not: the database went back to an older state.
    DatabaseMoved,
    /// There is no row any more.
    RowGone,
}

/// What a partition's row says now, seen from a flush that expected `fence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Explained {
    /// Exactly one flush beyond: the one whose COMMIT was not answered did happen.
    OneAhead,
    /// The flush has no part in it any more.
    Lost(FenceLoss),
}

/// Reads why a partition did not match.
pub(crate) async fn explain(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    fence: Fence,
) -> Result<Explained, Trouble> {
    let row: Option<(Option<Uuid>, i64)> = sqlx::query_as(
        "SELECT claim, seq FROM partition_progress WHERE group_id = $1 AND topic = $2 AND partition = $3",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        None => Explained::Lost(FenceLoss::RowGone),
        Some((claim, seq)) if claim == Some(fence.claim) && seq == fence.seq + 1 => {
            Explained::OneAhead
        }
        Some((claim, _)) if claim == Some(fence.claim) => Explained::Lost(FenceLoss::DatabaseMoved),
        Some(_) => Explained::Lost(FenceLoss::Taken),
    })
}

fn columns(fences: &[(i32, Fence)]) -> (Vec<i32>, Vec<i64>, Vec<Uuid>) {
    (
        fences.iter().map(|(partition, _)| *partition).collect(),
        fences.iter().map(|(_, fence)| fence.seq).collect(),
        fences.iter().map(|(_, fence)| fence.claim).collect(),
    )
}
