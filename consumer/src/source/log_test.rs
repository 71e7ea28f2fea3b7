//! The identity and the bounds of a log, asked of real brokers.

#![expect(clippy::unwrap_used, reason = "a test states what must hold")]

use std::time::Duration;

use millrace_devstack::{EmbeddedBroker, Topics, can_run_apache_kafka, test_kafka};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, TopicPartitionList};
use tokio::task::block_in_place;

use super::leader_epoch::{NotListed, epoch_of, listed_epoch, set_epoch};
use super::log::{Bounds, LogError, LogIdentity, all_bounds, bounds, committed, identify};
use crate::engine::{LeaderEpoch, Offset, Partition};

const LIMIT: Duration = Duration::from_secs(10);

fn consumer(bootstrap: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "workers")
        .set("enable.auto.commit", "false")
        .set("log_level", "0")
        .create()
        .unwrap()
}

fn produce(bootstrap: &str, topic: &str, partition: i32, records: usize) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    for _ in 0..records {
        let record = BaseRecord::<(), str>::to(topic)
            .partition(partition)
            .payload("x");
        producer.send(record).unwrap();
    }
    producer.flush(LIMIT).unwrap();
}

fn ask(consumer: &BaseConsumer, topic: &str) -> Result<LogIdentity, LogError> {
    identify(consumer.client(), topic, LIMIT)
}

fn a_topic(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::now_v7())
}

#[test]
fn a_topic_is_known_by_its_id_its_cluster_and_its_partitions() {
    let broker = EmbeddedBroker::start().unwrap();
    broker.create_topic("tasks", 3).unwrap();
    broker.create_topic("other", 1).unwrap();
    let consumer = consumer(broker.bootstrap());

    let tasks = ask(&consumer, "tasks").unwrap();
    assert_eq!(tasks.partition_count, 3);
    assert!(tasks.cluster_id.is_some());
    assert!(tasks.topic_id.is_some());
    assert_eq!(ask(&consumer, "tasks").unwrap(), tasks, "it stays the same");

    let other = ask(&consumer, "other").unwrap();
    assert_eq!(other.cluster_id, tasks.cluster_id);
    assert_ne!(other.topic_id, tasks.topic_id);
}

#[test]
fn a_missing_topic_and_a_missing_partition_are_told_from_a_silent_broker() {
    let broker = EmbeddedBroker::start().unwrap();
    broker.create_topic("tasks", 2).unwrap();
    let consumer = consumer(broker.bootstrap());

    assert!(
        matches!(ask(&consumer, "task"), Err(LogError::TopicMissing { topic }) if topic == "task")
    );
    assert!(matches!(
        ask(&consumer, "ta\0sks"),
        Err(LogError::TopicMissing { .. })
    ));
    let beyond = bounds(&consumer, "tasks", Partition(2), LIMIT);
    assert!(
        matches!(
            beyond,
            Err(LogError::PartitionMissing {
                partition: Partition(2),
                ..
            })
        ),
        "{beyond:?}"
    );

    broker.down().unwrap();
    let silent = identify(consumer.client(), "tasks", Duration::from_millis(300));
    assert!(
        matches!(silent, Err(LogError::Unanswered { .. })),
        "{silent:?}"
    );
    let silent = bounds(&consumer, "tasks", Partition(0), Duration::from_millis(300));
    assert!(
        matches!(silent, Err(LogError::Unanswered { .. })),
        "{silent:?}"
    );
}

