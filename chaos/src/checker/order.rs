//! Law 4: tasks of one key start one after another in log order.
//!
//! The journal is replayed lane by lane; a lane is (tenant, record key), its order that of the log. Delayed
//! tasks and those of the type without order are left out: they promise none. Within one tenure of a partition
//! (see `tenure`):
//!
//! - no attempt starts while another of its lane runs;
//! - no task starts after a later one of its lane has started;
//! - when a task starts, every earlier one of its lane has ended for good, in this tenure or in a former one,
//!   or ended in a way that needs no attempt.
//!
//! Attempts of a former owner that goes on after it lost the partition belong to its own tenure: no design can
//! stop them, and their writes are the matter of law 5.

use std::collections::HashMap;

use uuid::Uuid;

use super::evidence::Evidence;
use super::lookup::{Lookup, task};
use super::{Law, Verdict};
use crate::journal::{Attempt, Event, How};
use crate::orders::Orders;
use crate::plan::{End, types};
use crate::round::Played;

/// A task's place in its lane.
struct Seat<'a> {
    lane: usize,
    /// From 0, in log order.
    number: usize,
    orders: &'a Orders,
}

#[derive(Default)]
struct Lane {
    /// Tenant and key, for whoever reads a verdict.
    name: String,
    /// Each task: its id, whether it must have run before a later one may start, and the tenures in which it
    /// ended for good.
    tasks: Vec<(Uuid, bool, Vec<i64>)>,
    /// By tenure: the attempt that runs.
    running: HashMap<i64, Attempt>,
    /// By tenure: the latest task that was started.
    furthest: HashMap<i64, usize>,
}

pub(super) fn check(
    verdict: &mut Verdict,
    evidence: &Evidence,
    lookup: &Lookup<'_>,
    played: &Played,
) {
    let (mut lanes, seats) = seat(evidence, lookup, played);
    for event in &evidence.journal {
        match event {
            Event::Start(attempt) => {
                if let Some(seat) = seats.get(&attempt.record)
                    && let Some(lane) = lanes.get_mut(seat.lane)
                    && let Some(tenure) = tenure(verdict, lookup, attempt)
                {
                    start(verdict, lane, seat, attempt, tenure);
                }
            }
            Event::End(attempt, how) => {
                if let Some(seat) = seats.get(&attempt.record)
                    && let Some(lane) = lanes.get_mut(seat.lane)
                    && let Some((tenure, _)) = lookup.tenures.at(attempt.partition, attempt.seq)
                {
                    lane.running.retain(|_, running| running != attempt);
                    if is_final(seat.orders, attempt, *how)
                        && let Some((_, _, ended)) = lane.tasks.get_mut(seat.number)
                    {
                        ended.push(tenure);
                    }
                }
            }
            Event::Death { pid } => {
                for lane in &mut lanes {
                    lane.running.retain(|_, running| running.pid != *pid);
                }
            }
            Event::Note(_) => {}
        }
    }
}

/// Gives every record that is to be kept in order its seat.
fn seat<'a>(
    evidence: &Evidence,
    lookup: &Lookup<'_>,
    played: &'a Played,
) -> (Vec<Lane>, HashMap<usize, Seat<'a>>) {
    let mut numbers: HashMap<(&str, &str), usize> = HashMap::new();
    let mut lanes: Vec<Lane> = Vec::new();
    let mut seats = HashMap::new();
    for record in &evidence.log {
        let Some(index) = record.number else { continue };
        let (Some(planned_record), Some(&id)) =
            (played.plan.records.get(index), played.ids.get(index))
        else {
            continue;
        };
        let Some(planned) = task(planned_record) else {
            continue;
        };
        let Some(key) = planned.record_key() else {
            continue;
        };
        let in_order = planned.task_type != types::LOOSE && planned.run_after_ms.is_none();
        if !in_order {
            continue;
        }
        let number = *numbers.entry((planned.tenant, key)).or_insert(lanes.len());
        if number == lanes.len() {
            lanes.push(Lane {
                name: format!("{} {key}", planned.tenant),
                ..Lane::default()
            });
        }
        let Some(lane) = lanes.get_mut(number) else {
            continue;
        };
        let end = lookup.end(index, planned_record, played);
        let must_run = matches!(
            end,
            Some(End::Success | End::Dead("permanent" | "attempts_exhausted"))
        );
        seats.insert(
            index,
            Seat {
                lane: number,
                number: lane.tasks.len(),
                orders: &planned.orders,
            },
        );
        lane.tasks.push((id, must_run, Vec::new()));
    }
    (lanes, seats)
}

fn tenure(verdict: &mut Verdict, lookup: &Lookup<'_>, attempt: &Attempt) -> Option<i64> {
    let tenure = lookup.tenures.at(attempt.partition, attempt.seq);
    verdict.check(Law::KeyOrder, Some(attempt.task), tenure.is_some(), || {
        format!("it was started under a token of no claim: {attempt}")
    });
    tenure.map(|(began, _)| began)
}

fn start(verdict: &mut Verdict, lane: &mut Lane, seat: &Seat<'_>, attempt: &Attempt, tenure: i64) {
    let id = attempt.task;
    let running = lane.running.insert(tenure, *attempt);
    verdict.check(Law::KeyOrder, Some(id), running.is_none(), || {
        format!(
            "of key {}, it started ({attempt}) while another ran: {running:?}",
            lane.name
        )
    });
    let furthest = lane.furthest.entry(tenure).or_insert(seat.number);
    let before = *furthest;
    *furthest = before.max(seat.number);
    verdict.check(Law::KeyOrder, Some(id), seat.number >= before, || {
        format!(
            "of key {}, it started ({attempt}) after a later task: {:?}",
            lane.name,
            lane.tasks.get(before)
        )
    });
    let earlier = lane.tasks.get(..seat.number).unwrap_or_default();
    let waiting = earlier
        .iter()
        .find(|(_, must_run, ended)| *must_run && !ended.iter().any(|ended| *ended <= tenure));
    verdict.check(Law::KeyOrder, Some(id), waiting.is_none(), || {
        format!(
            "of key {}, it started ({attempt}, tenure {tenure}) before an earlier task had ended for good: {waiting:?}",
            lane.name
        )
    });
}

/// Whether the attempt was the task's last, as far as the handler could know.
fn is_final(orders: &Orders, attempt: &Attempt, how: How) -> bool {
    match how {
        How::Ok | How::Permanent => true,
        How::Fail | How::Panic | How::TimedOut => {
            attempt.attempt >= types::MOST_ATTEMPTS && orders.last_attempt().is_none()
        }
        How::Stopped => false,
    }
}
