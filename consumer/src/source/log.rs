//! Which log lies under a position, and how far it reaches.
//!
//! An offset is no identity: a topic that was deleted and created again, truncated or cut by
//! retention gives the same number to another record. So a position is kept with the identity of
//! its log, and both are asked for before it is used. Every function here asks the brokers and
//! waits for the answer, at most for `timeout` a question: call them where blocking is allowed.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;

use super::topic_id::topic_id;
use crate::engine::{Offset, Partition};

/// Why the log could not be known.
#[derive(Debug, Error)]
pub enum LogError {
    /// The brokers know no such topic: it was never created, or it was deleted. Just after it was
    /// created, a broker that has not heard of it says the same.
    #[error("topic {topic} does not exist")]
    TopicMissing {
        /// The topic asked for.
        topic: String,
    },
    /// The topic has fewer partitions than that.
    #[error("topic {topic} has no partition {partition}")]
    PartitionMissing {
        /// The topic asked for.
        topic: String,
        /// The partition asked for.
        partition: Partition,
    },
    /// No answer, or one that says nothing about the log: ask again later.
    #[error("the brokers did not tell the {asked} of topic {topic}")]
    Unanswered {
        /// The topic asked about.
        topic: String,
        /// What was asked.
        asked: &'static str,
        /// What the client or a broker said instead.
        source: KafkaError,
    },
}

impl LogError {
    fn new(topic: &str, asked: &'static str, source: KafkaError) -> LogError {
        match source.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                LogError::TopicMissing {
                    topic: topic.to_owned(),
                }
            }
            _ => LogError::Unanswered {
                topic: topic.to_owned(),
                asked,
                source,
            },
        }
    }

    fn of_partition(
        topic: &str,
        partition: Partition,
        asked: &'static str,
        source: KafkaError,
    ) -> LogError {
        match source.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownPartition) => LogError::PartitionMissing {
                topic: topic.to_owned(),
                partition,
            },
            _ => LogError::new(topic, asked, source),
        }
    }
}

/// What tells one log from another of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster's own id, if it has one.
    pub cluster_id: Option<String>,
    /// The id that the topic got when it was created (KIP-516), in Kafka's own base64 form; `None`
    /// when the brokers do not keep one.
    pub topic_id: Option<String>,
    /// How many partitions the topic has now.
    pub partition_count: i32,
}

/// Asks which log `topic` is. Never creates the topic.
///
/// # Errors
/// [`LogError::TopicMissing`] or [`LogError::Unanswered`].
pub fn identify<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<LogIdentity, LogError> {
    let missing = || LogError::TopicMissing {
        topic: topic.to_owned(),
    };
    let unanswered = |asked, code| LogError::new(topic, asked, KafkaError::MetadataFetch(code));
    let name = CString::new(topic).map_err(|_| missing())?;
    let metadata = client
        .fetch_metadata(Some(topic), timeout)
        .map_err(|error| LogError::new(topic, "partitions", error))?;
    let found = metadata.topics().first().ok_or_else(missing)?;
    // A topic with an error may come without a list of partitions at all.
    if let Some(error) = found.error() {
        return Err(unanswered("partitions", error.into()));
    }
    let broker = metadata.brokers().first().map_or(-1, |broker| broker.id());
    let topic_id =
        topic_id(client, broker, &name, timeout).map_err(|code| unanswered("id", code))?;
    Ok(LogIdentity {
        // The client keeps the id from the answer just received.
        cluster_id: client.fetch_cluster_id(Duration::ZERO),
        topic_id,
        partition_count: i32::try_from(found.partitions().len()).unwrap_or(i32::MAX),
    })
}

/// How far the log of one partition reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The lowest offset that is still kept.
    pub start: Offset,
    /// The next offset to be written; with open transactions, the first one of theirs.
    pub end: Offset,
}

impl Bounds {
    /// Whether a consumer can go on at `position`: nothing before it was cut away unread, and the
    /// log reaches up to it.
    #[must_use]
    pub fn admit(&self, position: Offset) -> bool {
        self.start <= position && position <= self.end
    }
}

/// Asks for the bounds of one partition.
///
/// # Errors
/// [`LogError::TopicMissing`], [`LogError::PartitionMissing`] or [`LogError::Unanswered`].
pub fn bounds<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    topic: &str,
    partition: Partition,
    timeout: Duration,
) -> Result<Bounds, LogError> {
    let found = all_bounds(consumer, topic, &[partition], timeout)?;
    found
        .get(&partition)
        .copied()
        .ok_or_else(|| unanswered(topic, "bounds"))
}

