//! Laws 7 and 8: outages spend no attempt, and attempts are bounded.
//!
//! - An attempt with a number above 1 is started only after the one before it has ended in the journal: an
//!   attempt that a kill or a loss of the partition cut short is repeated under its own number.
//! - A task that ended by its handler took the planned number of attempts, and one more for each that the
//!   policy's timeout ended although the plan did not mean it to (a frozen worker's clock goes on).
//! - No attempt has a number above the policy's most.

use std::collections::HashSet;

use super::evidence::Evidence;
use super::lookup::{Lookup, task};
use super::{Law, Verdict};
use crate::journal::{Event, How};
use crate::orders::{Act, Orders};
use crate::plan::{End, Handlers, types};
use crate::round::Played;

pub(super) fn check(
    verdict: &mut Verdict,
    evidence: &Evidence,
    lookup: &Lookup<'_>,
    played: &Played,
) {
    if played.place.handlers == Handlers::Stock {
        return;
    }
    one_after_another(verdict, evidence);
    for (index, record) in played.plan.records.iter().enumerate() {
        let (Some(planned), Some(&id), Some(place)) = (
            task(record),
            played.ids.get(index),
            lookup.by_number.get(&index),
        ) else {
            continue;
        };
        let recorded = match lookup.end(index, record, played) {
            Some(End::Success) => lookup.own_row(id, place).map(|row| row.attempts),
            Some(End::Dead("permanent" | "attempts_exhausted")) => {
                lookup.letter(place).map(|letter| letter.attempts)
            }
            _ => None,
        };
        let Some(recorded) = recorded.and_then(|attempts| u16::try_from(attempts).ok()) else {
            continue;
        };
        let planned_attempts = planned
            .orders
            .last_attempt()
            .unwrap_or(types::MOST_ATTEMPTS);
        let unplanned = unplanned_timeouts(lookup, &planned.orders, index);
        let most = (planned_attempts + unplanned).min(types::MOST_ATTEMPTS);
        verdict.check(
            Law::Outage,
            Some(id),
            (planned_attempts..=most).contains(&recorded),
            || {
                format!(
                    "record {index} took {recorded} attempts; planned {planned_attempts}, and {unplanned} timed out against the plan"
                )
            },
        );
    }
}

fn one_after_another(verdict: &mut Verdict, evidence: &Evidence) {
    let mut ended: HashSet<(usize, u16, u16)> = HashSet::new();
    for event in &evidence.journal {
        match event {
            Event::Start(attempt) => {
                let before = attempt.attempt.saturating_sub(1);
                verdict.check(
                    Law::Outage,
                    Some(attempt.task),
                    before == 0 || ended.contains(&(attempt.record, attempt.run, before)),
                    || format!("attempt {before} never ended, and the next was started: {attempt}"),
                );
                verdict.check(
                    Law::Bounded,
                    Some(attempt.task),
                    (1..=types::MOST_ATTEMPTS).contains(&attempt.attempt),
                    || format!("at most {} attempts: {attempt}", types::MOST_ATTEMPTS),
                );
            }
            Event::End(attempt, how) => {
                if *how != How::Stopped {
                    ended.insert((attempt.record, attempt.run, attempt.attempt));
                }
            }
            Event::Death { .. } | Event::Note(_) => {}
        }
    }
}

/// How many different attempts the timeout ended that should have ended otherwise.
fn unplanned_timeouts(lookup: &Lookup<'_>, orders: &Orders, record: usize) -> u16 {
    let ends = lookup.ends.get(&record).map_or(&[][..], Vec::as_slice);
    let timed_out: HashSet<u16> = ends
        .iter()
        .filter(|end| end.how == How::TimedOut)
        .map(|end| end.attempt.attempt)
        .filter(|attempt| orders.act(*attempt) != Act::Hang)
        .collect();
    u16::try_from(timed_out.len()).unwrap_or(u16::MAX)
}
