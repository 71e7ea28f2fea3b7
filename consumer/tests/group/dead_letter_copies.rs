//! Copies of dead letters reach their topic, with the headers that other tools read, whatever is away meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_consumer::outbox::{Outbox, dlq_topic};
use millrace_settings::{KafkaArgs, Role};
use millrace_telemetry::OutboxMetrics;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::events::event;
use super::planted::Planted;
use super::scene::{DEADLINE, Kafka, Scene, eventually};

/// A record of the dead-letter topic.
#[derive(Debug)]
struct Copy {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
}

impl Copy {
    fn header(&self, wanted: &str) -> Option<&[u8]> {
        let mut found = self.headers.iter().filter(|(name, _)| name == wanted);
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{wanted} comes once");
        Some(value)
    }

    fn offset(&self) -> i64 {
        let bytes = self.header("kafka_dlt-original-offset").unwrap();
        i64::from_be_bytes(bytes.try_into().unwrap())
    }
}

fn start(scene: &Scene, bootstrap: &str) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let outbox = Outbox {
        database: scene.store(),
        consumer: scene.consumer(),
        kafka: KafkaArgs::new(bootstrap, &scene.topic)
            .client_config(Role::Producer)
            .unwrap(),
        dlq_topic: dlq_topic(None, &scene.topic),
        metrics: OutboxMetrics::new(),
    };
    let running = tokio::spawn(outbox.run(stop.clone()));
    (stop, running)
}

async fn create(scene: &Scene, topic: &str) {
    match &scene.kafka {
        Kafka::Embedded(broker) => broker.create_topic(topic, 3).unwrap(),
        Kafka::Apache(topics) => topics.create(topic, 3, &[]).await.unwrap(),
    }
}

/// The first `wanted` copies, by offset.
async fn copies(scene: &Scene, wanted: usize) -> BTreeMap<i64, Copy> {
    let topic = dlq_topic(None, &scene.topic);
    let bootstrap = scene.bootstrap.clone();
    let read = move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut all = TopicPartitionList::new();
        for partition in 0..3 {
            all.add_partition_offset(&topic, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&all).unwrap();
        let deadline = Instant::now() + DEADLINE;
        let mut found = BTreeMap::new();
        while found.len() < wanted {
            assert!(Instant::now() < deadline, "{} copies", found.len());
            let Some(record) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let record = record.unwrap();
            let headers = record.headers().unwrap();
            let copy = Copy {
                key: record.key().map(<[u8]>::to_vec),
                value: record.payload().unwrap().to_vec(),
                headers: headers
                    .iter()
                    .map(|header| (header.key.to_owned(), header.value.unwrap().to_vec()))
                    .collect(),
            };
            found.insert(copy.offset(), copy);
        }
        found
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

async fn outbox_survives_a_missing_topic(scene: &Scene) {
    let mut keyed = event(1);
    keyed.key = Some("k".to_owned());
    let planted = [
        Planted::failed(&keyed, "permanent"),
        Planted::bytes(b"\xc3no event"),
        Planted::failed(&event(2), "attempts_exhausted"),
    ];
    scene.plant(&planted).await;
    let (stop, running) = start(scene, &scene.bootstrap);
    eventually("attempts that failed", async || {
        let failed = "SELECT count(*) FROM outbox WHERE attempts > 1 AND last_error <> ''";
        (scene.number(failed).await == 3).then_some(())
    })
    .await;
    create(scene, &dlq_topic(None, &scene.topic)).await;
    eventually("an empty outbox", async || {
        (scene.number("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
    let kept = "SELECT count(*) FROM dead_letters WHERE redriven_at IS NULL";
    assert_eq!(scene.number(kept).await, 3);

    let found = copies(scene, 3).await;
    for (offset, planted) in (0_i64..).zip(&planted) {
        let copy = &found[&offset];
        assert_eq!(copy.value, planted.value);
        let of = |name: &str| String::from_utf8(copy.header(name).unwrap().to_vec()).unwrap();
        assert_eq!(of("kafka_dlt-original-topic"), scene.topic);
        assert_eq!(of("kafka_dlt-exception-fqcn"), planted.reason);
        assert_eq!(of("kafka_dlt-exception-message"), "it went wrong");
        assert_eq!(of("__connect.errors.topic"), scene.topic);
        assert_eq!(of("__connect.errors.partition"), "0");
        assert_eq!(of("__connect.errors.offset"), offset.to_string());
        assert_eq!(of("__connect.errors.exception.message"), "it went wrong");
        assert_eq!(of("millrace-reason"), planted.reason);
        assert_eq!(of("millrace-run"), "0");
        let partition = copy.header("kafka_dlt-original-partition").unwrap();
        assert_eq!(partition, [0, 0, 0, 0]);
        let time = copy.header("kafka_dlt-original-timestamp").unwrap();
        assert_eq!(time, 1_800_000_000_000_i64.to_be_bytes());
        let colours: Vec<&[u8]> = copy
            .headers
            .iter()
            .filter(|(name, _)| name == "colour")
            .map(|(_, value)| value.as_slice())
            .collect();
        assert_eq!(colours, [b"blue".as_slice(), b"green"]);
    }
    assert_eq!(found[&0].key.as_deref(), Some(b"k".as_slice()));
    assert_eq!(found[&1].key, None);
    let id = found[&0].header("task_id").unwrap();
    assert_eq!(id, keyed.task_id.to_string().as_bytes());
    assert_eq!(found[&1].header("task_id"), None);
    stop.cancel();
    tokio::time::timeout(DEADLINE, running)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_19_copies_wait_for_a_topic_that_is_missing_and_come_as_other_tools_read_them() {
    let scene = Scene::embedded("copies", 1).await;
    outbox_survives_a_missing_topic(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_19_the_same_on_apache_kafka() {
    let Some(scene) = Scene::apache("copies_apache", 1).await else {
        return;
    };
    outbox_survives_a_missing_topic(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_cost_the_copies_nothing_but_time() {
    let scene = Scene::embedded("copies_away", 1).await;
    create(&scene, &dlq_topic(None, &scene.topic)).await;
    let planted: Vec<Planted> = (0..700)
        .map(|number| Planted::failed(&event(number), "permanent"))
        .collect();
    scene.plant(&planted).await;
    let (stop, running) = start(&scene, "127.0.0.1:1");
    eventually("an attempt that failed", async || {
        let failed = "SELECT count(*) FROM outbox WHERE attempts > 0";
        (scene.number(failed).await > 0).then_some(())
    })
    .await;
    assert_eq!(scene.number("SELECT count(*) FROM outbox").await, 700);
    stop.cancel();
    tokio::time::timeout(DEADLINE, running)
        .await
        .unwrap()
        .unwrap();

    let (stop, running) = start(&scene, &scene.bootstrap);
    assert_eq!(copies(&scene, 700).await.len(), 700);
    eventually("an empty outbox", async || {
        (scene.number("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
    stop.cancel();
    tokio::time::timeout(DEADLINE, running)
        .await
        .unwrap()
        .unwrap();
}
