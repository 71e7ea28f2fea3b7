//! Encoded records, made ahead of time so that no measurement pays for making them.

use std::ops::Range;

use millrace_schemas::{Framing, TaskEventRef, TaskId, encode};

use crate::rows::Room;

/// Records in memory, ready to be sent as often as needed.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    value: Range<usize>,
    key: Option<Range<usize>>,
    task_id: TaskId,
}

/// Which keys the events have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// An ordering key each.
    Ordering,
    /// An ordering key and a deduplication key each.
    Deduplication,
    /// None.
    None,
}

/// One record, as it goes to Kafka.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The encoded event.
    pub value: &'a [u8],
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The event's id, for the header.
    pub task_id: TaskId,
}

impl Backlog {
    /// The first `events` events, encoded.
    pub fn encoded(events: u64, keys: Keys) -> Self {
        let count = usize::try_from(events).unwrap_or(usize::MAX);
        let mut backlog = Self {
            bytes: Vec::with_capacity(count.saturating_mul(240)),
            places: Vec::with_capacity(count),
        };
        let mut room = Room::default();
        for index in 0..events {
            let event = room.event(index, keys == Keys::Deduplication);
            backlog.push(&TaskEventRef {
                key: event.key.filter(|_| keys != Keys::None),
                ..event
            });
        }
        backlog
    }

    /// Adds a record of this event.
    pub fn push(&mut self, event: &TaskEventRef<'_>) {
        let value = self.bytes.len();
        encode(event, Framing::SingleObject, &mut self.bytes);
        let value = value..self.bytes.len();
        let key = event.record_key().map(|key| {
            self.bytes.extend_from_slice(key);
            value.end..self.bytes.len()
        });
        self.places.push(Place {
            value,
            key,
            task_id: event.task_id,
        });
    }

    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let part = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        self.places.iter().map(move |place| Record {
            value: part(&place.value),
            key: place.key.as_ref().map(part),
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
