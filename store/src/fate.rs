//! How each record of a flush ends, decided in log order.
//!
//! From the outside in: what the worker said, the id's day, the row that the id has already, and the
//! deduplication key. Only what lies before a record counts, so the decision is the same whether records
//! come in one flush or in many, and again when the log is read again; where it was made from stale
//! knowledge, the primary keys refuse it.

use millrace_schemas::{TaskEventRef, TaskId};

use crate::books::Outcome;
use crate::copy::Status;
use crate::dedup::{Owners, Standing};
use crate::draft::Draft;
use crate::present::{Occupant, Present};
use crate::rows::{DeadLetter, Reason};

/// How a record ends, as far as is known.
#[derive(Debug)]
pub(crate) enum Fate {
    /// A result of its own.
    Result,
    /// Its result is there, from an earlier reading of the same offset.
    ResultBefore,
    /// A repeat; `row` says whether it gets a row that points to the first.
    Duplicate {
        first: TaskId,
        status: Status,
        row: bool,
    },
    Dead(Box<DeadLetter>),
    /// It was set aside when this offset was read before; the letter and the row are there.
    DeadBefore,
}

impl Fate {
    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::Result | Self::ResultBefore => Outcome::Result,
            Self::Duplicate { .. } => Outcome::Duplicate,
            Self::Dead(_) | Self::DeadBefore => Outcome::DeadLetter,
        }
    }
}

/// Decides every draft. `owners` and `present` are what the tables hold, and grow by what is decided.
pub(crate) fn decide(drafts: &mut [Draft<'_>], owners: &mut Owners, present: &mut Present) {
    for draft in drafts {
        if present.has_letter(draft.place()) {
            draft.fate = Fate::DeadBefore;
            continue;
        }
        if let Some(fate) = decided(draft, owners, present) {
            draft.fate = fate;
        }
        if let Some((id, occupant)) = occupant(draft) {
            present.occupy(id, || occupant.build(draft));
        }
    }
}

/// The new fate of a candidate for a result; `None` when it stays what it is.
fn decided(draft: &Draft<'_>, owners: &mut Owners, present: &Present) -> Option<Fate> {
    if !matches!(draft.fate, Fate::Result) {
        return None;
    }
    let event = draft.event()?;
    let (id, place) = (event.task_id, draft.place());
    let (earlier, later) = match present.of(id) {
        Some(row) if row.place == Some(place) => return Some(as_before(row)),
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
            return Some(Fate::Duplicate {
                first,
                status: present.of(first).map_or(Status::Success, |row| row.status),
                row: event.reply && later.is_none(),
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
    if let Some(row) = later {
        return Some(beside(draft, &event, row));
    }
    // Only a task that runs owns its key: a repeat of one that was set aside is judged on its own.
    if let Some(hash) = hash {
        owners.own(hash, id, draft.fingerprint);
    }
    None
}

/// The fate of a record whose id has the row of another record.
fn beside(draft: &Draft<'_>, event: &TaskEventRef<'_>, row: &Occupant) -> Fate {
    let id = event.task_id;
    if *row.tenant == *event.tenant && row.fingerprint == draft.fingerprint {
        return Fate::Duplicate {
            first: id,
            status: row.status,
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

/// The fate of a record whose own row is there, from an earlier reading of the same offset.
const fn as_before(row: &Occupant) -> Fate {
    match (row.duplicate_of, row.status) {
        (Some(first), status) => Fate::Duplicate {
            first,
            status,
            row: false,
        },
        (None, Status::Failed) => Fate::DeadBefore,
        (None, Status::Success) => Fate::ResultBefore,
    }
}

fn dead(reason: Reason, error: String) -> Fate {
    Fate::Dead(Box::new(DeadLetter::about_event(reason, error)))
}

/// What a decided draft puts into the table of results.
struct Occupying {
    status: Status,
    duplicate_of: Option<TaskId>,
}

impl Occupying {
    fn build(&self, draft: &Draft<'_>) -> Occupant {
        let tenant = match (draft.event(), &draft.fate) {
            (Some(event), _) => event.tenant,
            (None, Fate::Dead(letter)) => letter.tenant.as_deref().unwrap_or_default(),
            (None, _) => "",
        };
        Occupant {
            tenant: tenant.into(),
            fingerprint: draft.fingerprint,
            place: Some(draft.place()),
            status: self.status,
            duplicate_of: self.duplicate_of,
        }
    }
}

fn occupant(draft: &Draft<'_>) -> Option<(TaskId, Occupying)> {
    let id = draft.event().map(|event| event.task_id);
    let (id, status, duplicate_of) = match &draft.fate {
        Fate::Result => (id?, Status::Success, None),
        Fate::Duplicate {
            first,
            status,
            row: true,
        } => (id?, *status, Some(*first)),
        Fate::Dead(letter) if draft.has_failed_result(letter) => {
            (id.or(letter.task_id)?, Status::Failed, None)
        }
        Fate::Duplicate { row: false, .. }
        | Fate::ResultBefore
        | Fate::Dead(_)
        | Fate::DeadBefore => return None,
    };
    Some((
        id,
        Occupying {
            status,
            duplicate_of,
        },
    ))
}
