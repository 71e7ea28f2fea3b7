//! The fingerprint by which a schema is named on the wire.
//!
//! CRC-64-AVRO over the schema's Parsing Canonical Form, both as the Avro 1.11 specification
//! defines them, so that a producer in any language arrives at the same number. Neither covers
//! logical types, defaults or documentation.

use apache_avro::Schema;
use apache_avro::rabin::Rabin;

const PRIMITIVES: [&str; 8] = [
    "null", "boolean", "int", "long", "float", "double", "bytes", "string",
];

/// The fingerprint of the specification.
pub(crate) fn fingerprint(schema: &Schema) -> u64 {
    crc_64_avro(canonical_form(schema).as_bytes())
}

/// The fingerprint that producers built on this Avro library write: it is computed over a form
/// that differs from the specification's for every schema with a logical type.
pub(crate) fn library_fingerprint(schema: &Schema) -> u64 {
    let bytes = schema.fingerprint::<Rabin>().bytes;
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Parsing Canonical Form. The Avro library leaves `{"type":"long"}` where a logical type was
/// stripped; the rule PRIMITIVES asks for `"long"`. The form's only strings are names and symbols,
/// which hold no quotes or braces, so replacing text is exact.
fn canonical_form(schema: &Schema) -> String {
    PRIMITIVES
        .iter()
        .fold(schema.canonical_form(), |form, primitive| {
            form.replace(
                &format!(r#"{{"type":"{primitive}"}}"#),
                &format!(r#""{primitive}""#),
            )
        })
}

fn crc_64_avro(bytes: &[u8]) -> u64 {
    const EMPTY: u64 = 0xC15D_213A_A4D7_A795;
    bytes.iter().fold(EMPTY, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte), |crc, _| {
            (crc >> 1) ^ (EMPTY & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use apache_avro::Schema;

    use super::{canonical_form, crc_64_avro, fingerprint, library_fingerprint};
    use crate::released::{CURRENT_FINGERPRINT, CURRENT_SCHEMA};

    #[test]
    fn the_checksum_equals_the_vectors_of_the_avro_project() {
        let vectors: [(&str, i64); 3] = [
            (r#""null""#, 7_195_948_357_588_979_594),
            (r#""boolean""#, -6_970_731_678_124_411_036),
            (
                r#"{"name":"foo","type":"fixed","size":15}"#,
                1_756_455_273_707_447_556,
            ),
        ];
        for (form, expected) in vectors {
            assert_eq!(crc_64_avro(form.as_bytes()), expected as u64, "{form}");
        }
    }

    #[test]
    fn a_logical_type_leaves_no_trace_in_the_canonical_form() {
        let parse = |text| Schema::parse_str(text).unwrap();
        let plain = r#"{"type":"record","name":"R","fields":[{"name":"at","type":"long"}]}"#;
        let micros = r#"{"type":"record","name":"R","fields":[
            {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;
        let expected = r#"{"name":"R","type":"record","fields":[{"name":"at","type":"long"}]}"#;
        assert_eq!(canonical_form(&parse(plain)), expected);
        assert_eq!(canonical_form(&parse(micros)), expected);
    }

    #[test]
    fn the_current_fingerprint_is_that_of_the_current_schema() {
        let schema = Schema::parse_str(CURRENT_SCHEMA).unwrap();
        assert_eq!(fingerprint(&schema), CURRENT_FINGERPRINT);
        assert_ne!(library_fingerprint(&schema), CURRENT_FINGERPRINT);
    }
}
