use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_devstack::{EmbeddedBroker, GuardOptions};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use crate::log_reader::produce;
use crate::within;

/// What is sent and how it is read.
#[derive(Clone, Copy)]
struct Load {
    partitions: i32,
    records: u64,
    record_bytes: usize,
    batch_bytes: &'static str,
    /// The reader commits after so many records, and then rests.
    commit_every: u64,
    rest: Duration,
}

/// After so long without a record the producer counts as held.
const SILENCE: Duration = Duration::from_millis(250);

/// An idempotent producer that sends as fast as it is allowed to, round robin.
fn send_all(bootstrap: &str, load: Load) {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("batch.size", load.batch_bytes)
        .create()
        .unwrap();
    for (n, partition) in (0..load.records).zip((0..load.partitions).cycle()) {
        let mut payload = vec![b'.'; load.record_bytes];
        payload[..8].copy_from_slice(&n.to_be_bytes());
        let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to("tasks")
            .partition(partition)
            .payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert_eq!(error, full);
            record = back;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    producer.flush(Duration::from_secs(120)).unwrap();
}

/// A slow reader of all partitions. Returns the numbers seen in each.
fn read_slowly(bootstrap: &str, load: Load) -> BTreeMap<i32, Vec<u64>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "workers")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "true")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "10")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..load.partitions {
        list.add_partition_offset("tasks", partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut seen = BTreeMap::<i32, Vec<u64>>::new();
    let mut count = 0;
    let deadline = Instant::now() + Duration::from_secs(120);
    while count < load.records && Instant::now() < deadline {
        let Some(record) = consumer.poll(SILENCE) else {
            // The producer is held until something is committed. At times there is nothing to commit.
            let _ = consumer.commit_consumer_state(CommitMode::Sync);
            continue;
        };
        let record = record.unwrap();
        let number = record.payload().unwrap().first_chunk().unwrap();
        let of_partition = seen.entry(record.partition()).or_default();
        of_partition.push(u64::from_be_bytes(*number));
        count += 1;
        if count.is_multiple_of(load.commit_every) {
            consumer.commit_consumer_state(CommitMode::Sync).unwrap();
            std::thread::sleep(load.rest);
        }
    }
    seen
}

/// Sends and reads at once; asserts that each partition has its numbers once and in order.
async fn put_through(broker: &EmbeddedBroker, load: Load) {
    broker.create_topic("tasks", load.partitions).unwrap();
    let (to_send, to_read) = (broker.bootstrap().to_owned(), broker.bootstrap().to_owned());
    let sender = tokio::task::spawn_blocking(move || send_all(&to_send, load));
    let reader = tokio::task::spawn_blocking(move || read_slowly(&to_read, load));

    let seen = reader.await.unwrap();
    sender.await.unwrap();

    for (partition, first) in (0..load.partitions).zip(0u64..) {
        let step = usize::try_from(load.partitions).unwrap();
        let sent = (first..load.records).step_by(step);
        let seen = &seen[&partition];
        assert!(
            seen.iter().copied().eq(sent),
            "partition {partition}: each once and in order, {} seen",
            seen.len()
        );
    }
    println!("{:?}", broker.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_megabytes_through_one_partition_with_a_slow_reader_lose_nothing() {
    within(150, async {
        let broker = EmbeddedBroker::start_guarded(GuardOptions::new("tasks", "workers")).unwrap();
        let load = Load {
            partitions: 1,
            records: 30_000,
            record_bytes: 1_000,
            batch_bytes: "1000000",
            commit_every: 200,
            rest: Duration::from_millis(20),
        };
        put_through(&broker, load).await;

        let state = broker.state();
        assert!(state.holds > 1, "the producer had to wait more than once");
        assert!(state.truncated, "what was read was dropped");
        assert_eq!(state.lost, 0, "but nothing else");
        assert!(state.most_unread < 5 << 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_every_partition_stays_through_many_holds() {
    within(150, async {
        let options = GuardOptions {
            hold_above: 200_000,
            release_below: 100_000,
            ..GuardOptions::new("tasks", "workers")
        };
        let broker = EmbeddedBroker::start_guarded(options).unwrap();
        let load = Load {
            partitions: 12,
            records: 24_000,
            record_bytes: 400,
            // Small, so that several batches of a partition are on their way at once.
            batch_bytes: "8000",
            // Only when the producer has fallen silent, so that it is held however fast either of them is.
            commit_every: u64::MAX,
            rest: Duration::ZERO,
        };
        put_through(&broker, load).await;
        assert!(broker.state().holds > 3);
    })
    .await;
}

#[tokio::test]
async fn records_that_were_dropped_unread_are_told() {
    within(60, async {
        let options = GuardOptions {
            hold_above: u64::MAX,
            ..GuardOptions::new("tasks", "workers")
        };
        let broker = EmbeddedBroker::start_guarded(options).unwrap();
        broker.create_topic("tasks", 1).unwrap();
        let megabyte = vec![b'x'; 900_000];
        produce(broker.bootstrap(), "tasks", 0, &[&megabyte[..]; 8]).await;
        assert_eq!(broker.state().lost, 3, "of eight records five fit");
    })
    .await;
}
