//! The table of event schemas: how an older reader learns the schema of a newer writer.
//!
//! `consumer migrate` publishes what its release knows; a worker that meets a fingerprint it does not
//! know reads this table before it stops the partition.

use millrace_schemas::released;
use sqlx::PgConnection;

use crate::trouble::Trouble;

/// Adds the schemas of this release; what is there stays.
pub(crate) async fn publish(connection: &mut PgConnection) -> Result<(), Trouble> {
    for schema in released() {
        sqlx::query("INSERT INTO schemas_known (fingerprint, schema_json) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(schema.fingerprint.cast_signed())
            .bind(schema.json)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The schema text of every published fingerprint.
///
/// # Errors
/// When the database cannot be read.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<String>, Trouble> {
    Ok(
        sqlx::query_scalar("SELECT schema_json FROM schemas_known ORDER BY published_at")
            .fetch_all(connection)
            .await?,
    )
}
