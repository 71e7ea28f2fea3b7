//! librdkafka's own broker, inside this process: up in milliseconds, nothing to install.
//!
//! Good for the logic of groups, offsets and rebalances. It knows no transactions, no topic
//! administration and no check of sequence numbers, and it keeps about 5 MiB (as sent,
//! compressed) of a partition and then drops old records without a word. A guarded broker makes
//! producers wait before that; an unguarded one tells afterwards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::DevstackError;
use crate::broker_guard::{BrokerGuard, EmbeddedState, GuardOptions};
use crate::mock_cluster::{MockCluster, Verdict, Watcher};
use crate::mock_log::MockEvent;

/// A one-node cluster that ends with this value.
pub struct EmbeddedBroker {
    cluster: MockCluster,
    guard: Arc<Mutex<BrokerGuard>>,
    bootstrap: String,
}

impl EmbeddedBroker {
    /// Starts an unguarded broker on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When librdkafka cannot make it.
    pub fn start() -> Result<Self, DevstackError> {
        Self::launch(None)
    }

    /// Starts a broker that makes producers wait rather than drop what the group has not read.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_guarded(options: GuardOptions) -> Result<Self, DevstackError> {
        Self::launch(Some(options))
    }

    fn launch(options: Option<GuardOptions>) -> Result<Self, DevstackError> {
        let guard = Arc::new(Mutex::new(BrokerGuard::new(options)));
        let cluster = MockCluster::start(Box::new(Lines(Arc::clone(&guard))))?;
        let bootstrap = cluster.bootstrap();
        Ok(Self {
            cluster,
            guard,
            bootstrap,
        })
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
        self.cluster.create_topic(name, partitions)
    }

    /// What has happened so far.
    #[must_use]
    pub fn state(&self) -> EmbeddedState {
        locked(&self.guard).state()
    }

    /// True when old records of some partition were dropped, read or not.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.state().truncated
    }

    /// Answers the next `count` requests of a kind with `error`, for tests of failures.
    pub fn fail_next(&self, request: RDKafkaApiKey, error: RDKafkaRespErr, count: usize) {
        self.cluster.fail_next(request, error, count);
    }

    /// Takes back what [`fail_next`](Self::fail_next) still has in store.
    pub fn fail_no_more(&self, request: RDKafkaApiKey) {
        self.cluster.fail_no_more(request);
    }

    /// Drops all connections and refuses new ones, until [`up`](Self::up).
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn down(&self) -> Result<(), DevstackError> {
        self.cluster.set_reachable(false)
    }

    /// Accepts connections again; the log is as it was.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn up(&self) -> Result<(), DevstackError> {
        self.cluster.set_reachable(true)
    }
}

struct Lines(Arc<Mutex<BrokerGuard>>);

impl Watcher for Lines {
    fn line(&self, line: &str) -> Verdict {
        match MockEvent::parse(line) {
            Some(event) => locked(&self.0).judge(&event, Instant::now()),
            None => Verdict::Proceed,
        }
    }
}

/// The guard's figures stay usable whatever panicked elsewhere.
fn locked(guard: &Mutex<BrokerGuard>) -> MutexGuard<'_, BrokerGuard> {
    guard.lock().unwrap_or_else(PoisonError::into_inner)
}
