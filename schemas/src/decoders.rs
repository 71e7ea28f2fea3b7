//! The one way from the bytes of a Kafka record to a task event.
//!
//! The writer's schema decides: the current one goes to the borrowed decoder, another known one to
//! Avro's schema resolution, and an unknown one is an error of its own, because its events are not
//! broken and can be read once the schema is learned.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::decode::decode_current;
use crate::error::{DecodeError, SchemaError};
use crate::event::{TaskEvent, TaskEventRef};
use crate::framing::{self, Writer};
use crate::released::{CURRENT_FINGERPRINT, released};
use crate::resolve::Resolver;

/// The schemas that a reader knows. Knows every released version from the start.
#[derive(Clone)]
pub struct Decoders {
    current_confluent_ids: Vec<u32>,
    /// By each fingerprint under which a schema is written.
    others: HashMap<u64, Arc<Resolver>>,
}

/// A decoded event: borrowed from the record's bytes when it was written with the current schema,
/// owned when it had to be resolved.
#[derive(Clone, Debug)]
pub enum Decoded<'a> {
    /// Written with the current schema.
    Current(TaskEventRef<'a>),
    /// Written with another known schema.
    Resolved(Box<TaskEvent>),
}

impl Decoders {
    /// Knows the current schema and all released ones, and no Confluent id.
    pub fn new() -> Self {
        let mut decoders = Self {
            current_confluent_ids: Vec::new(),
            others: HashMap::new(),
        };
        for schema in released() {
            // A test holds that each of them can be learned; if one could not, its events would
            // wait as those of an unknown schema do.
            let _ = decoders.learn(schema.json);
        }
        decoders
    }

    /// Takes this id in Confluent wire format for the current schema.
    #[must_use]
    pub fn with_confluent_id(mut self, id: u32) -> Self {
        self.current_confluent_ids.push(id);
        self
    }

    /// Learns a writer's schema, given as Avro JSON, and answers with its CRC-64-AVRO fingerprint.
    /// Learning a schema again changes nothing.
    ///
    /// # Errors
    /// The text is no schema, or its events cannot be read as task events: they stay unknown.
    pub fn learn(&mut self, schema_json: &str) -> Result<u64, SchemaError> {
        let resolver = Arc::new(Resolver::new(schema_json)?);
        for name in [resolver.fingerprint, resolver.library_fingerprint] {
            if name != CURRENT_FINGERPRINT {
                self.others
                    .entry(name)
                    .or_insert_with(|| Arc::clone(&resolver));
            }
        }
        Ok(resolver.fingerprint)
    }

    /// Whether events written with this schema can be read, by its CRC-64-AVRO fingerprint.
    pub fn knows(&self, fingerprint: u64) -> bool {
        fingerprint == CURRENT_FINGERPRINT || self.others.contains_key(&fingerprint)
    }

    /// Decodes one framed event and checks every field against its limits.
    ///
    /// # Errors
    /// When [`DecodeError::unknown_schema`] answers, wait for that schema; anything else lies in
    /// the bytes and stays.
    #[inline]
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Decoded<'a>, DecodeError> {
        let (writer, datum) = framing::split(bytes)?;
        match writer {
            Writer::Fingerprint(CURRENT_FINGERPRINT) => decode_current(datum).map(Decoded::Current),
            Writer::Fingerprint(fingerprint) => self.resolve(fingerprint, datum),
            Writer::ConfluentId(id) if self.current_confluent_ids.contains(&id) => {
                decode_current(datum).map(Decoded::Current)
            }
            Writer::ConfluentId(id) => Err(DecodeError::UnknownSchemaId { id }),
        }
    }

    fn resolve<'a>(&self, fingerprint: u64, datum: &[u8]) -> Result<Decoded<'a>, DecodeError> {
        let resolver = self
            .others
            .get(&fingerprint)
            .ok_or(DecodeError::UnknownFingerprint { fingerprint })?;
        resolver
            .decode(datum)
            .map(|event| Decoded::Resolved(Box::new(event)))
    }
}

impl Default for Decoders {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decoders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoders")
            .field("current_confluent_ids", &self.current_confluent_ids)
            .field("others", &self.others.keys())
            .finish()
    }
}

impl Decoded<'_> {
    /// The event, borrowed.
    pub fn event(&self) -> TaskEventRef<'_> {
        match self {
            Self::Current(event) => *event,
            Self::Resolved(event) => event.as_ref().as_ref(),
        }
    }

    /// The event with fields of its own.
    pub fn into_owned(self) -> TaskEvent {
        match self {
            Self::Current(event) => event.to_owned(),
            Self::Resolved(event) => *event,
        }
    }
}
