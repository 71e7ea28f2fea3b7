//! Laws 2, 6 and 8: nothing is left behind, Kafka was never ahead, and everything ended in its time.
//!
//! - At no sampled instant, nor at the end, is Kafka's committed offset beyond the position in Postgres.
//! - Every position is at the log's end; no task is parked, no key is, nothing waits to be sent, and no task
//!   that ended is still said to be running.
//! - Every dead letter was copied to its topic, once or more.
//! - All work came to its end within the time for it, every worker that was told to leave left in order, and
//!   none ended that nobody had told to.

use super::evidence::Evidence;
use super::lookup::Lookup;
use super::{Law, Verdict};
use crate::round::Played;

pub(super) fn check(
    verdict: &mut Verdict,
    evidence: &Evidence,
    lookup: &Lookup<'_>,
    played: &Played,
) {
    let seen = &played.law_two;
    *verdict.checks.entry(Law::OffsetAfterResult).or_default() += seen.offsets;
    for (partition, committed, position) in &seen.broken {
        verdict.check(Law::OffsetAfterResult, None, false, || {
            format!(
                "partition {partition}: Kafka had {committed} committed while Postgres stood at {position}"
            )
        });
    }
    for row in &evidence.progress {
        let committed = evidence.committed.get(&row.partition);
        verdict.check(
            Law::OffsetAfterResult,
            None,
            committed.is_none_or(|committed| *committed <= row.next_offset),
            || format!("Kafka has {committed:?} committed at the end of {row:?}"),
        );
        let end = evidence.ends.get(&row.partition);
        verdict.check(
            Law::NothingVanishes,
            None,
            end == Some(&row.next_offset),
            || format!("the log ends at {end:?}: {row:?}"),
        );
    }
    for letter in &evidence.letters {
        let number = lookup.numbers.get(&(letter.partition, letter.place));
        verdict.check(
            Law::NothingVanishes,
            letter.task_id,
            number.is_some_and(|number| evidence.copies.contains(number)),
            || format!("the topic of dead letters has no copy of {letter:?}"),
        );
    }
    for (table, rows) in &evidence.left {
        verdict.check(Law::NothingVanishes, None, *rows == 0, || {
            format!("{rows} rows are left in {table}")
        });
    }
    for (task, words) in &evidence.parked {
        verdict.check(Law::NothingVanishes, Some(*task), false, || {
            format!("it is still parked: {words}")
        });
    }
    verdict.check(Law::Bounded, None, played.settled, || {
        "the work did not come to its end in the time for it".to_owned()
    });
    for complaint in &played.complaints {
        verdict.check(Law::Bounded, None, false, || complaint.clone());
    }
}
