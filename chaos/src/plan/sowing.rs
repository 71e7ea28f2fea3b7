//! The records of a round, with keys, repeats, troubles and what must become of each.
//!
//! Some keys are hot, most are not, some tasks have none. A record repeats another only where order decides
//! which of the two counts: both have the same record key, so they meet in one lane.

use super::types::{LOOSE, NOBODY, PATIENT, QUICK};
use super::{Body, End, Flaw, Handlers, Identity, Planned, Record, Size};
use crate::chance::Chance;
use crate::orders::{Act, Orders};

const HOT_KEYS: u64 = 6;
const KEYS: u64 = 300;
const TENANTS: [&str; 2] = ["acme", "globex"];
/// Garbage is spread: a partition of which most does not decode stops, and that is another test.
const GARBAGE_IN_A_THOUSAND: u64 = 6;

/// Sows a round's records; also says which of them are to be cancelled, and when.
pub(super) fn sow(
    chance: &mut Chance,
    size: Size,
    handlers: Handlers,
) -> (Vec<Record>, Vec<(u32, usize)>) {
    let mut sown = Sown {
        records: Vec::new(),
        cancels: Vec::new(),
        handlers,
    };
    // Slower at the end than at the beginning, so that faults meet both a backlog and a trickle.
    for index in 0..size.records {
        let share = f64::from(index) / f64::from(size.records.max(1));
        let at_ms = (share * share * f64::from(size.storm_ms) * 0.9) as u32;
        sown.one(chance, at_ms, size.storm_ms);
    }
    if handlers == Handlers::Planned {
        sown.singles(chance, size.storm_ms);
    }
    sown.in_order()
}

struct Sown {
    records: Vec<Record>,
    cancels: Vec<(u32, usize)>,
    handlers: Handlers,
}

impl Sown {
    fn one(&mut self, chance: &mut Chance, at_ms: u32, storm_ms: u32) {
        if chance.in_a_thousand(GARBAGE_IN_A_THOUSAND) {
            let flaw = if chance.in_a_thousand(500) {
                Flaw::CutShort
            } else {
                Flaw::Noise
            };
            let key = key(chance).unwrap_or_else(|| "alone".to_owned());
            self.push(
                at_ms,
                Body::Garbage { key, flaw },
                vec![End::Dead("undecodable")],
            );
            return;
        }
        if chance.in_a_thousand(40)
            && let Some((body, end)) = self.repeat(chance)
        {
            self.push(at_ms, Body::Event(body), vec![end]);
            return;
        }
        let index = self.records.len();
        let mut planned = self.plain(chance);
        let mut ends = vec![End::Success];
        if chance.in_a_thousand(3) {
            planned.id = Identity::Ancient;
            ends = vec![End::Dead("id_out_of_range")];
        } else if self.handlers == Handlers::Planned {
            ends = self.trouble(chance, &mut planned, (at_ms, storm_ms), index);
        }
        if planned.key.is_some() && chance.in_a_thousand(100) && planned.run_after_ms.is_none() {
            planned.dedup_key = Some(format!("request-{index}"));
        }
        self.push(at_ms, Body::Event(planned), ends);
    }

    fn plain(&self, chance: &mut Chance) -> Planned {
        let index = self.records.len();
        let key = key(chance);
        Planned {
            id: Identity::Own,
            task_type: QUICK,
            // The same key of two tenants is two lanes.
            tenant: chance.one_of(&TENANTS).copied().unwrap_or("acme"),
            key,
            dedup_key: None,
            reply: chance.in_a_thousand(300),
            run_after_ms: None,
            deadline_ms: None,
            orders: Orders {
                n: u32::try_from(index).unwrap_or(u32::MAX),
                acts: vec![Act::Ok],
            },
        }
    }

    /// Something other than plain success, for some.
    fn trouble(
        &mut self,
        chance: &mut Chance,
        planned: &mut Planned,
        (at_ms, storm_ms): (u32, u32),
        index: usize,
    ) -> Vec<End> {
        let ms = |chance: &mut Chance, least, most| {
            u32::try_from(chance.between(least, most)).unwrap_or_default()
        };
        let slow = Act::Slow(ms(chance, 1, 15));
        let mut acts = vec![slow];
        let mut ends = vec![End::Success];
        match chance.below(1_000) {
            0..80 => {
                let failures = usize::try_from(chance.between(1, 3)).unwrap_or(1);
                acts = vec![Act::Fail; failures];
                acts.push(slow);
            }
            80..105 => acts = vec![Act::FailFor(ms(chance, 10, 400)), Act::Ok],
            105..115 => acts = vec![Act::Panic, Act::Ok],
            115..135 => {
                acts = vec![Act::Fail, Act::Permanent];
                ends = vec![End::Dead("permanent")];
            }
            135..142 => {
                acts = vec![Act::Fail];
                ends = vec![End::Dead("attempts_exhausted")];
            }
            142..152 => {
                planned.task_type = NOBODY;
                ends = vec![End::Dead("unknown_type")];
            }
            152..177 => planned.run_after_ms = Some(ms(chance, 100, 2_500)),
            177..184 => {
                planned.deadline_ms = Some(-1_000);
                ends = vec![End::Expired];
            }
            184..194 => {
                let at = at_ms + ms(chance, 0, 1_500);
                self.cancels.push((at.min(storm_ms), index));
                ends = vec![End::Success, End::Cancelled];
            }
            194..294 => planned.task_type = LOOSE,
            294..297 => acts = vec![Act::Hang, Act::Ok],
            297..450 => {}
            // Under way at any instant: a worker that wakes after its partitions were given away ends them, and
            // writes what it may not write.
            450..500 if !is_hot(planned.key.as_deref()) => {
                acts = vec![Act::Slow(ms(chance, 200, 800))];
            }
            _ => acts = vec![Act::Ok],
        }
        planned.orders.acts = acts;
        ends
    }

