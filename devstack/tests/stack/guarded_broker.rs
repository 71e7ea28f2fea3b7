use std::time::{Duration, Instant};

use millrace_devstack::{EmbeddedBroker, GuardOptions};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use crate::log_reader::produce;
use crate::within;

const RECORDS: u64 = 30_000;
const RECORD_BYTES: usize = 1_000;

/// An idempotent producer that sends as fast as it is allowed to.
fn send_all(bootstrap: &str) {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .create()
        .unwrap();
    for n in 0..RECORDS {
        let mut payload = vec![b'.'; RECORD_BYTES];
        payload[..8].copy_from_slice(&n.to_be_bytes());
        let mut record: BaseRecord<'_, (), [u8]> =
            BaseRecord::to("tasks").partition(0).payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            assert!(matches!(
                error,
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
            ));
            record = back;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    producer.flush(Duration::from_secs(120)).unwrap();
}

/// A reader that commits every 200 records, at about ten megabytes a second.
fn read_slowly(bootstrap: &str) -> Vec<u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "workers")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "10")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("tasks", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    while (seen.len() as u64) < RECORDS && Instant::now() < deadline {
        let Some(record) = consumer.poll(Duration::from_millis(100)) else { continue };
        let record = record.unwrap();
        let number = record.payload().unwrap().first_chunk().unwrap();
        seen.push(u64::from_be_bytes(*number));
        if seen.len().is_multiple_of(200) {
            consumer.commit_message(&record, CommitMode::Sync).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_megabytes_through_one_partition_with_a_slow_reader_lose_nothing() {
    within(150, async {
        let broker = EmbeddedBroker::start_guarded(GuardOptions::new("tasks", "workers")).unwrap();
        broker.create_topic("tasks", 12).unwrap();
        let bootstrap = broker.bootstrap().to_owned();
        let address = bootstrap.clone();
        let sender = tokio::task::spawn_blocking(move || send_all(&address));
        let reader = tokio::task::spawn_blocking(move || read_slowly(&bootstrap));

        let seen = reader.await.unwrap();
        sender.await.unwrap();

        assert!(seen.iter().copied().eq(0..RECORDS), "each once, in order: {}", seen.len());
        let state = broker.state();
        println!("{state:?}");
        assert!(state.holds > 1, "the producer had to wait more than once");
        assert!(state.truncated, "what was read was dropped");
        assert_eq!(state.lost, 0, "but nothing else");
        assert!(state.most_unread < 5 << 20);
    })
    .await;
}

#[tokio::test]
async fn records_that_were_dropped_unread_are_told() {
    within(60, async {
        let options = GuardOptions { hold_above: u64::MAX, ..GuardOptions::new("tasks", "workers") };
        let broker = EmbeddedBroker::start_guarded(options).unwrap();
        broker.create_topic("tasks", 1).unwrap();
        let megabyte = vec![b'x'; 900_000];
        produce(broker.bootstrap(), "tasks", 0, &[&megabyte[..]; 8]).await;
        assert_eq!(broker.state().lost, 3, "of eight records five fit");
    })
    .await;
}
