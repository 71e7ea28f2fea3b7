//! Events, and other bytes, on their way into the log.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_schemas::{Framing, TaskEvent, TaskId, encode};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use crate::stage::Stage;

/// A record as it goes into the log.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<(&'static str, String)>,
}

/// A task of a type, with a key and this payload.
pub fn task(task_type: &str, key: Option<&str>, payload: String) -> Record {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let event = TaskEvent {
        task_id: TaskId::mint(),
        task_type: task_type.to_owned(),
        tenant: "default".to_owned(),
        key: key.map(str::to_owned),
        dedup_key: None,
        submitted_at: i64::try_from(now.as_micros()).unwrap(),
        run_at: None,
        deadline: None,
        content_type: "application/json".to_owned(),
        reply: false,
        callback: None,
        payload: payload.into_bytes(),
    };
    let mut value = Vec::new();
    encode(&event.as_ref(), Framing::SingleObject, &mut value);
    Record {
        partition: None,
        key: event.as_ref().record_key().map(<[u8]>::to_vec),
        value,
        headers: vec![("task_id", event.task_id.to_string())],
    }
}

/// Sends records to a stage's topic.
#[derive(Clone)]
pub struct Sender {
    producer: FutureProducer,
    topic: String,
}

impl Sender {
    pub fn to(stage: &Stage) -> Sender {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &stage.kafka)
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("log_level", "0")
            .create()
            .unwrap();
        Sender {
            producer,
            topic: stage.topic.clone(),
        }
    }

    /// Sends records; where each lies, in their order.
    pub async fn send(&self, records: impl IntoIterator<Item = Record>) -> Vec<(i32, i64)> {
        let mut places = Vec::new();
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let in_the_air: Vec<DeliveryFuture> = records
                .by_ref()
                .take(5_000)
                .map(|record| self.offer(&record))
                .collect();
            for delivery in in_the_air {
                places.push(delivered(delivery).await);
            }
        }
        places
    }

    /// Hands a record over without waiting.
    pub fn offer(&self, record: &Record) -> DeliveryFuture {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value.as_bytes()),
                })
            });
        let mut message: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(&self.topic).headers(headers);
        message.payload = Some(&record.value);
        message.key = record.key.as_deref();
        message.partition = record.partition;
        self.producer
            .send_result(message)
            .map_err(|(error, _)| error)
            .unwrap()
    }

    /// Waits until fewer than so many records are on their way.
    pub async fn until_room(&self, most: i32) {
        let mut again = tokio::time::interval(Duration::from_millis(5));
        while self.producer.in_flight_count() >= most {
            again.tick().await;
        }
    }
}

/// Where a record lies, once the broker has it.
pub async fn delivered(delivery: DeliveryFuture) -> (i32, i64) {
    let delivery = delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
    (delivery.partition, delivery.offset)
}
