//! Word from Postgres that something changed: a cancel request, a pause, a task to wake, tasks that ended.
//!
//! A notice only says "look again": what it is about stands in a table, so one that is lost costs a poll's
//! delay and nothing else. Notices go out with the transaction that they belong to. Their channels carry the
//! schema's name; where that would be longer than an identifier may be, its hash. The name is made by the
//! database on both sides, so that there is one way to make it.

use std::time::Duration;

use millrace_schemas::TaskId;
use sqlx::postgres::PgListener;
use sqlx::{PgConnection, Row as _};
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::connection::Database;
use crate::rows::uuid_of;
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
    /// Keys or limits of callers changed.
    Access,
    /// Tasks that somebody may wait for have ended; it names them.
    Ended,
}

/// A notice, and the tasks that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// What changed.
    pub notice: Notice,
    /// With [`Notice::Ended`]: which tasks.
    pub tasks: Vec<TaskId>,
}

impl Notice {
    /// What workers listen to.
    pub const FOR_WORKERS: [Self; 3] = [Self::Cancels, Self::Pauses, Self::Parked];
    /// What front doors listen to.
    pub const FOR_DOORS: [Self; 2] = [Self::Access, Self::Ended];

    /// What its channel begins with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Cancels => "millrace_cancels_",
            Self::Pauses => "millrace_pauses_",
            Self::Parked => "millrace_parked_",
            Self::Access => "millrace_access_",
            Self::Ended => "millrace_ended_",
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

/// Sends a notice when the transaction of `connection` commits, or at once when it is in none.
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

/// Characters of an id in a notice: hexadecimal, without hyphens.
const ID_CHARS: usize = 32;
/// How many ids fit into one notice: Postgres takes less than 8,000 bytes.
const IDS_PER_NOTICE: usize = 7_900 / ID_CHARS;

/// Names the tasks that end with the transaction of `connection`, those that somebody may wait for. Transactions with
/// a notice commit one after the other in the whole cluster, so a flush sends them only for such tasks, and
/// all in one statement.
///
/// # Errors
/// When the database cannot be reached; the transaction is lost then.
pub(crate) async fn tell_ended(
    connection: &mut PgConnection,
    tasks: &[TaskId],
) -> Result<(), Trouble> {
    let texts: Vec<String> = tasks
        .chunks(IDS_PER_NOTICE)
        .map(|some| {
            let mut text = String::with_capacity(some.len() * ID_CHARS);
            for id in some {
                let mut buffer = [0; ID_CHARS];
                text.push_str(uuid_of(*id).simple().encode_lower(&mut buffer));
            }
            text
        })
        .collect();
    sqlx::query(concat!(
        "SELECT pg_notify(",
        channel!(),
        ", text) FROM unnest($2::text[]) AS text"
    ))
    .bind(Notice::Ended.prefix())
    .bind(&texts)
    .execute(connection)
    .await?;
    Ok(())
}

/// The tasks that a notice names; what is no id is left out.
fn named(text: &str) -> Vec<TaskId> {
    text.as_bytes()
        .chunks_exact(ID_CHARS)
        .filter_map(|id| Uuid::try_parse_ascii(id).ok())
        .filter_map(|id| TaskId::from_bytes(id.into_bytes()).ok())
        .collect()
}

/// A connection of its own that listens to notices of the schema.
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
    pub async fn connect(database: &Database, notices: &[Notice]) -> Result<Self, Trouble> {
        let pool = database.pool(1);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        listener.eager_reconnect(false);
        let mut channels = Vec::with_capacity(notices.len());
        for &notice in notices {
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
    pub async fn next(&mut self) -> Result<Word, Trouble> {
        loop {
            match timeout_at(self.heard + QUIET, self.listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    self.heard = Instant::now();
                    let found = self
                        .channels
                        .iter()
                        .find(|(channel, _)| channel == notification.channel());
                    if let Some((_, notice)) = found {
                        return Ok(Word {
                            notice: *notice,
                            tasks: match notice {
                                Notice::Ended => named(notification.payload()),
                                _ => Vec::new(),
                            },
                        });
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
