//! Which schemas of other writers a reader takes in.
//!
//! A schema is admitted when every event of it can be resolved to the current one, and when a few
//! bytes of it cannot make the Avro library use any amount of memory or stack. One that is not
//! admitted stays unknown, so its events wait and are not lost.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{FixedSchema, InnerDecimalSchema, Name, UuidSchema};
use apache_avro::schema_compatibility::SchemaCompatibility;

use crate::error::SchemaError;
use crate::field::Field;

/// The largest `fixed` that is read: the Avro library allocates its size before it reads.
const FIXED_BYTES: usize = 1 << 20;

pub(crate) fn admit(writer: &Schema, reader: &Schema) -> Result<(), SchemaError> {
    Bounds::default().width(writer)?;
    SchemaCompatibility::can_read(writer, reader)
        .map_err(|error| incompatible(format!("{error:.300}")))?;
    same_time_unit(writer)
}

/// Avro resolution goes by the underlying long and would take milliseconds for microseconds.
fn same_time_unit(writer: &Schema) -> Result<(), SchemaError> {
    let Schema::Record(record) = writer else {
        return Err(incompatible("expected a record".to_owned()));
    };
    for field in [Field::SubmittedAt, Field::RunAt, Field::Deadline] {
        let found = record
            .fields
            .iter()
            .find(|candidate| candidate.name == field.name());
        let is_micros = match found.map(|field| &field.schema) {
            None => true,
            Some(Schema::Union(union)) => union.variants().iter().all(is_micros),
            Some(schema) => is_micros(schema),
        };
        if !is_micros {
            return Err(incompatible(format!("{field}: expected timestamp-micros")));
        }
    }
    Ok(())
}

fn is_micros(schema: &Schema) -> bool {
    matches!(
        schema,
        Schema::TimestampMicros | Schema::Long | Schema::Int | Schema::Null
    )
}

fn incompatible(reason: String) -> SchemaError {
    SchemaError::Incompatible { reason }
}

fn unbounded(reason: String) -> SchemaError {
    SchemaError::Unbounded { reason }
}

/// Whether a value takes bytes on the wire. An array of values that take none has any length in a
/// few bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Nothing,
    Something,
}

/// The named types met so far; `None` while inside one.
#[derive(Default)]
struct Bounds {
    named: HashMap<Name, Option<Width>>,
}

impl Bounds {
    fn width(&mut self, schema: &Schema) -> Result<Width, SchemaError> {
        match schema {
            Schema::Null => Ok(Width::Nothing),
            Schema::Array(array) => self.items(&array.items),
            // The keys of a map take bytes, so its values need not.
            Schema::Map(map) => self.width(&map.types).map(|_| Width::Something),
            Schema::Union(union) => {
                for variant in union.variants() {
                    self.width(variant)?;
                }
                Ok(Width::Something)
            }
            Schema::Record(record) => {
                self.named.insert(record.name.clone(), None);
                let mut width = Width::Nothing;
                for field in &record.fields {
                    if self.width(&field.schema)? == Width::Something {
                        width = Width::Something;
                    }
                }
                self.named.insert(record.name.clone(), Some(width));
                Ok(width)
            }
            Schema::Ref { name } => match self.named.get(name) {
                Some(Some(width)) => Ok(*width),
                Some(None) => Err(unbounded(format!("{name} contains itself"))),
                None => Err(unbounded(format!("{name} is not defined"))),
            },
            Schema::Fixed(fixed)
            | Schema::Duration(fixed)
            | Schema::Uuid(UuidSchema::Fixed(fixed)) => self.fixed(fixed),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Fixed(fixed) => self.fixed(fixed),
                InnerDecimalSchema::Bytes => Ok(Width::Something),
            },
            Schema::Enum(symbols) => {
                self.named
                    .insert(symbols.name.clone(), Some(Width::Something));
                Ok(Width::Something)
            }
            _ => Ok(Width::Something),
        }
    }

    fn items(&mut self, items: &Schema) -> Result<Width, SchemaError> {
        match self.width(items)? {
            Width::Something => Ok(Width::Something),
            Width::Nothing => Err(unbounded("an array of values without bytes".to_owned())),
        }
    }

    fn fixed(&mut self, fixed: &FixedSchema) -> Result<Width, SchemaError> {
        if fixed.size > FIXED_BYTES {
            let FixedSchema { name, size, .. } = fixed;
            return Err(unbounded(format!(
                "{name} has {size} bytes, more than {FIXED_BYTES}"
            )));
        }
        let width = if fixed.size == 0 {
            Width::Nothing
        } else {
            Width::Something
        };
        self.named.insert(fixed.name.clone(), Some(width));
        Ok(width)
    }
}
