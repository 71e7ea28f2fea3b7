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
/// documentation: present, length as 64-bit little-endian, bytes; for each part.
#[test]
fn hashes_keep_the_values_that_are_stored_in_databases() {
    let event = event();
    assert_eq!(
        fingerprint(&event).to_string(),
        "e472a2f06a018d6edbb785ad75b5b32d"
    );
    assert_eq!(
        dedup_hash(&event).map(|hash| hash.to_string()).as_deref(),
        Some("68c821b1c1186d637c5a5a5681f48fa1")
    );

    let unkeyed = TaskEvent {
        key: None,
        ..event.clone()
    };
    assert_eq!(
        fingerprint(&unkeyed).to_string(),
        "a72dcdccc3a21e037f0bf1e69de67e5f"
    );
    assert_eq!(
        dedup_hash(&unkeyed).map(|hash| hash.to_string()).as_deref(),
        Some("07fe63a9219b16b76e7f206f0d0add23")
    );

    let large = TaskEvent {
        payload: vec![b'x'; 5000],
        ..event
    };
    assert_eq!(
        fingerprint(&large).to_string(),
        "1c976d14ebeb99ce72cf059ccabbf7ce"
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
            whole.extend_from_slice(&super::prefix(part));
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
