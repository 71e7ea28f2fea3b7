//! Events of other versions: older and newer producers, other Avro libraries, and schemas that
//! must not be learned.

use apache_avro::types::Value;
use apache_avro::{GenericSingleObjectWriter, Schema};
use millrace_schemas::{
    CURRENT_FINGERPRINT, CURRENT_SCHEMA, DecodeError, Decoded, Decoders, Field, FieldOutOfRange,
    RangeProblem, SchemaError, TaskEvent, UnknownSchema,
};
use proptest::prelude::*;

use crate::events::{
    avro_value, current_schema, event, full_event, single_object, written_by_avro,
};

/// An older version: another order of fields, an id as text, no times but one, no callback.
pub const OLDER: &str = r#"{"type":"record","name":"TaskEvent","namespace":"millrace","fields":[
    {"name":"tenant","type":"string"},
    {"name":"task_id","type":{"type":"string","logicalType":"uuid"}},
    {"name":"payload","type":"bytes"},
    {"name":"task_type","type":"string"},
    {"name":"submitted_at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"content_type","type":"string"},
    {"name":"key","type":["null","string"],"default":null}]}"#;

/// What the older version keeps of an event.
fn as_older(event: &TaskEvent) -> TaskEvent {
    TaskEvent {
        dedup_key: None,
        run_at: None,
        deadline: None,
        reply: false,
        callback: None,
        ..event.clone()
    }
}

pub fn written_as_older(event: &TaskEvent) -> Vec<u8> {
    let Value::Record(mut fields) = avro_value(event) else {
        panic!("not a record")
    };
    let mut take = |name: &str| {
        let at = fields
            .iter()
            .position(|(candidate, _)| candidate == name)
            .unwrap();
        fields.swap_remove(at)
    };
    let names = [
        "tenant",
        "task_id",
        "payload",
        "task_type",
        "submitted_at",
        "content_type",
        "key",
    ];
    let record = Value::Record(names.map(&mut take).to_vec());
    written_by_avro(&Schema::parse_str(OLDER).unwrap(), record)
}

