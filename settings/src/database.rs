//! Which Postgres, and which schema in it.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use clap::Args;
use sqlx::postgres::PgConnectOptions;

use crate::error::SettingError;
use crate::secret::redact_url;

/// Flags that say where the results are kept. `Debug` masks the password.
#[derive(Args, Clone)]
#[command(next_help_heading = "Postgres")]
pub struct DatabaseArgs {
    /// Postgres, as postgres://USER:PASSWORD@HOST:PORT/DATABASE
    ///
    /// There is no default; `make up` starts a database and writes its address to .millrace/env.
    /// Give a password through the environment: flags can be seen in the list of processes.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// Postgres schema that holds the tables
    ///
    /// A schema serves one group on one topic. Lower-case letters, digits and underscores.
    #[arg(
        long,
        env = "MILLRACE_SCHEMA",
        value_name = "NAME",
        default_value = "millrace"
    )]
    pub schema: SchemaName,
}

impl DatabaseArgs {
    /// The settings for this database and schema.
    pub fn new(database_url: &str, schema: SchemaName) -> Self {
        Self {
            database_url: Some(database_url.to_owned()),
            schema,
        }
    }

    /// The database's URL with its password, checked to be one that can be connected to.
    ///
    /// # Errors
    /// [`SettingError::Missing`], or [`SettingError::Invalid`] for a text that is no Postgres URL.
    pub fn url(&self) -> Result<&str, SettingError> {
        let url = match self.database_url.as_deref().map(str::trim) {
            Some(url) if !url.is_empty() => url,
            _ => {
                return Err(SettingError::Missing {
                    flag: "--database-url",
                    env: "DATABASE_URL",
                    hint: "`make up` starts a database and writes the URL to .millrace/env",
                });
            }
        };
        let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
        let reason = match PgConnectOptions::from_str(url) {
            Ok(_) if is_postgres => return Ok(url),
            Ok(_) => "expected a URL that begins with postgres://".to_owned(),
            Err(_) => "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special \
                       characters percent-encoded"
                .to_owned(),
        };
        Err(SettingError::Invalid {
            name: "--database-url".to_owned(),
            value: redact_url(url),
            reason,
        })
    }

    /// The database's URL as it may be printed; empty when none was given.
    pub fn redacted_url(&self) -> String {
        self.database_url
            .as_deref()
            .map(redact_url)
            .unwrap_or_default()
    }
}

impl fmt::Debug for DatabaseArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseArgs")
            .field("database_url", &self.redacted_url())
            .field("schema", &self.schema)
            .finish()
    }
}

/// The name of a Postgres schema that needs no quoting: `[a-z_][a-z0-9_]{0,62}`, and not one of
/// those that Postgres keeps for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaName(String);

impl SchemaName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SchemaName {
    type Err = SettingError;

    fn from_str(name: &str) -> Result<Self, SettingError> {
        let refuse = |reason: &str| SettingError::Invalid {
            name: "--schema".to_owned(),
            value: name.to_owned(),
            reason: reason.to_owned(),
        };
        let is_start = |c: char| c.is_ascii_lowercase() || c == '_';
        let is_part = |c: char| is_start(c) || c.is_ascii_digit();
        if !(1..=63).contains(&name.len())
            || !name.starts_with(is_start)
            || !name.chars().all(is_part)
        {
            return Err(refuse(
                "expected 1 to 63 lower-case letters, digits and underscores, no digit first",
            ));
        }
        if name.starts_with("pg_") || name == "information_schema" {
            return Err(refuse(
                "Postgres keeps this name for itself; choose another",
            ));
        }
        Ok(Self(name.to_owned()))
    }
}

impl Deref for SchemaName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
