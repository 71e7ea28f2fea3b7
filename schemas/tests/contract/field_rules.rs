//! Each thing that can be wrong with bytes has an error of its own, with what was found.

use millrace_schemas::limits::{EARLIEST_MICROS, LATEST_MICROS};
use millrace_schemas::{
    CURRENT_FINGERPRINT, DecodeError, Decoders, Field, FieldOutOfRange, Framing, RangeProblem,
    TaskEvent, encode, limits,
};

use crate::events::{full_event, single_object};

fn decode(bytes: &[u8]) -> Result<TaskEvent, DecodeError> {
    Decoders::new()
        .decode(bytes)
        .map(|decoded| decoded.into_owned())
}

/// An event with a single byte in each text, so that every field is at a known place.
fn small() -> (TaskEvent, Vec<u8>) {
    let event = TaskEvent {
        task_type: "t".into(),
        tenant: "n".into(),
        key: Some("k".into()),
        dedup_key: None,
        submitted_at: 1,
        run_at: None,
        deadline: Some(2),
        content_type: "c".into(),
        reply: true,
        callback: None,
        payload: b"p".to_vec(),
        ..full_event()
    };
    let mut bytes = Vec::new();
    encode(&event.as_ref(), Framing::SingleObject, &mut bytes);
    (event, bytes)
}

/// Where each field of the small event begins.
const TASK_ID: usize = 10;
const TASK_TYPE: usize = 26;
const TENANT: usize = 28;
const KEY: usize = 30;
const DEDUP_KEY: usize = 33;
const SUBMITTED_AT: usize = 34;
const DEADLINE: usize = 36;
const REPLY: usize = 40;
const PAYLOAD: usize = 42;
const END: usize = 44;

/// The small event with the bytes at `at` replaced.
fn with(at: usize, replaced: usize, by: &[u8]) -> Vec<u8> {
    let (_, mut bytes) = small();
    bytes.splice(at..at + replaced, by.iter().copied());
    bytes
}

fn problem(bytes: &[u8]) -> (Field, RangeProblem) {
    match decode(bytes) {
        Err(DecodeError::OutOfRange(FieldOutOfRange { field, problem })) => (field, problem),
        other => panic!("expected a field out of range, found {other:?}"),
    }
}

#[test]
fn the_small_event_decodes() {
    let (event, bytes) = small();
    assert_eq!(bytes.len(), END);
    assert_eq!(decode(&bytes), Ok(event));
}

#[test]
fn a_frame_that_is_none_says_what_it_begins_with() {
    assert_eq!(decode(&[]), Err(DecodeError::Empty));
    let magic = |found: &[u8]| {
        Err(DecodeError::Magic {
            found: found.to_vec(),
        })
    };
    assert_eq!(decode(b"{\"id\":1}"), magic(b"{\""));
    assert_eq!(decode(&[0xC3, 0x02, 0, 0]), magic(&[0xC3, 0x02]));
    assert_eq!(decode(&[1]), magic(&[1]));
    let header = |needed, found| Err(DecodeError::TruncatedHeader { needed, found });
    assert_eq!(decode(&[0xC3]), header(10, 1));
    assert_eq!(decode(&[0xC3, 0x01, 1, 2, 3]), header(10, 5));
    assert_eq!(decode(&[0, 0, 0]), header(5, 3));
}

#[test]
fn a_field_that_is_cut_short_says_how_much_is_missing() {
    let (_, bytes) = small();
    let cut = |at: usize| decode(&bytes[..at]);
    let truncated = |field, needed, left| {
        Err(DecodeError::Truncated {
            field,
            needed,
            left,
        })
    };
    assert_eq!(cut(TASK_ID + 15), truncated(Field::TaskId, 16, 15));
    assert_eq!(cut(TASK_TYPE), truncated(Field::TaskType, 1, 0));
    assert_eq!(cut(TENANT + 1), truncated(Field::Tenant, 1, 0));
    assert_eq!(cut(REPLY), truncated(Field::Reply, 1, 0));
    let long_payload = with(PAYLOAD, 1, &[0x10]);
    assert_eq!(decode(&long_payload), truncated(Field::Payload, 8, 1));
    let endless = with(
        PAYLOAD,
        2,
        &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
    );
    assert_eq!(
        decode(&endless),
        truncated(Field::Payload, i64::MAX as usize, 0)
    );
}

#[test]
fn bytes_after_the_last_field_are_refused() {
    let (_, mut bytes) = small();
    bytes.extend([0, 0]);
    assert_eq!(decode(&bytes), Err(DecodeError::TrailingBytes { count: 2 }));
}

#[test]
fn a_text_that_is_not_utf_8_says_where() {
    let expected = DecodeError::InvalidUtf8 {
        field: Field::Tenant,
        at: 1,
    };
    assert_eq!(decode(&with(TENANT, 2, &[4, b'n', 0xFF])), Err(expected));
}

