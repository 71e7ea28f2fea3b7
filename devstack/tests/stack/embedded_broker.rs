use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use millrace_devstack::EmbeddedBroker;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _};

use crate::log_reader::produce;
use crate::within;

fn member(bootstrap: &str, protocol: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "workers")
        .set("group.protocol", protocol)
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "10");
    if protocol == "classic" {
        config
            .set("session.timeout.ms", "1500")
            .set("heartbeat.interval.ms", "200");
    }
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&["tasks"]).unwrap();
    consumer
}

/// Both members poll until each owns partitions, and then until every record was seen.
fn share(bootstrap: &str, protocol: &str, records: usize) -> (usize, BTreeSet<Vec<u8>>) {
    let members = [member(bootstrap, protocol), member(bootstrap, protocol)];
    let mut seen = BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        for consumer in &members {
            if let Some(Ok(record)) = consumer.poll(Duration::from_millis(20)) {
                seen.insert(record.payload().unwrap_or_default().to_vec());
            }
        }
        let owners = members
            .iter()
            .filter(|m| m.assignment().is_ok_and(|list| list.count() > 0))
            .count();
        if (owners == 2 && seen.len() == records) || Instant::now() > deadline {
            // Not waited for: librdkafka 2.12 never answers a member that gives its partitions back when it has
            // left its group already, as happens when its session is lost while it is closed.
            std::thread::spawn(move || drop(members));
            return (owners, seen);
        }
    }
}

#[tokio::test]
async fn two_consumers_of_a_group_share_the_records_under_both_protocols() {
    for protocol in ["classic", "consumer"] {
        within(60, async {
            let broker = EmbeddedBroker::start().unwrap();
            broker.create_topic("tasks", 4).unwrap();
            for partition in 0..4 {
                let payload = format!("of {partition}");
                produce(
                    broker.bootstrap(),
                    "tasks",
                    partition,
                    &[payload.as_bytes()],
                )
                .await;
            }
            let bootstrap = broker.bootstrap().to_owned();
            let shared = tokio::task::spawn_blocking(move || share(&bootstrap, protocol, 4));
            let (owners, seen) = shared.await.unwrap();
            assert_eq!((owners, seen.len()), (2, 4), "{protocol}");
            assert!(!broker.truncated());
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unguarded_broker_drops_old_records_and_truncated_tells() {
    within(60, async {
        let broker = EmbeddedBroker::start().unwrap();
        broker.create_topic("tasks", 1).unwrap();
        let megabyte = vec![b'x'; 900_000];
        produce(broker.bootstrap(), "tasks", 0, &[&megabyte[..]; 8]).await;
        assert!(broker.truncated());
    })
    .await;
}
