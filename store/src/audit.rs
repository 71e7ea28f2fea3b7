//! The audit: what the books say beside what the tables hold, from one snapshot.
//!
//! The books' left side comes from offsets, their right side from outcomes, and the tables are counted on
//! their own. Rows that retention dropped are known by number, so an old book can still add up.

use sqlx::{Connection, PgConnection, Row};

use millrace_schemas::Day;

use crate::days::{self, Daily};
use crate::position::{self, Consumer, Progress};
use crate::trouble::Trouble;

/// One partition: its book and what the tables hold for the book's range of offsets.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionAudit {
    /// The book.
    pub progress: Progress,
    /// Results found.
    pub result_rows: i64,
    /// Results of this log partition that went with dropped days, in any book.
    pub dropped_rows: i64,
    /// Dead letters found.
    pub dead_letter_rows: i64,
    /// Parked tasks found.
    pub parked_rows: i64,
}

impl PartitionAudit {
    /// Whether every offset of the book is accounted for, and every account has its row.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let Progress {
            first_offset,
            next_offset,
            counts,
            ..
        } = self.progress;
        let rows_fit = if self.dropped_rows == 0 {
            self.result_rows == counts.results
        } else {
            (self.result_rows..=self.result_rows + self.dropped_rows).contains(&counts.results)
        };
        next_offset - first_offset == counts.total()
            && rows_fit
            && self.dead_letter_rows == counts.dead_letters
            && self.parked_rows == counts.parked
    }

    /// In words, what does not add up; empty when all does.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let Progress {
            first_offset,
            next_offset,
            counts,
            ..
        } = self.progress;
        let mut findings = Vec::new();
        let (span, total) = (next_offset - first_offset, counts.total());
        if span != total {
            findings.push(format!(
                "{span} offsets were passed, but {total} outcomes are booked"
            ));
        }
        if self.result_rows > counts.results
            || self.result_rows + self.dropped_rows < counts.results
        {
            findings.push(format!(
                "{} results are booked, but {} are in task_results ({} went with dropped days)",
                counts.results, self.result_rows, self.dropped_rows
            ));
        }
        if self.dead_letter_rows != counts.dead_letters {
            findings.push(format!(
                "{} dead letters are booked, but {} are in dead_letters",
                counts.dead_letters, self.dead_letter_rows
            ));
        }
        if self.parked_rows != counts.parked {
            findings.push(format!(
                "{} parked tasks are booked, but {} are in parked_tasks",
                counts.parked, self.parked_rows
            ));
        }
        findings
    }
}

/// Audits every partition that has a row.
///
/// # Errors
/// When the database cannot be read.
pub async fn partitions(
    connection: &mut PgConnection,
    consumer: &Consumer,
) -> Result<Vec<PartitionAudit>, Trouble> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut *transaction)
        .await?;
    let rows = position::all(&mut transaction, consumer).await?;
    let results = counted(
        &mut transaction,
        consumer,
        "SELECT r.partition, count(*) AS rows FROM task_results r \
         JOIN partition_progress p ON p.topic = r.topic AND p.partition = r.partition AND p.group_id = $1 \
         LEFT JOIN position_history h ON h.group_id = p.group_id AND h.topic = p.topic AND h.partition = p.partition \
           AND h.book = p.log_book - 1 \
         WHERE r.topic = $2 AND r.\"offset\" >= p.first_offset AND r.\"offset\" < p.next_offset \
           AND r.duplicate_of IS NULL AND r.status <> 'failed' \
           AND r.completed_at >= coalesce(h.moved_at, '-infinity') GROUP BY r.partition",
    )
    .await?;
    let letters = counted(
        &mut transaction,
        consumer,
        "SELECT d.partition, count(*) AS rows FROM dead_letters d \
         JOIN partition_progress p ON p.group_id = d.group_id AND p.topic = d.topic AND p.partition = d.partition \
           AND p.log_book = d.log_book \
         WHERE d.group_id = $1 AND d.topic = $2 AND d.\"offset\" >= p.first_offset AND d.\"offset\" < p.next_offset \
           AND d.redriven_at IS NULL GROUP BY d.partition",
    )
    .await?;
    let parked = counted(
        &mut transaction,
        consumer,
        "SELECT t.partition, count(*) AS rows FROM parked_tasks t \
         JOIN partition_progress p ON p.group_id = t.group_id AND p.topic = t.topic AND p.partition = t.partition \
           AND p.log_book = t.log_book \
         WHERE t.group_id = $1 AND t.topic = $2 AND t.\"offset\" >= p.first_offset AND t.\"offset\" < p.next_offset \
         GROUP BY t.partition",
    )
    .await?;
    let dropped = counted(
        &mut transaction,
        consumer,
        "SELECT partition, sum(results)::bigint AS rows FROM dropped_days WHERE $1::text IS NOT NULL AND topic = $2 GROUP BY partition",
    )
    .await?;
    transaction.rollback().await?;
    let of = |counts: &std::collections::HashMap<i32, i64>, partition: i32| {
        counts.get(&partition).copied().unwrap_or(0)
    };
    Ok(rows
        .into_iter()
        .map(|progress| PartitionAudit {
            result_rows: of(&results, progress.partition),
            dropped_rows: of(&dropped, progress.partition),
            dead_letter_rows: of(&letters, progress.partition),
            parked_rows: of(&parked, progress.partition),
            progress,
        })
        .collect())
}

