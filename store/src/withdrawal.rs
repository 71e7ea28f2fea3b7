//! Taking back what became of a range of the log, so that it runs again as if for the first time.
//!
//! For each partition all that its log's records from an offset on have left goes: results, dead letters and
//! their copies still to be sent, parked rows, the deduplication keys that these tasks own, what they say of
//! themselves, and the cancel requests that were answered. Letters are deleted, not marked: the same record may
//! end as a dead letter again, under the same key. What went and who did it is kept in `operations_log`, and
//! the closed book keeps its counts.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::position::Consumer;
use crate::trouble::Trouble;

/// From where on a partition's records are taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// The first offset that is taken back.
    pub from: i64,
}

/// How many rows of which table went, or would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Withdrawn {
    /// The partition.
    pub partition: i32,
    /// Rows of `task_results`, whatever their status.
    pub results: i64,
    /// Rows of `dead_letters`, of all runs.
    pub dead_letters: i64,
    /// Rows of `parked_tasks`.
    pub parked: i64,
    /// Rows of `task_dedup`.
    pub dedup_keys: i64,
}

/// Counts what a withdrawal would take; nothing is locked or changed. Reads `task_results` and `task_dedup`
/// once from end to end, since no index leads to a range of offsets.
///
/// # Errors
/// When the database cannot be read.
pub async fn count(
    connection: &mut PgConnection,
    consumer: &Consumer,
    spans: &[Span],
) -> Result<Vec<Withdrawn>, Trouble> {
    let mut transaction = connection.begin().await?;
    let counted = execute(&mut transaction, consumer, spans, Verb::Count).await?;
    transaction.rollback().await?;
    Ok(counted)
}

/// Takes it back. The caller holds the partitions' rows: then no flush of theirs is in the air, and this
/// statement's snapshot sees all that ever landed.
pub(crate) async fn take(
    connection: &mut PgConnection,
    consumer: &Consumer,
    spans: &[Span],
) -> Result<Vec<Withdrawn>, Trouble> {
    let taken = execute(connection, consumer, spans, Verb::Take).await?;
    let partitions: Vec<i32> = spans.iter().map(|span| span.partition).collect();
    sqlx::query(
        "DELETE FROM parked_keys WHERE group_id = $1 AND topic = $2 AND partition = ANY($3) AND depth <= 0",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(&partitions)
    .execute(connection)
    .await?;
    Ok(taken)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Count,
    Take,
}

impl Verb {
    /// The rows of a table, as `x`, that belong to a span, as `s`.
    fn rows(self, table: &str, belonging: &str, columns: &str) -> String {
        match self {
            Self::Count => format!("SELECT {columns} FROM {table} x, span s WHERE {belonging}"),
            Self::Take => {
                format!("DELETE FROM {table} x USING span s WHERE {belonging} RETURNING {columns}")
            }
        }
    }

    /// One statement, so that each part knows which rows the others took.
    fn statement(self) -> String {
        const OF_THE_LOG: &str = "x.group_id = $1 AND x.topic = $2 AND x.partition = s.partition \
            AND x.log_book = s.log_book AND x.\"offset\" >= s.from_offset";
        let results = self.rows(
            "task_results",
            "x.topic = $2 AND x.partition = s.partition AND x.\"offset\" >= s.from_offset AND x.completed_at >= s.since",
            "x.partition, x.task_id",
        );
        let letters = self.rows("dead_letters", OF_THE_LOG, "x.partition");
        let parked = self.rows(
            "parked_tasks",
            OF_THE_LOG,
            "x.partition, x.task_id, x.key_hash, x.kind",
        );
        let keys = match self {
            Self::Count => "SELECT t.partition FROM task_dedup d JOIN tasks t USING (task_id)",
            Self::Take => {
                "DELETE FROM task_dedup d USING tasks t WHERE d.task_id = t.task_id RETURNING t.partition"
            }
        };
        let besides = match self {
            Self::Count => String::new(),
            Self::Take => format!(
                ", copies AS ({copies}), said AS ({said}), \
                 answered AS (DELETE FROM task_cancels c USING results r WHERE c.task_id = r.task_id), \
                 depths AS (UPDATE parked_keys k SET depth = k.depth - gone.tasks FROM \
                   (SELECT partition, key_hash, count(*) AS tasks FROM parked WHERE kind <> 'delayed' GROUP BY 1, 2) gone \
                   WHERE k.group_id = $1 AND k.topic = $2 AND k.partition = gone.partition AND k.key_hash = gone.key_hash)",
                copies = self.rows("outbox", OF_THE_LOG, "x.id"),
                said = self.rows(
                    "task_progress",
                    "x.group_id = $1 AND x.topic = $2 AND x.partition = s.partition",
                    "x.task_id"
                ),
            ),
        };
        // Results that were written before this log began are another log's, whatever their offsets.
        format!(
            "WITH span AS MATERIALIZED (SELECT w.partition, w.from_offset, p.log_book, \
                 coalesce(h.moved_at, '-infinity') AS since \
               FROM unnest($3::int[], $4::bigint[]) AS w(partition, from_offset) \
               JOIN partition_progress p ON p.group_id = $1 AND p.topic = $2 AND p.partition = w.partition \
               LEFT JOIN position_history h ON h.group_id = p.group_id AND h.topic = p.topic \
                 AND h.partition = p.partition AND h.book = p.log_book - 1), \
             results AS ({results}), letters AS ({letters}), parked AS ({parked}), \
             tasks AS (SELECT partition, task_id FROM results UNION SELECT partition, task_id FROM parked), \
             keys AS ({keys}){besides} \
             SELECT partition, sum(result)::bigint AS results, sum(letter)::bigint AS dead_letters, \
               sum(waiting)::bigint AS parked, sum(key)::bigint AS dedup_keys \
             FROM (SELECT partition, 0 AS result, 0 AS letter, 0 AS waiting, 0 AS key FROM span \
               UNION ALL SELECT partition, 1, 0, 0, 0 FROM results UNION ALL SELECT partition, 0, 1, 0, 0 FROM letters \
               UNION ALL SELECT partition, 0, 0, 1, 0 FROM parked UNION ALL SELECT partition, 0, 0, 0, 1 FROM keys) rows \
             GROUP BY partition ORDER BY partition"
        )
    }
}

async fn execute(
    connection: &mut PgConnection,
    consumer: &Consumer,
    spans: &[Span],
    verb: Verb,
) -> Result<Vec<Withdrawn>, Trouble> {
    sqlx::query("SET LOCAL statement_timeout = '1h'")
        .execute(&mut *connection)
        .await?;
    let partitions: Vec<i32> = spans.iter().map(|span| span.partition).collect();
    let from: Vec<i64> = spans.iter().map(|span| span.from).collect();
    let rows = sqlx::query(AssertSqlSafe(verb.statement()))
        .persistent(false)
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .bind(&partitions)
        .bind(&from)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Withdrawn {
                partition: row.try_get("partition")?,
                results: row.try_get("results")?,
                dead_letters: row.try_get("dead_letters")?,
                parked: row.try_get("parked")?,
                dedup_keys: row.try_get("dedup_keys")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Trouble::from)
}
