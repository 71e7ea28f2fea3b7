//! Reads an Avro datum of the current schema without copying.
//!
//! The bytes may come from a stranger: every length is checked against what is left before it is
//! used, nothing is allocated, every field is held to its limits, and nothing may follow the last
//! field. Field order and types are those of `avro/task_event.avsc`; a test compares the two and
//! property tests hold the results against the Avro library's own reader.

use crate::error::DecodeError;
use crate::event::TaskEventRef;
use crate::field::{Field, FieldOutOfRange, RangeProblem};
use crate::limits;
use crate::task_id::TaskId;

#[inline]
pub(crate) fn decode_current(datum: &[u8]) -> Result<TaskEventRef<'_>, DecodeError> {
    let mut cursor = Cursor { rest: datum };
    let event = TaskEventRef {
        task_id: cursor.task_id(Field::TaskId)?,
        task_type: cursor.text(Field::TaskType)?,
        tenant: cursor.text(Field::Tenant)?,
        key: cursor.optional_text(Field::Key)?,
        dedup_key: cursor.optional_text(Field::DedupKey)?,
        submitted_at: cursor.time(Field::SubmittedAt)?,
        run_at: cursor.optional_time(Field::RunAt)?,
        deadline: cursor.optional_time(Field::Deadline)?,
        content_type: cursor.text(Field::ContentType)?,
        reply: cursor.boolean(Field::Reply)?,
        callback: cursor.optional_text(Field::Callback)?,
        payload: cursor.bytes(Field::Payload)?,
    };
    match cursor.rest.len() {
        0 => Ok(event),
        count => Err(DecodeError::TrailingBytes { count }),
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    fn take(&mut self, count: usize, field: Field) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(DecodeError::Truncated {
                field,
                needed: count,
                left: self.rest.len(),
            }),
        }
    }

    #[inline(always)]
    fn byte(&mut self, field: Field) -> Result<u8, DecodeError> {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                Ok(*byte)
            }
            None => Err(DecodeError::Truncated {
                field,
                needed: 1,
                left: 0,
            }),
        }
    }

    /// A zigzag varint. Most are lengths below 64, which take one byte.
    #[inline(always)]
    fn long(&mut self, field: Field) -> Result<i64, DecodeError> {
        let first = self.byte(field)?;
        let raw = if first < 0x80 {
            u64::from(first)
        } else {
            self.long_tail(first, field)?
        };
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    #[inline]
    fn long_tail(&mut self, first: u8, field: Field) -> Result<u64, DecodeError> {
        let mut raw = u64::from(first & 0x7F);
        for shift in (7..63).step_by(7) {
            let byte = self.byte(field)?;
            raw |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(raw);
            }
        }
        // The tenth byte holds the one bit that is left of 64.
        match self.byte(field)? {
            last @ 0..=1 => Ok(raw | u64::from(last) << 63),
            _ => Err(out_of_range(field, RangeProblem::VarintOverflow)),
        }
    }

    #[inline(always)]
    fn length(&mut self, field: Field) -> Result<usize, DecodeError> {
        let found = self.long(field)?;
        usize::try_from(found)
            .map_err(|_| out_of_range(field, RangeProblem::NegativeLength { found }))
    }

    #[inline(always)]
    fn is_present(&mut self, field: Field) -> Result<bool, DecodeError> {
        match self.long(field)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(out_of_range(field, RangeProblem::UnionIndex { found })),
        }
    }

    #[inline(always)]
    fn task_id(&mut self, field: Field) -> Result<TaskId, DecodeError> {
        match self.rest.split_first_chunk() {
            Some((id, rest)) => {
                self.rest = rest;
                TaskId::from_bytes(*id).map_err(|problem| out_of_range(field, problem.into()))
            }
            None => Err(DecodeError::Truncated {
                field,
                needed: 16,
                left: self.rest.len(),
            }),
        }
    }

    #[inline(always)]
    fn bytes(&mut self, field: Field) -> Result<&'a [u8], DecodeError> {
        let length = self.length(field)?;
        self.take(length, field)
    }

    #[inline(always)]
    fn text(&mut self, field: Field) -> Result<&'a str, DecodeError> {
        let length = self.length(field)?;
        limits::length(field, length)?;
        let bytes = self.take(length, field)?;
        let text = std::str::from_utf8(bytes).map_err(|error| DecodeError::InvalidUtf8 {
            field,
            at: error.valid_up_to(),
        })?;
        limits::without_nul(field, text)?;
        Ok(text)
    }

    #[inline(always)]
    fn optional_text(&mut self, field: Field) -> Result<Option<&'a str>, DecodeError> {
        if self.is_present(field)? {
            self.text(field).map(Some)
        } else {
            Ok(None)
        }
    }

    #[inline(always)]
    fn time(&mut self, field: Field) -> Result<i64, DecodeError> {
        let micros = self.long(field)?;
        limits::time(field, micros)?;
        Ok(micros)
    }

    #[inline(always)]
    fn optional_time(&mut self, field: Field) -> Result<Option<i64>, DecodeError> {
        if self.is_present(field)? {
            self.time(field).map(Some)
        } else {
            Ok(None)
        }
    }

    #[inline(always)]
    fn boolean(&mut self, field: Field) -> Result<bool, DecodeError> {
        match self.byte(field)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(out_of_range(field, RangeProblem::Boolean { found })),
        }
    }
}

#[cold]
fn out_of_range(field: Field, problem: RangeProblem) -> DecodeError {
    FieldOutOfRange { field, problem }.into()
}