/// Asks for the bounds of several partitions, with two questions to each broker that leads some of
/// them. The answer names every partition asked for.
///
/// # Errors
/// As [`bounds`], for the first partition at fault.
pub fn all_bounds<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    topic: &str,
    partitions: &[Partition],
    timeout: Duration,
) -> Result<BTreeMap<Partition, Bounds>, LogError> {
    let starts = edges(
        consumer,
        topic,
        partitions,
        rdkafka::Offset::Beginning,
        "start",
        timeout,
    )?;
    let ends = edges(
        consumer,
        topic,
        partitions,
        rdkafka::Offset::End,
        "end",
        timeout,
    )?;
    partitions
        .iter()
        .map(
            |&partition| match (starts.get(&partition), ends.get(&partition)) {
                (Some(&start), Some(&end)) => Ok((partition, Bounds { start, end })),
                _ => Err(unanswered(topic, "bounds")),
            },
        )
        .collect()
}

/// Asks for the position that the consumer's group has committed to Kafka for each of `partitions`;
/// `None` for one without. It is a hint for lag tools, never where work begins.
///
/// # Errors
/// As [`bounds`].
pub fn committed<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    topic: &str,
    partitions: &[Partition],
    timeout: Duration,
) -> Result<BTreeMap<Partition, Option<Offset>>, LogError> {
    const ASKED: &str = "committed position";
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let asked = list(topic, partitions, rdkafka::Offset::Invalid)
        .map_err(|error| LogError::new(topic, ASKED, error))?;
    let answer = consumer
        .committed_offsets(asked, timeout)
        .map_err(|error| LogError::new(topic, ASKED, error))?;
    let mut found = BTreeMap::new();
    for element in answer.elements_for_topic(topic) {
        let partition = Partition(element.partition());
        element
            .error()
            .map_err(|e| LogError::of_partition(topic, partition, ASKED, e))?;
        found.insert(partition, exact(element.offset()));
    }
    Ok(found)
}

/// Asks for the first offset of each of `partitions` whose record is not older than `time_ms`, milliseconds
/// since the Unix epoch; `None` when all its records are older.
///
/// # Errors
/// As [`bounds`].
pub fn offsets_at<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    topic: &str,
    partitions: &[Partition],
    time_ms: i64,
    timeout: Duration,
) -> Result<BTreeMap<Partition, Option<Offset>>, LogError> {
    const ASKED: &str = "offsets at a time";
    let unanswered = |error| LogError::new(topic, ASKED, error);
    let times =
        list(topic, partitions, rdkafka::Offset::Offset(time_ms.max(0))).map_err(unanswered)?;
    let answer = consumer
        .offsets_for_times(times, timeout)
        .map_err(unanswered)?;
    let mut found = BTreeMap::new();
    for element in answer.elements_for_topic(topic) {
        let partition = Partition(element.partition());
        element
            .error()
            .map_err(|e| LogError::of_partition(topic, partition, ASKED, e))?;
        found.insert(partition, exact(element.offset()));
    }
    Ok(found)
}

/// One edge of each partition's log: a look-up by time, where Kafka takes the two logical offsets
/// for the two ends of time.
fn edges<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    topic: &str,
    partitions: &[Partition],
    edge: rdkafka::Offset,
    asked: &'static str,
    timeout: Duration,
) -> Result<BTreeMap<Partition, Offset>, LogError> {
    let Some(&last) = partitions.iter().max() else {
        return Ok(BTreeMap::new());
    };
    // An error for all of them is about the highest, if it is about a partition at all: partitions
    // are numbered without holes.
    let unanswered_by = |error| LogError::of_partition(topic, last, asked, error);
    let times = list(topic, partitions, edge).map_err(unanswered_by)?;
    let answer = consumer
        .offsets_for_times(times, timeout)
        .map_err(unanswered_by)?;
    let mut found = BTreeMap::new();
    for element in answer.elements_for_topic(topic) {
        let partition = Partition(element.partition());
        element
            .error()
            .map_err(|e| LogError::of_partition(topic, partition, asked, e))?;
        let offset = exact(element.offset()).ok_or_else(|| unanswered(topic, asked))?;
        found.insert(partition, offset);
    }
    Ok(found)
}

fn list(
    topic: &str,
    partitions: &[Partition],
    offset: rdkafka::Offset,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, partition.0, offset)?;
    }
    Ok(list)
}

fn exact(offset: rdkafka::Offset) -> Option<Offset> {
    match offset {
        rdkafka::Offset::Offset(offset) => Some(Offset(offset)),
        _ => None,
    }
}

fn unanswered(topic: &str, asked: &'static str) -> LogError {
    LogError::new(
        topic,
        asked,
        KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset),
    )
}
