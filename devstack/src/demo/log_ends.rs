//! How far Kafka's log reaches: what has really been sent, whatever the producer says.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;

use super::DemoError;
use super::place::Place;
use crate::{DevstackError, PARTITIONS};

const PATIENCE: Duration = Duration::from_secs(10);

/// A client that asks for the ends of one topic's partitions.
pub struct LogEnds {
    client: Arc<BaseConsumer>,
    topic: Arc<str>,
}

impl LogEnds {
    /// For the demo's topic; connects when first used.
    ///
    /// # Errors
    /// When the address cannot be understood.
    pub fn of(place: &Place) -> Result<Self, DemoError> {
        let client = ClientConfig::new()
            .set("bootstrap.servers", place.kafka())
            .set("log_level", "0")
            .create()?;
        Ok(Self {
            client: Arc::new(client),
            topic: place.topic().into(),
        })
    }

    /// The number of records ever appended, all partitions together: the topic is new.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn total(&self) -> Result<i64, DemoError> {
        let (client, topic) = (Arc::clone(&self.client), Arc::clone(&self.topic));
        let ask = move || {
            (0..PARTITIONS)
                .map(|partition| client.fetch_watermarks(&topic, partition, PATIENCE))
                .map(|bounds| bounds.map(|(_, end)| end))
                .sum::<Result<i64, KafkaError>>()
        };
        let total = tokio::task::spawn_blocking(ask)
            .await
            .map_err(std::io::Error::other)
            .map_err(DevstackError::process("ask for the ends of the log"))?;
        Ok(total?)
    }
}
