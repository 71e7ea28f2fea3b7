//! Law 5: a worker that lost its partition cannot write. And of law 3: what has ended does not run again.
//!
//! - Between two claims of a partition only the maker of the first changes the partition's row.
//! - Every result, dead letter and parked task was written by a transaction that also moved the partition's
//!   row under a claim that it found there, and by the claim's maker.
//! - What a handler decided was written in the tenure in which it decided it: the journal has that attempt's
//!   end, with that number and that meaning, under a token of the very tenure that the row was written in.
//! - A token names a claim that the process made itself.
//! - No attempt starts under a claim that was made after the task's end was durable.

use std::collections::HashMap;

use super::evidence::Evidence;
use super::lookup::Lookup;
use super::{Law, Verdict};
use crate::journal::How;
use crate::plan::Handlers;
use crate::round::Played;
use crate::trail::{Step, Write};

pub(super) fn check(
    verdict: &mut Verdict,
    evidence: &Evidence,
    lookup: &Lookup<'_>,
    played: &Played,
) {
    one_writer_a_tenure(verdict, &evidence.steps);
    let mut durable: HashMap<usize, i64> = HashMap::new();
    for write in &evidence.writes {
        let step = lookup
            .flushes
            .get(&(write.partition, write.xid.as_str()))
            .copied();
        verdict.check(
            Law::Fence,
            write.task_id,
            step.is_some_and(|step| step.writer == write.writer),
            || format!("{write:?} was written past the fence: its transaction's step is {step:?}"),
        );
        let Some(step) = step else { continue };
        if write.what != "parked"
            && let Some(number) = lookup.numbers.get(&(write.partition, write.place))
        {
            durable.entry(*number).or_insert(step.seq);
            if played.place.handlers == Handlers::Planned {
                decided_in_tenure(verdict, lookup, write, step, *number);
            }
        }
    }
    started_by_the_claimer(verdict, lookup, played, &durable);
}

fn one_writer_a_tenure(verdict: &mut Verdict, steps: &[Step]) {
    let mut holders: HashMap<i32, (&Step, i64)> = HashMap::new();
    for step in steps {
        if step.claimed && step.claim.is_some() {
            holders.insert(step.partition, (step, step.seq));
            continue;
        }
        let Some((claim, last)) = holders.get_mut(&step.partition) else {
            // The row is made before it is claimed for the first time.
            continue;
        };
        let released = step.claimed && step.claim.is_none();
        verdict.check(
            Law::Fence,
            None,
            step.writer == claim.writer && (released || step.claim == claim.claim),
            || format!("{step:?} is a change by another than the claim's maker: {claim:?}"),
        );
        verdict.check(Law::Fence, None, step.seq >= *last, || {
            format!(
                "the sequence of partition {} went back: {step:?}",
                step.partition
            )
        });
        *last = step.seq;
    }
}

/// The row says how the handler decided, in the tenure of the write.
fn decided_in_tenure(
    verdict: &mut Verdict,
    lookup: &Lookup<'_>,
    write: &Write,
    step: &Step,
    number: usize,
) {
    let place = (write.partition, write.place);
    let row = write.task_id.and_then(|id| lookup.results.get(&id));
    let (attempts, meant): (i16, &[How]) = if write.what == "result" {
        match row {
            Some(row) if row.status == "success" && row.duplicate_of.is_none() => {
                (row.attempts, &[How::Ok])
            }
            _ => return,
        }
    } else {
        let letter = lookup
            .letters
            .get(&place)
            .and_then(|letters| letters.first());
        match letter {
            Some(letter) if letter.reason == "permanent" => (letter.attempts, &[How::Permanent]),
            Some(letter) if letter.reason == "attempts_exhausted" => {
                (letter.attempts, &[How::Fail, How::Panic, How::TimedOut])
            }
            _ => return,
        }
    };
    let tenure = lookup.tenures.at(write.partition, step.seq);
    let ends = lookup.ends.get(&number).map_or(&[][..], Vec::as_slice);
    let found = ends.iter().any(|end| {
        meant.contains(&end.how)
            && i64::from(end.attempt.attempt) == i64::from(attempts)
            && lookup.tenures.at(end.attempt.partition, end.attempt.seq) == tenure
    });
    verdict.check(Law::Fence, write.task_id, found, || {
        format!(
            "its end ({}, attempts {attempts}) was written in tenure {tenure:?} of partition {}, \
             and no attempt of that tenure ended so: {ends:?}",
            write.what, write.partition
        )
    });
}

fn started_by_the_claimer(
    verdict: &mut Verdict,
    lookup: &Lookup<'_>,
    played: &Played,
    durable: &HashMap<usize, i64>,
) {
    let roles: HashMap<u32, &str> = played
        .workers
        .iter()
        .map(|(role, pid)| (*pid, role.as_str()))
        .collect();
    for (number, starts) in &lookup.started {
        for start in starts {
            let id = Some(start.task);
            let Some((began, maker)) = lookup.tenures.at(start.partition, start.seq) else {
                continue;
            };
            let role = roles.get(&start.pid).copied();
            verdict.check(Law::Fence, id, role == Some(maker), || {
                format!("{role:?} ran it under a token of {maker}: {start}")
            });
            if let Some(end) = durable.get(number) {
                verdict.check(Law::OneResult, id, began <= *end, || {
                    format!(
                        "it was started ({start}) under claim {began}, and its end was durable at {end}"
                    )
                });
            }
        }
    }
}
