//! Task events in Avro, encoded and decoded by the Avro library from the schema file alone.
//!
//! None of the product's own encoder, decoder or fingerprints is used: what it writes and what this reads
//! meet only in the schema and in the Avro specification (1.11: single-object encoding, parsing canonical
//! form, CRC-64-AVRO).

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, Uuid};

const SCHEMA: &str = include_str!("../../schemas/avro/task_event.avsc");
const MAGIC: [u8; 2] = [0xC3, 0x01];
const HEADER: usize = 10;

/// An event, with times in microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireEvent {
    /// The task's id.
    pub id: Uuid,
    /// Which handler runs it.
    pub task_type: String,
    /// On whose behalf.
    pub tenant: String,
    /// The ordering key.
    pub key: Option<String>,
    /// The caller's name for the request.
    pub dedup_key: Option<String>,
    /// When it was submitted.
    pub submitted_at: i64,
    /// Not to be started before.
    pub run_at: Option<i64>,
    /// Expires then.
    pub deadline: Option<i64>,
    /// Whether somebody may ask for the result.
    pub reply: bool,
    /// The input.
    pub payload: Vec<u8>,
}

/// What is wrong with the schema file or with a value.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The Avro library refused.
    #[error("Avro: {0}")]
    Avro(#[from] Box<apache_avro::Error>),
    /// The schema file is not what the specification calls a schema.
    #[error("the schema file: {0}")]
    Schema(#[from] serde_json::Error),
    /// The bytes do not begin with this schema's frame.
    #[error("not framed for this schema")]
    Frame,
    /// The datum has another form.
    #[error("the datum is no task event")]
    Form,
}

impl From<apache_avro::Error> for WireError {
    fn from(error: apache_avro::Error) -> Self {
        Self::Avro(Box::new(error))
    }
}

/// Encodes and decodes task events.
pub struct Wire {
    schema: Schema,
    fingerprint: u64,
}

impl Wire {
    /// For the schema that is current in this source tree.
    ///
    /// # Errors
    /// When the schema file is damaged.
    pub fn new() -> Result<Self, WireError> {
        let json: serde_json::Value = serde_json::from_str(SCHEMA)?;
        Ok(Self {
            schema: Schema::parse_str(SCHEMA)?,
            fingerprint: crc_64_avro(canonical(&json, "").as_bytes()),
        })
    }

    /// A framed event.
    ///
    /// # Errors
    /// When the Avro library refuses the value.
    pub fn encode(&self, event: &WireEvent) -> Result<Vec<u8>, WireError> {
        let text = |text: &Option<String>| optional(text.clone().map(Value::String));
        let time = |time: Option<i64>| optional(time.map(Value::TimestampMicros));
        let fields = [
            ("task_id", Value::Uuid(event.id)),
            ("task_type", Value::String(event.task_type.clone())),
            ("tenant", Value::String(event.tenant.clone())),
            ("key", text(&event.key)),
            ("dedup_key", text(&event.dedup_key)),
            ("submitted_at", Value::TimestampMicros(event.submitted_at)),
            ("run_at", time(event.run_at)),
            ("deadline", time(event.deadline)),
            ("content_type", Value::String("application/json".to_owned())),
            ("reply", Value::Boolean(event.reply)),
            ("callback", optional(None)),
            ("payload", Value::Bytes(event.payload.clone())),
        ];
        let record = Value::Record(
            fields
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
        );
        let mut bytes = self.frame();
        GenericDatumWriter::builder(&self.schema)
            .build()?
            .write_value(&mut bytes, record)?;
        Ok(bytes)
    }

    /// The event in framed bytes.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(&self, bytes: &[u8]) -> Result<WireEvent, WireError> {
        let (frame, mut datum) = bytes.split_at_checked(HEADER).ok_or(WireError::Frame)?;
        if frame != self.frame() {
            return Err(WireError::Frame);
        }
        let reader = GenericDatumReader::builder(&self.schema).build()?;
        let value = reader.read_value(&mut datum)?;
        if !datum.is_empty() {
            return Err(WireError::Form);
        }
        let Value::Record(fields) = value else {
            return Err(WireError::Form);
        };
        event(&fields).ok_or(WireError::Form)
    }

    /// What stands in front of each datum.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        frame.extend_from_slice(&self.fingerprint.to_le_bytes());
        frame
    }
}

