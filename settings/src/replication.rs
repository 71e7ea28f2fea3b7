//! Whether an acknowledged event survives the loss of a broker.
//!
//! Acknowledged by all in-sync replicas means little when one replica may be all of them, which is
//! Kafka's default. So the topic is looked at before the start, and a start on a weaker one has to
//! be asked for.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::error::SettingError;
use crate::kafka::KafkaArgs;
use crate::role::Role;

const PATIENCE: Duration = Duration::from_secs(15);
const LEAST: usize = 2;
const MIN_INSYNC: &str = "min.insync.replicas";
const UNCLEAN: &str = "unclean.leader.election.enable";

/// Why the topic was not found fit to hold acknowledged events.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The topic is not there. It is never created by this program.
    #[error(
        "topic {topic} does not exist; create it, for instance with: kafka-topics.sh \
         --bootstrap-server {kafka} --create --topic {topic} --partitions 12 \
         --replication-factor 3 --config {MIN_INSYNC}=2"
    )]
    TopicMissing {
        /// The topic.
        topic: String,
        /// The bootstrap servers.
        kafka: String,
    },
    /// The loss of one broker could take acknowledged events away.
    #[error("topic {topic} can lose acknowledged events: {}; correct it, or accept that with \
             --allow-unreplicated", list(.shortfalls))]
    Weak {
        /// The topic.
        topic: String,
        /// All that falls short.
        shortfalls: Vec<Shortfall>,
    },
    /// Kafka did not answer, or refused to.
    #[error("cannot {doing} of topic {topic}: {source}")]
    Unanswered {
        /// What was asked for.
        doing: &'static str,
        /// The topic.
        topic: String,
        /// What librdkafka said.
        source: KafkaError,
    },
}

/// One property of the topic that falls short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The property.
    pub property: &'static str,
    /// What it is.
    pub found: String,
    /// What would be right.
    pub expected: &'static str,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, expected {}",
            self.property, self.found, self.expected
        )
    }
}

fn list(shortfalls: &[Shortfall]) -> String {
    shortfalls
        .iter()
        .map(Shortfall::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Checks that the topic keeps acknowledged events when a broker is lost: a replication factor of
/// 2 or more, `min.insync.replicas` of 2 or more, no unclean leader election. With
/// `allow_unreplicated` nothing is asked. Takes at most about half a minute.
///
/// # Errors
/// The topic is missing or weak, or Kafka did not answer.
pub async fn check_replication(kafka: &KafkaArgs) -> Result<(), ReplicationError> {
    check_within(kafka, PATIENCE).await
}

/// The same, with this much patience for each of two questions to Kafka.
async fn check_within(kafka: &KafkaArgs, patience: Duration) -> Result<(), ReplicationError> {
    if kafka.allow_unreplicated {
        return Ok(());
    }
    let unanswered = |doing| {
        move |source| ReplicationError::Unanswered {
            doing,
            topic: kafka.topic.clone(),
            source,
        }
    };
    let config = kafka.client_config(Role::Admin)?;
    let replicas = fewest_replicas(config.clone(), kafka.topic.clone(), patience)
        .await
        .map_err(unanswered("read the replicas"))?
        .ok_or_else(|| ReplicationError::TopicMissing {
            topic: kafka.topic.clone(),
            kafka: kafka.kafka.clone().unwrap_or_default(),
        })?;
    let described = describe(&config, &kafka.topic, patience)
        .await
        .map_err(unanswered("read the configuration"))?;
    let shortfalls = shortfalls(replicas, &described);
    if shortfalls.is_empty() {
        Ok(())
    } else {
        Err(ReplicationError::Weak {
            topic: kafka.topic.clone(),
            shortfalls,
        })
    }
}

/// The number of replicas of the partition that has the fewest; none when there is no such topic.
async fn fewest_replicas(
    config: ClientConfig,
    topic: String,
    patience: Duration,
) -> Result<Option<usize>, KafkaError> {
    let ask = move || {
        let client: AdminClient<DefaultClientContext> = config.create()?;
        let metadata = client.inner().fetch_metadata(Some(&topic), patience)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(None);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(found.partitions().iter().map(|p| p.replicas().len()).min()),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Ok(None)
            }
            Some(code) => Err(KafkaError::MetadataFetch(code)),
        }
    };
    // The metadata request blocks its thread.
    match tokio::task::spawn_blocking(ask).await {
        Ok(answer) => answer,
        Err(_) => Err(KafkaError::Canceled),
    }
}

async fn describe(
    config: &ClientConfig,
    topic: &str,
    patience: Duration,
) -> Result<ConfigResource, KafkaError> {
    let client: AdminClient<DefaultClientContext> = config.create()?;
    let options = AdminOptions::new().request_timeout(Some(patience));
    let mut answers = client
        .describe_configs([&ResourceSpecifier::Topic(topic)], &options)
        .await?;
    match answers.pop() {
        Some(Ok(described)) => Ok(described),
        Some(Err(code)) => Err(KafkaError::AdminOp(code)),
        None => Err(KafkaError::AdminOpCreation("an empty answer".to_owned())),
    }
}

fn shortfalls(replicas: usize, described: &ConfigResource) -> Vec<Shortfall> {
    let value = |name| described.get(name).and_then(|entry| entry.value.as_deref());
    let shown = |name| value(name).unwrap_or("not told by the broker").to_owned();
    let insync = value(MIN_INSYNC).and_then(|value| value.parse::<usize>().ok());
    let mut shortfalls = Vec::new();
    if replicas < LEAST {
        shortfalls.push(Shortfall {
            property: "replication factor",
            found: replicas.to_string(),
            expected: "2 or more",
        });
    }
    if insync.is_none_or(|insync| insync < LEAST) {
        shortfalls.push(Shortfall {
            property: MIN_INSYNC,
            found: shown(MIN_INSYNC),
            expected: "2 or more",
        });
    }
    if value(UNCLEAN) != Some("false") {
        shortfalls.push(Shortfall {
            property: UNCLEAN,
            found: shown(UNCLEAN),
            expected: "false",
        });
    }
    shortfalls
}

#[cfg(test)]
#[path = "replication_tests.rs"]
mod tests;
