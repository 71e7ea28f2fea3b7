//! What a field of a task event may hold.
//!
//! Producers check before they send and consumers check what they receive, by the same functions,
//! so an event that was accepted is never refused later for its form. Every value within the
//! limits fits its column in Postgres.

use crate::event::TaskEventRef;
use crate::field::{Field, FieldOutOfRange, RangeProblem};

/// Bytes of `task_type`, `tenant` and `content_type`.
pub const NAME_BYTES: usize = 255;
/// Bytes of `key` and `dedup_key`.
pub const KEY_BYTES: usize = 1024;
/// Bytes of `callback`.
pub const CALLBACK_BYTES: usize = 2048;
/// 0001-01-01T00:00:00Z in microseconds since the Unix epoch. Postgres reaches further in both
/// directions, RFC 3339 does not.
pub const EARLIEST_MICROS: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z in microseconds since the Unix epoch.
pub const LATEST_MICROS: i64 = 253_402_300_799_999_999;

/// The limit of a text field in bytes; none for a field that is no text.
pub const fn text_limit(field: Field) -> Option<usize> {
    match field {
        Field::TaskType | Field::Tenant | Field::ContentType => Some(NAME_BYTES),
        Field::Key | Field::DedupKey => Some(KEY_BYTES),
        Field::Callback => Some(CALLBACK_BYTES),
        Field::TaskId
        | Field::SubmittedAt
        | Field::RunAt
        | Field::Deadline
        | Field::Reply
        | Field::Payload => None,
    }
}

/// Checks every field of an event; a producer calls it before encoding.
///
/// # Errors
/// The first field, in wire order, that is over-long, holds a NUL character or is a time outside
/// the range.
pub fn check(event: &TaskEventRef<'_>) -> Result<(), FieldOutOfRange> {
    text(Field::TaskType, event.task_type)?;
    text(Field::Tenant, event.tenant)?;
    event.key.map_or(Ok(()), |key| text(Field::Key, key))?;
    event
        .dedup_key
        .map_or(Ok(()), |key| text(Field::DedupKey, key))?;
    time(Field::SubmittedAt, event.submitted_at)?;
    event.run_at.map_or(Ok(()), |at| time(Field::RunAt, at))?;
    event
        .deadline
        .map_or(Ok(()), |at| time(Field::Deadline, at))?;
    text(Field::ContentType, event.content_type)?;
    event
        .callback
        .map_or(Ok(()), |url| text(Field::Callback, url))
}

/// Checks one text against its field's limit and for NUL characters.
///
/// # Errors
/// [`RangeProblem::TooLong`] or [`RangeProblem::Nul`].
#[inline]
pub fn text(field: Field, text: &str) -> Result<(), FieldOutOfRange> {
    length(field, text.len())?;
    without_nul(field, text)
}

/// Checks a text whose length was checked before.
#[inline]
pub(crate) fn without_nul(field: Field, text: &str) -> Result<(), FieldOutOfRange> {
    // Looking at every byte without leaving early is what the compiler vectorises; most texts are
    // short and none has a NUL.
    if text.bytes().fold(false, |found, byte| found | (byte == 0)) {
        Err(nul(field, text))
    } else {
        Ok(())
    }
}

/// Checks a text's length in bytes before the text is looked at.
#[inline]
pub(crate) fn length(field: Field, found: usize) -> Result<(), FieldOutOfRange> {
    match text_limit(field) {
        Some(limit) if found > limit => Err(FieldOutOfRange {
            field,
            problem: RangeProblem::TooLong { found, limit },
        }),
        _ => Ok(()),
    }
}

/// Checks one time, in microseconds since the Unix epoch.
///
/// # Errors
/// [`RangeProblem::Time`].
#[inline]
pub fn time(field: Field, found: i64) -> Result<(), FieldOutOfRange> {
    if (EARLIEST_MICROS..=LATEST_MICROS).contains(&found) {
        Ok(())
    } else {
        Err(FieldOutOfRange {
            field,
            problem: RangeProblem::Time { found },
        })
    }
}

#[cold]
fn nul(field: Field, text: &str) -> FieldOutOfRange {
    let at = text
        .bytes()
        .position(|byte| byte == 0)
        .unwrap_or(text.len());
    FieldOutOfRange {
        field,
        problem: RangeProblem::Nul { at },
    }
}
