//! Task types and tenants of which nothing is started: set and lifted by people, obeyed by every worker.
//!
//! A pause stops no attempt that runs, and settles nothing: tasks wait in the log and in `parked_tasks` until
//! it is lifted. Both ways are idempotent, told to running workers in the same transaction, and kept in
//! `operations_log` with who did it.

use sqlx::{Connection, PgConnection, Row};

use crate::notices::{self, Notice};
use crate::operations_log::{self, Entry};
use crate::trouble::Trouble;

/// What a pause is about; the texts are those of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All tasks of one type.
    TaskType,
    /// All tasks of one tenant.
    Tenant,
}

impl Scope {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskType => "task_type",
            Self::Tenant => "tenant",
        }
    }
}

/// A pause in force.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pause {
    /// What kind of name it is.
    pub scope: Scope,
    /// The type's or tenant's name.
    pub name: String,
    /// Since when, RFC 3339, UTC.
    pub since: String,
    /// Who set it.
    pub by: String,
    /// Why, where they said so.
    pub reason: Option<String>,
}

/// Every pause in force, by scope and name.
///
/// # Errors
/// When the database cannot be read.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<Pause>, Trouble> {
    let rows = sqlx::query(
        "SELECT scope = 'tenant' AS of_tenant, name, by, reason, \
           to_char(since, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS since_text \
         FROM pauses ORDER BY scope, name",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let scope = match row.try_get("of_tenant")? {
                true => Scope::Tenant,
                false => Scope::TaskType,
            };
            Ok(Pause {
                scope,
                name: row.try_get("name")?,
                since: row.try_get("since_text")?,
                by: row.try_get("by")?,
                reason: row.try_get("reason")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Trouble::from)
}

/// Sets a pause. Returns whether it is new: one that is there stays as it is, with its first reason.
///
/// # Errors
/// When the database cannot be written; then nothing is paused.
pub async fn set(
    connection: &mut PgConnection,
    scope: Scope,
    name: &str,
    by: &str,
    reason: Option<&str>,
) -> Result<bool, Trouble> {
    let mut transaction = connection.begin().await?;
    let done = sqlx::query(
        "INSERT INTO pauses (scope, name, by, reason) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(scope.as_str())
    .bind(name)
    .bind(by)
    .bind(reason)
    .execute(&mut *transaction)
    .await?;
    let new = done.rows_affected() == 1;
    if new {
        let detail = serde_json::json!({ "scope": scope, "name": name });
        let entry = Entry {
            by,
            action: "pause",
            reason,
            detail: &detail,
        };
        operations_log::append(&mut transaction, &entry).await?;
    }
    // Told also when nothing changed: a person repeats a command because somebody did not seem to hear it.
    notices::tell(&mut transaction, Notice::Pauses).await?;
    transaction.commit().await?;
    Ok(new)
}

/// Lifts a pause. Returns whether there was one.
///
/// # Errors
/// When the database cannot be written; then the pause stays.
pub async fn clear(
    connection: &mut PgConnection,
    scope: Scope,
    name: &str,
    by: &str,
) -> Result<bool, Trouble> {
    let mut transaction = connection.begin().await?;
    let done = sqlx::query("DELETE FROM pauses WHERE scope = $1 AND name = $2")
        .bind(scope.as_str())
        .bind(name)
        .execute(&mut *transaction)
        .await?;
    let was_there = done.rows_affected() == 1;
    if was_there {
        let detail = serde_json::json!({ "scope": scope, "name": name });
        let entry = Entry {
            by,
            action: "resume",
            reason: None,
            detail: &detail,
        };
        operations_log::append(&mut transaction, &entry).await?;
    }
    notices::tell(&mut transaction, Notice::Pauses).await?;
    transaction.commit().await?;
    Ok(was_there)
}
