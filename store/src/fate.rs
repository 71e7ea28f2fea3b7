//! How each record of a flush ends, decided in log order.
//!
//! From the outside in: what the worker said, the id's day, the row that the id has already, and the
//! deduplication key. Only what lies before a record counts, so the decision is the same whether records
//! come in one flush or in many, and again when the log is read again; where it was made from stale
//! knowledge, the primary keys refuse it.

use std::time::Duration;

use millrace_schemas::{TaskEventRef, TaskId};

use crate::books::Outcome;
use crate::copy::Status;
use crate::dedup::{Owners, Standing};
use crate::draft::Draft;
use crate::present::{Occupant, Present, State};
use crate::rows::{DeadLetter, Due, Ending, ParkKind, Parking, Reason};

/// How long after the first task of a key, which is for later, a repeat looks again how that one ended.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How a record ends, as far as is known.
#[derive(Debug)]
pub(crate) enum Fate {
    /// A result of its own: what the worker said stands.
    Result,
    /// Its result is there, from an earlier reading of the same offset.
    ResultBefore,
    /// A repeat; `row` says whether it gets a row that points to the first, since somebody is to know of its end.
    Duplicate {
        first: TaskId,
        status: Status,
        row: bool,
    },
    Dead(Box<DeadLetter>),
    /// It was set aside when this offset was read before; the letter and the row are there.
    DeadBefore,
    /// It waits in the table of parked tasks.
    Parked(Box<Parking>),
    /// It was parked when this offset was read before, and waits still.
    ParkedBefore,
    /// A look-up found how this offset was settled before.
    Known(Outcome),
}

impl Fate {
    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::Result | Self::ResultBefore => Outcome::Result,
            Self::Duplicate { .. } => Outcome::Duplicate,
            Self::Dead(_) | Self::DeadBefore => Outcome::DeadLetter,
            Self::Parked(_) | Self::ParkedBefore => Outcome::Parked,
            Self::Known(outcome) => *outcome,
        }
    }
}

