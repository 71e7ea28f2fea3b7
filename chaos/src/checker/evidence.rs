//! Everything that a verdict rests on, read once after the round.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::tables::{self, LetterRow, ProgressRow, ResultRow};
use super::topic::{self, LogRecord};
use crate::error::ChaosError;
use crate::journal::{self, Event};
use crate::law_two;
use crate::round::{PARTITIONS, Played, log_ends};
use crate::servers::{Servers, connect};
use crate::trail::{self, Step, Write};

/// The evidence of one round.
pub struct Evidence {
    /// The topic, each partition in its order.
    pub log: Vec<LogRecord>,
    /// Records of the plan that were copied to the topic of dead letters.
    pub copies: BTreeSet<usize>,
    /// The end of each partition's log.
    pub ends: BTreeMap<i32, i64>,
    /// All results.
    pub results: Vec<ResultRow>,
    /// All dead letters.
    pub letters: Vec<LetterRow>,
    /// All positions.
    pub progress: Vec<ProgressRow>,
    /// Rows in tables that must be empty.
    pub left: Vec<(String, i64)>,
    /// Tasks that are still parked.
    pub parked: Vec<(Uuid, String)>,
    /// Who moved the positions.
    pub steps: Vec<Step>,
    /// Who wrote the rows.
    pub writes: Vec<Write>,
    /// What handlers did.
    pub journal: Vec<Event>,
    /// The group's offsets in Kafka.
    pub committed: BTreeMap<i32, i64>,
    /// What `consumer audit` says: its exit and its lines.
    pub audit: Result<serde_json::Value, String>,
}

impl Evidence {
    /// Reads it all.
    ///
    /// # Errors
    /// When a server does not answer, or the journal is damaged.
    pub async fn gather(servers: &Servers, played: &Played) -> Result<Self, ChaosError> {
        let place = &played.place;
        let (bootstrap, topic) = (servers.bootstrap().to_owned(), place.name.clone());
        let log = blocking(move || topic::read(&bootstrap, &topic, PARTITIONS)).await?;
        let (bootstrap, dead) = (servers.bootstrap().to_owned(), place.dead_letter_topic());
        let copies = blocking(move || topic::read(&bootstrap, &dead, 1)).await?;
        let committed = committed(servers, played).await?;
        let audited = place
            .run(servers, "consumer", &["audit", "--format", "json"])
            .await;
        let audit = match audited {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let mut connection = connect(servers.database_url(), &place.schema()).await?;
        let open = &mut connection;
        Ok(Self {
            log,
            copies: copies.iter().filter_map(|copy| copy.number).collect(),
            ends: log_ends(servers.bootstrap(), &place.name).await?,
            results: tables::results(open).await?,
            letters: tables::letters(open).await?,
            progress: tables::progress(open).await?,
            left: tables::left(open).await?,
            parked: tables::parked(open).await?,
            steps: trail::steps(open).await?,
            writes: trail::writes(open).await?,
            journal: journal::read(&place.journal()).map_err(ChaosError::io("read the journal"))?,
            committed,
            audit,
        })
    }
}

async fn committed(servers: &Servers, played: &Played) -> Result<BTreeMap<i32, i64>, ChaosError> {
    const LIMIT: Duration = Duration::from_secs(30);
    let deadline = Instant::now() + LIMIT;
    loop {
        let (bootstrap, place) = (servers.bootstrap().to_owned(), played.place.clone());
        let found = blocking(move || {
            let client: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", place.group())
                .set("log_level", "0")
                .create()?;
            Ok(law_two::committed(&client, &place.name, PARTITIONS))
        });
        if let Some(found) = found.await? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(ChaosError::TooSlow {
                what: "reading the group's offsets".to_owned(),
                limit: LIMIT,
            });
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChaosError> + Send + 'static,
) -> Result<T, ChaosError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)
        .map_err(ChaosError::io("read the evidence"))?
}
