//! The hand-written encoder and decoder have no meaning of their own: both agree with the Avro
//! library on every event, and with the schema file on every field.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::UuidSchema;
use millrace_schemas::{CURRENT_FINGERPRINT, Decoded, Decoders, Field, Framing, encode};
use proptest::prelude::*;

use crate::events::{avro_value, current_schema, event, single_object, written_by_avro};

const CONFLUENT: Framing = Framing::Confluent {
    schema_id: 0x0102_0304,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_encoder_writes_what_the_avro_library_writes(event in event()) {
        let expected = written_by_avro(&current_schema(), avro_value(&event));
        let mut framed = b"before".to_vec();
        encode(&event.as_ref(), Framing::SingleObject, &mut framed);
        prop_assert_eq!(&framed[..6], b"before");
        prop_assert_eq!(&framed[6..], single_object(CURRENT_FINGERPRINT, &expected));
        let mut framed = Vec::new();
        encode(&event.as_ref(), CONFLUENT, &mut framed);
        prop_assert_eq!(&framed[..5], &[0, 1, 2, 3, 4]);
        prop_assert_eq!(&framed[5..], expected);
    }

    #[test]
    fn the_avro_library_reads_what_the_encoder_writes(event in event()) {
        let schema = current_schema();
        let mut framed = Vec::new();
        encode(&event.as_ref(), Framing::SingleObject, &mut framed);
        let mut datum = &framed[10..];
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let read = reader.read_value(&mut datum).unwrap();
        prop_assert_eq!(read, avro_value(&event));
        prop_assert!(datum.is_empty());
    }

    #[test]
    fn the_decoder_reads_what_the_avro_library_writes(event in event()) {
        let datum = written_by_avro(&current_schema(), avro_value(&event));
        let framed = single_object(CURRENT_FINGERPRINT, &datum);
        let decoded = Decoders::new().decode(&framed).unwrap();
        prop_assert!(matches!(decoded, Decoded::Current(_)));
        prop_assert_eq!(decoded.event(), event.as_ref());
        prop_assert_eq!(decoded.into_owned(), event);
    }

    #[test]
    fn what_was_encoded_is_decoded_in_both_framings(event in event()) {
        let decoders = Decoders::new().with_confluent_id(0x0102_0304);
        for framing in [Framing::SingleObject, CONFLUENT] {
            let mut framed = Vec::new();
            encode(&event.as_ref(), framing, &mut framed);
            let decoded = decoders.decode(&framed).unwrap();
            prop_assert_eq!(decoded.event(), event.as_ref());
        }
    }
}

/// The types as the decoder reads them, by which a changed schema file breaks the build.
#[derive(Debug, PartialEq)]
enum Kind {
    Uuid,
    Text,
    OptionalText,
    Micros,
    OptionalMicros,
    Boolean,
    Bytes,
}

fn kind(schema: &Schema) -> Option<Kind> {
    match schema {
        Schema::Uuid(UuidSchema::Fixed(fixed)) if fixed.size == 16 => Some(Kind::Uuid),
        Schema::String => Some(Kind::Text),
        Schema::TimestampMicros => Some(Kind::Micros),
        Schema::Boolean => Some(Kind::Boolean),
        Schema::Bytes => Some(Kind::Bytes),
        Schema::Union(union) => match union.variants() {
            [Schema::Null, Schema::String] => Some(Kind::OptionalText),
            [Schema::Null, Schema::TimestampMicros] => Some(Kind::OptionalMicros),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn the_schema_file_has_the_fields_that_the_decoder_reads_in_its_order() {
    let Schema::Record(record) = current_schema() else {
        panic!("not a record")
    };
    assert_eq!(record.name.to_string(), "millrace.TaskEvent");
    let found: Vec<_> = record
        .fields
        .iter()
        .map(|field| (field.name.as_str(), kind(&field.schema)))
        .collect();
    let expected = [
        (Field::TaskId, Kind::Uuid),
        (Field::TaskType, Kind::Text),
        (Field::Tenant, Kind::Text),
        (Field::Key, Kind::OptionalText),
        (Field::DedupKey, Kind::OptionalText),
        (Field::SubmittedAt, Kind::Micros),
        (Field::RunAt, Kind::OptionalMicros),
        (Field::Deadline, Kind::OptionalMicros),
        (Field::ContentType, Kind::Text),
        (Field::Reply, Kind::Boolean),
        (Field::Callback, Kind::OptionalText),
        (Field::Payload, Kind::Bytes),
    ];
    assert_eq!(expected.each_ref().map(|(field, _)| *field), Field::ALL);
    assert_eq!(
        found,
        expected.map(|(field, kind)| (field.name(), Some(kind)))
    );
}

#[test]
fn every_field_is_documented_and_every_optional_field_defaults_to_null() {
    let Schema::Record(record) = current_schema() else {
        panic!("not a record")
    };
    for field in &record.fields {
        assert!(
            field.doc.as_ref().is_some_and(|doc| doc.len() > 20),
            "{}",
            field.name
        );
        if matches!(field.schema, Schema::Union(_)) {
            assert_eq!(
                field.default,
                Some(serde_json::Value::Null),
                "{}",
                field.name
            );
        }
    }
}
