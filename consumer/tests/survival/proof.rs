//! The proof: what the topic holds against what the tables hold, read by the test itself.
//!
//! Every record's coordinate must end as its own row with its own payload, or, where a deduplication key
//! says so, as the repeat of one that does. The product's audit is asked only after that.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use millrace_schemas::Decoders;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use crate::stage::{PARTITIONS, Stage};

/// How often each line of the input must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Every record of the topic is a row.
    EachRecord,
    /// Every id is one row, however many records have it.
    EachId,
}

/// What was found.
#[derive(Debug)]
pub struct Proof {
    pub records: u64,
    pub rows: u64,
}

struct Record {
    partition: i32,
    offset: i64,
    task: Uuid,
    dedup: Option<[u8; 16]>,
    id: u64,
    payload: u64,
}

/// Compares topic and tables, then asks the audit. `ids` are the lines of the input.
pub async fn prove(stage: &Stage, ids: u64, times: Times) -> Proof {
    let (kafka, topic) = (stage.kafka.clone(), stage.topic.clone());
    let records = tokio::task::spawn_blocking(move || read(&kafka, &topic))
        .await
        .unwrap();
    let distinct: HashSet<u64> = records.iter().map(|record| record.id).collect();
    assert_eq!(distinct.len() as u64, ids, "ids in the topic");
    assert!(distinct.iter().all(|id| *id < ids));

    let mut expected: HashMap<(i32, i64), &Record> = HashMap::new();
    let mut met = HashSet::new();
    for record in &records {
        let first = record.dedup.is_none_or(|dedup| met.insert(dedup));
        assert!(times == Times::EachId || record.dedup.is_none());
        if first {
            expected.insert((record.partition, record.offset), record);
        }
    }
    if times == Times::EachId {
        assert_eq!(expected.len() as u64, ids, "one first record an id");
    }
    let mut rows = 0;
    let mut connection = stage.connect().await;
    for partition in 0..PARTITIONS {
        let found: Vec<(i64, Uuid, String, String)> = sqlx::query_as(
            "SELECT \"offset\", task_id, status::text, result::text FROM task_results \
             WHERE topic = $1 AND partition = $2",
        )
        .bind(&stage.topic)
        .bind(partition)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        for (offset, task, status, result) in found {
            let Some(record) = expected.remove(&(partition, offset)) else {
                panic!(
                    "row {task} of {partition}/{offset} is there twice, or its record should have none"
                );
            };
            assert_eq!(record.task, task, "{partition}/{offset}");
            assert_eq!(
                record.payload,
                digest(result.as_bytes()),
                "{partition}/{offset}"
            );
            assert_eq!(status, "success", "{partition}/{offset}");
            rows += 1;
        }
    }
    let mut missing: Vec<(i32, i64)> = expected.into_keys().collect();
    missing.sort_unstable();
    assert!(
        missing.is_empty(),
        "{} records have no row: {:?} …",
        missing.len(),
        missing.get(..missing.len().min(10))
    );
    let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(letters, 0);
    audit(stage, &records, rows);
    Proof {
        records: records.len() as u64,
        rows,
    }
}

/// The product's own audit, against the counts of the test.
fn audit(stage: &Stage, records: &[Record], rows: u64) {
    let audit = stage.consumer(&["audit", "--deep", "--format", "json"]);
    let words = String::from_utf8_lossy(&audit.stderr);
    assert_eq!(audit.status.code(), Some(0), "{words}");
    let lines: Vec<serde_json::Value> = serde_json::from_slice(&audit.stdout).unwrap();
    let sum = |name: &str| -> u64 { lines.iter().map(|line| line[name].as_u64().unwrap()).sum() };
    assert_eq!(lines.len(), usize::try_from(PARTITIONS).unwrap());
    assert!(lines.iter().all(|line| line["balanced"] == true), "{words}");
    assert_eq!(sum("next_offset"), records.len() as u64);
    assert_eq!(sum("results"), rows);
    assert_eq!(sum("duplicates"), records.len() as u64 - rows);
    assert_eq!(
        sum("lag") + sum("dead_letters") + sum("parked") + sum("gaps") + sum("lost"),
        0
    );
}

/// How many records the topic holds.
pub async fn logged(stage: &Stage) -> u64 {
    let (kafka, topic) = (stage.kafka.clone(), stage.topic.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", kafka)
            .create()
            .unwrap();
        let ends = (0..PARTITIONS).map(|partition| {
            let limit = Duration::from_secs(10);
            client.fetch_watermarks(&topic, partition, limit).unwrap().1
        });
        u64::try_from(ends.sum::<i64>()).unwrap()
    });
    asked.await.unwrap()
}

/// Every record of the topic, each partition in its order.
fn read(kafka: &str, topic: &str) -> Vec<Record> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "survival-proof")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let decoders = Decoders::new();
    let mut records = Vec::new();
    let mut ended = HashSet::new();
    let deadline = Instant::now() + Duration::from_secs(300);
    while ended.len() < usize::try_from(PARTITIONS).unwrap() {
        assert!(
            Instant::now() < deadline,
            "{} records read: the topic has no end",
            records.len()
        );
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                let decoded = decoders.decode(message.payload().unwrap()).unwrap();
                let event = decoded.event();
                records.push(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    task: Uuid::from_bytes(*event.task_id.as_bytes()),
                    dedup: event.dedup_hash().map(|hash| hash.0),
                    id: id(event.payload),
                    payload: digest(event.payload),
                });
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => panic!("{error}"),
        }
    }
    records.sort_unstable_by_key(|record| (record.partition, record.offset));
    records
}

fn id(payload: &[u8]) -> u64 {
    let digits = payload.strip_prefix(b"{\"id\":").unwrap();
    let end = digits.iter().position(|byte| *byte == b',').unwrap();
    std::str::from_utf8(&digits[..end])
        .unwrap()
        .parse()
        .unwrap()
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
