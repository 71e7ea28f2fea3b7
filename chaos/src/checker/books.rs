//! Law 6: every offset is accounted for, by a count of the checker's own, by the table and by the audit.
//!
//! For each partition the checker walks the log from the book's beginning to the position and counts how each
//! offset ended: a dead letter at its place; else a result row of its own; else nothing, which is a repeat; an
//! offset without a record is a gap. The table must say the same, the sum must be the distance, and
//! `consumer audit` must say that it balances, with the same numbers.

use std::collections::{HashMap, HashSet};

use super::evidence::Evidence;
use super::lookup::Lookup;
use super::tables::ProgressRow;
use super::{Law, Verdict};

/// How the offsets of a partition ended: results, duplicates, dead letters, gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    results: i64,
    duplicates: i64,
    dead_letters: i64,
    gaps: i64,
}

pub(super) fn check(verdict: &mut Verdict, evidence: &Evidence, lookup: &Lookup<'_>) {
    let rows: HashSet<(i32, i64)> = evidence
        .results
        .iter()
        .filter(|row| row.duplicate_of.is_none() && row.status != "failed")
        .map(|row| (row.partition, row.place))
        .collect();
    let places: HashSet<(i32, i64)> = evidence
        .log
        .iter()
        .map(|record| (record.partition, record.offset))
        .collect();
    let mut lines: HashMap<i64, &serde_json::Value> = HashMap::new();
    match &evidence.audit {
        Ok(audit) => {
            for line in audit.as_array().into_iter().flatten() {
                if let Some(partition) = line.get("partition").and_then(serde_json::Value::as_i64) {
                    lines.insert(partition, line);
                }
            }
        }
        Err(words) => verdict.check(Law::NothingVanishes, None, false, || {
            format!("the audit failed: {words}")
        }),
    }
    for (partition, end) in &evidence.ends {
        let progress = evidence
            .progress
            .iter()
            .find(|row| row.partition == *partition);
        let Some(row) = progress else {
            verdict.check(Law::NothingVanishes, None, *end == 0, || {
                format!("partition {partition} holds {end} offsets and was never claimed")
            });
            continue;
        };
        let mut count = Count::default();
        for offset in row.first_offset..row.next_offset {
            let place = (*partition, offset);
            let of = if lookup.letters.contains_key(&place) {
                &mut count.dead_letters
            } else if rows.contains(&place) {
                &mut count.results
            } else if places.contains(&place) {
                &mut count.duplicates
            } else {
                &mut count.gaps
            };
            *of += 1;
        }
        partition_is_right(
            verdict,
            row,
            count,
            lines.get(&i64::from(*partition)).copied(),
        );
    }
}

fn partition_is_right(
    verdict: &mut Verdict,
    row: &ProgressRow,
    count: Count,
    audit: Option<&serde_json::Value>,
) {
    let booked = Count {
        results: row.results,
        duplicates: row.duplicates,
        dead_letters: row.dead_letters,
        gaps: row.gaps,
    };
    verdict.check(Law::NothingVanishes, None, booked == count, || {
        format!(
            "partition {}: counted {count:?}, booked {row:?}",
            row.partition
        )
    });
    let sum = row.results + row.duplicates + row.dead_letters + row.parked + row.gaps + row.lost;
    verdict.check(
        Law::NothingVanishes,
        None,
        sum == row.next_offset - row.first_offset && row.parked == 0 && row.lost == 0,
        || format!("the book does not balance, or holds what it must not: {row:?}"),
    );
    let says = |name: &str| audit.and_then(|line| line.get(name)?.as_i64());
    let agrees = says("results") == Some(count.results)
        && says("duplicates") == Some(count.duplicates)
        && says("dead_letters") == Some(count.dead_letters)
        && says("gaps") == Some(count.gaps)
        && says("parked") == Some(0)
        && says("lost") == Some(0)
        && says("next_offset") == Some(row.next_offset)
        && audit.and_then(|line| line.get("balanced")) == Some(&serde_json::Value::Bool(true));
    verdict.check(Law::NothingVanishes, None, agrees, || {
        format!(
            "partition {}: the audit says {audit:?}, counted {count:?}",
            row.partition
        )
    });
}