#[test]
fn bounds_reach_from_the_first_record_kept_to_the_next_one_to_come() {
    let broker = EmbeddedBroker::start().unwrap();
    broker.create_topic("tasks", 3).unwrap();
    produce(broker.bootstrap(), "tasks", 1, 5);
    let consumer = consumer(broker.bootstrap());

    let found = all_bounds(&consumer, "tasks", &[0, 1, 2].map(Partition), LIMIT).unwrap();
    let empty = Bounds {
        start: Offset(0),
        end: Offset(0),
    };
    let five = Bounds {
        start: Offset(0),
        end: Offset(5),
    };
    assert_eq!(
        found.into_values().collect::<Vec<_>>(),
        [empty, five, empty]
    );

    assert_eq!(
        bounds(&consumer, "tasks", Partition(1), LIMIT).unwrap(),
        five
    );
    assert!(five.admit(Offset(5)), "everything is read");
    assert!(
        !five.admit(Offset(6)),
        "the log was truncated or is another one"
    );
    assert!(
        all_bounds(&consumer, "tasks", &[], LIMIT)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_group_has_no_committed_position_until_it_commits_one() {
    let broker = EmbeddedBroker::start().unwrap();
    broker.create_topic("tasks", 2).unwrap();
    produce(broker.bootstrap(), "tasks", 0, 5);
    let consumer = consumer(broker.bootstrap());
    let mut done = TopicPartitionList::new();
    done.add_partition_offset("tasks", 0, rdkafka::Offset::Offset(4))
        .unwrap();
    consumer.commit(&done, CommitMode::Sync).unwrap();

    let found = committed(&consumer, "tasks", &[0, 1].map(Partition), LIMIT).unwrap();
    assert_eq!(
        found.into_values().collect::<Vec<_>>(),
        [Some(Offset(4)), None]
    );
}

#[test]
fn a_position_carries_the_epoch_of_the_record_before_it() {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("tasks", 0, rdkafka::Offset::Offset(4))
        .unwrap();
    assert_eq!(listed_epoch(&list, "tasks", Partition(0)), None);

    set_epoch(&mut list, "tasks", Partition(0), Some(LeaderEpoch(7))).unwrap();
    assert_eq!(
        listed_epoch(&list, "tasks", Partition(0)),
        Some(LeaderEpoch(7))
    );
    set_epoch(&mut list, "tasks", Partition(0), None).unwrap();
    assert_eq!(listed_epoch(&list, "tasks", Partition(0)), None);

    let elsewhere = set_epoch(&mut list, "tasks", Partition(1), Some(LeaderEpoch(7)));
    let topic = "tasks".to_owned();
    assert_eq!(
        elsewhere,
        Err(NotListed {
            topic,
            partition: Partition(1)
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_and_created_again_is_another_log() {
    if !can_run_apache_kafka("identity of the log").await.unwrap() {
        return;
    }
    let bootstrap = test_kafka().await.unwrap();
    let topics = Topics::of(&bootstrap).unwrap();
    let consumer = consumer(&bootstrap);
    let name = a_topic("identity");

    let before_all = block_in_place(|| ask(&consumer, &name));
    assert!(
        matches!(before_all, Err(LogError::TopicMissing { .. })),
        "{before_all:?}"
    );
    assert_eq!(
        topics.partitions(&name).await.unwrap(),
        None,
        "asking created nothing"
    );

    topics.create(&name, 2, &[]).await.unwrap();
    let first = block_in_place(|| ask(&consumer, &name)).unwrap();
    assert_eq!(first.partition_count, 2);
    assert!(first.topic_id.is_some() && first.cluster_id.is_some());

    topics.increase_partitions(&name, 3).await.unwrap();
    let grown = block_in_place(|| ask(&consumer, &name)).unwrap();
    assert_eq!(
        grown,
        LogIdentity {
            partition_count: 3,
            ..first.clone()
        }
    );

    topics.delete(&name).await.unwrap();
    let gone = block_in_place(|| ask(&consumer, &name));
    assert!(
        matches!(gone, Err(LogError::TopicMissing { .. })),
        "{gone:?}"
    );

    topics.create(&name, 2, &[]).await.unwrap();
    let second = block_in_place(|| ask(&consumer, &name)).unwrap();
    assert_eq!(second.cluster_id, first.cluster_id);
    assert_ne!(second.topic_id, first.topic_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_show_what_retention_took_and_records_show_their_epoch() {
    if !can_run_apache_kafka("bounds of the log").await.unwrap() {
        return;
    }
    let bootstrap = test_kafka().await.unwrap();
    let topics = Topics::of(&bootstrap).unwrap();
    let consumer = consumer(&bootstrap);
    let name = a_topic("bounds");
    topics.create(&name, 2, &[]).await.unwrap();
    block_in_place(|| produce(&bootstrap, &name, 1, 10));
    topics.delete_records(&name, 1, 4).await.unwrap();

    block_in_place(|| {
        let left = bounds(&consumer, &name, Partition(1), LIMIT).unwrap();
        assert_eq!(
            left,
            Bounds {
                start: Offset(4),
                end: Offset(10)
            }
        );
        assert!(!left.admit(Offset(3)), "retention has passed it");

        let mut position = TopicPartitionList::new();
        position
            .add_partition_offset(&name, 1, rdkafka::Offset::Offset(4))
            .unwrap();
        set_epoch(&mut position, &name, Partition(1), Some(LeaderEpoch(0))).unwrap();
        consumer.assign(&position).unwrap();
        let record = consumer.poll(LIMIT).unwrap().unwrap();
        assert_eq!(record.offset(), 4);
        assert_eq!(epoch_of(&record), Some(LeaderEpoch(0)));
    });
}
