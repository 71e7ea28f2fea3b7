//! A database or a broker that is away costs time and nothing else: no attempt, no dead letter, no memory without
//! end, no task.
//!
//! Each task fails as often as its number says, so its row has to show exactly that many attempts and one more;
//! one failure more than planned would use the attempts up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace_consumer::{Context, Policy, TaskError, Worker};
use millrace_devstack::{ApacheKafka, KafkaOptions, can_run_apache_kafka};
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::evidence::{Evidence, Seen};
use crate::sending::{Sender, delivered, task};
use crate::stage::{LETTERS, PARKED, SHORT_SESSIONS, Stage};
use crate::{ALONE, eventually, setting};

const PARTITIONS: i32 = 4;
/// Failures of the tasks that fail most; their policy allows no more.
const MOST_FAILURES: u16 = 3;
const RATE: u64 = 1_000;
const PAYLOAD: usize = 4_000;
/// What the worker, and the test's own sending, may grow by while nothing can be written: the worker's share is 16
/// MiB of events, as many of the client's own queue, and their administration.
const GROWTH_KIB: u64 = 120 << 10;

#[derive(Deserialize)]
struct Numbered {
    n: usize,
}

/// How often the task of this number fails before it succeeds.
fn failures(n: usize) -> u16 {
    match n % 20 {
        1 => 1,
        2 => 2,
        3 => MOST_FAILURES,
        _ => 0,
    }
}

fn handlers(evidence: &Evidence) -> impl FnOnce(Worker) -> Worker {
    let evidence = evidence.clone();
    move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let evidence = evidence.clone();
                async move {
                    evidence.called("worker", task.n, &context);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    if context.attempt() <= failures(task.n) {
                        return Err(TaskError::retry("by plan"));
                    }
                    Ok(serde_json::json!({ "n": task.n }))
                }
            })
            .with(Policy {
                max_attempts: MOST_FAILURES + 1,
                max_age: Duration::from_secs(30),
                backoff_base: Duration::from_secs(1),
                backoff_cap: Duration::from_secs(4),
                // Some waits in memory, some in the database.
                park_after: Duration::from_secs(1),
                ..Policy::default()
            })
    }
}

/// Sends numbered tasks at a rate until it is told to stop; then says how many there are.
struct Load {
    stop: Arc<AtomicBool>,
    sending: JoinHandle<usize>,
}

impl Load {
    fn on(stage: &Stage) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, sender) = (Arc::clone(&stop), Sender::to(stage));
        let sending = tokio::spawn(async move {
            let filler = "x".repeat(PAYLOAD);
            let (mut sent, mut last) = (0, Vec::new());
            let mut again = tokio::time::interval(Duration::from_millis(20));
            again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !told.load(Ordering::Acquire) {
                again.tick().await;
                for _ in 0..RATE / 50 {
                    let key = format!("key-{}", sent % 1_009);
                    let payload = format!(r#"{{"n":{sent},"filler":"{filler}"}}"#);
                    last.push(sender.offer(&task("step", Some(&key), payload)));
                    sent += 1;
                }
                // While the broker is away only this much waits for it.
                sender.until_room(1_000).await;
                if last.len() > 2_000 {
                    for delivery in last.drain(..1_000) {
                        delivered(delivery).await;
                    }
                }
            }
            for delivery in last {
                delivered(delivery).await;
            }
            sent
        });
        Load { stop, sending }
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Release);
        self.sending.await.unwrap()
    }
}

/// Flags of a worker that holds little.
fn flags() -> Vec<&'static str> {
    let mut flags = vec!["--max-in-flight-mib", "16"];
    flags.extend(SHORT_SESSIONS);
    flags
}

fn away() -> Duration {
    Duration::from_secs(setting("MILLRACE_OUTAGE_SECONDS", 15))
}

