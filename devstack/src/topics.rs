//! Topics of a real broker: made, grown, trimmed and deleted for a demo or a test.
//!
//! Every call returns once the broker has answered, and `create` once the topic can be used.
//! The embedded broker does not know these requests and makes its topics itself.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::{Instant, sleep};

use crate::DevstackError;

const LIMIT: Duration = Duration::from_secs(30);

/// Administration of the topics of one cluster.
pub struct Topics {
    client: Arc<AdminClient<DefaultClientContext>>,
}

impl Topics {
    /// For the cluster behind `bootstrap`; connects when first used.
    ///
    /// # Errors
    /// When the address cannot be understood.
    pub fn of(bootstrap: &str) -> Result<Self, DevstackError> {
        let client: AdminClient<_> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("log_level", "0")
            .create()?;
        Ok(Self {
            client: Arc::new(client),
        })
    }

    /// Creates a topic with one replica and the given settings (`retention.ms` and the like).
    ///
    /// # Errors
    /// `TopicAlreadyExists` among others, as [`DevstackError::Topic`].
    pub async fn create(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), DevstackError> {
        self.create_replicated(name, partitions, 1, settings).await
    }

    /// As [`create`](Self::create), with `replicas` copies; -1 leaves it to the broker.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn create_replicated(
        &self,
        name: &str,
        partitions: i32,
        replicas: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), DevstackError> {
        let topic = settings.iter().fold(
            NewTopic::new(name, partitions, TopicReplication::Fixed(replicas)),
            |topic, (key, value)| topic.set(key, value),
        );
        let answers = self.client.create_topics([&topic], &options()).await?;
        check("create", answers)?;
        self.wait_for(name, |found| found == Some(partitions)).await
    }

    /// Creates a topic unless it exists; true when it was created.
    ///
    /// # Errors
    /// As [`create`](Self::create), except that it may exist.
    pub async fn ensure(
        &self,
        name: &str,
        partitions: i32,
        replicas: i32,
    ) -> Result<bool, DevstackError> {
        match self
            .create_replicated(name, partitions, replicas, &[])
            .await
        {
            Ok(()) => Ok(true),
            Err(DevstackError::Topic {
                code: RDKafkaErrorCode::TopicAlreadyExists,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition` when there is none.
    pub async fn delete(&self, name: &str) -> Result<(), DevstackError> {
        let answers = self.client.delete_topics(&[name], &options()).await?;
        check("delete", answers)?;
        self.wait_for(name, |found| found.is_none()).await
    }

    /// Drops the records of one partition below `before`, as retention would.
    ///
    /// # Errors
    /// `OffsetOutOfRange` when the log does not reach that far.
    pub async fn delete_records(
        &self,
        name: &str,
        partition: i32,
        before: i64,
    ) -> Result<(), DevstackError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, partition, Offset::Offset(before))?;
        let answer = self.client.delete_records(&list, &options()).await?;
        answer
            .elements()
            .iter()
            .try_for_each(|element| Ok(element.error()?))
    }

    /// Grows a topic to `total` partitions.
    ///
    /// # Errors
    /// `InvalidPartitions` when it has that many already.
    pub async fn increase_partitions(&self, name: &str, total: i32) -> Result<(), DevstackError> {
        let count = usize::try_from(total).unwrap_or_default();
        let answers = self
            .client
            .create_partitions([&NewPartitions::new(name, count)], &options())
            .await?;
        check("grow", answers)?;
        self.wait_for(name, |found| found == Some(total)).await
    }

    /// The number of partitions; `None` when there is no such topic.
    ///
    /// # Errors
    /// When the cluster cannot be reached within five seconds.
    pub async fn partitions(&self, name: &str) -> Result<Option<i32>, DevstackError> {
        let client = Arc::clone(&self.client);
        let list = tokio::task::spawn_blocking(move || {
            client.inner().fetch_metadata(None, Duration::from_secs(5))
        })
        .await
        .map_err(std::io::Error::other)
        .map_err(DevstackError::process("ask for the cluster's metadata"))??;
        let topic = list.topics().iter().find(|topic| topic.name() == name);
        // A partition counts once it has a leader: before that nobody can write to it.
        Ok(topic.filter(|topic| topic.error().is_none()).map(|topic| {
            let led = topic
                .partitions()
                .iter()
                .filter(|partition| partition.leader() >= 0);
            i32::try_from(led.count()).unwrap_or(i32::MAX)
        }))
    }

    async fn wait_for(
        &self,
        name: &str,
        done: impl Fn(Option<i32>) -> bool,
    ) -> Result<(), DevstackError> {
        let deadline = Instant::now() + LIMIT;
        while !done(self.partitions(name).await?) {
            if Instant::now() >= deadline {
                return Err(DevstackError::TooSlow {
                    what: format!("the change of topic {name}"),
                    limit: LIMIT,
                    log: None,
                });
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(LIMIT))
        .operation_timeout(Some(LIMIT))
}

fn check(
    action: &'static str,
    answers: Vec<Result<String, (String, RDKafkaErrorCode)>>,
) -> Result<(), DevstackError> {
    answers.into_iter().try_for_each(|answer| match answer {
        Ok(_) => Ok(()),
        Err((topic, code)) => Err(DevstackError::Topic {
            action,
            topic,
            code,
        }),
    })
}
