//! Word from Postgres that something changed: a cancel request, a pause, a task to wake.
//!
//! A notice only says "look again": what it is about stands in a table, so one that is lost costs a poll's
//! delay and nothing else. Notices go out with the transaction that they belong to. Their channels carry the
//! schema's name; where that would be longer than an identifier may be, its hash. The name is made by the
//! database on both sides, so that there is one way to make it.

use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{PgConnection, Row as _};
use tokio::time::{Instant, timeout, timeout_at};

use crate::connection::Database;
use crate::trouble::Trouble;

/// How long a silent connection is trusted before it is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(10);

/// How long that sign may take.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notice {
    /// Somebody asked for a task to be cancelled.
    Cancels,
    /// A pause was set or lifted, or a stopped partition was allowed to go on.
    Pauses,
    /// Somebody other than the owner put tasks into `parked_tasks`, or changed when they are due.
    Parked,
}

impl Notice {
    /// Every notice there is.
    pub const ALL: [Self; 3] = [Self::Cancels, Self::Pauses, Self::Parked];

    /// What its channel begins with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Cancels => "millrace_cancels_",
            Self::Pauses => "millrace_pauses_",
            Self::Parked => "millrace_parked_",
        }
    }
}

/// The channel's name, from its prefix as `$1`: at most 63 bytes.
macro_rules! channel {
    () => {
        "CASE WHEN octet_length($1::text || current_schema()) < 64 THEN $1::text || current_schema() \
         ELSE $1::text || to_hex(hashtextextended(current_schema()::text, 0)) END"
    };
}

/// Sends a notice when the transaction of `connection` commits, or at once when it is in none. Not for
/// flushes: transactions with a notice commit one after the other in the whole cluster.
///
/// # Errors
/// When the database cannot be reached; the transaction is lost then.
pub async fn tell(connection: &mut PgConnection, notice: Notice) -> Result<(), Trouble> {
    sqlx::query(concat!("SELECT pg_notify(", channel!(), ", '')"))
        .bind(notice.prefix())
        .execute(connection)
        .await?;
    Ok(())
}

/// A connection of its own that listens to all notices of the schema.
#[derive(Debug)]
pub struct Notices {
    listener: PgListener,
    channels: Vec<(String, Notice)>,
    /// When the server last said anything.
    heard: Instant,
}

impl Notices {
    /// Connects and listens. What was told before is not heard: look at the tables after this.
    ///
    /// # Errors
    /// [`Trouble::Outage`] when no connection can be had within five seconds.
    pub async fn connect(database: &Database) -> Result<Self, Trouble> {
        let pool = database.pool(1);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        listener.eager_reconnect(false);
        let mut channels = Vec::with_capacity(Notice::ALL.len());
        for notice in Notice::ALL {
            let row = sqlx::query(concat!("SELECT ", channel!(), " AS channel"))
                .bind(notice.prefix())
                .fetch_one(&mut listener)
                .await?;
            channels.push((row.try_get::<String, _>("channel")?, notice));
        }
        listener
            .listen_all(channels.iter().map(|(channel, _)| channel.as_str()))
            .await?;
        Ok(Self {
            listener,
            channels,
            heard: Instant::now(),
        })
    }

    /// Waits for the next notice, however long that takes; a silent connection is asked for a sign of life
    /// every ten seconds. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// [`Trouble`] when the connection broke. Notices may have been missed then: connect again, and look at
    /// the tables.
    pub async fn next(&mut self) -> Result<Notice, Trouble> {
        loop {
            match timeout_at(self.heard + QUIET, self.listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    self.heard = Instant::now();
                    let found = self
                        .channels
                        .iter()
                        .find(|(channel, _)| channel == notification.channel());
                    if let Some((_, notice)) = found {
                        return Ok(*notice);
                    }
                }
                Ok(Ok(None)) => return Err(broken("it was closed")),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    let asked = sqlx::query("SELECT 1").execute(&mut self.listener);
                    timeout(SIGN_OF_LIFE, asked)
                        .await
                        .map_err(|_| broken("it gave no sign of life"))??;
                    self.heard = Instant::now();
                }
            }
        }
    }
}

fn broken(how: &str) -> Trouble {
    Trouble::Outage(format!("the connection for notices broke: {how}"))
}
