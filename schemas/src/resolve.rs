//! Reads events of another version of the schema, by Avro's schema resolution.
//!
//! Slower than the current schema's decoder, and needed only while producers of two versions run
//! side by side. The result is held to the same limits.

use std::io::{self, Read};
use std::sync::LazyLock;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Schema, util};

use crate::admission::admit;
use crate::canonical::{fingerprint, library_fingerprint};
use crate::error::{DecodeError, SchemaError};
use crate::event::TaskEvent;
use crate::limits;
use crate::released::CURRENT_SCHEMA;
use crate::task_id::TaskId;

/// What the Avro library may allocate for one value, whatever length the bytes claim.
const MAX_ALLOCATION_BYTES: usize = 64 << 20;

static READER: LazyLock<Result<Schema, SchemaError>> = LazyLock::new(|| parse(CURRENT_SCHEMA));

/// A way from one writer's schema to the current one.
pub(crate) struct Resolver {
    /// The writer's schema as the specification names it.
    pub(crate) fingerprint: u64,
    /// The same schema as producers built on this Avro library name it.
    pub(crate) library_fingerprint: u64,
    reader: GenericDatumReader<'static>,
}

impl Resolver {
    pub(crate) fn new(schema_json: &str) -> Result<Self, SchemaError> {
        util::max_allocation_bytes(MAX_ALLOCATION_BYTES);
        let current = READER.as_ref().map_err(Clone::clone)?;
        let writer = parse(schema_json)?;
        admit(&writer, current)?;
        let (fingerprint, library_fingerprint) =
            (fingerprint(&writer), library_fingerprint(&writer));
        // The Avro reader borrows its schemas. A process learns a handful of them in its life and
        // uses each to its end, so leaking them costs nothing.
        let writer: &'static Schema = Box::leak(Box::new(writer));
        let reader = GenericDatumReader::builder(writer)
            .reader_schema(current)
            .build()
            .map_err(|error| SchemaError::Incompatible {
                reason: error.to_string(),
            })?;
        Ok(Self {
            fingerprint,
            library_fingerprint,
            reader,
        })
    }

    pub(crate) fn decode(&self, datum: &[u8]) -> Result<TaskEvent, DecodeError> {
        let mut source = Source {
            rest: datum,
            ran_dry: false,
        };
        let value = self.reader.read_value(&mut source);
        // Some of the Avro library's decoders take the end of input for a null.
        if source.ran_dry {
            return Err(self.failure("the bytes end within the event"));
        }
        let event = event_from(value.map_err(|error| self.failure(error))?)
            .map_err(|reason| self.failure(reason))?;
        if !source.rest.is_empty() {
            return Err(DecodeError::TrailingBytes {
                count: source.rest.len(),
            });
        }
        limits::check(&event.as_ref())?;
        Ok(event)
    }

    fn failure(&self, reason: impl std::fmt::Display) -> DecodeError {
        // The library's errors quote the value, which may be as large as the payload.
        DecodeError::Resolve {
            fingerprint: self.fingerprint,
            reason: format!("{reason:.300}"),
        }
    }
}

fn parse(schema_json: &str) -> Result<Schema, SchemaError> {
    Schema::parse_str(schema_json).map_err(|error| SchemaError::Parse {
        reason: format!("{error:.300}"),
    })
}

/// Bytes that remember when more of them were asked for than there are.
struct Source<'a> {
    rest: &'a [u8],
    ran_dry: bool,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ran_dry |= buffer.len() > self.rest.len();
        self.rest.read(buffer)
    }
}

/// Takes a record apart that the library has resolved to the current schema.
fn event_from(value: Value) -> Result<TaskEvent, String> {
    let Value::Record(fields) = value else {
        return Err("expected a record".to_owned());
    };
    let mut fields = Fields { fields };
    Ok(TaskEvent {
        task_id: fields.take("task_id", |value| match value {
            Value::Uuid(uuid) => TaskId::try_from(uuid).ok(),
            _ => None,
        })?,
        task_type: fields.take("task_type", text)?,
        tenant: fields.take("tenant", text)?,
        key: fields.take("key", |value| optional(value, text))?,
        dedup_key: fields.take("dedup_key", |value| optional(value, text))?,
        submitted_at: fields.take("submitted_at", micros)?,
        run_at: fields.take("run_at", |value| optional(value, micros))?,
        deadline: fields.take("deadline", |value| optional(value, micros))?,
        content_type: fields.take("content_type", text)?,
        reply: fields.take("reply", |value| match value {
            Value::Boolean(flag) => Some(flag),
            _ => None,
        })?,
        callback: fields.take("callback", |value| optional(value, text))?,
        payload: fields.take("payload", |value| match value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        })?,
    })
}

struct Fields {
    fields: Vec<(String, Value)>,
}

impl Fields {
    fn take<T>(
        &mut self,
        name: &str,
        convert: impl FnOnce(Value) -> Option<T>,
    ) -> Result<T, String> {
        let value = self
            .fields
            .iter_mut()
            .find(|(candidate, _)| candidate == name)
            .map(|(_, value)| std::mem::replace(value, Value::Null))
            .ok_or_else(|| format!("{name}: missing"))?;
        convert(value).ok_or_else(|| format!("{name}: not a valid value"))
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn micros(value: Value) -> Option<i64> {
    match value {
        Value::TimestampMicros(micros) => Some(micros),
        _ => None,
    }
}

fn optional<T>(value: Value, convert: impl FnOnce(Value) -> Option<T>) -> Option<Option<T>> {
    match value {
        Value::Union(_, inner) => match *inner {
            Value::Null => Some(None),
            inner => convert(inner).map(Some),
        },
        _ => None,
    }
}
