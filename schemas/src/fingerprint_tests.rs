use super::{CHUNK, DedupHash, Fingerprint};
use crate::event::TaskEvent;
use crate::task_id::TaskId;

fn event() -> TaskEvent {
    TaskEvent {
        task_id: TaskId::mint_at(1_763_710_000_123),
        task_type: "record".into(),
        tenant: "müller & söhne".into(),
        key: Some("customer-42".into()),
        dedup_key: Some("invoice 7 · 東京".into()),
        submitted_at: 1_763_710_000_123_456,
        run_at: None,
        deadline: None,
        content_type: "application/json".into(),
        reply: true,
        callback: None,
        payload: r#"{"page":"東京","delta":-12,"text":"a line\nand another"}"#.into(),
    }
}

fn fingerprint(event: &TaskEvent) -> Fingerprint {
    event.as_ref().fingerprint()
}

fn dedup_hash(event: &TaskEvent) -> Option<DedupHash> {
    event.as_ref().dedup_hash()
}

/// The expected values were computed with the BLAKE3 module for Python from the layout in the
/// documentation: zero or length plus one in base 128, then the bytes; for each part.
#[test]
fn hashes_keep_the_values_that_are_stored_in_databases() {
    let event = event();
    assert_eq!(
        fingerprint(&event).to_string(),
        "99119196ac4e4cde65486e7d12208b12"
    );
    assert_eq!(
        dedup_hash(&event).map(|hash| hash.to_string()).as_deref(),
        Some("a997c7f7ac3b6a053eaa6c06ca2e296a")
    );

    let unkeyed = TaskEvent {
        key: None,
        ..event.clone()
    };
    assert_eq!(
        fingerprint(&unkeyed).to_string(),
        "eaa223a5677ec7423cbd780db0a0e8ba"
    );
    assert_eq!(
        dedup_hash(&unkeyed).map(|hash| hash.to_string()).as_deref(),
        Some("b313b5c7f8af3eacb5435a80015546cb")
    );

    let large = TaskEvent {
        payload: vec![b'x'; 5000],
        ..event
    };
    assert_eq!(
        fingerprint(&large).to_string(),
        "715b2e3ee986bb789b73556339fe14bd"
    );
}

#[test]
fn a_repeat_of_a_request_has_the_same_fingerprint() {
    let first = event();
    let repeat = TaskEvent {
        task_id: TaskId::mint(),
        submitted_at: first.submitted_at + 1,
        deadline: Some(first.submitted_at),
        reply: false,
        callback: Some("https://example.org".into()),
        ..first.clone()
    };
    assert_eq!(fingerprint(&repeat), fingerprint(&first));
    assert_eq!(dedup_hash(&repeat), dedup_hash(&first));
}

#[test]
fn another_request_has_another_fingerprint() {
    let first = event();
    let others = [
        TaskEvent {
            task_type: "other".into(),
            ..first.clone()
        },
        TaskEvent {
            content_type: "text/plain".into(),
            ..first.clone()
        },
        TaskEvent {
            key: None,
            ..first.clone()
        },
        TaskEvent {
            key: Some(String::new()),
            ..first.clone()
        },
        TaskEvent {
            payload: Vec::new(),
            ..first.clone()
        },
        // The same bytes in all, cut differently.
        TaskEvent {
            task_type: "recorda".into(),
            content_type: "pplication/json".into(),
            ..first.clone()
        },
    ];
    for other in &others {
        assert_ne!(fingerprint(other), fingerprint(&first), "{other:?}");
    }
    assert_ne!(fingerprint(&others[2]), fingerprint(&others[3]));
}

#[test]
fn a_dedup_key_counts_within_its_tenant_and_ordering_key() {
    let first = event();
    assert_eq!(
        dedup_hash(&TaskEvent {
            dedup_key: None,
            ..first.clone()
        }),
        None
    );
    let others = [
        TaskEvent {
            tenant: "other".into(),
            ..first.clone()
        },
        TaskEvent {
            key: Some("customer-43".into()),
            ..first.clone()
        },
        TaskEvent {
            key: None,
            ..first.clone()
        },
        TaskEvent {
            dedup_key: Some("invoice 8".into()),
            ..first.clone()
        },
    ];
    for other in others {
        assert_ne!(dedup_hash(&other), dedup_hash(&first), "{other:?}");
    }
}

#[test]
fn short_and_long_inputs_are_hashed_alike() {
    let event = event();
    for payload in (0..3 * CHUNK).step_by(7) {
        let event = TaskEvent {
            payload: vec![7; payload],
            ..event.clone()
        };
        let mut whole = Vec::new();
        let parts = [
            Some(event.task_type.as_bytes()),
            Some(event.content_type.as_bytes()),
            event.key.as_deref().map(str::as_bytes),
            Some(event.payload.as_slice()),
        ];
        for part in parts {
            super::prefix(part, |byte| whole.push(byte));
            whole.extend_from_slice(part.unwrap_or_default());
        }
        let expected = blake3::hash(&whole);
        assert_eq!(
            fingerprint(&event).0,
            expected.as_bytes()[..16],
            "payload of {payload} bytes"
        );
    }
}

#[test]
fn the_record_key_is_the_ordering_key_else_the_dedup_key_else_none() {
    let mut event = event();
    assert_eq!(event.as_ref().record_key(), Some("customer-42".as_bytes()));
    event.key = None;
    assert_eq!(
        event.as_ref().record_key(),
        Some("invoice 7 · 東京".as_bytes())
    );
    event.dedup_key = None;
    assert_eq!(event.as_ref().record_key(), None);
}

#[test]
fn the_lane_of_a_task_is_tenant_and_record_key_and_no_other_hash() {
    let of = |tenant: &str, key: Option<&str>, dedup_key: Option<&str>| {
        let event = TaskEvent {
            tenant: tenant.into(),
            key: key.map(Into::into),
            dedup_key: dedup_key.map(Into::into),
            ..event()
        };
        (event.as_ref().lane_hash(), dedup_hash(&event))
    };
    let lane = of("acme", Some("k"), None).0;
    assert!(lane.is_some());
    assert_eq!(of("acme", Some("k"), Some("d")).0, lane);
    assert_eq!(
        of("acme", None, Some("k")).0,
        lane,
        "the record key decides"
    );
    assert_eq!(of("acme", None, None).0, None);
    for other in [
        of("acmek", Some(""), None),
        of("acm", Some("ek"), None),
        of("acme", Some("l"), None),
    ] {
        assert_ne!(other.0, lane);
    }
    let (own, dedup) = of("acme", Some("k"), Some("k"));
    assert_ne!(own, dedup.map(|hash| hash.0));
}
