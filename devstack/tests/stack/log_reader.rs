//! Reads and writes a topic the plain way, to see what a broker holds.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

pub async fn produce(bootstrap: &str, topic: &str, partition: i32, payloads: &[&[u8]]) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .create()
        .unwrap();
    for payload in payloads {
        let record = FutureRecord::<(), [u8]>::to(topic)
            .partition(partition)
            .payload(*payload);
        producer
            .send(record, Duration::from_secs(30))
            .await
            .unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// All payloads of one partition, up to the end as it is now.
pub async fn read_all(bootstrap: &str, topic: &str, partition: i32) -> Vec<Vec<u8>> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    let read = move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &bootstrap)
            .set("group.id", "log-reader")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, partition, Offset::Beginning)
            .unwrap();
        consumer.assign(&list).unwrap();
        let (_, end) = consumer
            .fetch_watermarks(&topic, partition, Duration::from_secs(30))
            .unwrap();
        let mut payloads = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(30);
        while i64::try_from(payloads.len()).unwrap() < end && Instant::now() < deadline {
            if let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) {
                payloads.push(record.payload().unwrap_or_default().to_vec());
            }
        }
        payloads
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}
