//! How all tasks stand together, for the page: positions, what waits, and the latest failures of the caller's tenant.
//!
//! Made anew every other second at most for each tenant that looks, however many do.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use millrace_store::letters::{self, Filter};
use millrace_store::overview;
use millrace_store::position::Consumer;
use millrace_store::{Database, Purpose, Trouble};
use serde::Serialize;
use sqlx::PgConnection;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::refusal::{Kind, Refusal};
use super::sender::Sender;

/// How long what was found holds.
const HOLDS: Duration = Duration::from_millis(1_500);
/// How long looking may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the brokers may take to tell the ends of the log.
const BROKER_PATIENCE: Duration = Duration::from_secs(2);
/// Failures that are shown.
const FAILURES: i64 = 12;
/// Longest error that is shown, in characters.
const ERROR_CHARS: usize = 300;

/// How all tasks stand together.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Overview {
    /// When this was found, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Partitions that have been worked on.
    pub partitions: usize,
    /// Those that a worker holds.
    pub owned: usize,
    /// Workers that hold any.
    pub owners: usize,
    /// Records in the log that are not settled; null while Kafka does not answer.
    pub lag: Option<i64>,
    /// Results in the open books.
    pub results: i64,
    /// Duplicates in the open books.
    pub duplicates: i64,
    /// Dead letters in the open books, counted as positions pass them.
    pub dead_letters: i64,
    /// Dead letters on which nobody has decided, counted as they are written.
    pub dead_letters_open: i64,
    /// Tasks that wait in the database, or run for long.
    pub parked: i64,
    /// Callers that wait or watch at this front door.
    pub waiting: usize,
    /// The latest failures of the caller's tenant.
    pub failures: Vec<Failure>,
}

/// A task that was set aside.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// When, RFC 3339.
    pub at: String,
    /// Its id, where it is known.
    pub task_id: Option<String>,
    /// Its type, where it is known.
    pub task_type: Option<String>,
    /// Whose it is, where that is known.
    pub tenant: Option<String>,
    /// Why, in one word.
    pub reason: String,
    /// What exactly was wrong.
    pub error: String,
}

/// Looks, and remembers for a moment.
pub(crate) struct Overviews {
    database: Database,
    consumer: Consumer,
    sender: Sender,
    /// What each tenant saw last, for as long as it holds.
    last: Mutex<HashMap<Box<str>, (Instant, Overview)>>,
}

impl Overviews {
    pub(crate) fn new(database: Database, consumer: Consumer, sender: Sender) -> Self {
        Self {
            database,
            consumer,
            sender,
            last: Mutex::default(),
        }
    }

    /// How all stands, or stood a moment ago, for a tenant. `waiting` is how many wait at this front door.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn now(&self, tenant: &str, waiting: usize) -> Result<Overview, Refusal> {
        let mut last = self.last.lock().await;
        last.retain(|_, (since, _)| since.elapsed() < HOLDS);
        if let Some((_, overview)) = last.get(tenant) {
            return Ok(Overview {
                waiting,
                ..overview.clone()
            });
        }
        let looked = tokio::time::timeout(PATIENCE, self.look(tenant, waiting)).await;
        let Ok(Ok(overview)) = looked else {
            return Err(
                Refusal::new(Kind::Unavailable, "the database does not answer at present")
                    .after(Duration::from_secs(2)),
            );
        };
        last.insert(tenant.into(), (Instant::now(), overview.clone()));
        Ok(overview)
    }

    async fn look(&self, tenant: &str, waiting: usize) -> Result<Overview, Trouble> {
        let mut connection = self.database.connect(Purpose::Operations).await?;
        let found = overview::overview(&mut connection, &self.consumer).await?;
        let failures = self.failures(&mut connection, tenant).await?;
        let positions: Vec<(i32, i64)> = found
            .partitions
            .iter()
            .map(|one| (one.partition, one.position))
            .collect();
        let sender = self.sender.clone();
        let lag = tokio::task::spawn_blocking(move || sender.lag(&positions, BROKER_PATIENCE));
        let owners: BTreeSet<&String> = found
            .partitions
            .iter()
            .filter_map(|one| one.owner.as_ref())
            .collect();
        let sum = |of: fn(&overview::PartitionOverview) -> i64| -> i64 {
            found.partitions.iter().map(of).sum()
        };
        Ok(Overview {
            at_ms: Utc::now().timestamp_millis(),
            partitions: found.partitions.len(),
            owned: found
                .partitions
                .iter()
                .filter(|one| one.owner.is_some())
                .count(),
            owners: owners.len(),
            lag: lag.await.unwrap_or_default(),
            results: sum(|one| one.results),
            duplicates: sum(|one| one.duplicates),
            dead_letters: sum(|one| one.dead_letters),
            dead_letters_open: sum(|one| one.dead_letters_open),
            parked: sum(|one| one.parked),
            waiting,
            failures,
        })
    }

    async fn failures(
        &self,
        connection: &mut PgConnection,
        tenant: &str,
    ) -> Result<Vec<Failure>, Trouble> {
        let of_tenant = Filter {
            tenants: vec![tenant.to_owned()],
            ..Filter::default()
        };
        let selection = of_tenant.now(connection).await?;
        let found = letters::list(connection, &self.consumer, &selection, FAILURES).await?;
        Ok(found
            .into_iter()
            .map(|letter| Failure {
                at: letter
                    .created_at
                    .to_rfc3339_opts(SecondsFormat::Millis, true),
                task_id: letter.task_id.map(|id| id.to_string()),
                task_type: letter.task_type,
                tenant: letter.tenant,
                reason: letter.reason,
                error: letter.error.chars().take(ERROR_CHARS).collect(),
            })
            .collect())
    }
}
