//! Task events of all shapes within the limits, and the same events as the Avro library sees them.

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, Uuid};
use millrace_schemas::limits::{EARLIEST_MICROS, LATEST_MICROS};
use millrace_schemas::{CURRENT_SCHEMA, TaskEvent, TaskId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub fn current_schema() -> Schema {
    Schema::parse_str(CURRENT_SCHEMA).unwrap()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[^\\x00]{0,12}", "[ -~]{0,80}"]
}

fn micros() -> impl Strategy<Value = i64> {
    prop_oneof![
        EARLIEST_MICROS..=LATEST_MICROS,
        -70_i64..70,
        Just(EARLIEST_MICROS),
        Just(LATEST_MICROS)
    ]
}

prop_compose! {
    fn names()(
        task_type in text(), tenant in text(), content_type in text(),
        key in option::of(text()), dedup_key in option::of(text()), callback in option::of(text()),
    ) -> (String, String, String, Option<String>, Option<String>, Option<String>) {
        (task_type, tenant, content_type, key, dedup_key, callback)
    }
}

prop_compose! {
    /// Any event within the limits.
    pub fn event()(
        (task_type, tenant, content_type, key, dedup_key, callback) in names(),
        born_ms in 0_u64..1 << 48,
        submitted_at in micros(),
        run_at in option::of(micros()),
        deadline in option::of(micros()),
        reply in any::<bool>(),
        payload in prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..9_000)],
    ) -> TaskEvent {
        let task_id = TaskId::mint_at(born_ms);
        TaskEvent {
            task_id, task_type, tenant, key, dedup_key, submitted_at, run_at, deadline,
            content_type, reply, callback, payload,
        }
    }
}

/// An event in which every field has a value.
pub fn full_event() -> TaskEvent {
    TaskEvent {
        task_id: "019aa556-e3f2-7abc-9def-0123456789ab".parse().unwrap(),
        task_type: "record".into(),
        tenant: "default".into(),
        key: Some("customer-42".into()),
        dedup_key: Some("invoice-7".into()),
        submitted_at: 1_763_710_000_123_456,
        run_at: Some(1_763_713_600_000_000),
        deadline: Some(1_763_717_200_000_000),
        content_type: "application/json".into(),
        reply: true,
        callback: Some("https://example.org/done".into()),
        payload: br#"{"page":"Main"}"#.to_vec(),
    }
}

fn optional(value: Option<Value>) -> Value {
    match value {
        None => Value::Union(0, Box::new(Value::Null)),
        Some(value) => Value::Union(1, Box::new(value)),
    }
}

/// The event as a record of the current schema.
pub fn avro_value(event: &TaskEvent) -> Value {
    let optional_text = |text: &Option<String>| optional(text.clone().map(Value::String));
    let optional_time = |time: Option<i64>| optional(time.map(Value::TimestampMicros));
    let fields = [
        (
            "task_id",
            Value::Uuid(Uuid::from_bytes(*event.task_id.as_bytes())),
        ),
        ("task_type", Value::String(event.task_type.clone())),
        ("tenant", Value::String(event.tenant.clone())),
        ("key", optional_text(&event.key)),
        ("dedup_key", optional_text(&event.dedup_key)),
        ("submitted_at", Value::TimestampMicros(event.submitted_at)),
        ("run_at", optional_time(event.run_at)),
        ("deadline", optional_time(event.deadline)),
        ("content_type", Value::String(event.content_type.clone())),
        ("reply", Value::Boolean(event.reply)),
        ("callback", optional_text(&event.callback)),
        ("payload", Value::Bytes(event.payload.clone())),
    ];
    Value::Record(
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
    )
}

/// What the Avro library writes for a value under a schema, without a frame.
pub fn written_by_avro(schema: &Schema, value: Value) -> Vec<u8> {
    GenericDatumWriter::builder(schema)
        .build()
        .unwrap()
        .write_value_to_vec(value)
        .unwrap()
}

/// An Avro single-object frame around a datum.
pub fn single_object(fingerprint: u64, datum: &[u8]) -> Vec<u8> {
    [&[0xC3, 0x01], fingerprint.to_le_bytes().as_slice(), datum].concat()
}