/// This process' memory: what it is and what it was at most, in KiB.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// Makes the most that it was start anew: proc(5), clear_refs.
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// As often as planned each task was tried, once it succeeded, and none is missing.
async fn assert_exact(stage: &Stage, sent: usize) -> BTreeMap<usize, i16> {
    let mut connection = stage.connect().await.unwrap();
    let rows: Vec<(i64, String, i16, i16)> = sqlx::query_as(
        "SELECT (result->>'n')::bigint, status::text, run, attempts FROM task_results",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(rows.len(), sent);
    let mut found = BTreeMap::new();
    for (n, status, run, attempts) in rows {
        let n = usize::try_from(n).unwrap();
        assert_eq!((status.as_str(), run), ("success", 0), "{n}");
        let planned = i16::try_from(failures(n) + 1).unwrap();
        assert_eq!(attempts, planned, "attempts of {n}");
        assert_eq!(found.insert(n, attempts), None, "{n} twice");
    }
    assert_eq!(found.len(), sent);
    found
}

/// Waits until all is done, and proves what has to hold after any outage.
async fn settle(stage: &Stage, sent: usize) -> BTreeMap<usize, i16> {
    let wanted = i64::try_from(sent).unwrap();
    let patience = 120 + sent as u64 / 200;
    eventually("all results", patience, async || {
        let mut connection = stage.connect().await.ok()?;
        let counted =
            "SELECT (SELECT count(*) FROM task_results), (SELECT count(*) FROM dead_letters)";
        let (results, letters): (i64, i64) = sqlx::query_as(counted)
            .fetch_one(&mut connection)
            .await
            .ok()?;
        assert_eq!(letters, 0, "dead letters");
        (results >= wanted).then_some(())
    })
    .await;
    stage.until(PARKED, 0, 60).await;
    assert_eq!(stage.number(LETTERS).await, 0);
    assert_exact(stage, sent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_costs_no_attempt_no_task_and_no_memory_without_end() {
    if !can_run_apache_kafka("acceptance: outages of the database")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    let kafka = millrace_devstack::test_kafka().await.unwrap();
    let mut stage = Stage::with_own_postgres("database_away", kafka, PARTITIONS).await;
    let evidence = Evidence::default();
    let worker = stage.work(&flags(), handlers(&evidence));
    let load = Load::on(&stage);
    eventually("work flows", 60, async || {
        (evidence.calls() > 3_000).then_some(())
    })
    .await;

    forget_peak();
    let (began, (rss, _)) = (Instant::now(), memory());
    stage.own_postgres().stop().await.unwrap();
    while began.elapsed() < away() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(worker.is_running());
    }
    let (_, peak) = memory();
    let calls = evidence.calls();
    stage.own_postgres().start_again().await.unwrap();
    let back = Instant::now();
    eventually("work flows again", 60, async || {
        (evidence.calls() > calls).then_some(())
    })
    .await;
    let flows = back.elapsed();
    let sent = load.end().await;
    let rows = settle(&stage, sent).await;
    let told: BTreeMap<usize, Seen> = evidence.tasks();
    let mut again = 0;
    for (n, attempts) in &rows {
        let Seen { calls, attempt } = told[n];
        assert_eq!(
            i64::from(attempt),
            i64::from(*attempts),
            "{n}: the last attempt"
        );
        again += u64::from(calls) - u64::from(attempt);
    }
    assert_eq!(again, 0, "handlers counted more attempts than the rows");
    assert!(
        peak < rss + GROWTH_KIB,
        "memory grew from {rss} to {peak} KiB while the database was away"
    );
    assert_eq!(worker.stop(), 0);
    stage.assert_books();
    eprintln!(
        "database away for {:?}: {sent} tasks, flowing again {flows:.1?} after it was back, memory {} MiB, at most {} MiB",
        away(),
        rss >> 10,
        peak >> 10
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_costs_no_attempt_no_task_and_no_memory_without_end() {
    if !can_run_apache_kafka("acceptance: outages of the broker")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    let mut broker = ApacheKafka::start_temp(KafkaOptions::default())
        .await
        .unwrap();
    let stage = Stage::on_kafka("broker_away", broker.bootstrap(), PARTITIONS).await;
    let evidence = Evidence::default();
    let worker = stage.work(&flags(), handlers(&evidence));
    let load = Load::on(&stage);
    eventually("work flows", 60, async || {
        (evidence.calls() > 3_000).then_some(())
    })
    .await;

    forget_peak();
    let (began, (rss, _)) = (Instant::now(), memory());
    broker.kill().await.unwrap();
    while began.elapsed() < away() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(worker.is_running());
    }
    let (_, peak) = memory();
    let calls = evidence.calls();
    broker.start_again().await.unwrap();
    let back = Instant::now();
    eventually("work flows again", 90, async || {
        (evidence.calls() > calls + 500).then_some(())
    })
    .await;
    let flows = back.elapsed();
    let sent = load.end().await;
    let rows = settle(&stage, sent).await;
    let told = evidence.tasks();
    let mut again = 0;
    for (n, attempts) in &rows {
        // The partition may have been lost meanwhile: then a task begins anew, and its row tells of that alone.
        let Seen { calls, attempt } = told[n];
        assert_eq!(
            i64::from(attempt),
            i64::from(*attempts),
            "{n}: the last attempt"
        );
        assert!(calls >= u32::from(attempt));
        again += calls - u32::from(attempt);
    }
    assert!(
        peak < rss + GROWTH_KIB,
        "memory grew from {rss} to {peak} KiB while the broker was away"
    );
    assert_eq!(worker.stop(), 0);
    stage.assert_books();
    eprintln!(
        "broker away for {:?}: {sent} tasks, {again} attempts made again, flowing again {flows:.1?} after it was back, \
         memory {} MiB, at most {} MiB",
        away(),
        rss >> 10,
        peak >> 10
    );
}
