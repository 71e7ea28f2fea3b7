//! The evidence by task, by place and by transaction.

use std::collections::HashMap;

use uuid::Uuid;

use super::evidence::Evidence;
use super::tables::{LetterRow, ResultRow};
use super::tenure::Tenures;
use super::topic::LogRecord;
use crate::journal::{Attempt, Event, How};
use crate::plan::{End, Planned, Record};
use crate::round::Played;
use crate::trail::Step;

/// An end in the journal.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// The attempt.
    pub attempt: Attempt,
    /// How.
    pub how: How,
}

/// The evidence, found quickly.
pub struct Lookup<'a> {
    /// Records of the log by number in the plan.
    pub by_number: HashMap<usize, &'a LogRecord>,
    /// Result rows by task.
    pub results: HashMap<Uuid, &'a ResultRow>,
    /// Dead letters by place; several runs are several letters.
    pub letters: HashMap<(i32, i64), Vec<&'a LetterRow>>,
    /// Steps by partition and transaction that moved no claim.
    pub flushes: HashMap<(i32, &'a str), &'a Step>,
    /// Who held what when.
    pub tenures: Tenures,
    /// Ends by record of the plan.
    pub ends: HashMap<usize, Vec<Ended>>,
    /// Starts by record of the plan, in order.
    pub started: HashMap<usize, Vec<Attempt>>,
    /// Records of the plan by place.
    pub numbers: HashMap<(i32, i64), usize>,
    /// Starts in all.
    pub starts: usize,
}

impl<'a> Lookup<'a> {
    /// Sorts the evidence.
    pub fn of(evidence: &'a Evidence, played: &Played) -> Self {
        let by_number = evidence
            .log
            .iter()
            .filter_map(|record| Some((record.number?, record)))
            .filter(|(number, _)| *number < played.plan.records.len())
            .collect();
        let mut letters: HashMap<_, Vec<_>> = HashMap::new();
        for letter in &evidence.letters {
            letters
                .entry((letter.partition, letter.place))
                .or_default()
                .push(letter);
        }
        let flushes = evidence.steps.iter().filter(|step| !step.claimed);
        let (mut ends, mut started): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = Default::default();
        let mut starts = 0;
        for event in &evidence.journal {
            match event {
                Event::Start(attempt) => {
                    starts += 1;
                    started.entry(attempt.record).or_default().push(*attempt);
                }
                Event::End(attempt, how) => ends.entry(attempt.record).or_default().push(Ended {
                    attempt: *attempt,
                    how: *how,
                }),
                Event::Death { .. } | Event::Note(_) => {}
            }
        }
        Self {
            by_number,
            numbers: evidence
                .log
                .iter()
                .filter_map(|record| Some(((record.partition, record.offset), record.number?)))
                .collect(),
            results: evidence
                .results
                .iter()
                .map(|row| (row.task_id, row))
                .collect(),
            letters,
            flushes: flushes
                .map(|step| ((step.partition, step.xid.as_str()), step))
                .collect(),
            tenures: Tenures::of(&evidence.steps),
            ends,
            started,
            starts,
        }
    }

    /// The dead letter of the first run at a record's place.
    pub fn letter(&self, record: &LogRecord) -> Option<&'a LetterRow> {
        let letters = self.letters.get(&(record.partition, record.offset))?;
        letters.iter().min_by_key(|letter| letter.run).copied()
    }

    /// The result row of a task, when it is of this very record.
    pub fn own_row(&self, id: Uuid, record: &LogRecord) -> Option<&'a ResultRow> {
        let row = self.results.get(&id)?;
        ((row.partition, row.place) == (record.partition, record.offset)).then_some(row)
    }

    /// What became of a record; none when there is no trace of an end. A record without rows of its own is a
    /// repeat of another, if the plan has it so.
    pub fn end(&self, index: usize, planned: &Record, played: &Played) -> Option<End> {
        let record = self.by_number.get(&index)?;
        if let Some(letter) = self.letter(record) {
            return Some(End::Dead(known_reason(&letter.reason)));
        }
        let repeats = planned.ends.iter().find_map(|end| match end {
            End::Duplicate(first) => Some(*first),
            _ => None,
        });
        let id = played.ids.get(index)?;
        let Some(row) = self.own_row(*id, record) else {
            return repeats.map(End::Duplicate);
        };
        match (row.status.as_str(), row.duplicate_of) {
            (_, Some(first)) => {
                let first = played.ids.iter().position(|id| *id == first)?;
                Some(End::Duplicate(first))
            }
            ("success", None) => Some(End::Success),
            ("cancelled", None) => Some(End::Cancelled),
            ("expired", None) => Some(End::Expired),
            _ => None,
        }
    }
}

/// The task that a record holds, when it is one.
pub fn task(record: &Record) -> Option<&Planned> {
    record.body.event()
}

/// The words of the interface; another word is no reason.
fn known_reason(reason: &str) -> &'static str {
    const REASONS: [&str; 9] = [
        "undecodable",
        "id_out_of_range",
        "id_conflict",
        "dedup_conflict",
        "row_refused",
        "unknown_type",
        "permanent",
        "attempts_exhausted",
        "crashed_worker",
    ];
    let known = REASONS.into_iter().find(|known| *known == reason);
    known.unwrap_or("a reason that is not in the interface")
}
