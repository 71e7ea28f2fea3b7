//! Task events and records as the tests need them: plain by default, changed where it matters.

use millrace_schemas::{Framing, TaskEvent, TaskId, encode};
use millrace_store::{Ending, Headers, Origin, Settling};

/// An event born now, with a JSON payload and nothing else.
pub fn event() -> TaskEvent {
    TaskEvent {
        task_id: TaskId::mint(),
        task_type: "mail".into(),
        tenant: "acme".into(),
        key: None,
        dedup_key: None,
        submitted_at: 1_800_000_000_000_000,
        run_at: None,
        deadline: None,
        content_type: "application/json".into(),
        reply: false,
        callback: None,
        payload: br#"{"to":"a@example.org"}"#.to_vec(),
    }
}

/// Several of them.
pub fn events(count: usize) -> Vec<TaskEvent> {
    (0..count).map(|_| event()).collect()
}

/// With a deduplication key.
pub fn keyed(key: &str) -> TaskEvent {
    TaskEvent {
        dedup_key: Some(key.into()),
        ..event()
    }
}

/// With another payload.
pub fn saying(payload: &str) -> TaskEvent {
    TaskEvent {
        payload: payload.into(),
        ..event()
    }
}

/// Born so many days from now.
pub fn born_in_days(days: i64) -> TaskEvent {
    let now = i64::try_from(TaskId::mint().born_ms()).unwrap();
    let born = u64::try_from(now + days * 86_400_000).unwrap();
    TaskEvent {
        task_id: TaskId::mint_at(born),
        ..event()
    }
}

/// The record of an event at an offset.
pub fn record(offset: i64, event: &TaskEvent) -> Settling {
    let mut value = Vec::new();
    encode(&event.as_ref(), Framing::SingleObject, &mut value);
    raw(offset, value)
}

/// Any bytes at an offset.
pub fn raw(offset: i64, value: impl Into<Vec<u8>>) -> Settling {
    Settling {
        offset,
        timestamp_ms: 1_800_000_000_000,
        value: value.into().into(),
        headers: Headers::default(),
        origin: Origin::Log,
        attempts: 1,
        ending: Ending::Payload,
    }
}
