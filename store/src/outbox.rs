//! The table of what is to be sent once its transaction is durable: rows are leased, sent, and then deleted.
//!
//! A flush writes a row beside each dead letter. Whoever takes a row pushes its due time ahead, so no lock is
//! held while Kafka is waited for, and a sender that dies leaves the row to the next one. Sent at least once,
//! never lost: a row goes only after its delivery, or when the letter that it names is gone.

use std::time::Duration;

use sqlx::{PgConnection, Row};

use crate::letters::{self, LetterPlace, WholeLetter};
use crate::position::Consumer;
use crate::rows::storable;
use crate::trouble::Trouble;

/// The longest wait between two attempts at one row, in seconds.
const LONGEST_WAIT_SECONDS: i32 = 300;

/// A row that is ours until its lease ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Leased {
    /// The row's number.
    pub id: i64,
    /// Attempts that failed so far.
    pub attempts: i32,
    /// The dead letter to copy.
    pub letter: WholeLetter,
}

/// What is still to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many rows.
    pub rows: u64,
    /// Since when the oldest waits.
    pub oldest: Duration,
}

/// Takes due rows for as long as `lease`, the longest due first: at most `most` rows and, beyond the first,
/// `most_bytes` of record values. Rows that another sender is taking are stepped over.
///
/// # Errors
/// When the database cannot be written; rows that were leased meanwhile become due again by themselves.
pub async fn take(
    connection: &mut PgConnection,
    consumer: &Consumer,
    most: i64,
    most_bytes: i64,
    lease: Duration,
) -> Result<Vec<Leased>, Trouble> {
    let rows = sqlx::query(
        "WITH due AS (SELECT id, due_at, partition, log_book, \"offset\", run FROM outbox \
           WHERE group_id = $1 AND topic = $2 AND kind = 'dead_letter_copy' AND due_at <= clock_timestamp() \
           ORDER BY due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED), \
         weighed AS (SELECT due.id, row_number() OVER by_age AS place, \
             sum(coalesce(length(d.record_value), 0)) OVER by_age AS bytes \
           FROM due LEFT JOIN dead_letters d ON d.group_id = $1 AND d.topic = $2 AND d.partition = due.partition \
             AND d.log_book = due.log_book AND d.\"offset\" = due.\"offset\" AND d.run = due.run \
           WINDOW by_age AS (ORDER BY due.due_at, due.id)) \
         UPDATE outbox o SET due_at = clock_timestamp() + make_interval(secs => $5) FROM weighed \
         WHERE o.id = weighed.id AND (weighed.place = 1 OR weighed.bytes <= $4) \
         RETURNING o.id, o.attempts, o.partition, o.log_book, o.\"offset\", o.run",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(most)
    .bind(most_bytes)
    .bind(lease.as_secs_f64())
    .fetch_all(&mut *connection)
    .await?;
    let mut wanted: std::collections::HashMap<LetterPlace, (i64, i32)> =
        std::collections::HashMap::with_capacity(rows.len());
    let mut superfluous = Vec::new();
    for row in &rows {
        let place = LetterPlace {
            partition: row.try_get("partition")?,
            log_book: row.try_get("log_book")?,
            offset: row.try_get("offset")?,
            run: row.try_get("run")?,
        };
        let ours = (row.try_get("id")?, row.try_get("attempts")?);
        // Two rows for one letter: one copy is enough.
        if let Some((id, _)) = wanted.insert(place, ours) {
            superfluous.push(id);
        }
    }
    let places: Vec<LetterPlace> = wanted.keys().copied().collect();
    let mut leased = Vec::with_capacity(places.len());
    for letter in letters::whole(connection, consumer, &places).await? {
        if let Some((id, attempts)) = wanted.remove(&letter.letter.place) {
            leased.push(Leased {
                id,
                attempts,
                letter,
            });
        }
    }
    // Their letters were taken away by a person: there is nothing to copy.
    superfluous.extend(wanted.into_values().map(|(id, _)| id));
    if !superfluous.is_empty() {
        sent(connection, &superfluous).await?;
    }
    Ok(leased)
}

/// Goes on holding rows for as long as `lease` from now: their copies are on their way.
///
/// # Errors
/// When the database cannot be written: the rows become due at the end of their lease.
pub async fn renew(
    connection: &mut PgConnection,
    ids: &[i64],
    lease: Duration,
) -> Result<(), Trouble> {
    sqlx::query(
        "UPDATE outbox SET due_at = clock_timestamp() + make_interval(secs => $2) WHERE id = ANY($1)",
    )
    .bind(ids)
    .bind(lease.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes rows whose copies were delivered.
///
/// # Errors
/// When the database cannot be written: they will be sent again.
pub async fn sent(connection: &mut PgConnection, ids: &[i64]) -> Result<(), Trouble> {
    sqlx::query("DELETE FROM outbox WHERE id = ANY($1)")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes note of a failed attempt at rows. Each is due again after 1 s, 2 s, 4 s and so on, up to five minutes.
///
/// # Errors
/// When the database cannot be written: they become due at the end of their lease.
pub async fn failed(
    connection: &mut PgConnection,
    ids: &[i64],
    error: &str,
) -> Result<(), Trouble> {
    sqlx::query(
        "UPDATE outbox SET attempts = attempts + 1, last_error = $2, \
           due_at = clock_timestamp() + make_interval(secs => least($3, power(2, least(attempts, 20)))) \
         WHERE id = ANY($1)",
    )
    .bind(ids)
    .bind(storable(error, 2_000))
    .bind(f64::from(LONGEST_WAIT_SECONDS))
    .execute(connection)
    .await?;
    Ok(())
}

/// How much is still to be sent.
///
/// # Errors
/// When the database cannot be read.
pub async fn backlog(
    connection: &mut PgConnection,
    consumer: &Consumer,
) -> Result<Backlog, Trouble> {
    let row = sqlx::query(
        "SELECT count(*) AS rows, \
           coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest \
         FROM outbox WHERE group_id = $1 AND topic = $2",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .fetch_one(connection)
    .await?;
    let rows: i64 = row.try_get("rows")?;
    let oldest: f64 = row.try_get("oldest")?;
    Ok(Backlog {
        rows: u64::try_from(rows).unwrap_or(0),
        oldest: Duration::try_from_secs_f64(oldest.max(0.0)).unwrap_or_default(),
    })
}
