//! The embedded broker with its limit guarded: producers wait before a record is dropped.
//!
//! It reads along, counts for each partition the bytes that the group has not committed yet, and
//! refuses every Produce request with a retriable error while one partition holds too many.
//! Idempotent producers wait and retry, so nothing is lost and the order stays. Reading along is
//! a few milliseconds behind; the gap between the mark of 2 MiB and the broker's 5 MiB covers
//! that. Should a record be dropped all the same, it is said, as an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use crate::unread::Unread;
use crate::{DevstackError, EmbeddedBroker};

/// How often refusals are renewed while producers wait.
const RENEW: Duration = Duration::from_millis(100);
/// Refusals in store between two renewals; more requests than that do not come in that time.
const REFUSALS: usize = 2000;
const ASK: Duration = Duration::from_secs(2);

/// What the guard watches, and where its marks are.
#[derive(Debug, Clone)]
pub struct GuardOptions {
    /// The topic whose unread bytes count.
    pub topic: String,
    /// Its number of partitions.
    pub partitions: i32,
    /// The consumer group whose commits make records count as read.
    pub group: String,
    /// Producers wait once a partition holds more unread bytes than this.
    pub hold_above: u64,
    /// They go on once every partition holds fewer than this.
    pub release_below: u64,
}

impl GuardOptions {
    /// The marks that fit the broker's limit: 2 MiB and 1 MiB.
    #[must_use]
    pub fn new(topic: &str, partitions: i32, group: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            partitions,
            group: group.to_owned(),
            hold_above: 2 << 20,
            release_below: 1 << 20,
        }
    }
}

/// A running broker with its guard; both end with this value.
pub struct GuardedBroker {
    broker: Arc<EmbeddedBroker>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    closing: AtomicBool,
    /// By partition: the group's committed offset.
    committed: Vec<AtomicI64>,
    most_unread: AtomicU64,
    holds: AtomicU64,
    lost: AtomicU64,
}

impl GuardedBroker {
    /// Starts a broker with the topic of `options` and guards it.
    ///
    /// # Errors
    /// When the broker or one of the guard's two clients cannot be made.
    pub fn start(options: GuardOptions) -> Result<Self, DevstackError> {
        let broker = Arc::new(EmbeddedBroker::start()?);
        broker.create_topic(&options.topic, options.partitions)?;
        let shared = Arc::new(Shared {
            committed: (0..options.partitions).map(|_| AtomicI64::new(0)).collect(),
            ..Shared::default()
        });
        let reader = Reader::new(&broker, &shared, &options)?;
        let commits = Commits::new(&broker, &shared, &options)?;
        let threads = vec![
            std::thread::spawn(move || reader.run()),
            std::thread::spawn(move || commits.run()),
        ];
        Ok(Self { broker, shared, threads })
    }

    /// The broker behind the guard.
    #[must_use]
    pub fn broker(&self) -> &EmbeddedBroker {
        &self.broker
    }

    /// The most unread bytes that any partition ever held.
    #[must_use]
    pub fn most_unread(&self) -> u64 {
        self.shared.most_unread.load(Ordering::Relaxed)
    }

    /// How often producers were made to wait.
    #[must_use]
    pub fn holds(&self) -> u64 {
        self.shared.holds.load(Ordering::Relaxed)
    }

    /// Records that the broker dropped before the group had committed them; 0 if all is well.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for GuardedBroker {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A guard that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// Reads along, and opens and shuts the gate.
struct Reader {
    broker: Arc<EmbeddedBroker>,
    shared: Arc<Shared>,
    options: GuardOptions,
    consumer: BaseConsumer,
    unread: Vec<Unread>,
    held_since: Option<Instant>,
    renewed: Instant,
}

impl Reader {
    fn new(
        broker: &Arc<EmbeddedBroker>,
        shared: &Arc<Shared>,
        options: &GuardOptions,
    ) -> Result<Self, DevstackError> {
        let consumer: BaseConsumer = client(broker, "devstack-guard")
            .set("auto.offset.reset", "earliest")
            // The embedded broker answers an empty fetch only after this time, data or not.
            .set("fetch.wait.max.ms", "5")
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        consumer.assign(&partitions_of(options, Offset::Beginning)?)?;
        Ok(Self {
            broker: Arc::clone(broker),
            shared: Arc::clone(shared),
            options: options.clone(),
            consumer,
            unread: (0..options.partitions).map(|_| Unread::default()).collect(),
            held_since: None,
            renewed: Instant::now(),
        })
    }

    fn run(mut self) {
        while !self.shared.closing.load(Ordering::Relaxed) {
            self.read_some();
            self.forget_committed();
            if let Err(error) = self.work_the_gate() {
                tracing::error!(%error, "the guard of the embedded broker cannot hold producers");
            }
        }
    }

