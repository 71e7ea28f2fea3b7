//! Whether a dead letter's task can go back to work, as far as the letter alone tells.

use chrono::{DateTime, Utc};
use millrace_schemas::{Day, Decoders, TaskEventRef, TaskId};

use crate::headers::Headers;
use crate::letters::{LetterPlace, WholeLetter};
use crate::rows::{Reason, storable};

/// What holds for every letter of a command.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The person or host.
    pub by: &'a str,
    /// A task that was redriven so often is refused.
    pub max_redrives: i16,
    /// Which schemas can be read.
    pub decoders: &'a Decoders,
}

/// Why a letter was not redriven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Its bytes are no event under any known schema: learn the schema first, or discard it.
    Undecodable,
    /// Its id was born outside the kept days: its result would have no table.
    IdOutOfRange,
    /// Its id is another task's.
    IdConflict,
    /// It was redriven as often as is allowed.
    TooOften,
    /// The position has not passed it: its worker will, or the position was moved back.
    BeyondPosition,
    /// Its partition has no position.
    NoPosition,
    /// It has a result that is no failure.
    HasResult,
    /// It waits among the parked tasks already.
    Waiting,
}

impl Refusal {
    /// The word for it in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::IdOutOfRange => "id_out_of_range",
            Self::IdConflict => "id_conflict",
            Self::TooOften => "redriven_too_often",
            Self::BeyondPosition => "beyond_position",
            Self::NoPosition => "no_position",
            Self::HasResult => "has_result",
            Self::Waiting => "waiting",
        }
    }
}

/// A letter that was not redriven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which one.
    pub place: LetterPlace,
    /// Its task, where known.
    pub task_id: Option<TaskId>,
    /// Why.
    pub refusal: Refusal,
    /// What exactly was found, for a person.
    pub detail: String,
}

/// A letter whose task can go back to work, as far as the letter alone tells.
#[derive(Debug)]
pub(super) struct Ready {
    pub place: LetterPlace,
    /// Under which id its failed result stands.
    pub letter_id: Option<TaskId>,
    pub task_id: TaskId,
    pub key_hash: [u8; 16],
    pub tenant: String,
    pub task_type: String,
    pub run_at: Option<DateTime<Utc>>,
    pub deadline: Option<DateTime<Utc>>,
    pub headers: Headers,
}

pub(super) fn judge(
    whole: &WholeLetter,
    terms: Terms<'_>,
    kept: &std::ops::RangeInclusive<Day>,
) -> Result<Ready, (Refusal, String)> {
    let letter = &whole.letter;
    if letter.reason == Reason::IdConflict.as_str() {
        return Err((Refusal::IdConflict, letter.error.clone()));
    }
    if letter.place.run >= terms.max_redrives {
        let times = format!("it was redriven {} times already", letter.place.run);
        return Err((Refusal::TooOften, times));
    }
    let decoded = terms
        .decoders
        .decode(&whole.value)
        .map_err(|error| (Refusal::Undecodable, error.to_string()))?;
    let event = decoded.event();
    let born = event.task_id.birth_day();
    if !kept.contains(&born) {
        let days = format!(
            "its id was born on {born}; results are kept for {} to {}",
            kept.start(),
            kept.end()
        );
        return Err((Refusal::IdOutOfRange, days));
    }
    let headers = whole
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()));
    Ok(Ready {
        place: letter.place,
        letter_id: letter.task_id,
        task_id: event.task_id,
        key_hash: waits_with(&event),
        tenant: storable(event.tenant, 255),
        task_type: storable(event.task_type, 255),
        run_at: event.run_at.and_then(DateTime::from_timestamp_micros),
        deadline: event.deadline.and_then(DateTime::from_timestamp_micros),
        headers: Headers::collect(headers),
    })
}

/// Whom it waits with: its lane, or itself.
fn waits_with(event: &TaskEventRef<'_>) -> [u8; 16] {
    event.lane_hash().unwrap_or(*event.task_id.as_bytes())
}
