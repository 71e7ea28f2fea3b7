//! What the engine's decisions cost a task: lanes, ledger, retry and filter, one thread, no I/O.
//!
//! `cargo bench -p millrace-consumer`, or with a name behind it: `-- lanes`. What a worker makes of them, with
//! the handlers around them, is measured by `make bench`.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that misuses the engine has failed"
)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use millrace_consumer::engine::{
    CountingFilter, LaneKey, Laned, Lanes, Ledger, Offset, Outcome, Placed, Policy, Resolved, Spot,
};

/// Tasks in one pass: about what a worker holds when it is busy.
const TASKS: i64 = 10_000;
/// Records in one flush.
const FLUSH: i64 = 10_000;

#[derive(PartialEq)]
struct Task(Spot);

impl Laned for Task {
    fn spot(&self) -> Spot {
        self.0
    }

    fn joins_last(&self) -> bool {
        false
    }

    fn has_row(&self) -> bool {
        false
    }

    fn key_hash(&self) -> [u8; 16] {
        [0; 16]
    }
}

const fn spot(offset: i64) -> Spot {
    Spot {
        log_book: 1,
        offset,
    }
}

/// As even as a hash of key number `number`.
fn hash(number: u64) -> [u8; 16] {
    let scrambled = |n: u64| {
        let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 31)).to_le_bytes()
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&scrambled(2 * number));
    bytes[8..].copy_from_slice(&scrambled(2 * number + 1));
    bytes
}

/// All tasks are pushed, and looked up where they are not `known`; then each is started and ended in its turn.
fn pass(lanes: &mut Lanes<Task>, tasks: &[(LaneKey, Spot)], known: bool, now: Instant) -> usize {
    let mut ready = VecDeque::new();
    for &(key, spot) in tasks {
        if lanes.push(key, Task(spot), known, now) == Placed::Next {
            ready.push_back(key);
        }
    }
    if !known {
        for &(key, spot) in tasks {
            if lanes.known(key, spot, false) == Resolved::Next {
                ready.push_back(key);
            }
        }
    }
    let mut ended = 0;
    while let Some(key) = ready.pop_front() {
        let spot = lanes.start(key).unwrap().spot();
        black_box(lanes.begun_mut(key, spot));
        let (task, next) = lanes.remove(key, spot).unwrap();
        black_box(task);
        ended += 1;
        if next {
            ready.push_back(key);
        }
    }
    ended
}

fn lanes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lanes");
    group.throughput(Throughput::Elements(TASKS.unsigned_abs()));
    let keyed = |keys: i64| -> Vec<(LaneKey, Spot)> {
        (0..TASKS)
            .map(|offset| {
                (
                    LaneKey::Key(hash((offset % keys).unsigned_abs())),
                    spot(offset),
                )
            })
            .collect()
    };
    let keyless = (0..TASKS)
        .map(|offset| (LaneKey::Alone(spot(offset)), spot(offset)))
        .collect();
    let cases = [
        ("1 key", keyed(1), true),
        ("100 keys", keyed(100), true),
        ("10000 keys", keyed(10_000), true),
        ("keyless", keyless, true),
        ("10000 keys, each looked up", keyed(10_000), false),
        ("1 key, each looked up", keyed(1), false),
    ];
    for (name, tasks, known) in cases {
        group.bench_with_input(
            BenchmarkId::from_parameter(name),
            &tasks,
            |bencher, tasks| {
                let (mut lanes, now) = (Lanes::default(), Instant::now());
                bencher.iter(|| assert_eq!(pass(&mut lanes, tasks, known, now), tasks.len()));
            },
        );
    }
    group.finish();
}

/// Opens, plans, settles and passes one flush's records after another, in a ledger that lives on.
fn ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(FLUSH.unsigned_abs()));
    for (name, in_order, gap_every) in [
        ("in order", true, i64::MAX),
        ("in reverse", false, i64::MAX),
        ("in order, a gap after every 100", true, 100),
        ("in reverse, a gap after every 100", false, 100),
    ] {
        group.bench_function(name, |bencher| {
            let mut ledger = Ledger::new(Offset(0), u64::MAX);
            let mut next = 0;
            let mut offsets = Vec::new();
            bencher.iter(|| {
                offsets.clear();
                for record in 1..=FLUSH {
                    ledger.open(Offset(next), next).unwrap();
                    offsets.push(Offset(next));
                    next += 1 + i64::from(record % gap_every == 0);
                }
                let plan = ledger.plan(&offsets).unwrap();
                if !in_order {
                    offsets.reverse();
                }
                let ended = offsets.iter().map(|offset| (*offset, Outcome::Result));
                ledger.settle_all(ended).unwrap();
                ledger.advance_to(plan.next_offset).unwrap()
            });
        });
    }
    group.finish();
}

fn retry(criterion: &mut Criterion) {
    let policy = Policy::default();
    criterion.bench_function("retry: what follows a failure", |bencher| {
        let mut attempts = 0;
        bencher.iter(|| {
            attempts = attempts % 10 + 1;
            let (age, chance) = (Duration::from_secs(u64::from(attempts)), 0.37);
            black_box(&policy).after_failure(black_box(attempts), age, None, black_box(chance))
        });
    });
}

fn filter(criterion: &mut Criterion) {
    let parked: Vec<[u8; 16]> = (0..10_000).map(hash).collect();
    let others: Vec<[u8; 16]> = (10_000..20_000).map(hash).collect();
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Elements(parked.len() as u64));
    group.bench_function("put in and take out 10000 keys", |bencher| {
        bencher.iter(|| {
            let mut filter = CountingFilter::new();
            parked.iter().for_each(|key| filter.insert(key));
            parked.iter().filter(|key| filter.remove(key)).count()
        });
    });
    let mut full = CountingFilter::new();
    parked.iter().for_each(|key| full.insert(key));
    for (name, keys) in [
        ("find 10000 of 10000 keys", &parked),
        ("miss 10000 keys", &others),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| keys.iter().filter(|key| full.may_contain(key)).count());
        });
    }
    group.finish();
}

criterion_group!(benches, lanes, ledger, retry, filter);
criterion_main!(benches);
