//! The events of every measurement: what a wiki's stream of edits looks like, about 200 bytes each.
//!
//! An event's content follows from its number alone, so the rows of the bare COPY and those of the
//! pipeline are the same rows; only ids and times are those of the moment. With deduplication keys,
//! one event in a hundred repeats an earlier one, half of them a near one and half a far one.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_schemas::{TaskEventRef, TaskId};

/// The task type of every event.
pub const TASK_TYPE: &str = "wiki-edit";
/// The tenant of every event.
pub const TENANT: &str = "default";
/// JSON pointer to the ordering key in a payload.
pub const KEY_POINTER: &str = "/user";
/// Of so many events with deduplication keys one is a repeat.
pub const ONE_REPEAT_IN: u64 = 100;

const CONTENT_TYPE: &str = "application/json";
const USERS: u64 = 20_000;
const NEAR: u64 = 50;
const FAR: u64 = 40_050;

/// Room for one event's texts, used again from event to event.
#[derive(Debug, Default)]
pub struct Room {
    payload: String,
    key: String,
    dedup_key: String,
}

impl Room {
    /// Event number `index`, with a new id and the time of now.
    pub fn event(&mut self, index: u64, with_dedup_key: bool) -> TaskEventRef<'_> {
        let content = if with_dedup_key {
            content_of(index)
        } else {
            index
        };
        self.fill(content);
        TaskEventRef {
            task_id: TaskId::mint(),
            task_type: TASK_TYPE,
            tenant: TENANT,
            key: Some(&self.key),
            dedup_key: with_dedup_key.then_some(self.dedup_key.as_str()),
            submitted_at: unix_micros(),
            run_at: None,
            deadline: None,
            content_type: CONTENT_TYPE,
            reply: false,
            callback: None,
            payload: self.payload.as_bytes(),
        }
    }

    /// The payload of event number `index`: a line of a file for `emit`.
    pub fn line(&mut self, index: u64) -> &str {
        self.fill(index);
        &self.payload
    }

    fn fill(&mut self, content: u64) {
        let dice = scramble(content);
        let (user, page) = (dice % USERS, (dice >> 20) % 5_000_000);
        let (delta, minor) = ((dice >> 8) % 4_000, dice >> 63 == 1);
        for text in [&mut self.payload, &mut self.key, &mut self.dedup_key] {
            text.clear();
        }
        // Writing into a String cannot fail.
        let _ = write!(self.key, "user-{user:05}");
        let _ = write!(self.dedup_key, "edit-{content:09}");
        let _ = write!(
            self.payload,
            r#"{{"id":{content},"wiki":"enwiki","page":"Page {page:07}","user":"user-{user:05}","delta":{delta},"minor":{minor},"bot":false}}"#
        );
    }
}

/// How many of the first `events` are repeats.
pub const fn repeats(events: u64) -> u64 {
    events / ONE_REPEAT_IN
}

/// Which content an event has: its own, or that of the event it repeats.
const fn content_of(index: u64) -> u64 {
    if index % ONE_REPEAT_IN != ONE_REPEAT_IN - 1 {
        return index;
    }
    let is_far = (index / ONE_REPEAT_IN).is_multiple_of(2) && index >= FAR;
    index - if is_far { FAR } else { NEAR }
}

/// SplitMix64 (Steele, Lea, Flood 2014): numbers that look random and are the same in each run.
pub const fn scramble(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The time of now, microseconds since the Unix epoch.
pub fn unix_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_event_in_a_hundred_repeats_an_earlier_one_whole() {
        let events = 100_000;
        let mut seen = HashSet::new();
        let mut room = Room::default();
        let mut found = 0;
        for index in 0..events {
            let event = room.event(index, true);
            let content = (event.dedup_key.map(str::to_owned), event.fingerprint().0);
            found += u64::from(!seen.insert(content));
        }
        assert_eq!(found, repeats(events));
    }

    #[test]
    fn an_event_is_about_two_hundred_bytes() {
        let mut encoded = Vec::new();
        let mut room = Room::default();
        for index in [0, 999_999] {
            encoded.clear();
            let event = room.event(index, false);
            millrace_schemas::encode(
                &event,
                millrace_schemas::Framing::SingleObject,
                &mut encoded,
            );
            assert!((190..=220).contains(&encoded.len()), "{}", encoded.len());
        }
    }

    #[test]
    fn the_line_of_an_event_is_its_payload_and_holds_its_key() {
        let mut room = Room::default();
        let line = room.line(7).to_owned();
        let event = room.event(7, false);
        assert_eq!(event.payload, line.as_bytes());
        assert!(line.contains(event.key.unwrap_or("no key")));
    }
}
