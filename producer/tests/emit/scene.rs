//! A broker, a folder of input files, and the binary.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use millrace_devstack::EmbeddedBroker;
use millrace_schemas::{Decoders, TaskEvent};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

pub const TOPIC: &str = "tasks";
pub const PARTITIONS: i32 = 4;
const DEADLINE: Duration = Duration::from_secs(30);

/// What one test works with; all of it ends with the test.
pub struct Scene {
    pub broker: EmbeddedBroker,
    folder: tempfile::TempDir,
}

/// A finished run.
pub struct Ended {
    pub code: i32,
    pub summary: serde_json::Value,
    pub words: String,
}

impl Ended {
    pub fn counts(&self) -> (u64, u64, u64) {
        let count = |name: &str| self.summary[name].as_u64().unwrap();
        (count("read"), count("acknowledged"), count("rejected"))
    }
}

/// A record as it was found in the topic.
pub struct Received {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub headers: BTreeMap<String, String>,
    pub framed: Vec<u8>,
    pub event: TaskEvent,
}

impl Received {
    pub fn payload(&self) -> &str {
        std::str::from_utf8(&self.event.payload).unwrap()
    }
}

impl Scene {
    pub fn new() -> Scene {
        let broker = EmbeddedBroker::start().unwrap();
        broker.create_topic(TOPIC, PARTITIONS).unwrap();
        Scene {
            broker,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `producer emit` with what every test needs.
    pub fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_producer"));
        for name in [
            "RUST_LOG",
            "MILLRACE_TOPIC",
            "MILLRACE_SCHEMA_ID",
            "MILLRACE_METRICS_LISTEN",
        ] {
            command.env_remove(name);
        }
        command
            .env("KAFKA_BOOTSTRAP_SERVERS", self.broker.bootstrap())
            .env("MILLRACE_ALLOW_UNREPLICATED", "1")
            .args(["emit", "--type", "edit", "--format", "json"])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn spawn(&self, flags: &[&str]) -> Child {
        self.command(flags).spawn().unwrap()
    }

    pub fn emit(&self, flags: &[&str]) -> Ended {
        self.emit_input(flags, b"")
    }

    pub fn emit_input(&self, flags: &[&str], input: &[u8]) -> Ended {
        let mut child = self.spawn(flags);
        let mut stdin = child.stdin.take().unwrap();
        // A command that stops early does not read its input to the end.
        let _ = stdin.write_all(input);
        drop(stdin);
        ended(child.wait_with_output().unwrap())
    }

    /// The records in the topic, each partition in its order, one partition after the other.
    pub fn received(&self) -> Vec<Received> {
        let consumer = self.consumer();
        let mut left = self.ends(&consumer);
        let total: i64 = left.values().sum();
        let decoders = Decoders::new().with_confluent_id(7);
        let mut received = Vec::new();
        let deadline = Instant::now() + DEADLINE;
        while left.values().any(|left| *left > 0) {
            assert!(
                Instant::now() < deadline,
                "{} of {total} records read",
                received.len()
            );
            let Some(record) = consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let record = record.unwrap();
            *left.get_mut(&record.partition()).unwrap() -= 1;
            let headers = record.headers().unwrap();
            let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
            received.push(Received {
                partition: record.partition(),
                key: record.key().map(<[u8]>::to_vec),
                headers: headers
                    .iter()
                    .map(|header| (header.key.to_owned(), text(header.value)))
                    .collect(),
                framed: record.payload().unwrap().to_vec(),
                event: decoders
                    .decode(record.payload().unwrap())
                    .unwrap()
                    .event()
                    .to_owned(),
            });
        }
        received.sort_by_key(|record| record.partition);
        received
    }

    /// The payloads in the topic, sorted.
    pub fn payloads(&self) -> Vec<String> {
        let mut payloads: Vec<_> = self
            .received()
            .iter()
            .map(|record| record.payload().to_owned())
            .collect();
        payloads.sort();
        payloads
    }

    /// How many records the topic has.
    pub fn count(&self) -> i64 {
        self.ends(&self.consumer()).values().sum()
    }

    pub fn wait_for_count(&self, least: i64) {
        let consumer = self.consumer();
        let deadline = Instant::now() + DEADLINE;
        while self.ends(&consumer).values().sum::<i64>() < least {
            assert!(
                Instant::now() < deadline,
                "fewer than {least} records arrived"
            );
            std::thread::yield_now();
        }
    }

    fn ends(&self, consumer: &BaseConsumer) -> BTreeMap<i32, i64> {
        (0..PARTITIONS)
            .map(|partition| {
                (
                    partition,
                    consumer
                        .fetch_watermarks(TOPIC, partition, DEADLINE)
                        .unwrap()
                        .1,
                )
            })
            .collect()
    }

    fn consumer(&self) -> BaseConsumer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.broker.bootstrap())
            .set("group.id", "reader")
            .set("fetch.wait.max.ms", "5")
            .create()
            .unwrap();
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(TOPIC, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&all).unwrap();
        consumer
    }
}

pub fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        summary: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        words: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `{"n":1}` to `{"n":count}`, one a line.
pub fn numbered(count: usize) -> String {
    (1..=count).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}
