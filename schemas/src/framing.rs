//! What stands in front of the Avro datum: which schema wrote it.
//!
//! Avro single-object encoding (Avro 1.11 specification, "Single-object encoding"): `C3 01`, then
//! the schema's CRC-64-AVRO fingerprint in little-endian order. Confluent wire format: `00`, then
//! the schema's registry id in big-endian order. Both are read; which one is written is a setting.

use crate::error::DecodeError;
use crate::released::CURRENT_FINGERPRINT;

const SINGLE_OBJECT: [u8; 2] = [0xC3, 0x01];
const SINGLE_OBJECT_HEADER: usize = 10;
const CONFLUENT: u8 = 0x00;
const CONFLUENT_HEADER: usize = 5;

/// How an event is framed on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Avro single-object encoding with the fingerprint of the current schema.
    #[default]
    SingleObject,
    /// Confluent wire format.
    Confluent {
        /// The id under which a registry keeps the current schema.
        schema_id: u32,
    },
}

/// Which schema a frame says it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    Fingerprint(u64),
    ConfluentId(u32),
}

impl Framing {
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::SingleObject => {
                out.extend_from_slice(&SINGLE_OBJECT);
                out.extend_from_slice(&CURRENT_FINGERPRINT.to_le_bytes());
            }
            Self::Confluent { schema_id } => {
                out.push(CONFLUENT);
                out.extend_from_slice(&schema_id.to_be_bytes());
            }
        }
    }
}

/// Splits a frame into the writer's schema and the Avro datum.
#[inline]
pub(crate) fn split(bytes: &[u8]) -> Result<(Writer, &[u8]), DecodeError> {
    match bytes {
        [0xC3, 0x01, f0, f1, f2, f3, f4, f5, f6, f7, datum @ ..] => {
            let fingerprint = u64::from_le_bytes([*f0, *f1, *f2, *f3, *f4, *f5, *f6, *f7]);
            Ok((Writer::Fingerprint(fingerprint), datum))
        }
        [CONFLUENT, i0, i1, i2, i3, datum @ ..] => Ok((
            Writer::ConfluentId(u32::from_be_bytes([*i0, *i1, *i2, *i3])),
            datum,
        )),
        _ => Err(unreadable(bytes)),
    }
}

#[cold]
fn unreadable(bytes: &[u8]) -> DecodeError {
    match bytes {
        [] => DecodeError::Empty,
        [0xC3] | [0xC3, 0x01, ..] => DecodeError::TruncatedHeader {
            needed: SINGLE_OBJECT_HEADER,
            found: bytes.len(),
        },
        [CONFLUENT, ..] => DecodeError::TruncatedHeader {
            needed: CONFLUENT_HEADER,
            found: bytes.len(),
        },
        _ => DecodeError::Magic {
            found: bytes.iter().copied().take(2).collect(),
        },
    }
}
