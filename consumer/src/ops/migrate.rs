//! `consumer migrate`: the tables as this release needs them.

use millrace_settings::exit;
use millrace_store::{Database, migrate};

use crate::exit_code::WithCode;
use crate::options::MigrateArgs;

/// Creates or updates the tables.
///
/// # Errors
/// When a setting is wrong or the database refuses.
pub async fn run(args: &MigrateArgs) -> anyhow::Result<u8> {
    let database = Database::new(
        args.database.url().with_code(exit::USAGE)?,
        &args.database.schema,
    )
    .with_code(exit::USAGE)?;
    migrate(&database, args.retention.into()).await?;
    eprintln!("schema {} is up to date", database.schema());
    Ok(exit::DONE)
}
