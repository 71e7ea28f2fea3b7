//! Decoders that know what a worker knows: this release's schemas and the published ones.

use millrace_schemas::Decoders;
use millrace_settings::FramingArgs;
use millrace_store::{Trouble, schemas_known};
use sqlx::PgConnection;

/// Reads the published schemas.
///
/// # Errors
/// When the database cannot be read.
pub async fn known(
    framing: FramingArgs,
    connection: &mut PgConnection,
) -> Result<Decoders, Trouble> {
    let mut decoders = Decoders::new();
    if let Some(id) = framing.schema_id {
        decoders = decoders.with_confluent_id(id);
    }
    for schema in schemas_known::all(connection).await? {
        if let Err(error) = decoders.learn(&schema) {
            tracing::debug!(%error, "a published schema cannot be read by this release");
        }
    }
    Ok(decoders)
}
