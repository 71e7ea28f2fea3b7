//! The Kafka client that sends the copies: idempotent, quiet, and it asks before it sends.
//!
//! A record for a topic that is not there would wait in the client for half a minute and then fail. So the
//! brokers are asked for the topic first, at the start and again after each failure.

use std::time::Duration;

use millrace_store::letters::WholeLetter;
use millrace_store::position::Consumer;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::headers::copy_headers;

/// How long a record may be on its way; what is not acknowledged by then is sent again later.
pub const DELIVERY_DEADLINE: Duration = Duration::from_secs(15);
/// How long the brokers may take to tell of the topic.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Defaults beside the role's; each can be set otherwise.
const DEFAULTS: [(&str, &str); 2] = [
    // Records are as large as the tasks' topic allowed: the broker decides whether it takes them.
    ("message.max.bytes", "67108864"),
    // A batch over the topic's limit would be refused as a whole, small records with large ones.
    ("batch.size", "524288"),
];

/// What the client says goes to the debug log: the sender says once what it means.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the Kafka client of the outbox reports an error");
    }
}

/// Sends copies to one topic.
#[derive(Clone)]
pub struct LetterProducer {
    producer: FutureProducer<Quiet>,
    topic: String,
}

impl LetterProducer {
    /// Makes the client; nothing is contacted yet.
    ///
    /// # Errors
    /// When librdkafka refuses a setting.
    pub fn new(mut config: ClientConfig, topic: &str) -> Result<Self, KafkaError> {
        for (name, value) in DEFAULTS {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        let deadline = DELIVERY_DEADLINE.as_millis().to_string();
        config.set("enable.idempotence", "true");
        config.set("message.timeout.ms", deadline);
        Ok(Self {
            producer: config.create_with_context(Quiet)?,
            topic: topic.to_owned(),
        })
    }

    /// Asks whether the topic is there.
    ///
    /// # Errors
    /// In words, that it is not, or that the brokers do not tell.
    pub async fn confirm_topic(&self) -> Result<(), String> {
        let this = self.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let client = this.producer.client();
            let metadata = client
                .fetch_metadata(Some(&this.topic), ANSWER_DEADLINE)
                .map_err(|error| format!("the brokers do not answer: {error}"))?;
            let topic = metadata
                .topics()
                .iter()
                .find(|found| found.name() == this.topic);
            match topic {
                Some(found) if found.error().is_none() && !found.partitions().is_empty() => Ok(()),
                Some(found) => Err(match found.error() {
                    Some(error) => format!("topic {}: {error:?}", this.topic),
                    None => format!("topic {} has no partitions", this.topic),
                }),
                None => Err(format!("topic {} is not there", this.topic)),
            }
        });
        asked.await.map_err(|error| error.to_string())?
    }

    /// Hands a copy to the client.
    ///
    /// # Errors
    /// In words, that the client does not take it.
    pub fn send(&self, consumer: &Consumer, whole: &WholeLetter) -> Result<DeliveryFuture, String> {
        let headers = copy_headers(consumer, whole);
        let headers = headers.iter().fold(
            OwnedHeaders::new_with_capacity(headers.len()),
            |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            },
        );
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.topic)
            .payload(whole.value.as_slice())
            .headers(headers);
        record.key = whole.letter.key.as_deref();
        self.producer
            .send_result(record)
            .map_err(|(error, _)| error.to_string())
    }

    /// Whether the client can send nothing any more and has to be made anew.
    #[must_use]
    pub fn is_beyond_repair(&self) -> bool {
        self.producer.client().fatal_error().is_some()
    }
}