/// Decides every draft. `owners` and `present` are what the tables hold, and grow by what is decided; `now` is
/// the database's clock, in microseconds since the Unix epoch.
pub(crate) fn decide(
    drafts: &mut [Draft<'_>],
    owners: &mut Owners,
    present: &mut Present,
    now: i64,
) {
    for draft in drafts {
        if let Some(fate) = decided(draft, owners, present, now) {
            draft.fate = fate;
        }
        if let Some((id, state)) = occupying(draft) {
            present.occupy(id, || occupant(draft, state));
        }
    }
}

/// The new fate of a draft; `None` when it stays what it is.
fn decided(draft: &Draft<'_>, owners: &mut Owners, present: &Present, now: i64) -> Option<Fate> {
    let place = draft.place();
    if draft.is_from_log() {
        if present.is_parked(place) {
            return Some(Fate::ParkedBefore);
        }
        if present.has_letter(place) {
            return Some(Fate::DeadBefore);
        }
    }
    if matches!(draft.fate, Fate::Known(_)) {
        // It may have ended since it was looked up.
        let row = present.of(draft.event()?.task_id)?;
        return (row.place == Some(place)).then(|| as_before(row));
    }
    if draft.is_judged() {
        judged(draft, owners, present, now)
    } else {
        None
    }
}

/// The fate of a task that was worked on, or waits for it, beside the tasks before it.
fn judged(draft: &Draft<'_>, owners: &mut Owners, present: &Present, now: i64) -> Option<Fate> {
    let event = draft.event()?;
    let (id, place) = (event.task_id, draft.place());
    let (earlier, later) = match present.of(id) {
        // The parked task that this is itself is nobody else's.
        Some(row) if row.place == Some(place) => match row.state {
            State::Parked { .. } if !draft.is_from_log() => (None, None),
            State::Parked { .. } | State::Settled { .. } => return Some(as_before(row)),
        },
        Some(row) if row.lies_behind(place) => (None, Some(row)),
        row => (row, None),
    };
    if let Some(row) = earlier {
        return Some(beside(draft, &event, row));
    }
    let hash = event.dedup_hash().map(|hash| hash.0);
    let standing = hash.map(|hash| owners.standing(&hash, id, draft.fingerprint));
    // When the log is read again, a key may have gone to a later task: that one was not there before.
    let counts = |first| !present.of(first).is_some_and(|row| row.lies_behind(place));
    match standing {
        Some(Standing::DuplicateOf(first)) if counts(first) => {
            // A callback is made from the row, too.
            let is_told = event.reply || event.callback.is_some();
            let wants_row = is_told && later.is_none();
            return Some(match present.of(first).map(|row| row.state) {
                // The row would copy a status that is not there yet.
                Some(State::Parked {
                    delayed_until,
                    key_hash,
                }) if wants_row => Fate::Parked(Box::new(behind_the_first(
                    draft,
                    &event,
                    (delayed_until, key_hash),
                    now,
                ))),
                state => Fate::Duplicate {
                    first,
                    status: match state {
                        Some(State::Settled { status, .. }) => status,
                        Some(State::Parked { .. }) | None => Status::Success,
                    },
                    row: wants_row,
                },
            });
        }
        Some(Standing::ConflictWith(first)) if counts(first) => {
            return Some(dead(
                Reason::DedupConflict,
                format!(
                    "the deduplication key belongs to task {first} with another type, content type, key or payload; \
                     use a new deduplication key for new content"
                ),
            ));
        }
        _ => {}
    }
    if let Some(row) = later.filter(|row| row.status().is_some()) {
        return Some(beside(draft, &event, row));
    }
    // Only a task that runs, or waits to run, owns its key: a repeat of one that was set aside is judged on its
    // own. One that waits behind others does not own it yet, for an earlier task with the key may run in
    // memory at this moment; later ones wait behind it.
    let is_behind =
        matches!(&draft.fate, Fate::Parked(parking) if parking.kind == ParkKind::Behind);
    if let Some(hash) = hash.filter(|_| !is_behind) {
        owners.own(hash, id, draft.fingerprint);
    }
    None
}

/// How a repeat waits until it can be told how the first task of its key ended: with its key, or, where the first is
/// for later or waits under a key of its own, for some time.
fn behind_the_first(
    draft: &Draft<'_>,
    event: &TaskEventRef<'_>,
    (delayed_until, waits_with): (Option<i64>, [u8; 16]),
    now: i64,
) -> Parking {
    let key_hash = event.lane_hash().unwrap_or(*event.task_id.as_bytes());
    let (kind, due) = if delayed_until.is_none() && waits_with == key_hash {
        (ParkKind::Behind, Due::WithKey)
    } else {
        let again = i64::try_from(LOOK_AGAIN.as_micros()).unwrap_or(0);
        let until = delayed_until.unwrap_or(now).max(now);
        (ParkKind::Delayed, Due::At(until.saturating_add(again)))
    };
    let (age, error) = match &draft.record.ending {
        Ending::Parked(parking) => (parking.age, parking.error.clone()),
        _ => (Duration::ZERO, None),
    };
    Parking {
        kind,
        key_hash,
        due,
        age,
        error,
    }
}

/// The fate of a record whose id has the row of another record, or is parked for another.
fn beside(draft: &Draft<'_>, event: &TaskEventRef<'_>, row: &Occupant) -> Fate {
    let id = event.task_id;
    if *row.tenant == *event.tenant && row.fingerprint == draft.fingerprint {
        return Fate::Duplicate {
            first: id,
            status: row.status().unwrap_or(Status::Success),
            row: false,
        };
    }
    dead(
        Reason::IdConflict,
        format!(
            "task id {id} belongs to another task, of another tenant or with another content: mint a new id"
        ),
    )
}

/// The fate of a record of which the tables know from an earlier reading of the same offset.
const fn as_before(row: &Occupant) -> Fate {
    match row.state {
        State::Parked { .. } => Fate::ParkedBefore,
        State::Settled {
            duplicate_of: Some(first),
            status,
        } => Fate::Duplicate {
            first,
            status,
            row: false,
        },
        State::Settled {
            status: Status::Failed,
            ..
        } => Fate::DeadBefore,
        State::Settled { .. } => Fate::ResultBefore,
    }
}

fn dead(reason: Reason, error: String) -> Fate {
    Fate::Dead(Box::new(DeadLetter::about_event(reason, error)))
}

/// The id that a decided draft takes, and how.
fn occupying(draft: &Draft<'_>) -> Option<(TaskId, State)> {
    let id = draft.event().map(|event| event.task_id);
    let settled = |status, duplicate_of| State::Settled {
        status,
        duplicate_of,
    };
    Some(match &draft.fate {
        Fate::Result => {
            let status = match draft.record.ending {
                Ending::Cancelled => Status::Cancelled,
                Ending::Expired => Status::Expired,
                _ => Status::Success,
            };
            (id?, settled(status, None))
        }
        Fate::Duplicate {
            first,
            status,
            row: true,
        } => (id?, settled(*status, Some(*first))),
        Fate::Dead(letter) if draft.has_failed_result(letter) => {
            (id.or(letter.task_id)?, settled(Status::Failed, None))
        }
        Fate::Parked(parking) => {
            let delayed_until = match (parking.kind, parking.due) {
                (ParkKind::Delayed, Due::At(micros)) => Some(micros),
                (ParkKind::Delayed, Due::In(_) | Due::WithKey) => Some(0),
                _ => None,
            };
            let key_hash = parking.key_hash;
            (
                id?,
                State::Parked {
                    delayed_until,
                    key_hash,
                },
            )
        }
        Fate::Duplicate { row: false, .. }
        | Fate::ResultBefore
        | Fate::Dead(_)
        | Fate::DeadBefore
        | Fate::ParkedBefore
        | Fate::Known(_) => return None,
    })
}

fn occupant(draft: &Draft<'_>, state: State) -> Occupant {
    let tenant = match (draft.event(), &draft.fate) {
        (Some(event), _) => event.tenant,
        (None, Fate::Dead(letter)) => letter.tenant.as_deref().unwrap_or_default(),
        (None, _) => "",
    };
    Occupant {
        tenant: tenant.into(),
        fingerprint: draft.fingerprint,
        place: Some(draft.place()),
        state,
    }
}
