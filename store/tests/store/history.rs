//! Any history of flushes, lost answers, restored databases, late claims and moves back comes to the same
//! tables as reading the log once, record by record; also when tasks are parked, parked anew and woken on the way.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use millrace_store::deployment::Deployment;
use millrace_store::moves::{self, Move, Why};
use millrace_store::parked::{self, Parked, Waking};
use millrace_store::position;
use millrace_store::{Due, End, Ending, FenceLoss, Origin, ParkKind, Settling, Writer};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use crate::aside::{lane, parking, settles, share_to, time_passes};
use crate::known::{ask, question};
use crate::log_model::{Entry, Log, Settled, entry};
use crate::severed::{Break, Wire};
use crate::tables::{TABLES, WRONG_DEPTHS, in_the_tables};
use crate::world::{Held, World, flush_of, share};

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Flush { size: usize, at: Break, plan: u16 },
    Wake { most: usize },
    Remember,
    GoBack,
    LateClaim,
    MoveBack { by: i64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let at = prop_oneof![
        4 => Just(Break::Never),
        1 => Just(Break::BeforeTheAnswer),
        1 => Just(Break::BeforeTheCommit),
    ];
    let plan = prop_oneof![1 => Just(0_u16), 2 => any::<u16>()];
    prop_oneof![
        8 => (0..9_usize, at, plan).prop_map(|(size, at, plan)| Step::Flush { size, at, plan }),
        4 => (1..6_usize).prop_map(|most| Step::Wake { most }),
        1 => Just(Step::Remember),
        1 => Just(Step::GoBack),
        1 => Just(Step::LateClaim),
        1 => (1..12_i64).prop_map(|by| Step::MoveBack { by }),
        1 => Just(Step::Restart),
    ]
}

/// Histories to try; `PROPTEST_CASES` asks for another number.
fn config() -> Config {
    let given = std::env::var_os("PROPTEST_CASES").is_some();
    Config {
        cases: if given { Config::default().cases } else { 8 },
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    }
}

#[test]
fn whatever_happens_on_the_way_the_tables_come_to_what_the_log_says() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let histories = (
        proptest::collection::vec(entry(), 1..60),
        proptest::collection::vec(step(), 0..30),
    );
    TestRunner::new(config())
        .run(&histories, |(entries, steps)| {
            runtime.block_on(live_through(&entries, &steps));
            Ok(())
        })
        .unwrap();
}

async fn live_through(entries: &[Entry], steps: &[Step]) {
    let world = World::new("history").await;
    world
        .sql("ALTER TABLE task_results ADD CONSTRAINT no_poison CHECK (result::text NOT LIKE '%poison%')")
        .await;
    let log = Log::of(entries);
    let wire = Wire::to(&world.url).await;
    let mut worker = Worker::start(&world, &wire, &log).await;
    worker.remember().await;
    for step in steps {
        match step {
            Step::Flush { size, at, plan } => worker.flush(*size, *at, *plan).await,
            Step::Wake { most } => worker.wake(*most).await,
            Step::Remember => worker.remember().await,
            Step::GoBack => worker.go_back().await,
            Step::LateClaim => worker.late_claim().await,
            Step::MoveBack { by } => worker.move_back(*by).await,
            Step::Restart => worker = Worker::start(&world, &wire, &log).await,
        }
        assert_eq!(
            world.findings().await,
            Vec::<String>::new(),
            "after {step:?}"
        );
        assert_eq!(world.number(WRONG_DEPTHS).await, 0, "after {step:?}");
    }
    for round in 0.. {
        assert!(
            round < 100,
            "something goes round for ever: {entries:?} {steps:?}"
        );
        while worker.held.next < log.end() {
            worker.flush(7, Break::Never, 0).await;
        }
        if !worker.is_up_to_date().await {
            worker.claim().await;
        } else if world.number("SELECT count(*) FROM parked_tasks").await > 0 {
            time_passes(&world).await;
            worker.wake(100).await;
            worker.flush(0, Break::Never, 0).await;
        } else {
            break;
        }
    }
    let expected = Settled::by(&log);
    let row = world.progress(0).await;
    assert_eq!(row.next_offset, log.end());
    assert_eq!(row.counts, expected.counts(row.first_offset));
    assert_eq!(world.findings().await, Vec::<String>::new());
    let found = Settled {
        outcomes: expected.outcomes.clone(),
        ..in_the_tables(&world).await
    };
    assert_eq!(found, expected);
    assert_eq!(world.number("SELECT count(*) FROM parked_keys").await, 0);
}

