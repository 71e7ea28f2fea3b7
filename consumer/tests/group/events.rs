//! Making events, and putting them and other bytes into the log.

use std::time::{SystemTime, UNIX_EPOCH};

use millrace_schemas::{Framing, TaskEvent, TaskId, encode};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::scene::Scene;

/// An event of no key, with its number as its payload.
pub fn event(number: usize) -> TaskEvent {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    TaskEvent {
        task_id: TaskId::mint(),
        task_type: "edit".to_owned(),
        tenant: "default".to_owned(),
        key: None,
        dedup_key: None,
        submitted_at: i64::try_from(now.as_micros()).unwrap(),
        run_at: None,
        deadline: None,
        content_type: "application/json".to_owned(),
        reply: false,
        callback: None,
        payload: format!("{{\"n\":{number}}}").into_bytes(),
    }
}

pub fn events(count: usize) -> Vec<TaskEvent> {
    (0..count).map(event).collect()
}

pub fn framed(event: &TaskEvent, framing: Framing) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&event.as_ref(), framing, &mut bytes);
    bytes
}

/// A record as it goes into the log.
#[derive(Debug, Clone, Default)]
pub struct Raw {
    pub value: Option<Vec<u8>>,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, String)>,
}

impl Raw {
    pub fn of(value: &[u8]) -> Raw {
        Raw {
            value: Some(value.to_vec()),
            ..Raw::default()
        }
    }
}

impl Scene {
    pub fn producer(&self, settings: &[(&str, &str)]) -> FutureProducer {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("linger.ms", "2")
            .set("allow.auto.create.topics", "false");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config.create().unwrap()
    }

    /// Sends bytes to one partition, in order, and returns when all are acknowledged.
    pub async fn send_raw(&self, producer: &FutureProducer, partition: i32, records: &[Raw]) {
        let mut deliveries = Vec::with_capacity(records.len());
        for raw in records {
            let headers = raw
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header {
                        key,
                        value: Some(value.as_bytes()),
                    })
                });
            let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.topic)
                .partition(partition)
                .headers(headers);
            record.payload = raw.value.as_deref();
            record.key = raw.key.as_deref();
            deliveries.push(producer.send_result(record).map_err(|(e, _)| e).unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
    }

    /// Sends events to one partition.
    pub async fn send_to(&self, partition: i32, events: &[TaskEvent]) {
        self.send_with(&self.producer(&[]), partition, events).await;
    }

    /// Sends events to one partition by a producer that is there already.
    pub async fn send_with(&self, producer: &FutureProducer, partition: i32, events: &[TaskEvent]) {
        let records: Vec<Raw> = events
            .iter()
            .map(|event| Raw {
                value: Some(framed(event, Framing::SingleObject)),
                key: event.as_ref().record_key().map(<[u8]>::to_vec),
                headers: Vec::new(),
            })
            .collect();
        self.send_raw(producer, partition, &records).await;
    }

    /// Sends so many new events to each of the partitions `0..partitions`.
    pub async fn send_each(&self, partitions: i32, count: usize) {
        for partition in 0..partitions {
            self.send_to(partition, &events(count)).await;
        }
    }
}
