//! The rows of a flush before they are written: each record decoded, checked, and given a fate.
//!
//! A fate is decided from the outside in: what the worker said, the id's day, the deduplication key, and
//! last the table itself. Only the table's answer is final, so a draft may change until COMMIT.

use millrace_schemas::{Decoded, Decoders, Fingerprint, TaskEventRef, TaskId};

use crate::books::Outcome;
use crate::copy::{Body, ResultRow, Status};
use crate::days::Retention;
use crate::dedup::{Keyed, Standing};
use crate::fence::Locked;
use crate::flush::Part;
use crate::position::Consumer;
use crate::rows::{DeadLetter, Ending, Reason, Settling};

/// How a record will end, as far as is known.
#[derive(Debug)]
pub(crate) enum Fate {
    Result,
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
            Self::Result => Outcome::Result,
            Self::Duplicate { .. } => Outcome::Duplicate,
            Self::Dead(_) | Self::DeadBefore => Outcome::DeadLetter,
        }
    }
}

/// A record on its way into the tables.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub partition: i32,
    pub record: &'a Settling,
    /// `None` for bytes that do not decode.
    decoded: Option<Decoded<'a>>,
    pub fingerprint: Fingerprint,
    pub fate: Fate,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        of: &Part<'a>,
        record: &'a Settling,
        decoders: &Decoders,
        locked: &Locked,
        retention: Retention,
    ) -> Self {
        let decoded = decoders.decode(&record.value);
        let mut fingerprint = Fingerprint([0; 16]);
        let fate = match (&decoded, of.refused.get(&record.offset), &record.ending) {
            (_, Some(letter), _) => Fate::Dead(Box::new(letter.clone())),
            (_, None, Ending::Dead(letter)) => Fate::Dead(letter.clone()),
            (Err(error), None, Ending::Payload) => Fate::Dead(Box::new(DeadLetter::about_event(
                Reason::Undecodable,
                error.to_string(),
            ))),
            (Ok(decoded), None, Ending::Payload) => {
                let event = decoded.event();
                fingerprint = event.fingerprint();
                let window = retention.window(locked.today);
                if window.contains(&event.task_id.birth_day()) {
                    Fate::Result
                } else {
                    Fate::Dead(Box::new(out_of_range(&event, window.start(), window.end())))
                }
            }
        };
        Self {
            partition: of.partition,
            record,
            decoded: decoded.ok(),
            fingerprint,
            fate,
        }
    }

    pub(crate) fn event(&self) -> Option<TaskEventRef<'_>> {
        self.decoded.as_ref().map(Decoded::event)
    }

    /// Its deduplication key, when it is a candidate for a result.
    pub(crate) fn keyed(&self) -> Option<Keyed> {
        let event = self.event()?;
        let hash = event.dedup_hash()?.0;
        matches!(self.fate, Fate::Result).then_some(Keyed {
            hash,
            task_id: event.task_id,
            fingerprint: self.fingerprint,
            reply: event.reply,
        })
    }

    /// Takes in what its deduplication key says.
    pub(crate) fn stand(&mut self, standing: Standing) {
        let row = self.event().is_some_and(|event| event.reply);
        self.fate = match standing {
            Standing::First => return,
            Standing::DuplicateOf(first, status) => Fate::Duplicate { first, status, row },
            Standing::ConflictWith(first) => Fate::Dead(Box::new(DeadLetter::about_event(
                Reason::DedupConflict,
                format!(
                    "the deduplication key belongs to task {first} with another type, content type, key or payload; \
                     use a new deduplication key for new content"
                ),
            ))),
        };
    }

    /// Its row in `task_results`, if it is to have one by COPY. Failed results go with their dead letters.
    pub(crate) fn row<'d>(
        &'d self,
        event: &'d TaskEventRef<'d>,
        consumer: &'d Consumer,
        locked: &Locked,
    ) -> Option<ResultRow<'d>> {
        let body = match &self.fate {
            Fate::Result => Body::Payload,
            Fate::Duplicate {
                first,
                status,
                row: true,
            } => Body::DuplicateOf(*first, *status),
            Fate::Duplicate { row: false, .. } | Fate::Dead(_) | Fate::DeadBefore => return None,
        };
        Some(ResultRow {
            event,
            day: event.task_id.birth_day(),
            fingerprint: self.fingerprint,
            topic: &consumer.topic,
            partition: self.partition,
            offset: self.record.offset,
            completed_at: locked.now,
            body,
        })
    }
}

fn out_of_range(
    event: &TaskEventRef<'_>,
    oldest: &millrace_schemas::Day,
    newest: &millrace_schemas::Day,
) -> DeadLetter {
    DeadLetter::about_event(
        Reason::IdOutOfRange,
        format!(
            "task id {} was born on {}, outside the kept days {oldest} to {newest}: \
             check the producer's clock, or raise the retention before such events are sent",
            event.task_id,
            event.task_id.birth_day(),
        ),
    )
}
