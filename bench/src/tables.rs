//! The real tables, fresh for each measurement: migrated like any other schema, dropped afterwards.
//!
//! Before each clock starts, a checkpoint is made and the operating system writes out what it holds,
//! so that no measurement pays for the one before it.

use anyhow::Context as _;
use millrace_store::days::Retention;
use millrace_store::{Database, Purpose, migrate};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// One schema with the tables of Millrace.
pub struct Tables {
    database: Database,
}

impl Tables {
    /// Makes the schema and its tables; `name` is a plain identifier.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn fresh(url: &str, name: &str) -> anyhow::Result<Self> {
        let database = Database::new(url, name)?;
        migrate(&database, Retention::default()).await?;
        Ok(Self { database })
    }

    /// The schema's name.
    pub fn name(&self) -> &str {
        self.database.schema()
    }

    /// A connection whose search path is this schema.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(self.database.connect(Purpose::Reading).await?)
    }

    /// A connection with the settings of a worker's flushes.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn connect_as_writer(&self) -> anyhow::Result<PgConnection> {
        Ok(self.database.connect(Purpose::Writer).await?)
    }

    /// Writes out everything that earlier work left in memory.
    ///
    /// # Errors
    /// When the checkpoint fails.
    pub async fn settle(&self) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        connection
            .execute("CHECKPOINT")
            .await
            .context("a checkpoint")?;
        connection.close().await?;
        tokio::task::spawn_blocking(nix::unistd::sync).await?;
        Ok(())
    }

    /// Drops the schema with all its tables.
    ///
    /// # Errors
    /// When somebody still works in it.
    pub async fn discard(self) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        let statement = format!("DROP SCHEMA \"{}\" CASCADE", self.name());
        connection
            .execute(sqlx::query(AssertSqlSafe(statement)))
            .await?;
        connection.close().await?;
        Ok(())
    }
}
