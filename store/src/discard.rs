//! Discard: a dead letter that nobody wants to see again. It stays what it is, in the table and in the books;
//! it is only decided on, with a name and a reason, and can no longer be redriven.

use std::collections::HashSet;

use sqlx::{Connection, PgConnection};

use crate::letters::LetterPlace;
use crate::operations_log::Journal;
use crate::position::Consumer;
use crate::rows::storable;
use crate::trouble::Trouble;

/// Who discards, and why.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The person or host.
    pub by: &'a str,
    /// The reason, as given.
    pub reason: &'a str,
}

/// Discards the letters that are still open, in one transaction that also brings `journal` up to date.
/// Returns which that were.
///
/// # Errors
/// When the database cannot be written; then nothing was discarded.
pub async fn discard(
    connection: &mut PgConnection,
    consumer: &Consumer,
    places: &[LetterPlace],
    terms: Terms<'_>,
    journal: &mut Journal,
) -> Result<HashSet<LetterPlace>, Trouble> {
    let mut transaction = connection.begin().await?;
    let rows: Vec<(i32, i32, i64, i16)> = sqlx::query_as(
        "UPDATE dead_letters d SET discarded_at = clock_timestamp(), discarded_by = $7, discard_reason = $8 \
         FROM unnest($3::int[], $4::int[], $5::bigint[], $6::smallint[]) AS k(partition, log_book, \"offset\", run) \
         WHERE d.group_id = $1 AND d.topic = $2 AND d.partition = k.partition AND d.log_book = k.log_book \
           AND d.\"offset\" = k.\"offset\" AND d.run = k.run AND d.redriven_at IS NULL AND d.discarded_at IS NULL \
         RETURNING d.partition, d.log_book, d.\"offset\", d.run",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(places.iter().map(|place| place.partition).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.log_book).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.offset).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.run).collect::<Vec<_>>())
    .bind(storable(terms.by, 255))
    .bind(storable(terms.reason, 2_000))
    .fetch_all(&mut *transaction)
    .await?;
    let counts = [("discarded", rows.len() as u64)];
    journal.write(&mut transaction, &counts).await?;
    transaction.commit().await?;
    journal.add(&counts);
    Ok(rows
        .into_iter()
        .map(|(partition, log_book, offset, run)| LetterPlace {
            partition,
            log_book,
            offset,
            run,
        })
        .collect())
}