#[test]
fn lengths_indices_and_flags_out_of_range_are_named() {
    assert_eq!(
        problem(&with(TASK_TYPE, 1, &[0x01])),
        (Field::TaskType, RangeProblem::NegativeLength { found: -1 })
    );
    assert_eq!(
        problem(&with(KEY, 1, &[0x04])),
        (Field::Key, RangeProblem::UnionIndex { found: 2 })
    );
    assert_eq!(
        problem(&with(DEDUP_KEY, 1, &[0x01])),
        (Field::DedupKey, RangeProblem::UnionIndex { found: -1 })
    );
    assert_eq!(
        problem(&with(REPLY, 1, &[2])),
        (Field::Reply, RangeProblem::Boolean { found: 2 })
    );
    for tenth in [[2].as_slice(), &[0x80, 0]] {
        let overlong = [[0xFF; 9].as_slice(), tenth].concat();
        assert_eq!(
            problem(&with(SUBMITTED_AT, 1, &overlong)),
            (Field::SubmittedAt, RangeProblem::VarintOverflow)
        );
    }
}

#[test]
fn an_id_that_is_no_uuid_v7_is_refused() {
    let (field, problem) = problem(&with(TASK_ID + 6, 1, &[0x4A]));
    assert_eq!(field, Field::TaskId);
    assert!(problem.to_string().contains("version 4"), "{problem}");
}

#[test]
fn times_that_postgres_or_rfc_3339_cannot_hold_are_refused() {
    let (event, _) = small();
    for (found, allowed) in [
        (EARLIEST_MICROS, true),
        (EARLIEST_MICROS - 1, false),
        (LATEST_MICROS, true),
        (LATEST_MICROS + 1, false),
        (i64::MIN, false),
        (i64::MAX, false),
    ] {
        let changed = TaskEvent {
            deadline: Some(found),
            ..event.clone()
        };
        let mut bytes = Vec::new();
        encode(&changed.as_ref(), Framing::SingleObject, &mut bytes);
        if allowed {
            assert_eq!(decode(&bytes), Ok(changed));
        } else {
            assert_eq!(
                problem(&bytes),
                (Field::Deadline, RangeProblem::Time { found })
            );
        }
    }
    assert_eq!(small().1[DEADLINE..DEADLINE + 2], [2, 4]);
}

/// A change to one text field of an event.
type SetText = fn(&mut TaskEvent, String);

const TEXTS: [(Field, usize, SetText); 6] = [
    (Field::TaskType, 255, |event, text| event.task_type = text),
    (Field::Tenant, 255, |event, text| event.tenant = text),
    (Field::Key, 1024, |event, text| event.key = Some(text)),
    (Field::DedupKey, 1024, |event, text| {
        event.dedup_key = Some(text)
    }),
    (Field::ContentType, 255, |event, text| {
        event.content_type = text
    }),
    (Field::Callback, 2048, |event, text| {
        event.callback = Some(text)
    }),
];

fn encoded(event: &TaskEvent) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&event.as_ref(), Framing::SingleObject, &mut bytes);
    bytes
}

#[test]
fn producer_and_consumer_hold_texts_to_the_same_lengths() {
    for (field, limit, set) in TEXTS {
        let mut event = full_event();
        set(&mut event, "x".repeat(limit));
        assert_eq!(limits::check(&event.as_ref()), Ok(()));
        assert_eq!(decode(&encoded(&event)), Ok(event.clone()));

        set(&mut event, "x".repeat(limit + 1));
        let problem = RangeProblem::TooLong {
            found: limit + 1,
            limit,
        };
        let refusal = FieldOutOfRange { field, problem };
        assert_eq!(limits::check(&event.as_ref()), Err(refusal.clone()));
        assert_eq!(decode(&encoded(&event)), Err(refusal.into()));
    }
}

#[test]
fn producer_and_consumer_refuse_nul_in_every_text() {
    for (field, _, set) in TEXTS {
        let mut event = full_event();
        set(&mut event, "a\0b".into());
        let refusal = FieldOutOfRange {
            field,
            problem: RangeProblem::Nul { at: 1 },
        };
        assert_eq!(limits::check(&event.as_ref()), Err(refusal.clone()));
        assert_eq!(decode(&encoded(&event)), Err(refusal.into()));
    }
}

#[test]
fn a_payload_may_hold_anything() {
    let event = TaskEvent {
        payload: (0..=255).collect(),
        ..full_event()
    };
    assert_eq!(decode(&encoded(&event)), Ok(event));
}

#[test]
fn errors_say_what_was_expected_and_found() {
    let told = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    assert_eq!(
        told(b"{}"),
        "expected Avro single-object encoding (C3 01) or Confluent wire format (00), found [7B, 7D]"
    );
    assert_eq!(
        told(&single_object(CURRENT_FINGERPRINT, &[1, 2])),
        "task_id: expected 16 more bytes, found 2"
    );
    assert_eq!(
        told(&single_object(255, &[])),
        "unknown schema fingerprint 00000000000000ff"
    );
    assert_eq!(
        told(&with(KEY, 1, &[0x04])),
        "key: expected union index 0 or 1, found 2"
    );
}
