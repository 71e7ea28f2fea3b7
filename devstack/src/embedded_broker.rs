//! librdkafka's own broker, inside this process: up in milliseconds, nothing to install.
//!
//! Good for the logic of groups, offsets and rebalances. It knows no transactions and no topic
//! administration, and it keeps about 5 MiB (as sent, compressed) of a partition and then drops
//! old records without a word: ask [`truncated`](EmbeddedBroker::truncated), or let a
//! [`GuardedBroker`](crate::GuardedBroker) hold back producers before that.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer as _};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::{DevstackError, mock_knobs};

const ASK: Duration = Duration::from_secs(5);

/// A one-node cluster that ends with this value.
pub struct EmbeddedBroker {
    host: BaseProducer,
    bootstrap: String,
    topics: Mutex<Vec<(String, i32)>>,
}

impl EmbeddedBroker {
    /// Starts the broker on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When librdkafka cannot make it.
    pub fn start() -> Result<Self, DevstackError> {
        let host: BaseProducer = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .set("client.id", "devstack-broker")
            .set("log_level", "0")
            .create()?;
        mock_knobs::quicken_groups(host.client());
        let mut broker = Self { host, bootstrap: String::new(), topics: Mutex::default() };
        broker.bootstrap = broker.with_cluster(|cluster| Ok(cluster.bootstrap_servers()))?;
        Ok(broker)
    }

    /// The address for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When there is one of this name.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), DevstackError> {
        self.with_cluster(|cluster| cluster.create_topic(name, partitions, 1))?;
        self.topics().push((name.to_owned(), partitions));
        Ok(())
    }

    /// True when old records of any topic made here were dropped. Blocks up to five seconds a
    /// partition when the broker is busy.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn truncated(&self) -> Result<bool, DevstackError> {
        let topics = self.topics().clone();
        for (name, partitions) in &topics {
            for partition in 0..*partitions {
                let (low, _) = self.host.client().fetch_watermarks(name, partition, ASK)?;
                if low > 0 {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Answers the next `count` requests of a kind with `error`, for tests of failures.
    ///
    /// # Errors
    /// Never in practice: the cluster lives as long as this value.
    pub fn fail_next(
        &self,
        request: RDKafkaApiKey,
        error: RDKafkaRespErr,
        count: usize,
    ) -> Result<(), DevstackError> {
        self.with_cluster(|cluster| {
            cluster.request_errors(request, &vec![error; count]);
            Ok(())
        })
    }

    /// Takes back what [`fail_next`](Self::fail_next) still has in store.
    ///
    /// # Errors
    /// As [`fail_next`](Self::fail_next).
    pub fn fail_no_more(&self, request: RDKafkaApiKey) -> Result<(), DevstackError> {
        self.with_cluster(|cluster| {
            cluster.clear_request_errors(request);
            Ok(())
        })
    }

    /// Refuses connections and drops those there are, until [`up`](Self::up).
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn down(&self) -> Result<(), DevstackError> {
        self.with_cluster(|cluster| cluster.broker_down(-1))
    }

    /// Accepts connections again; the log is as it was.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn up(&self) -> Result<(), DevstackError> {
        self.with_cluster(|cluster| cluster.broker_up(-1))
    }

    fn with_cluster<T>(
        &self,
        act: impl FnOnce(&Cluster<'_>) -> rdkafka::error::KafkaResult<T>,
    ) -> Result<T, DevstackError> {
        let cluster = self.host.client().mock_cluster().ok_or(DevstackError::WrongState {
            server: "the embedded broker",
            found: "absent",
            needed: "running",
        })?;
        Ok(act(&cluster)?)
    }

    fn topics(&self) -> std::sync::MutexGuard<'_, Vec<(String, i32)>> {
        // A list of names cannot be left half changed by a panic elsewhere.
        self.topics.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

type Cluster<'c> = rdkafka::mocking::MockCluster<'c, DefaultProducerContext>;
