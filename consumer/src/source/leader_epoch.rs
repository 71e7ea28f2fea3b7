//! The leader epoch of a record, and of a position to begin at.
//!
//! A position that carries the epoch of the record before it lets librdkafka ask the broker whether
//! the log was truncated below it (KIP-320); without one it does not ask. rdkafka wraps neither
//! side.
#![expect(unsafe_code, reason = "rdkafka has no safe access to leader epochs")]

use std::ffi::CString;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as native;
use rdkafka::message::BorrowedMessage;
use thiserror::Error;

use crate::engine::{LeaderEpoch, Partition};

/// An epoch was given for a partition that the list does not name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the list does not name partition {partition} of topic {topic}")]
pub struct NotListed {
    /// The topic given.
    pub topic: String,
    /// The partition given.
    pub partition: Partition,
}

/// The epoch under which `message` was appended; `None` when the broker did not tell.
#[must_use]
pub fn epoch_of(message: &BorrowedMessage<'_>) -> Option<LeaderEpoch> {
    // SAFETY: the pointer is that of a message which is borrowed for the length of the call.
    LeaderEpoch::known(unsafe { native::rd_kafka_message_leader_epoch(message.ptr()) })
}

/// Gives the position of a partition in `list` the epoch of the record before it, or takes it away.
///
/// # Errors
/// [`NotListed`] when `list` does not name the partition.
pub fn set_epoch(
    list: &mut TopicPartitionList,
    topic: &str,
    partition: Partition,
    epoch: Option<LeaderEpoch>,
) -> Result<(), NotListed> {
    let not_listed = || NotListed {
        topic: topic.to_owned(),
        partition,
    };
    let name = CString::new(topic).map_err(|_| not_listed())?;
    // SAFETY: `list` is borrowed mutably, so that nobody else reads or changes its elements; the
    // name is a C string; the element found belongs to the list and is not kept.
    unsafe {
        let element =
            native::rd_kafka_topic_partition_list_find(list.ptr(), name.as_ptr(), partition.0);
        if element.is_null() {
            return Err(not_listed());
        }
        native::rd_kafka_topic_partition_set_leader_epoch(element, epoch.map_or(-1, |e| e.0));
    }
    Ok(())
}

/// The epoch that a partition's position in `list` carries, such as one that Kafka keeps.
#[must_use]
pub fn listed_epoch(
    list: &TopicPartitionList,
    topic: &str,
    partition: Partition,
) -> Option<LeaderEpoch> {
    let name = CString::new(topic).ok()?;
    // SAFETY: as in `set_epoch`; the element is only read while the list is borrowed.
    unsafe {
        let element =
            native::rd_kafka_topic_partition_list_find(list.ptr(), name.as_ptr(), partition.0);
        if element.is_null() {
            return None;
        }
        LeaderEpoch::known(native::rd_kafka_topic_partition_get_leader_epoch(element))
    }
}