/// A worker that reads the log from where it claims.
struct Worker<'a> {
    world: &'a World,
    wire: &'a Wire,
    log: &'a Log,
    writer: Writer,
    held: Held,
    high: i64,
    /// Loaded tasks, by key in log order.
    woken: BTreeMap<[u8; 16], VecDeque<Parked>>,
}

impl<'a> Worker<'a> {
    async fn start(world: &'a World, wire: &'a Wire, log: &'a Log) -> Self {
        let writer = world.writer_to(world.by_way_of(&wire.url));
        let held = world.claim(0).await;
        let high = world.progress(0).await.high_offset;
        Self {
            world,
            wire,
            log,
            writer,
            held,
            high,
            woken: BTreeMap::new(),
        }
    }

    async fn claim(&mut self) {
        self.held = self.world.claim(0).await;
        self.high = self.world.progress(0).await.high_offset;
        self.woken.clear();
    }

    /// Loads what is due into memory, each key once.
    async fn wake(&mut self, most: usize) {
        let busy: Vec<_> = self.woken.keys().map(|key| (0, *key)).collect();
        let claims = [millrace_store::parked::HeldPartition {
            partition: 0,
            claim: self.held.fence.claim,
            read_to: None,
        }];
        let waking = Waking {
            claims: &claims,
            busy: &busy,
            paused_types: &[],
            paused_tenants: &[],
            cancels: &[],
            most_tasks: most,
            most_bytes: 1_000_000,
        };
        let mut connection = self.world.operations().await;
        let woken = parked::wake(&mut connection, &self.world.consumer, &waking)
            .await
            .unwrap();
        for key in woken.keys {
            let lowest = format!(
                "SELECT min(\"offset\") FROM parked_tasks WHERE key_hash = '{}' AND kind <> 'delayed'",
                Uuid::from_bytes(key.key_hash)
            );
            assert_eq!(key.tasks[0].offset, self.world.number(&lowest).await);
            self.woken.insert(key.key_hash, key.tasks.into());
        }
        for task in woken.delayed {
            // A task for later goes behind those that are loaded; they are looked up before they run.
            self.woken.entry(task.key_hash).or_default().push_back(task);
        }
    }

    /// The first loaded task of each key, ended or parked anew.
    async fn ends(&mut self, mut plan: impl FnMut() -> bool) -> Vec<Settling> {
        let mut ends = Vec::new();
        for lane in self.woken.values_mut() {
            let Some(task) = lane.pop_front() else {
                continue;
            };
            let event = self.log.event(task.offset).unwrap();
            let mut asked = question(task.offset, event);
            asked.settled_before = false;
            let known = ask(self.world, &[asked]).await.remove(0);
            let ending = if known.owner.is_some() {
                Ending::Repeat(task.key_hash)
            } else if plan() {
                parking(event, ParkKind::Retry, Due::In(Duration::ZERO))
            } else {
                Ending::Payload
            };
            // Whatever is behind one that waits again is loaded behind it again.
            if !matches!(ending, Ending::Payload) {
                lane.clear();
            }
            ends.push(settles(&task, ending));
        }
        self.woken.retain(|_, lane| !lane.is_empty());
        ends
    }

