//! Up to where a partition goes on although most of its records do not decode.
//!
//! A partition that met too many records in a row without meaning stops, since a broken producer or a wrong
//! topic is likelier than so many bad events. A person who has looked allows it to go on up to an offset of
//! this log; beyond it the partition stops again by the same rule.

use sqlx::{Connection, PgConnection, Row};

use crate::notices::{self, Notice};
use crate::operations_log::{self, Entry};
use crate::position::Consumer;
use crate::trouble::Trouble;

/// One partition's allowance.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Allowance {
    /// The partition.
    pub partition: i32,
    /// The book with which the log began that the offset belongs to; in another log it means nothing.
    pub log_book: i32,
    /// The first offset that is not allowed any more.
    pub until_offset: i64,
    /// Who allowed it.
    pub by: String,
}

/// Allows a partition to go on up to `until_offset`, not included, in place of what was allowed before.
/// Returns whether the partition has a row; without one there is nothing to allow.
///
/// # Errors
/// When the database cannot be written; then nothing is allowed.
pub async fn allow(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    until_offset: i64,
    by: &str,
) -> Result<bool, Trouble> {
    let mut transaction = connection.begin().await?;
    let done = sqlx::query(
        "INSERT INTO decode_allowances (group_id, topic, partition, log_book, until_offset, by) \
         SELECT group_id, topic, partition, log_book, $4, $5 FROM partition_progress \
         WHERE group_id = $1 AND topic = $2 AND partition = $3 \
         ON CONFLICT (group_id, topic, partition) DO UPDATE \
           SET log_book = excluded.log_book, until_offset = excluded.until_offset, by = excluded.by, at = now()",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(until_offset)
    .bind(by)
    .execute(&mut *transaction)
    .await?;
    let allowed = done.rows_affected() == 1;
    if allowed {
        let detail = serde_json::json!({ "partition": partition, "until_offset": until_offset });
        let entry = Entry {
            by,
            action: "resume",
            reason: None,
            detail: &detail,
        };
        operations_log::append(&mut transaction, &entry).await?;
        notices::tell(&mut transaction, Notice::Pauses).await?;
    }
    transaction.commit().await?;
    Ok(allowed)
}

/// Every allowance of the group on the topic, by partition.
///
/// # Errors
/// When the database cannot be read.
pub async fn all(
    connection: &mut PgConnection,
    consumer: &Consumer,
) -> Result<Vec<Allowance>, Trouble> {
    let rows = sqlx::query(
        "SELECT partition, log_book, until_offset, by FROM decode_allowances \
         WHERE group_id = $1 AND topic = $2 ORDER BY partition",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Allowance {
                partition: row.try_get("partition")?,
                log_book: row.try_get("log_book")?,
                until_offset: row.try_get("until_offset")?,
                by: row.try_get("by")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Trouble::from)
}