    /// Counts what is there, for a few milliseconds at most.
    fn read_some(&mut self) {
        let until = Instant::now() + Duration::from_millis(5);
        while let Some(record) = self.consumer.poll(Duration::from_millis(2)) {
            if let Ok(record) = record {
                let headers = record.headers().map_or(0, |headers| {
                    headers.iter().map(|h| h.key.len() + h.value.map_or(0, <[u8]>::len) + 10).sum()
                });
                let bytes = record.payload_len() + record.key_len() + headers;
                let partition = usize::try_from(record.partition()).unwrap_or(usize::MAX);
                if let Some(unread) = self.unread.get_mut(partition) {
                    let missed = unread.append(record.offset(), bytes);
                    self.shared.note_lost(record.partition(), missed);
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
    }

    fn forget_committed(&mut self) {
        for (unread, committed) in self.unread.iter_mut().zip(&self.shared.committed) {
            unread.commit(committed.load(Ordering::Relaxed));
        }
    }

    fn work_the_gate(&mut self) -> Result<(), DevstackError> {
        let fullest = self.unread.iter().enumerate().max_by_key(|(_, unread)| unread.bytes());
        let Some((partition, unread)) = fullest else { return Ok(()) };
        let bytes = unread.bytes();
        self.shared.most_unread.fetch_max(bytes, Ordering::Relaxed);
        match self.held_since {
            None if bytes > self.options.hold_above => {
                self.refuse()?;
                self.held_since = Some(Instant::now());
                if self.shared.holds.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(
                        partition,
                        unread_mib = %mib(bytes),
                        "embedded broker: a partition holds more than it can keep for long, so \
                         producers wait until it is read; start a worker, or use KAFKA=apache"
                    );
                }
            }
            Some(since) if bytes < self.options.release_below => {
                self.broker.fail_no_more(RDKafkaApiKey::Produce)?;
                self.held_since = None;
                tracing::debug!(waited = ?since.elapsed(), "embedded broker: producers go on");
            }
            Some(_) if self.renewed.elapsed() >= RENEW => {
                self.broker.fail_no_more(RDKafkaApiKey::Produce)?;
                self.refuse()?;
            }
            _ => {}
        }
        Ok(())
    }

    fn refuse(&mut self) -> Result<(), DevstackError> {
        self.renewed = Instant::now();
        let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
        self.broker.fail_next(RDKafkaApiKey::Produce, refusal, REFUSALS)
    }
}

/// Asks for the group's committed offsets, beside the reader because the answer may take a while.
struct Commits {
    shared: Arc<Shared>,
    options: GuardOptions,
    client: BaseConsumer,
    lows_checked: Instant,
}

impl Commits {
    fn new(
        broker: &Arc<EmbeddedBroker>,
        shared: &Arc<Shared>,
        options: &GuardOptions,
    ) -> Result<Self, DevstackError> {
        Ok(Self {
            shared: Arc::clone(shared),
            options: options.clone(),
            client: client(broker, &options.group).create()?,
            lows_checked: Instant::now(),
        })
    }

    fn run(mut self) {
        while !self.shared.closing.load(Ordering::Relaxed) {
            // A failed question is asked again; the guard then only holds longer than it must.
            let _ = self.ask();
            if self.lows_checked.elapsed() >= Duration::from_secs(1) {
                let _ = self.check_lows();
                self.lows_checked = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ask(&self) -> Result<(), DevstackError> {
        let wanted = partitions_of(&self.options, Offset::Invalid)?;
        for element in self.client.committed_offsets(wanted, ASK)?.elements() {
            let partition = usize::try_from(element.partition()).unwrap_or(usize::MAX);
            if let (Some(slot), Offset::Offset(offset)) =
                (self.shared.committed.get(partition), element.offset())
            {
                slot.store(offset, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// The broker's own word on what it dropped.
    fn check_lows(&self) -> Result<(), DevstackError> {
        for (partition, committed) in (0..).zip(&self.shared.committed) {
            let before = committed.load(Ordering::Relaxed);
            let (low, _) = self.client.fetch_watermarks(&self.options.topic, partition, ASK)?;
            if low > before {
                // The commit may be newer than the answer above.
                self.ask()?;
                let missed = low - committed.load(Ordering::Relaxed);
                self.shared.note_lost(partition, missed);
            }
        }
        Ok(())
    }
}

impl Shared {
    fn note_lost(&self, partition: i32, records: i64) {
        let records = u64::try_from(records).unwrap_or_default();
        // Both watchers may see the same hole; the larger figure is kept, not the sum.
        if records > 0 && self.lost.fetch_max(records, Ordering::Relaxed) < records {
            tracing::error!(
                partition,
                records,
                "embedded broker: RECORDS LOST, it dropped them before the group had read them; \
                 run this again with KAFKA=apache"
            );
        }
    }
}

fn client(broker: &EmbeddedBroker, group: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("log_level", "0");
    config
}

fn partitions_of(
    options: &GuardOptions,
    offset: Offset,
) -> Result<TopicPartitionList, DevstackError> {
    let mut list = TopicPartitionList::new();
    for partition in 0..options.partitions {
        list.add_partition_offset(&options.topic, partition, offset)?;
    }
    Ok(list)
}

fn mib(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}
