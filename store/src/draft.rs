//! The rows of a flush before they are written: each record decoded and checked.
//!
//! What can be told without the tables is told here: what the worker said, whether the bytes decode, and
//! whether the id's day is kept. The rest of a record's fate is decided in [`crate::fate`].

use std::time::Duration;

use millrace_schemas::{Day, Decoded, Decoders, Fingerprint, TaskEventRef, TaskId};

use crate::books::Outcome;
use crate::copy::{Body, ResultRow};
use crate::days::Retention;
use crate::fate::Fate;
use crate::fence::Locked;
use crate::flush::Part;
use crate::position::Consumer;
use crate::present::placed;
use crate::rows::{DeadLetter, Due, Ending, Origin, ParkKind, Parking, Reason, Settling};

/// A record on its way into the tables.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub partition: i32,
    /// The book with which its log began.
    pub log_book: i32,
    pub record: &'a Settling,
    /// `None` for bytes that do not decode.
    decoded: Option<Decoded<'a>>,
    pub fingerprint: Fingerprint,
    pub fate: Fate,
    /// Whether that is the log that is read now.
    pub in_open_log: bool,
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
        let refusal = of.refused.get(&record.name());
        let fingerprint = decoded.as_ref().map_or(Fingerprint([0; 16]), |decoded| {
            decoded.event().fingerprint()
        });
        let fate = match (&decoded, refusal, &record.ending) {
            (_, Some(refusal), _) => Fate::Dead(Box::new(refusal.letter.clone())),
            (_, None, Ending::Known(outcome)) => Fate::Known(*outcome),
            (Err(_), None, Ending::Dead(letter)) => Fate::Dead(letter.clone()),
            (Ok(_), None, Ending::Dead(letter)) if !letter.reason.was_worked_on() => {
                Fate::Dead(letter.clone())
            }
            (Err(error), None, _) => Fate::Dead(Box::new(DeadLetter::about_event(
                Reason::Undecodable,
                error.to_string(),
            ))),
            (Ok(decoded), None, ending) => {
                let event = decoded.event();
                let window = retention.window(locked.today);
                if window.contains(&event.task_id.birth_day()) {
                    of_ending(ending)
                } else {
                    Fate::Dead(Box::new(out_of_range(&event, window.start(), window.end())))
                }
            }
        };
        let open = locked.log_book(of.partition).unwrap_or_default();
        let log_book = match record.origin {
            Origin::Log => open,
            Origin::Parked { log_book, .. } => log_book,
        };
        Self {
            partition: of.partition,
            log_book,
            record,
            decoded: decoded.ok(),
            fingerprint,
            fate,
            in_open_log: log_book == open,
            failed_result_allowed: refusal.is_none_or(|refusal| refusal.with_failed_result),
        }
    }

    /// Partition and offset, as results keep it.
    pub(crate) const fn place(&self) -> (i32, i64) {
        let offset = placed(self.record.offset, self.in_open_log);
        (self.partition, offset)
    }

    /// Whether its offset is settled by this flush; else it was when the task was parked.
    pub(crate) const fn is_from_log(&self) -> bool {
        matches!(self.record.origin, Origin::Log)
    }

    /// Whether ids and keys have a say in how it ends: it was worked on or waits for it. A task that was
    /// parked before was judged then and waits on, unless it has begun since: then it owns its key.
    pub(crate) const fn is_judged(&self) -> bool {
        match &self.fate {
            Fate::Result => true,
            Fate::Dead(letter) => letter.reason.was_worked_on(),
            Fate::Parked(parking) => {
                self.is_from_log()
                    || matches!(self.record.ending, Ending::Repeat(_))
                    || matches!(parking.kind, ParkKind::Retry | ParkKind::Running)
            }
            Fate::Known(_)
            | Fate::ResultBefore
            | Fate::Duplicate { .. }
            | Fate::DeadBefore
            | Fate::ParkedBefore => false,
        }
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
        let body = match (&self.fate, &self.record.ending) {
            (Fate::Result, Ending::Output(output)) => Body::Output(output),
            (Fate::Result, Ending::Cancelled) => Body::Cancelled,
            (Fate::Result, Ending::Expired) => Body::Expired,
            (Fate::Result, _) => Body::Payload,
            (
                Fate::Duplicate {
                    first,
                    status,
                    row: true,
                },
                _,
            ) => Body::DuplicateOf(*first, *status),
            _ => return None,
        };
        Some(ResultRow {
            event,
            day: event.task_id.birth_day(),
            fingerprint: self.fingerprint,
            topic: &consumer.topic,
            partition: self.partition,
            offset: self.place().1,
            completed_at: locked.now,
            run: self.record.run(),
            attempts: self.record.attempts,
            body,
        })
    }

    /// Whether it ends with this flush, under its own id.
    fn ends(&self) -> bool {
        match &self.fate {
            Fate::Result | Fate::Duplicate { row: true, .. } => true,
            Fate::Dead(letter) => letter.reason.id_is_usable(),
            _ => false,
        }
    }

    /// Its id, if it ends with this flush and somebody may wait for that.
    pub(crate) fn awaited_end(&self) -> Option<TaskId> {
        self.event()
            .filter(|event| self.ends() && event.reply)
            .map(|event| event.task_id)
    }

    /// The event, and where its outcome is to be posted, if it ends with this flush.
    pub(crate) fn called_back(&self) -> Option<(TaskEventRef<'_>, &str)> {
        let event = self.event().filter(|_| self.ends())?;
        event.callback.map(|target| (event, target))
    }

    /// As what a parked task leaves the books; `None` when it stays in them, or was never in the open one.
    pub(crate) fn ended_as(&self, first_offset: i64) -> Option<Outcome> {
        let outcome = self.fate.outcome();
        let is_booked = self.in_open_log && self.record.offset >= first_offset;
        (is_booked && !self.is_from_log() && outcome != Outcome::Parked).then_some(outcome)
    }
}

/// What the worker said, before ids and keys are looked at.
fn of_ending(ending: &Ending) -> Fate {
    match ending {
        Ending::Payload | Ending::Output(_) | Ending::Cancelled | Ending::Expired => Fate::Result,
        Ending::Dead(letter) => Fate::Dead(letter.clone()),
        Ending::Parked(parking) => Fate::Parked(parking.clone()),
        Ending::Known(outcome) => Fate::Known(*outcome),
        Ending::Repeat(key_hash) => Fate::Parked(Box::new(Parking {
            kind: ParkKind::Behind,
            key_hash: *key_hash,
            due: Due::WithKey,
            age: Duration::ZERO,
            error: None,
        })),
    }
}

fn out_of_range(event: &TaskEventRef<'_>, oldest: &Day, newest: &Day) -> DeadLetter {
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
