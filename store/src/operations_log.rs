//! The table of operations: who did what to running work, when and why.
//!
//! An entry that is written in the transaction of the deed cannot be missing, and cannot tell of a deed that
//! did not happen. A deed of many transactions keeps one entry and brings its detail up to date with each.

use serde_json::Value;
use sqlx::{PgConnection, Row};

use crate::rows::storable;
use crate::trouble::Trouble;

/// Longest name, reason or action kept, in bytes.
const TEXT_BYTES: usize = 2_000;

/// What is to be remembered.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// The person or host.
    pub by: &'a str,
    /// What was done: `redrive`, `pause`.
    pub action: &'a str,
    /// Why, where a reason was given.
    pub reason: Option<&'a str>,
    /// What else is to be known: filters, counts, names.
    pub detail: &'a Value,
}

/// An entry as it was kept.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Logged {
    /// Its number, ascending with time.
    pub id: i64,
    /// When, RFC 3339, UTC.
    pub at: String,
    /// The person or host.
    pub by: String,
    /// What was done.
    pub action: String,
    /// Why.
    pub reason: Option<String>,
    /// What else is to be known.
    pub detail: Value,
}

/// Adds an entry and returns its number.
///
/// # Errors
/// When the database cannot be written.
pub async fn append(connection: &mut PgConnection, entry: &Entry<'_>) -> Result<i64, Trouble> {
    Ok(sqlx::query_scalar(
        "INSERT INTO operations_log (by, action, reason, detail) VALUES ($1, $2, $3, $4::text::json) RETURNING id",
    )
    .bind(storable(entry.by, TEXT_BYTES))
    .bind(storable(entry.action, TEXT_BYTES))
    .bind(entry.reason.map(|reason| storable(reason, TEXT_BYTES)))
    .bind(storable_json(entry.detail))
    .fetch_one(connection)
    .await?)
}

/// Replaces the detail of an entry, as a deed of many steps goes on.
///
/// # Errors
/// When the database cannot be written.
pub async fn amend(connection: &mut PgConnection, id: i64, detail: &Value) -> Result<(), Trouble> {
    sqlx::query("UPDATE operations_log SET detail = $2::text::json WHERE id = $1")
        .bind(id)
        .bind(storable_json(detail))
        .execute(connection)
        .await?;
    Ok(())
}

/// The latest entries, newest first, at most `most`.
///
/// # Errors
/// When the database cannot be read.
pub async fn latest(connection: &mut PgConnection, most: i64) -> Result<Vec<Logged>, Trouble> {
    let rows = sqlx::query(
        "SELECT id, to_char(at, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS at, by, action, reason, detail::text AS detail \
         FROM operations_log ORDER BY id DESC LIMIT $1",
    )
    .bind(most)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let detail: String = row.try_get("detail")?;
            Ok(Logged {
                id: row.try_get("id")?,
                at: row.try_get("at")?,
                by: row.try_get("by")?,
                action: row.try_get("action")?,
                reason: row.try_get("reason")?,
                detail: serde_json::from_str(&detail).unwrap_or(Value::String(detail)),
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Trouble::from)
}

/// JSON text that can be read back with `->>`: `json` takes an escaped NUL and then cannot show it.
fn storable_json(value: &Value) -> String {
    value.to_string().replace("\\u0000", "\\ufffd")
}

/// The entry of a deed that takes many transactions: what it is about, and how far it has come.
#[derive(Debug)]
pub struct Journal {
    id: i64,
    about: Value,
    counts: std::collections::BTreeMap<&'static str, u64>,
}

impl Journal {
    /// Adds the entry, with nothing done yet.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn open(
        connection: &mut PgConnection,
        by: &str,
        action: &str,
        reason: Option<&str>,
        about: Value,
    ) -> Result<Self, Trouble> {
        let detail = serde_json::json!({ "about": &about, "counts": {} });
        let entry = Entry {
            by,
            action,
            reason,
            detail: &detail,
        };
        Ok(Self {
            id: append(connection, &entry).await?,
            about,
            counts: std::collections::BTreeMap::new(),
        })
    }

    /// Writes the counts as they are with these added. To be called in the transaction of the deed; after its
    /// commit, [`Journal::add`] keeps them.
    pub(crate) async fn write(
        &self,
        connection: &mut PgConnection,
        more: &[(&'static str, u64)],
    ) -> Result<(), Trouble> {
        let mut counts = self.counts.clone();
        for (name, count) in more {
            *counts.entry(name).or_default() += count;
        }
        let detail = serde_json::json!({ "about": &self.about, "counts": counts });
        amend(connection, self.id, &detail).await
    }

    /// Keeps counts that have become durable.
    pub(crate) fn add(&mut self, more: &[(&'static str, u64)]) {
        for (name, count) in more {
            *self.counts.entry(name).or_default() += count;
        }
    }
}
