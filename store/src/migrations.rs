//! Brings the schema up to this release, one migrator at a time.
//!
//! The lock is a transaction-level advisory lock, so it vanishes with the transaction, also behind a
//! connection pooler. An older binary accepts a schema that a newer one has migrated further.

use sqlx::Connection;

use crate::connection::{Database, Purpose};
use crate::days::{self, Retention};
use crate::{schemas_known, trouble::Trouble};

/// The schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database cannot be reached or will not answer.
    #[error(transparent)]
    Database(#[from] Trouble),
    /// A migration failed or differs from the one that was applied before; nothing was changed.
    #[error("migrating schema {schema}: {source}")]
    Migration {
        /// The Postgres schema.
        schema: String,
        /// What sqlx says.
        source: sqlx::migrate::MigrateError,
    },
}

/// Creates the schema if it is missing, applies what is new, publishes the event schemas this release
/// knows, and makes the days of the window. Running it again changes nothing.
///
/// # Errors
/// See [`MigrationError`].
pub async fn migrate(database: &Database, retention: Retention) -> Result<(), MigrationError> {
    let mut connection = database.connect(Purpose::Operations).await?;
    let schema = database.schema();
    let mut transaction = connection.begin().await.map_err(Trouble::from)?;
    // Another migrator may be at work, and a migration may take its time.
    for setting in [
        "SET LOCAL lock_timeout = '60s'",
        "SET LOCAL statement_timeout = '10min'",
    ] {
        sqlx::query(setting)
            .execute(&mut *transaction)
            .await
            .map_err(Trouble::from)?;
    }
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('millrace.migrate.' || $1, 0))")
        .bind(schema)
        .execute(&mut *transaction)
        .await
        .map_err(Trouble::from)?;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "CREATE SCHEMA IF NOT EXISTS \"{schema}\""
    )))
    .execute(&mut *transaction)
    .await
    .map_err(Trouble::from)?;
    let mut migrator = sqlx::migrate!("../migrations");
    migrator
        .set_ignore_missing(true)
        .set_locking(false)
        .run(&mut *transaction)
        .await
        .map_err(|source| MigrationError::Migration {
            schema: schema.to_owned(),
            source,
        })?;
    schemas_known::publish(&mut transaction).await?;
    transaction.commit().await.map_err(Trouble::from)?;
    days::ensure(&mut connection, retention).await?;
    connection.close().await.map_err(Trouble::from)?;
    Ok(())
}
