//! What must be known of the topic before anything is sent to it.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;

/// A topic that can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// How many partitions it has.
    pub partitions: usize,
    /// The largest batch that the broker takes for it, in bytes; `None` when the broker does not
    /// tell.
    pub max_message_bytes: Option<usize>,
}

/// Why a topic cannot be sent to.
#[derive(Debug, Error)]
pub enum TopicError {
    /// The client refused its configuration.
    #[error("the Kafka client refused its settings: {0}")]
    Settings(KafkaError),
    /// No broker answered.
    #[error("no broker at {brokers} answered within {seconds} s: {error}")]
    Unreachable {
        /// The addresses that were tried.
        brokers: String,
        /// How long, in seconds.
        seconds: u64,
        /// The client's last word.
        error: KafkaError,
    },
    /// The cluster has no such topic.
    #[error(
        "topic {topic} does not exist at {brokers}; create it first, for instance with: \
         kafka-topics.sh --bootstrap-server {brokers} --create --topic {topic} --partitions 12 \
         --replication-factor 3 --config min.insync.replicas=2"
    )]
    Missing {
        /// The topic asked for.
        topic: String,
        /// The addresses that were tried.
        brokers: String,
    },
    /// The cluster does not let us at the topic.
    #[error("topic {topic} cannot be used: {code}")]
    Refused {
        /// The topic asked for.
        topic: String,
        /// The broker's answer.
        code: RDKafkaErrorCode,
    },
}

impl Topic {
    /// Asks the cluster for the topic `name`, waiting for its partitions at most for `patience` and
    /// for its limit at most for `limit_patience`: there are brokers that leave that question
    /// unanswered. Never creates the topic.
    pub async fn find(
        config: &ClientConfig,
        name: &str,
        patience: Duration,
        limit_patience: Duration,
    ) -> Result<Topic, TopicError> {
        let mut config = config.clone();
        config.set("allow.auto.create.topics", "false");
        let admin: AdminClient<DefaultClientContext> =
            config.create().map_err(TopicError::Settings)?;
        let brokers = config
            .get("bootstrap.servers")
            .unwrap_or_default()
            .to_owned();
        let topic = name.to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            let partitions = partitions(&admin, topic, brokers, patience)?;
            Ok((admin, partitions))
        });
        let (admin, partitions) = asked
            .await
            .map_err(|_| TopicError::Settings(KafkaError::Canceled))??;
        Ok(Topic {
            partitions,
            max_message_bytes: max_message_bytes(&admin, name, limit_patience).await,
        })
    }
}

fn partitions(
    admin: &AdminClient<DefaultClientContext>,
    topic: String,
    brokers: String,
    patience: Duration,
) -> Result<usize, TopicError> {
    let metadata = match admin.inner().fetch_metadata(Some(&topic), patience) {
        Ok(metadata) => metadata,
        Err(error) => {
            return Err(TopicError::Unreachable {
                brokers,
                seconds: patience.as_secs(),
                error,
            });
        }
    };
    let found = metadata
        .topics()
        .iter()
        .find(|candidate| candidate.name() == topic);
    match found
        .and_then(|found| found.error())
        .map(RDKafkaErrorCode::from)
    {
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition,
        ) => Err(TopicError::Missing { topic, brokers }),
        Some(code) => Err(TopicError::Refused { topic, code }),
        None => match found.map_or(0, |found| found.partitions().len()) {
            0 => Err(TopicError::Missing { topic, brokers }),
            partitions => Ok(partitions),
        },
    }
}

/// The topic's limit, or nothing when the broker will not say: then its refusals will.
async fn max_message_bytes(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    patience: Duration,
) -> Option<usize> {
    let options = AdminOptions::new().request_timeout(Some(patience));
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(topic)], &options)
        .await
        .ok()?;
    let config = described.into_iter().next()?.ok()?;
    config
        .get("max.message.bytes")?
        .value
        .as_deref()?
        .parse()
        .ok()
}
