//! What every command needs: the database, and a client that asks the log but never joins the group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use millrace_settings::{Role, exit};
use millrace_store::Database;
use millrace_store::position::Consumer;
use millrace_telemetry::BrokerMetrics;
use rdkafka::consumer::StreamConsumer;
use tokio::sync::mpsc;

use crate::engine::Partition;
use crate::exit_code::WithCode;
use crate::options::PlaceArgs;
use crate::source::claims::{Claims, Start};
use crate::source::context::GroupContext;
use crate::source::log::{self, Bounds, LogIdentity};

const DEADLINE: Duration = Duration::from_secs(5);

/// An opened place.
pub struct Place {
    /// Asks and diagnoses; its claim is never used here.
    pub claims: Claims,
}

impl Place {
    /// Opens it; nothing is contacted yet.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn open(args: &PlaceArgs) -> anyhow::Result<Self> {
        let config = args
            .kafka
            .client_config(Role::Consumer {
                group: &args.group.group,
            })
            .with_code(exit::USAGE)?;
        let database = Database::new(
            args.database.url().with_code(exit::USAGE)?,
            &args.database.schema,
        )
        .with_code(exit::USAGE)?;
        let (events, _) = mpsc::unbounded_channel();
        let context = GroupContext::new(args.kafka.topic.clone(), events, BrokerMetrics::new());
        let client: StreamConsumer<GroupContext> = config
            .create_with_context(context)
            .context("making the Kafka client")?;
        Ok(Self {
            claims: Claims {
                client: Arc::new(client),
                database,
                consumer: Consumer {
                    group: args.group.group.clone(),
                    topic: args.kafka.topic.clone(),
                },
                owner: "operator".to_owned(),
                start: Start::Earliest,
            },
        })
    }

    /// Group and topic.
    #[must_use]
    pub const fn consumer(&self) -> &Consumer {
        &self.claims.consumer
    }

    /// Which log the topic is now.
    ///
    /// # Errors
    /// When the brokers do not answer, or the topic is not there.
    pub async fn identity(&self) -> anyhow::Result<LogIdentity> {
        let (client, topic) = (
            Arc::clone(&self.claims.client),
            self.consumer().topic.clone(),
        );
        let identity = tokio::task::spawn_blocking(move || {
            log::identify(
                rdkafka::consumer::Consumer::client(client.as_ref()),
                &topic,
                DEADLINE,
            )
        });
        Ok(identity.await??)
    }

    /// How far the partitions' logs reach.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub async fn bounds(&self, partitions: &[i32]) -> anyhow::Result<BTreeMap<i32, Bounds>> {
        let (client, topic) = (
            Arc::clone(&self.claims.client),
            self.consumer().topic.clone(),
        );
        let partitions: Vec<Partition> = partitions.iter().copied().map(Partition).collect();
        let bounds = tokio::task::spawn_blocking(move || {
            log::all_bounds(client.as_ref(), &topic, &partitions, DEADLINE)
        })
        .await??;
        Ok(bounds
            .into_iter()
            .map(|(partition, bounds)| (partition.0, bounds))
            .collect())
    }

    /// The first offset of each partition from a time on, in milliseconds since the Unix epoch; a partition
    /// whose records are all older is left out.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub async fn offsets_at(
        &self,
        partitions: &[i32],
        time_ms: i64,
    ) -> anyhow::Result<BTreeMap<i32, i64>> {
        let (client, topic) = (
            Arc::clone(&self.claims.client),
            self.consumer().topic.clone(),
        );
        let partitions: Vec<Partition> = partitions.iter().copied().map(Partition).collect();
        let found = tokio::task::spawn_blocking(move || {
            log::offsets_at(client.as_ref(), &topic, &partitions, time_ms, DEADLINE)
        })
        .await??;
        Ok(found
            .into_iter()
            .filter_map(|(partition, offset)| Some((partition.0, offset?.0)))
            .collect())
    }

    /// The bounds, or none with a warning: for commands that can do without.
    pub async fn bounds_if_there(&self, partitions: &[i32]) -> BTreeMap<i32, Bounds> {
        match self.bounds(partitions).await {
            Ok(bounds) => bounds,
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "the brokers do not answer: lag is not known");
                BTreeMap::new()
            }
        }
    }

    /// What the group has committed to Kafka.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub async fn committed(&self, partitions: &[i32]) -> anyhow::Result<BTreeMap<i32, i64>> {
        let (client, topic) = (
            Arc::clone(&self.claims.client),
            self.consumer().topic.clone(),
        );
        let partitions: Vec<Partition> = partitions.iter().copied().map(Partition).collect();
        let found = tokio::task::spawn_blocking(move || {
            log::committed(client.as_ref(), &topic, &partitions, DEADLINE)
        })
        .await??;
        Ok(found
            .into_iter()
            .filter_map(|(partition, offset)| Some((partition.0, offset?.0)))
            .collect())
    }
}