    /// Records of the log, as a worker settles them that looks each of them up.
    async fn read(&self, size: usize, mut plan: impl FnMut() -> bool) -> Vec<Settling> {
        let mut records = self.log.read(self.held.next, size);
        let mut waiting = HashSet::new();
        for record in &mut records {
            let Some(event) = self.log.event(record.offset) else {
                continue;
            };
            let mut asked = question(record.offset, event);
            asked.settled_before = record.offset < self.high;
            let known = ask(self.world, &[asked]).await.remove(0);
            let refused = event.payload.starts_with(b"\"poison");
            let (parks, later) = (plan() && !refused, plan());
            record.ending = if let Some(outcome) = known.settled {
                Ending::Known(outcome)
            } else if known.owner.is_some() {
                Ending::Repeat(lane(event))
            } else if known.parked > 0 || waiting.contains(&lane(event)) {
                parking(event, ParkKind::Behind, Due::WithKey)
            } else if parks && later {
                parking(event, ParkKind::Delayed, Due::At(0))
            } else if parks {
                waiting.insert(lane(event));
                parking(event, ParkKind::Retry, Due::In(Duration::ZERO))
            } else {
                Ending::Payload
            };
        }
        records
    }

    async fn flush(&mut self, size: usize, at: Break, plan: u16) {
        let mut bits = (0..16).cycle().map(|bit| plan & (1 << bit) != 0);
        let read = self.read(size, || bits.next().unwrap()).await;
        let next = read
            .last()
            .map_or(self.held.next, |record| record.offset + 1);
        let mut records = self.ends(|| bits.next().unwrap()).await;
        if read.is_empty() && records.is_empty() {
            return;
        }
        records.extend(read);
        let from_log = |record: &Settling| record.origin == Origin::Log;
        records.sort_by_key(|record| (record.offset, !from_log(record)));
        let mut share = share_to(&self.held, records, next);
        share.may_repeat = self.held.next < self.high;
        self.wire.break_next(at);
        let flush = flush_of(vec![share]);
        match self.world.flush(&mut self.writer, &flush).await.remove(0) {
            End::Landed { fence, .. } => {
                self.held.fence = fence;
                self.held.next = next;
                self.high = self.high.max(next);
            }
            End::Lost(_) => self.claim().await,
        }
        self.wire.break_next(Break::Never);
    }

    /// What a worker asks now and then while it is idle.
    async fn is_up_to_date(&self) -> bool {
        let mut connection = self.world.operations().await;
        let idle = [(0, self.held.fence, 1_000)];
        let unmatched =
            position::refresh_frontier(&mut connection, &self.world.consumer, &idle).await;
        unmatched.unwrap().is_empty()
    }

    async fn remember(&self) {
        let statements: String = TABLES
            .iter()
            .map(|table| {
                format!(
                    "DROP TABLE IF EXISTS then_{table}; CREATE TABLE then_{table} AS TABLE {table};"
                )
            })
            .collect();
        self.world.sql(&statements).await;
    }

    /// The database is restored while the worker runs on.
    async fn go_back(&self) {
        let statements: String = TABLES
            .iter()
            .map(|table| {
                format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM then_{table};")
            })
            .collect();
        self.world.sql(&format!("BEGIN; {statements} COMMIT")).await;
    }

    /// Somebody whose claim was delayed takes the fence, and the owner takes it back.
    async fn late_claim(&mut self) {
        let thief = self.world.claim_as(0, "thief").await;
        let records = self.log.read(self.held.next, 2);
        let stale = flush_of(vec![share(&self.held, records)]);
        let ends = self.world.flush(&mut self.writer, &stale).await;
        assert!(
            matches!(ends[..], [End::Lost(FenceLoss::Taken)]),
            "{ends:?}"
        );
        self.claim().await;
        let records = self.log.read(thief.next, 2);
        let late = flush_of(vec![share(&thief, records)]);
        let ends = self.world.flush(&mut self.writer, &late).await;
        assert!(
            matches!(ends[..], [End::Lost(FenceLoss::Taken)]),
            "{ends:?}"
        );
    }

    async fn move_back(&mut self, by: i64) {
        let mut connection = self.world.operations().await;
        let now = self.world.progress(0).await.next_offset;
        let one = Move {
            partition: 0,
            to: (now - by).max(0),
            another_log: false,
            seen: None,
        };
        let log = Deployment {
            group: "workers".into(),
            topic: "tasks".into(),
            cluster_id: None,
            topic_id: None,
            partition_count: 1,
        };
        let why = Why {
            reason: "a test".into(),
            by: "me".into(),
        };
        moves::apply(&mut connection, &self.world.consumer, &[one], &log, &why)
            .await
            .unwrap();
        self.claim().await;
    }
}
