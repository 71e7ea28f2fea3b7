//! Laws 1 and 3: what was acknowledged is in the log once, and each record ended once, as planned.
//!
//! - A record that was acknowledged is in the log exactly once, as it was sent.
//! - Each record has exactly one end, and it is one that the plan allows: a result row with the planned
//!   result, a dead letter with the planned reason and a failed row beside it, or nothing but the row of the
//!   task that it repeats.
//! - A repeat, and a task that was expired when it came, was never run.
//! - There is no row that belongs to no record.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::evidence::Evidence;
use super::lookup::{Lookup, task};
use super::tables::ResultRow;
use super::{Law, Verdict};
use crate::plan::{End, Handlers, Planned};
use crate::round::Played;

pub(super) fn check(
    verdict: &mut Verdict,
    evidence: &Evidence,
    lookup: &Lookup<'_>,
    played: &Played,
) {
    in_the_log(verdict, evidence, played);
    for (index, record) in played.plan.records.iter().enumerate() {
        let (Some(&id), Some(place)) = (played.ids.get(index), lookup.by_number.get(&index)) else {
            continue;
        };
        verdict.tasks += 1;
        let end = lookup.end(index, record, played);
        verdict.check(
            Law::OneResult,
            Some(id),
            end.is_some_and(|end| record.ends.contains(&end)),
            || {
                format!(
                    "record {index} at {}/{}: planned {:?}, found {}",
                    place.partition,
                    place.offset,
                    record.ends,
                    end.map_or_else(|| traces(lookup, index, id), |end| format!("{end:?}"))
                )
            },
        );
        let letters = lookup.letters.get(&(place.partition, place.offset));
        verdict.check(
            Law::OneResult,
            Some(id),
            letters.is_none_or(|letters| letters.len() == 1),
            || format!("record {index} has several dead letters: {letters:?}"),
        );
        if let Some(planned) = task(record) {
            let row = lookup.own_row(id, place);
            row_as_planned(verdict, played, (planned, id), end, row);
            never_run(verdict, lookup, played, (index, id), end);
        }
    }
    strangers(verdict, evidence, played);
}

fn in_the_log(verdict: &mut Verdict, evidence: &Evidence, played: &Played) {
    let mut times: HashMap<usize, u32> = HashMap::new();
    for record in &evidence.log {
        if let Some(number) = record.number {
            *times.entry(number).or_default() += 1;
        }
    }
    for (index, acknowledged) in played.acknowledged.iter().enumerate() {
        let found = times.get(&index).copied().unwrap_or_default();
        let id = played.ids.get(index).copied();
        verdict.check(
            Law::Accepted,
            id,
            found == 1 || (found == 0 && !acknowledged),
            || format!("record {index}, acknowledged {acknowledged}, is in the log {found} times"),
        );
    }
}

fn row_as_planned(
    verdict: &mut Verdict,
    played: &Played,
    (planned, id): (&Planned, Uuid),
    end: Option<End>,
    row: Option<&ResultRow>,
) {
    match (end, row) {
        (Some(End::Success), Some(row)) => {
            let expected = match played.place.handlers {
                Handlers::Planned => planned.orders.answer(),
                Handlers::Stock => String::from_utf8_lossy(&planned.orders.payload()).into_owned(),
            };
            verdict.check(
                Law::OneResult,
                Some(id),
                row.result.as_deref() == Some(expected.as_str()) && row.run == 0,
                || format!("its result should be {expected} of run 0: {row:?}"),
            );
        }
        (Some(End::Duplicate(first)), row) if planned.reply => {
            let first = played.ids.get(first).copied();
            let own_id = first != Some(id);
            verdict.check(
                Law::OneResult,
                Some(id),
                !own_id || row.is_some_and(|row| row.duplicate_of == first),
                || format!("somebody may ask for this repeat of {first:?}, and its row is {row:?}"),
            );
        }
        (Some(End::Dead("id_out_of_range" | "id_conflict")), row) => {
            verdict.check(Law::OneResult, Some(id), row.is_none(), || {
                format!("an id that is not its own has a row: {row:?}")
            });
        }
        (Some(End::Dead(_)), row) => verdict.check(
            Law::OneResult,
            Some(id),
            row.is_some_and(|row| row.status == "failed" && row.has_error),
            || format!("a dead letter without a failed result: {row:?}"),
        ),
        _ => {}
    }
}

fn never_run(
    verdict: &mut Verdict,
    lookup: &Lookup<'_>,
    played: &Played,
    (index, id): (usize, Uuid),
    end: Option<End>,
) {
    let Some(record) = played.plan.records.get(index) else {
        return;
    };
    let repeat = match end {
        Some(End::Duplicate(first)) => played.ids.get(first) != Some(&id),
        Some(End::Dead(reason)) => {
            matches!(
                reason,
                "dedup_conflict" | "id_out_of_range" | "unknown_type"
            )
        }
        _ => false,
    };
    let expired = task(record).is_some_and(|planned| planned.deadline_ms.is_some_and(|ms| ms < 0));
    if repeat || expired {
        let started = lookup.started.get(&index);
        verdict.check(Law::OneResult, Some(id), started.is_none(), || {
            format!("record {index}, which ended as {end:?}, was run: {started:?}")
        });
    }
}

fn strangers(verdict: &mut Verdict, evidence: &Evidence, played: &Played) {
    let ids: HashSet<Uuid> = played.ids.iter().copied().collect();
    for row in &evidence.results {
        verdict.check(
            Law::OneResult,
            Some(row.task_id),
            ids.contains(&row.task_id),
            || format!("nobody sent the task of {row:?}"),
        );
    }
    let places: HashSet<(i32, i64)> = evidence
        .log
        .iter()
        .map(|record| (record.partition, record.offset))
        .collect();
    for letter in &evidence.letters {
        verdict.check(
            Law::OneResult,
            letter.task_id,
            places.contains(&(letter.partition, letter.place)),
            || format!("no record lies where {letter:?} says"),
        );
    }
}

fn traces(lookup: &Lookup<'_>, index: usize, id: Uuid) -> String {
    format!(
        "no end; row {:?}, started {:?}, ended {:?}",
        lookup.results.get(&id),
        lookup.started.get(&index).map(Vec::len),
        lookup.ends.get(&index).and_then(|ends| ends.last())
    )
}
