//! The database and whose letters are meant.

use millrace_settings::exit;
use millrace_store::Database;
use millrace_store::position::Consumer;

use super::args::TablesArgs;
use crate::exit_code::{Refusal, WithCode};

/// Where the letters are.
pub struct Tables {
    /// The database.
    pub database: Database,
    /// Group and topic.
    pub consumer: Consumer,
}

impl Tables {
    /// Reads the settings; nothing is contacted yet.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(args: &TablesArgs) -> Result<Self, Refusal> {
        let database = Database::new(
            args.database.url().with_code(exit::USAGE)?,
            &args.database.schema,
        )
        .with_code(exit::USAGE)?;
        Ok(Self {
            database,
            consumer: Consumer {
                group: args.group.group.clone(),
                topic: args.topic.clone(),
            },
        })
    }
}