/// The current schema with more fields at its front and its end, of kinds that need resolution.
fn newer_schema() -> String {
    let front = r#""fields":[
        {"name":"priority","type":{"type":"enum","name":"Priority","symbols":["LOW","HIGH"]}},
        {"name":"hops","type":{"type":"array","items":{"type":"record","name":"Hop","fields":[
            {"name":"host","type":"string"},{"name":"ms","type":"int"}]}}},"#;
    let back = r#",{"name":"region","type":["null","string"],"default":null}]}"#;
    let schema = CURRENT_SCHEMA.replacen(r#""fields": ["#, front, 1);
    let end = schema
        .trim_end()
        .strip_suffix('}')
        .unwrap()
        .trim_end()
        .strip_suffix(']')
        .unwrap();
    format!("{end}{back}")
}

fn written_as_newer(event: &TaskEvent) -> Vec<u8> {
    let Value::Record(current) = avro_value(event) else {
        panic!("not a record")
    };
    let hop = Value::Record(vec![
        ("host".into(), Value::String("edge-1".into())),
        ("ms".into(), Value::Int(3)),
    ]);
    let front = [
        ("priority".to_owned(), Value::Enum(1, "HIGH".into())),
        ("hops".to_owned(), Value::Array(vec![hop.clone(), hop])),
    ];
    let back = (
        "region".to_owned(),
        Value::Union(1, Box::new(Value::String("eu".into()))),
    );
    let fields = front.into_iter().chain(current).chain([back]).collect();
    written_by_avro(
        &Schema::parse_str(&newer_schema()).unwrap(),
        Value::Record(fields),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_older_producers_events_are_read_with_nulls_for_what_they_lack(event in event()) {
        let mut decoders = Decoders::new();
        let fingerprint = decoders.learn(OLDER).unwrap();
        let framed = single_object(fingerprint, &written_as_older(&event));
        let decoded = decoders.decode(&framed).unwrap();
        prop_assert!(matches!(decoded, Decoded::Resolved(_)));
        prop_assert_eq!(decoded.into_owned(), as_older(&event));
    }

    #[test]
    fn a_newer_producers_events_are_read_without_what_is_new(event in event()) {
        let mut decoders = Decoders::new();
        let fingerprint = decoders.learn(&newer_schema()).unwrap();
        let framed = single_object(fingerprint, &written_as_newer(&event));
        prop_assert_eq!(decoders.decode(&framed).unwrap().into_owned(), event);
    }
}

#[test]
fn an_unknown_schema_is_waited_for_and_read_once_it_is_learned() {
    let mut probe = Decoders::new();
    let fingerprint = probe.learn(OLDER).unwrap();
    let framed = single_object(fingerprint, &written_as_older(&full_event()));

    let mut decoders = Decoders::new();
    let error = decoders.decode(&framed).unwrap_err();
    assert_eq!(error, DecodeError::UnknownFingerprint { fingerprint });
    assert_eq!(
        error.unknown_schema(),
        Some(UnknownSchema::Fingerprint(fingerprint))
    );
    assert!(!decoders.knows(fingerprint));

    decoders.learn(OLDER).unwrap();
    assert!(decoders.knows(fingerprint));
    assert_eq!(
        decoders.decode(&framed).unwrap().into_owned(),
        as_older(&full_event())
    );
}

#[test]
fn an_older_producers_events_are_held_to_the_same_limits() {
    let mut decoders = Decoders::new();
    let fingerprint = decoders.learn(OLDER).unwrap();
    let over = TaskEvent {
        tenant: "a\0".into(),
        ..full_event()
    };
    let framed = single_object(fingerprint, &written_as_older(&over));
    let problem = RangeProblem::Nul { at: 1 };
    let refusal = FieldOutOfRange {
        field: Field::Tenant,
        problem,
    };
    assert_eq!(
        decoders.decode(&framed).unwrap_err(),
        DecodeError::OutOfRange(refusal)
    );
}

#[test]
fn a_confluent_id_that_nobody_named_is_waited_for() {
    let framed = [0, 0, 0, 0, 9, 1, 2, 3];
    let error = Decoders::new()
        .with_confluent_id(8)
        .decode(&framed)
        .unwrap_err();
    assert_eq!(error, DecodeError::UnknownSchemaId { id: 9 });
    assert_eq!(error.unknown_schema(), Some(UnknownSchema::ConfluentId(9)));
}

#[test]
fn a_producer_built_on_the_avro_library_is_understood_although_it_names_the_schema_differently() {
    let mut framed = Vec::new();
    let schema = current_schema();
    let mut writer = GenericSingleObjectWriter::new_with_capacity(&schema, 1024).unwrap();
    writer
        .write_value(avro_value(&full_event()), &mut framed)
        .unwrap();
    assert_ne!(framed[2..10], CURRENT_FINGERPRINT.to_le_bytes());
    assert_eq!(
        Decoders::new().decode(&framed).unwrap().into_owned(),
        full_event()
    );
}

fn refusal(schema: &str) -> SchemaError {
    Decoders::new().learn(schema).unwrap_err()
}

/// The older schema with one more field.
fn with_field(field: &str) -> String {
    OLDER.replacen(r#""fields":["#, &format!(r#""fields":[{field},"#), 1)
}

#[test]
fn a_schema_that_cannot_become_a_task_event_is_not_learned() {
    assert!(matches!(refusal("{"), SchemaError::Parse { .. }));
    assert!(matches!(
        refusal(r#""string""#),
        SchemaError::Incompatible { .. }
    ));
    let no_tenant = OLDER.replace(r#"{"name":"tenant","type":"string"},"#, "");
    assert!(matches!(
        refusal(&no_tenant),
        SchemaError::Incompatible { .. }
    ));
    let number = OLDER.replace(
        r#""payload","type":"bytes""#,
        r#""payload","type":"double""#,
    );
    assert!(matches!(refusal(&number), SchemaError::Incompatible { .. }));
}

#[test]
fn a_schema_in_another_unit_of_time_is_not_learned() {
    for schema in [OLDER, CURRENT_SCHEMA] {
        let millis = schema.replace("timestamp-micros", "timestamp-millis");
        assert!(matches!(refusal(&millis), SchemaError::Incompatible { .. }));
    }
}

#[test]
fn a_schema_that_lets_few_bytes_take_much_memory_is_not_learned() {
    let unbounded = [
        r#"{"name":"x","type":{"type":"fixed","name":"Huge","size":1099511627776}}"#,
        r#"{"name":"x","type":{"type":"array","items":"null"}}"#,
        r#"{"name":"x","type":{"type":"array","items":{"type":"record","name":"E","fields":[]}}}"#,
        r#"{"name":"x","type":{"type":"record","name":"Node","fields":[
            {"name":"next","type":["null","Node"]}]}}"#,
    ];
    for field in unbounded {
        let error = refusal(&with_field(field));
        assert!(
            matches!(error, SchemaError::Unbounded { .. }),
            "{field}: {error:?}"
        );
    }
    Decoders::new()
        .learn(&with_field(
            r#"{"name":"x","type":{"type":"map","values":"null"}}"#,
        ))
        .unwrap();
}