fn event(fields: &[(String, Value)]) -> Option<WireEvent> {
    let field = |wanted: &str| {
        let (_, value) = fields.iter().find(|(name, _)| name == wanted)?;
        Some(value)
    };
    let text = |name| match field(name)? {
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    let inner = |name| match field(name)? {
        Value::Union(_, value) => Some(value.as_ref()),
        _ => None,
    };
    let optional_text = |name| match inner(name)? {
        Value::Null => Some(None),
        Value::String(text) => Some(Some(text.clone())),
        _ => None,
    };
    let optional_time = |name| match inner(name)? {
        Value::Null => Some(None),
        Value::TimestampMicros(micros) => Some(Some(*micros)),
        _ => None,
    };
    Some(WireEvent {
        id: match field("task_id")? {
            Value::Uuid(id) => *id,
            _ => return None,
        },
        task_type: text("task_type")?,
        tenant: text("tenant")?,
        key: optional_text("key")?,
        dedup_key: optional_text("dedup_key")?,
        submitted_at: match field("submitted_at")? {
            Value::TimestampMicros(micros) => *micros,
            _ => return None,
        },
        run_at: optional_time("run_at")?,
        deadline: optional_time("deadline")?,
        reply: matches!(field("reply")?, Value::Boolean(true)),
        payload: match field("payload")? {
            Value::Bytes(bytes) => bytes.clone(),
            _ => return None,
        },
    })
}

fn optional(value: Option<Value>) -> Value {
    match value {
        None => Value::Union(0, Box::new(Value::Null)),
        Some(value) => Value::Union(1, Box::new(value)),
    }
}

/// Parsing Canonical Form of a schema in JSON: primitives short, names full, attributes in their order, all
/// else left out.
fn canonical(schema: &serde_json::Value, namespace: &str) -> String {
    use serde_json::Value as Json;
    let quoted = |text: &str| format!("\"{text}\"");
    match schema {
        Json::String(name) => quoted(name),
        Json::Array(branches) => {
            let branches: Vec<String> = branches
                .iter()
                .map(|branch| canonical(branch, namespace))
                .collect();
            format!("[{}]", branches.join(","))
        }
        Json::Object(object) => {
            let kind = object.get("type").unwrap_or(&Json::Null);
            let namespace = object
                .get("namespace")
                .and_then(Json::as_str)
                .unwrap_or(namespace);
            let Some(name) = object.get("name").and_then(Json::as_str) else {
                return canonical(kind, namespace);
            };
            let mut parts = vec![
                format!("\"name\":\"{namespace}.{name}\""),
                format!("\"type\":{}", canonical(kind, namespace)),
            ];
            if let Some(fields) = object.get("fields").and_then(Json::as_array) {
                let field = |field: &Json| {
                    let name = field.get("name").and_then(Json::as_str).unwrap_or_default();
                    let kind = field.get("type").unwrap_or(&Json::Null);
                    format!(
                        "{{\"name\":\"{name}\",\"type\":{}}}",
                        canonical(kind, namespace)
                    )
                };
                let fields: Vec<String> = fields.iter().map(field).collect();
                parts.push(format!("\"fields\":[{}]", fields.join(",")));
            }
            if let Some(size) = object.get("size") {
                parts.push(format!("\"size\":{size}"));
            }
            format!("{{{}}}", parts.join(","))
        }
        other => other.to_string(),
    }
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
    use super::*;

    #[test]
    fn the_checksum_equals_a_vector_of_the_avro_project() {
        assert_eq!(crc_64_avro(b"\"null\""), 7_195_948_357_588_979_594);
    }

    #[test]
    fn an_event_reads_back_as_it_was_written() {
        let event = WireEvent {
            id: Uuid::from_u128(0x019a_a556_e3f2_7abc_9def_0123_4567_89ab),
            task_type: "planned".to_owned(),
            tenant: "a".to_owned(),
            key: Some("k".to_owned()),
            dedup_key: None,
            submitted_at: 5,
            run_at: Some(9),
            deadline: None,
            reply: true,
            payload: b"{}".to_vec(),
        };
        let wire = Wire::new().unwrap();
        let bytes = wire.encode(&event).unwrap();
        assert_eq!(wire.decode(&bytes).unwrap(), event);
        assert!(wire.decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(wire.decode(b"nonsense!!").is_err());
    }
}
