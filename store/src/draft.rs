//! The rows of a flush before they are written: each record decoded and checked.
//!
//! What can be told without the tables is told here: what the worker said, whether the bytes decode, and
//! whether the id's day is kept. The rest of a record's fate is decided in [`crate::fate`].

use millrace_schemas::{Decoded, Decoders, Fingerprint, TaskEventRef};

use crate::copy::{Body, ResultRow};
use crate::days::Retention;
use crate::fate::Fate;
use crate::fence::Locked;
use crate::flush::Part;
use crate::position::Consumer;
use crate::rows::{DeadLetter, Ending, Reason, Settling};

/// A record on its way into the tables.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub partition: i32,
    pub record: &'a Settling,
    /// `None` for bytes that do not decode.
    decoded: Option<Decoded<'a>>,
    pub fingerprint: Fingerprint,
    pub fate: Fate,
    /// False when the database refused its dead letter together with a failed result.
    failed_result_allowed: bool,
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
        let refusal = of.refused.get(&record.offset);
        let fingerprint = decoded.as_ref().map_or(Fingerprint([0; 16]), |decoded| {
            decoded.event().fingerprint()
        });
        let fate = match (&decoded, refusal, &record.ending) {
            (_, Some(refusal), _) => Fate::Dead(Box::new(refusal.letter.clone())),
            (_, None, Ending::Dead(letter)) => Fate::Dead(letter.clone()),
            (Err(error), None, Ending::Payload) => Fate::Dead(Box::new(DeadLetter::about_event(
                Reason::Undecodable,
                error.to_string(),
            ))),
            (Ok(decoded), None, Ending::Payload) => {
                let event = decoded.event();
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
            failed_result_allowed: refusal.is_none_or(|refusal| refusal.with_failed_result),
        }
    }

    /// Partition and offset.
    pub(crate) const fn place(&self) -> (i32, i64) {
        (self.partition, self.record.offset)
    }

    /// Whether its dead letter comes with a failed result, where the id is known and free.
    pub(crate) const fn has_failed_result(&self, letter: &DeadLetter) -> bool {
        self.failed_result_allowed && letter.reason.id_is_usable()
    }

    pub(crate) fn event(&self) -> Option<TaskEventRef<'_>> {
        self.decoded.as_ref().map(Decoded::event)
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
            Fate::Duplicate { row: false, .. }
            | Fate::ResultBefore
            | Fate::Dead(_)
            | Fate::DeadBefore => return None,
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
