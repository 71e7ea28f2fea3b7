//! How a log must end, worked out one record after the other by brute force.
//!
//! It knows nothing of flushes, claims or crashes: whatever a history does, the tables must come to this.

use std::collections::{BTreeMap, HashMap};

use millrace_schemas::{Fingerprint, TaskEvent, TaskId};
use millrace_store::{Counts, Outcome, Settling};
use proptest::prelude::*;

use crate::events::{born_in_days, event, raw, record};

/// What a record of the log is.
#[derive(Debug, Clone)]
pub enum Entry {
    Event {
        /// Few ids, keys, tenants and payloads, so that they meet.
        id: usize,
        key: Option<u8>,
        mallory: bool,
        payload: u8,
        reply: bool,
    },
    NoEvent,
    OutOfRange,
}

/// The payload that the database refuses.
pub const POISON: u8 = 3;

pub fn entry() -> impl Strategy<Value = Entry> {
    let event = (
        0..40_usize,
        proptest::option::weighted(0.6, 0..6_u8),
        proptest::bool::weighted(0.2),
        prop_oneof![8 => Just(0_u8), 2 => Just(1), 1 => Just(POISON)],
        any::<bool>(),
    )
        .prop_map(|(id, key, mallory, payload, reply)| Entry::Event {
            id,
            key,
            mallory,
            payload,
            reply,
        });
    prop_oneof![10 => event, 1 => Just(Entry::NoEvent), 1 => Just(Entry::OutOfRange)]
}

/// A log: the same bytes at the same offsets each time it is read.
pub struct Log {
    events: Vec<Option<TaskEvent>>,
    far: Vec<bool>,
}

impl Log {
    pub fn of(entries: &[Entry]) -> Self {
        let ids: Vec<TaskId> = (0..40).map(|_| TaskId::mint()).collect();
        let events = entries
            .iter()
            .map(|entry| match entry {
                Entry::NoEvent => None,
                Entry::OutOfRange => Some(born_in_days(30)),
                Entry::Event {
                    id,
                    key,
                    mallory,
                    payload,
                    reply,
                } => Some(TaskEvent {
                    task_id: ids[*id],
                    tenant: if *mallory { "mallory" } else { "acme" }.into(),
                    dedup_key: key.map(|key| key.to_string()),
                    payload: if *payload == POISON {
                        b"\"poison\"".to_vec()
                    } else {
                        payload.to_string().into_bytes()
                    },
                    reply: *reply,
                    ..event()
                }),
            })
            .collect();
        let far = |entry: &Entry| matches!(entry, Entry::OutOfRange);
        Self {
            events,
            far: entries.iter().map(far).collect(),
        }
    }

    pub fn end(&self) -> i64 {
        i64::try_from(self.events.len()).unwrap()
    }

    /// The event at an offset, where it is one that can be worked on.
    pub fn event(&self, offset: i64) -> Option<&TaskEvent> {
        let at = usize::try_from(offset).unwrap();
        self.events[at].as_ref().filter(|_| !self.far[at])
    }

    /// The records from an offset on, at most so many.
    pub fn read(&self, from: i64, most: usize) -> Vec<Settling> {
        (0..)
            .zip(&self.events)
            .skip(usize::try_from(from).unwrap())
            .take(most)
            .map(|(offset, event)| match event {
                Some(event) => record(offset, event),
                None => raw(offset, "no event"),
            })
            .collect()
    }
}

/// What the tables must hold once the log is settled.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub outcomes: Vec<Outcome>,
    /// By id: offset, status, and the first task of a duplicate.
    pub rows: BTreeMap<TaskId, (i64, String, Option<TaskId>)>,
    /// By offset.
    pub letters: BTreeMap<i64, String>,
    /// Tasks that own a key.
    pub owners: Vec<TaskId>,
}

impl Settled {
    pub fn by(log: &Log) -> Self {
        let mut settled = Self::default();
        let mut owners: HashMap<[u8; 16], (TaskId, Fingerprint)> = HashMap::new();
        let mut contents: HashMap<TaskId, (String, Fingerprint)> = HashMap::new();
        for (offset, (event, far)) in (0..).zip(log.events.iter().zip(&log.far)) {
            let outcome = match event {
                None => settled.dead(offset, "undecodable", None),
                Some(_) if *far => settled.dead(offset, "id_out_of_range", None),
                Some(event) => settled.event(offset, event, &mut owners, &mut contents),
            };
            settled.outcomes.push(outcome);
        }
        settled.owners = owners.into_values().map(|(id, _)| id).collect();
        settled.owners.sort_unstable();
        settled
    }

    pub fn counts(&self, from: i64) -> Counts {
        let mut counts = Counts::default();
        for outcome in self.outcomes.iter().skip(usize::try_from(from).unwrap()) {
            counts.count(*outcome);
        }
        counts
    }

    fn dead(&mut self, offset: i64, reason: &str, failed: Option<TaskId>) -> Outcome {
        self.letters.insert(offset, reason.into());
        if let Some(id) = failed {
            let row = (offset, "failed".to_owned(), None);
            self.rows.entry(id).or_insert(row);
        }
        Outcome::DeadLetter
    }

    fn event(
        &mut self,
        offset: i64,
        event: &TaskEvent,
        owners: &mut HashMap<[u8; 16], (TaskId, Fingerprint)>,
        contents: &mut HashMap<TaskId, (String, Fingerprint)>,
    ) -> Outcome {
        let id = event.task_id;
        let content = (event.tenant.clone(), event.as_ref().fingerprint());
        let hash = event.as_ref().dedup_hash().map(|hash| hash.0);
        match contents.get(&id) {
            Some(known) if *known == content => return Outcome::Duplicate,
            Some(_) => return self.dead(offset, "id_conflict", None),
            None => {}
        }
        match hash.and_then(|hash| owners.get(&hash)) {
            Some((first, same)) if *same == content.1 => {
                if event.reply {
                    let status = self.rows[first].1.clone();
                    self.rows.insert(id, (offset, status, Some(*first)));
                    contents.insert(id, content);
                }
                Outcome::Duplicate
            }
            Some(_) => {
                contents.insert(id, content);
                self.dead(offset, "dedup_conflict", Some(id))
            }
            None if event.payload.starts_with(b"\"poison") => {
                contents.insert(id, content);
                self.dead(offset, "row_refused", Some(id))
            }
            None => {
                if let Some(hash) = hash {
                    owners.insert(hash, (id, content.1));
                }
                contents.insert(id, content);
                self.rows.insert(id, (offset, "success".into(), None));
                Outcome::Result
            }
        }
    }
}
