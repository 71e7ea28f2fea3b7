//! The id that a topic got when it was created (KIP-516), which no other topic of that name has.
//!
//! librdkafka tells it in its answer to DescribeTopics, which rdkafka does not wrap. Everything
//! taken from librdkafka here is given back on every way out.
#![expect(unsafe_code, reason = "rdkafka has no safe way to describe a topic")]

use std::ffi::{CStr, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

/// How much longer than the brokers' time the client itself may take to report that it is over.
const GRACE: Duration = Duration::from_secs(1);

/// An object of librdkafka that is destroyed when dropped.
struct Owned<T> {
    object: *mut T,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Owned<T>> {
        (!object.is_null()).then_some(Owned { object, destroy })
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the object is not null, came from the constructor that belongs to this destructor,
        // and nothing else destroys it.
        unsafe { (self.destroy)(self.object) }
    }
}

/// Asks `broker` for the id of `topic`, in Kafka's own base64 form. `None` when the brokers keep no
/// ids. Does not create the topic.
///
/// Any broker knows the id. Left to itself, librdkafka would ask the controller and wait for one,
/// which its own in-process broker never names.
///
/// # Errors
/// What the client or a broker said: `UnknownTopicOrPartition` for a topic that does not exist,
/// `OperationTimedOut` when no answer came within `timeout`.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    topic: &CStr,
    timeout: Duration,
) -> Result<Option<String>, RDKafkaErrorCode> {
    match describe(client, broker, topic, timeout) {
        Err(RDKafkaErrorCode::UnsupportedFeature) => Ok(None),
        answer => answer,
    }
}

fn describe<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    topic: &CStr,
    timeout: Duration,
) -> Result<Option<String>, RDKafkaErrorCode> {
    let client = client.native_ptr();
    let mut names = [topic.as_ptr()];
    // SAFETY: `client` lives as long as the borrowed `Client`; the collection copies the names; the
    // request copies collection and options, and holds the queue by a reference of its own, so that
    // an answer after the deadline finds it.
    let event = unsafe {
        let topics = Owned::new(
            native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            native::rd_kafka_TopicCollection_destroy,
        );
        let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Owned::new(
            native::rd_kafka_AdminOptions_new(client, operation),
            native::rd_kafka_AdminOptions_destroy,
        );
        let queue = Owned::new(
            native::rd_kafka_queue_new(client),
            native::rd_kafka_queue_destroy,
        );
        let (Some(topics), Some(options), Some(queue)) = (topics, options, queue) else {
            return Err(RDKafkaErrorCode::Fail);
        };
        let mut complaint: [c_char; 256] = [0; 256];
        accept(native::rd_kafka_AdminOptions_set_request_timeout(
            options.object,
            milliseconds(timeout),
            complaint.as_mut_ptr(),
            complaint.len(),
        ))?;
        accept(native::rd_kafka_AdminOptions_set_broker(
            options.object,
            broker,
            complaint.as_mut_ptr(),
            complaint.len(),
        ))?;
        native::rd_kafka_DescribeTopics(client, topics.object, options.object, queue.object);
        Owned::new(
            native::rd_kafka_queue_poll(queue.object, milliseconds(timeout + GRACE)),
            native::rd_kafka_event_destroy,
        )
    };
    let event = event.ok_or(RDKafkaErrorCode::OperationTimedOut)?;
    // SAFETY: what the event and the description hand out belongs to the event and lives as long;
    // the id is copied before the event is destroyed.
    unsafe {
        accept(native::rd_kafka_event_error(event.object))?;
        let result = native::rd_kafka_event_DescribeTopics_result(event.object);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count == 0 {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        }
        let description = ptr::read(topics);
        let error = native::rd_kafka_TopicDescription_error(description);
        if !error.is_null() {
            accept(native::rd_kafka_error_code(error))?;
        }
        Ok(text(native::rd_kafka_TopicDescription_topic_id(
            description,
        )))
    }
}

/// The id as text; `None` for the zero id, which a broker without ids gives.
///
/// # Safety
/// `id` is null or points to an id that lives as long as this call.
unsafe fn text(id: *const native::rd_kafka_Uuid_t) -> Option<String> {
    if id.is_null() {
        return None;
    }
    // SAFETY: `id` is valid by the caller's word; its text is a C string that belongs to it.
    unsafe {
        let high = native::rd_kafka_Uuid_most_significant_bits(id);
        let low = native::rd_kafka_Uuid_least_significant_bits(id);
        let text = native::rd_kafka_Uuid_base64str(id);
        if (high, low) == (0, 0) || text.is_null() {
            return None;
        }
        CStr::from_ptr(text).to_str().ok().map(str::to_owned)
    }
}

fn accept(code: native::rd_kafka_resp_err_t) -> Result<(), RDKafkaErrorCode> {
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => Ok(()),
        error => Err(error),
    }
}

fn milliseconds(duration: Duration) -> i32 {
    // An hour is the longest that librdkafka takes.
    i32::try_from(duration.as_millis())
        .unwrap_or(i32::MAX)
        .min(3_600_000)
}