    /// The few that a round needs at least one of, on keys of their own: they take their time.
    fn singles(&mut self, chance: &mut Chance, storm_ms: u32) {
        let mut alone = |sown: &mut Self, name: &str, acts: Vec<Act>| {
            let mut planned = sown.plain(chance);
            planned.key = Some(format!("{name}-{}", sown.records.len()));
            planned.orders.acts = acts;
            let at_ms = u32::try_from(chance.between(0, u64::from(storm_ms) / 2));
            (at_ms.unwrap_or_default(), planned)
        };
        for times in [1, 1] {
            let (at_ms, planned) = alone(self, "abort", vec![Act::Abort(times)]);
            self.push(at_ms, Body::Event(planned), vec![End::Success]);
        }
        let (at_ms, planned) = alone(self, "killer", vec![Act::Abort(u32::MAX)]);
        self.push(
            at_ms,
            Body::Event(planned),
            vec![End::Dead("crashed_worker")],
        );
        for _ in 0..3 {
            let (at_ms, mut planned) = alone(self, "cancel", vec![Act::Hang]);
            planned.task_type = PATIENT;
            self.cancels.push((at_ms + 700, self.records.len()));
            self.push(at_ms, Body::Event(planned), vec![End::Cancelled]);
        }
        for _ in 0..3 {
            let (at_ms, mut planned) = alone(self, "expire", vec![Act::Hang]);
            planned.task_type = PATIENT;
            planned.deadline_ms = Some(900);
            self.push(at_ms, Body::Event(planned), vec![End::Expired]);
        }
        for _ in 0..2 {
            let (at_ms, planned) = alone(self, "exhaust", vec![Act::Fail]);
            self.push(
                at_ms,
                Body::Event(planned),
                vec![End::Dead("attempts_exhausted")],
            );
        }
    }

    /// A record that repeats an earlier one, wholly or not quite.
    fn repeat(&self, chance: &mut Chance) -> Option<(Planned, End)> {
        let index = usize::try_from(chance.below(self.records.len() as u64)).ok()?;
        let first = self.records.get(index)?;
        let mut planned = first.body.event()?.clone();
        let ordinary = planned.id == Identity::Own
            && planned.key.is_some()
            && planned.task_type == QUICK
            && planned.run_after_ms.is_none()
            && planned.deadline_ms.is_none()
            && first.ends == [End::Success];
        if !ordinary {
            return None;
        }
        let another = u32::try_from(self.records.len()).ok()?;
        if planned.dedup_key.is_some() && chance.in_a_thousand(800) {
            planned.reply = chance.in_a_thousand(500);
            if chance.in_a_thousand(150) {
                planned.orders.n = another;
                return Some((planned, End::Dead("dedup_conflict")));
            }
            return Some((planned, End::Duplicate(index)));
        }
        planned.id = Identity::Of(index);
        if chance.in_a_thousand(150) {
            planned.orders.n = another;
            planned.dedup_key = None;
            return Some((planned, End::Dead("id_conflict")));
        }
        Some((planned, End::Duplicate(index)))
    }

    fn push(&mut self, at_ms: u32, body: Body, ends: Vec<End>) {
        self.records.push(Record { at_ms, body, ends });
    }

    /// By time; what names a record by its index is changed to match.
    fn in_order(self) -> (Vec<Record>, Vec<(u32, usize)>) {
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        order.sort_by_key(|&index| (self.records.get(index).map(|record| record.at_ms), index));
        let mut place = vec![0; order.len()];
        for (new, &old) in order.iter().enumerate() {
            if let Some(place) = place.get_mut(old) {
                *place = new;
            }
        }
        let moved = |old: usize| place.get(old).copied().unwrap_or(old);
        let mut records: Vec<Option<Record>> = self.records.into_iter().map(Some).collect();
        let records = order.iter().filter_map(|&old| {
            let mut record = records.get_mut(old)?.take()?;
            for end in &mut record.ends {
                if let End::Duplicate(first) = end {
                    *first = moved(*first);
                }
            }
            if let Body::Event(planned) = &mut record.body
                && let Identity::Of(first) = &mut planned.id
            {
                *first = moved(*first);
            }
            Some(record)
        });
        let records = records.collect();
        let cancels = self.cancels.into_iter();
        let mut cancels: Vec<_> = cancels.map(|(at, old)| (at, moved(old))).collect();
        cancels.sort_unstable();
        (records, cancels)
    }
}

fn is_hot(key: Option<&str>) -> bool {
    key.is_some_and(|key| key.starts_with("hot-"))
}

fn key(chance: &mut Chance) -> Option<String> {
    match chance.below(10) {
        0..4 => Some(format!("hot-{}", chance.below(HOT_KEYS))),
        4..8 => Some(format!("key-{}", chance.below(KEYS))),
        _ => None,
    }
}
