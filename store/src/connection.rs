//! Connections to Postgres, each with the limits that keep a frozen or slow client from holding a lock.
//!
//! Every connection of Millrace is opened here, so every one carries the schema as its search path and
//! the timeouts below. Writers own theirs and never share it; everything else takes one for a short while.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection};

use crate::nodelay;
use crate::trouble::Trouble;

/// How long connecting may take before it counts as an outage.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// What a connection is for; shown as `application_name`, and it decides the planner's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Flushes only: point look-ups by key, so that dead row versions never cost a scan.
    Writer,
    /// Claims, days, positions: short statements.
    Operations,
    /// The same few look-ups and small writes by key, very often, for callers who wait.
    Desk,
    /// Reading for people: audits and look-ups, which may take minutes.
    Reading,
}

impl Purpose {
    const fn application_name(self) -> &'static str {
        match self {
            Self::Writer => "millrace-writer",
            Self::Operations => "millrace-operations",
            Self::Desk => "millrace-desk",
            Self::Reading => "millrace-reading",
        }
    }

    const fn statement_timeout(self) -> &'static str {
        match self {
            Self::Writer => "20s",
            Self::Operations | Self::Desk => "10s",
            Self::Reading => "10min",
        }
    }
}

/// Where the database is, and which schema in it is ours.
#[derive(Clone)]
pub struct Database {
    options: PgConnectOptions,
    schema: String,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("host", &self.options.get_host())
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// The database's address cannot be used; nothing was contacted yet.
#[derive(Debug, thiserror::Error)]
#[error("the database URL is not usable: {0}; expected postgres://user@host:port/database")]
pub struct AddressError(sqlx::Error);

impl Database {
    /// `url` in libpq's form; `schema` is a plain identifier, already checked by the settings.
    ///
    /// # Errors
    /// When the URL cannot be parsed.
    pub fn new(url: &str, schema: &str) -> Result<Self, AddressError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(AddressError)?
            .log_statements(tracing::log::LevelFilter::Off)
            .log_slow_statements(tracing::log::LevelFilter::Off, Duration::ZERO);
        Ok(Self {
            options,
            schema: schema.to_owned(),
        })
    }

    /// The Postgres schema that holds our tables.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    fn options_for(&self, purpose: Purpose) -> PgConnectOptions {
        let options = self
            .options
            .clone()
            .application_name(purpose.application_name())
            .options([
                ("search_path", self.schema.as_str()),
                ("statement_timeout", purpose.statement_timeout()),
                ("lock_timeout", "5s"),
                ("idle_in_transaction_session_timeout", "5s"),
                ("tcp_keepalives_idle", "10"),
                ("tcp_keepalives_interval", "5"),
                ("tcp_keepalives_count", "3"),
                ("tcp_user_timeout", "20000"),
                ("client_connection_check_interval", "5s"),
                ("timezone", "UTC"),
                ("client_min_messages", "warning"),
            ]);
        match purpose {
            Purpose::Writer => options.options([("enable_seqscan", "off"), ("jit", "off")]),
            // Planning for the ids at hand takes several times as long as the look-up itself, and tables that grew
            // since they were last counted would be read from end to end.
            Purpose::Desk => options.options([
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
                ("jit", "off"),
            ]),
            Purpose::Operations | Purpose::Reading => options,
        }
    }

    /// Opens one connection.
    ///
    /// # Errors
    /// [`Trouble::Outage`] when it cannot be had within five seconds.
    pub async fn connect(&self, purpose: Purpose) -> Result<PgConnection, Trouble> {
        let options = self.options_for(purpose);
        match tokio::time::timeout(CONNECT_DEADLINE, options.connect()).await {
            Ok(Ok(connection)) => {
                if self.options.get_socket().is_none() {
                    nodelay::set_on_connections_to(self.options.get_port());
                }
                Ok(connection)
            }
            Ok(Err(error)) => Err(Trouble::Outage(format!("connecting to Postgres: {error}"))),
            Err(_) => Err(Trouble::Outage(format!(
                "connecting to Postgres took over {CONNECT_DEADLINE:?}"
            ))),
        }
    }

    /// A small pool for operations; nothing that copies in may use it.
    #[must_use]
    pub fn pool(&self, most: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(CONNECT_DEADLINE)
            .connect_lazy_with(self.options_for(Purpose::Operations))
    }
}
