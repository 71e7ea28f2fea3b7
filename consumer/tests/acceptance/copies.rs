//! The copies of dead letters in their topic, as a reader of it finds them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Place and reason of every copy in the topic; each has to have all headers that other tools read.
pub fn copies(kafka: &str, dlq: &str, origin: &str, wanted: usize) -> BTreeMap<(i32, i64), String> {
    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..3 {
        all.add_partition_offset(dlq, partition, Offset::Beginning)
            .unwrap();
    }
    reader.assign(&all).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut found = BTreeMap::new();
    while found.len() < wanted {
        assert!(
            Instant::now() < deadline,
            "{} of {wanted} copies",
            found.len()
        );
        let Some(record) = reader.poll(Duration::from_millis(100)) else {
            continue;
        };
        let record = record.unwrap();
        assert!(record.payload().is_some_and(|value| !value.is_empty()));
        let headers: BTreeMap<String, Vec<u8>> = record
            .headers()
            .unwrap()
            .iter()
            .map(|header| {
                (
                    header.key.to_owned(),
                    header.value.unwrap_or_default().to_vec(),
                )
            })
            .collect();
        let text = |name: &str| {
            let value = headers
                .get(name)
                .unwrap_or_else(|| panic!("{name} of {headers:?}"));
            String::from_utf8(value.clone()).unwrap()
        };
        let partition: i32 = text("__connect.errors.partition").parse().unwrap();
        let offset: i64 = text("__connect.errors.offset").parse().unwrap();
        let reason = text("millrace-reason");
        assert_eq!(text("__connect.errors.topic"), origin);
        assert_eq!(text("kafka_dlt-original-topic"), origin);
        assert_eq!(text("kafka_dlt-exception-fqcn"), reason);
        assert_eq!(text("millrace-run"), "0");
        assert!(!text("kafka_dlt-exception-message").is_empty());
        assert_eq!(headers["kafka_dlt-original-offset"], offset.to_be_bytes());
        assert_eq!(
            headers["kafka_dlt-original-partition"],
            partition.to_be_bytes()
        );
        assert!(headers.contains_key("kafka_dlt-original-timestamp"));
        found.insert((partition, offset), reason);
    }
    found
}
