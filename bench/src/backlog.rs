//! Encoded records, made ahead of time so that no measurement pays for making them.

use std::ops::Range;

use millrace_schemas::{Framing, TaskId, encode};

use crate::rows::Room;

/// Records in memory, ready to be sent as often as needed.
#[derive(Debug)]
pub struct Backlog {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    value: Range<usize>,
    key: Range<usize>,
    task_id: TaskId,
}

/// One record, as it goes to Kafka.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The encoded event.
    pub value: &'a [u8],
    /// The ordering key.
    pub key: &'a [u8],
    /// The event's id, for the header.
    pub task_id: TaskId,
}

impl Backlog {
    /// The first `events` events, encoded.
    pub fn encoded(events: u64, with_dedup_keys: bool) -> Self {
        let count = usize::try_from(events).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(count.saturating_mul(240));
        let mut places = Vec::with_capacity(count);
        let mut room = Room::default();
        for index in 0..events {
            let event = room.event(index, with_dedup_keys);
            let value = bytes.len();
            encode(&event, Framing::SingleObject, &mut bytes);
            let key = bytes.len();
            bytes.extend_from_slice(event.record_key().unwrap_or_default());
            places.push(Place {
                value: value..key,
                key: key..bytes.len(),
                task_id: event.task_id,
            });
        }
        Self { bytes, places }
    }

    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let part = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        self.places.iter().map(move |place| Record {
            value: part(&place.value),
            key: part(&place.key),
            task_id: place.task_id,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Bytes of an encoded event, on average.
    pub fn mean_value_bytes(&self) -> f64 {
        let bytes: usize = self.places.iter().map(|place| place.value.len()).sum();
        bytes as f64 / self.places.len().max(1) as f64
    }
}