async fn counted(
    connection: &mut PgConnection,
    consumer: &Consumer,
    query: &'static str,
) -> Result<std::collections::HashMap<i32, i64>, Trouble> {
    let rows = sqlx::query(query)
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("partition")?, row.try_get("rows")?)))
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Trouble::from)
}

/// How the tables say that an offset ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traced {
    /// A result with these coordinates.
    Result,
    /// A dead letter with these coordinates.
    DeadLetter,
    /// A parked task with these coordinates.
    Parked,
    /// A result, a parked task or a key of another record for the same id or deduplication key.
    Duplicate,
    /// Nothing, and the day or window in which it would be found has closed.
    Unverifiable,
    /// Nothing, though it should be there.
    Missing,
}

/// What the deep audit looks up for one record of the log.
#[derive(Debug, Clone, Copy)]
pub struct Traceable {
    /// Its offset.
    pub offset: i64,
    /// Id and deduplication hash, when the bytes decode.
    pub event: Option<(millrace_schemas::TaskId, Option<[u8; 16]>)>,
}

/// Looks up how records of one partition ended, in one statement each for letters, parked tasks, results and
/// keys. A letter that was sent to work again is no end.
///
/// # Errors
/// When the database cannot be read.
pub async fn trace(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    records: &[Traceable],
) -> Result<Vec<Traced>, Trouble> {
    let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
    let letters: std::collections::HashSet<i64> = sqlx::query_scalar(
        "SELECT d.\"offset\" FROM dead_letters d JOIN partition_progress p USING (group_id, topic, partition, log_book) \
         WHERE d.group_id = $1 AND d.topic = $2 AND d.partition = $3 AND d.\"offset\" = ANY($4) AND d.redriven_at IS NULL",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(&offsets)
    .fetch_all(&mut *connection)
    .await?
    .into_iter()
    .collect();
    let parked = parked(connection, consumer, partition, records).await?;
    let results = results_by_id(connection, records).await?;
    let keys = keys_by_hash(connection, records).await?;
    let oldest = days::oldest(connection, Daily::Results).await?;
    let forgotten = forgotten_keys(connection).await?;
    Ok(records
        .iter()
        .map(|record| {
            if parked.offsets.contains(&record.offset) {
                return Traced::Parked;
            }
            if letters.contains(&record.offset) {
                return Traced::DeadLetter;
            }
            let Some((id, hash)) = record.event else {
                return Traced::Missing;
            };
            let own = |found: &Found| {
                found.topic == consumer.topic
                    && found.partition == partition
                    && found.offset == record.offset
            };
            match results.get(id.as_bytes()) {
                Some(found) if own(found) && !found.duplicate => Traced::Result,
                Some(_) => Traced::Duplicate,
                None if parked.ids.contains(id.as_bytes()) => Traced::Duplicate,
                None if hash.is_some_and(|hash| {
                    keys.get(&hash).is_some_and(|owner| owner != id.as_bytes())
                }) =>
                {
                    Traced::Duplicate
                }
                None if oldest.is_none_or(|oldest| id.birth_day() < oldest) => Traced::Unverifiable,
                None if hash.is_some_and(|hash| !keys.contains_key(&hash))
                    && forgotten.is_some_and(|today| id.birth_day() < today) =>
                {
                    Traced::Unverifiable
                }
                None => Traced::Missing,
            }
        })
        .collect())
}

/// Today, when days of keys have been dropped since the first start: a repeat that was found by such a key
/// then has left no trace. `None` when every key is still there.
async fn forgotten_keys(connection: &mut PgConnection) -> Result<Option<Day>, Trouble> {
    let first_start: Option<i32> = sqlx::query_scalar(
        "SELECT (pinned_at AT TIME ZONE 'UTC')::date - DATE '1970-01-01' FROM deployment",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let oldest = days::oldest(connection, Daily::Dedup).await?;
    let all_there = first_start
        .zip(oldest)
        .is_some_and(|(first_start, oldest)| Day::new(first_start) >= oldest);
    Ok(if all_there {
        None
    } else {
        Some(days::today(connection).await?)
    })
}

/// Offsets of the partition's log, and ids, that are parked.
struct ParkedFound {
    offsets: std::collections::HashSet<i64>,
    ids: std::collections::HashSet<[u8; 16]>,
}

async fn parked(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    records: &[Traceable],
) -> Result<ParkedFound, Trouble> {
    let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
    let ids: Vec<uuid::Uuid> = records
        .iter()
        .filter_map(|record| record.event)
        .map(|(id, _)| crate::rows::uuid_of(id))
        .collect();
    let rows: Vec<(Option<i64>, uuid::Uuid)> = sqlx::query_as(
        "SELECT t.\"offset\", t.task_id FROM parked_tasks t JOIN partition_progress p USING (group_id, topic, partition, log_book) \
         WHERE t.group_id = $1 AND t.topic = $2 AND t.partition = $3 AND t.\"offset\" = ANY($4) \
         UNION ALL SELECT NULL, task_id FROM parked_tasks WHERE group_id = $1 AND topic = $2 AND task_id = ANY($5)",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(&offsets)
    .bind(&ids)
    .fetch_all(connection)
    .await?;
    Ok(ParkedFound {
        offsets: rows.iter().filter_map(|(offset, _)| *offset).collect(),
        ids: rows.iter().map(|(_, id)| id.into_bytes()).collect(),
    })
}

struct Found {
    topic: String,
    partition: i32,
    offset: i64,
    duplicate: bool,
}

async fn results_by_id(
    connection: &mut PgConnection,
    records: &[Traceable],
) -> Result<std::collections::HashMap<[u8; 16], Found>, Trouble> {
    let mut by_day: std::collections::BTreeMap<i32, Vec<uuid::Uuid>> =
        std::collections::BTreeMap::new();
    for (id, _) in records.iter().filter_map(|record| record.event) {
        by_day
            .entry(id.birth_day().days_since_epoch())
            .or_default()
            .push(crate::rows::uuid_of(id));
    }
    let mut found = std::collections::HashMap::new();
    for (day, ids) in by_day {
        let rows = sqlx::query(
            "SELECT task_id, topic, partition, \"offset\", duplicate_of IS NOT NULL AS duplicate FROM task_results \
             WHERE day = DATE '1970-01-01' + $1 AND task_id = ANY($2)",
        )
        .bind(day)
        .bind(&ids)
        .fetch_all(&mut *connection)
        .await?;
        for row in rows {
            let id: uuid::Uuid = row.try_get("task_id")?;
            found.insert(
                id.into_bytes(),
                Found {
                    topic: row.try_get("topic")?,
                    partition: row.try_get("partition")?,
                    offset: row.try_get("offset")?,
                    duplicate: row.try_get("duplicate")?,
                },
            );
        }
    }
    Ok(found)
}

async fn keys_by_hash(
    connection: &mut PgConnection,
    records: &[Traceable],
) -> Result<std::collections::HashMap<[u8; 16], [u8; 16]>, Trouble> {
    let hashes: Vec<uuid::Uuid> = records
        .iter()
        .filter_map(|record| record.event.and_then(|(_, hash)| hash))
        .map(uuid::Uuid::from_bytes)
        .collect();
    let rows: Vec<(uuid::Uuid, uuid::Uuid)> =
        sqlx::query_as("SELECT hash, task_id FROM task_dedup WHERE hash = ANY($1)")
            .bind(&hashes)
            .fetch_all(connection)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(hash, id)| (hash.into_bytes(), id.into_bytes()))
        .collect())
}
