//! Findings 6 and 15: what waits in the database keeps the order of its key, holds up nobody else, and fills no
//! memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace_consumer::{Context, Policy, TaskError, Worker};
use millrace_schemas::{Decoders, TaskEvent};
use millrace_store::letters::LetterPlace;
use millrace_store::operations_log::Journal;
use millrace_store::redrive::{self, Terms};
use sqlx::Row as _;

use super::scene::{PARKED, RESULTS, SUCCESSES, Scene, event, now_micros, until};
use super::trail::{Numbered, Trail};

const KEYS: &str = "SELECT count(*) FROM parked_keys";
const DEAD: &str = "SELECT count(*) FROM dead_letters";
const POSITION: &str = "SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_progress";

/// Opened once: until then tasks that ask for it fail.
#[derive(Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    pub fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A handler whose tasks fail while `stops` says so, and ask to be tried again after `wait`.
pub fn stubborn(
    trail: &Trail,
    wait: Duration,
    stops: impl Fn(usize) -> bool + Clone + Send + Sync + 'static,
) -> impl FnOnce(Worker) -> Worker {
    let trail = trail.clone();
    move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = trail.enter(&context, task.n);
                let stops = stops(task.n);
                async move {
                    let _running = running;
                    if stops {
                        return Err(TaskError::retry("not yet").after(wait));
                    }
                    Ok(task.n)
                }
            })
            .with(Policy {
                max_attempts: 1_000,
                park_after: Duration::ZERO,
                ..Policy::default()
            })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_6_twenty_thousand_followers_of_a_parked_task_wait_in_the_database_and_keep_order()
{
    let scene = Scene::new("engine_hot_key", 1).await;
    let mut events = vec![event("step", Some("hot"), 0)];
    for n in 1..=20_000 {
        events.push(event("step", Some("hot"), n));
        if n % 20 == 0 {
            events.push(event("step", Some(&format!("other-{}", n % 7)), n));
        }
    }
    scene.send(&events).await;
    let (trail, gate) = (Trail::default(), Gate::default());
    let closed = gate.clone();
    let stops = move |n| n == 0 && !closed.is_open();
    let worker = scene.work(&[], stubborn(&trail, Duration::from_secs(2), stops));
    scene.until(SUCCESSES, 1_000).await;
    // The position is at the log's end, so nothing is held in memory but what is woken now and then.
    scene
        .until_within(Duration::from_secs(120), POSITION, 21_001)
        .await;
    scene.until(PARKED, 20_001).await;
    until("the first one is tried again and again", || {
        trail.times(0) >= 5
    })
    .await;
    gate.open();
    let began = Instant::now();
    scene
        .until_within(Duration::from_secs(240), SUCCESSES, 21_001)
        .await;
    println!("20,000 followers took {:?}", began.elapsed());
    scene.until(PARKED, 0).await;
    scene.until(KEYS, 0).await;
    assert_eq!(worker.stop(), 0);
    trail.assert_key_order();
    trail.assert_one_at_a_time();
    assert_eq!(trail.count(), 21_001 + trail.times(0) - 1);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_6_order_holds_when_the_worker_that_parked_is_killed() {
    let scene = Scene::new("engine_parked_kill", 2).await;
    let (trail, gate) = (Trail::default(), Gate::default());
    let closed = gate.clone();
    let stops = move |n| n < 10 && !closed.is_open();
    let events: Vec<TaskEvent> = (0..400)
        .map(|n| event("step", Some(&format!("key-{}", n % 10)), n))
        .collect();
    let (first, later) = events.split_at(300);
    scene.send(first).await;
    for _ in 0..3 {
        let worker = scene.work(
            &[],
            stubborn(&trail, Duration::from_millis(300), stops.clone()),
        );
        let before = trail.count();
        scene.until(PARKED, 300).await;
        until("parked tasks are tried", || trail.count() >= before + 20).await;
        worker.kill();
    }
    scene.send(later).await;
    let worker = scene.work(&[], stubborn(&trail, Duration::from_millis(300), stops));
    scene.until(PARKED, 400).await;
    gate.open();
    scene.until(SUCCESSES, 400).await;
    scene.until(PARKED, 0).await;
    assert_eq!(worker.stop(), 0);
    trail.assert_key_order();
    assert!(
        (10..400).all(|n| trail.times(n) == 1),
        "a follower ran before its time"
    );
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_6_a_task_for_later_holds_up_nobody_of_its_key_and_joins_when_it_is_due() {
    let scene = Scene::new("engine_delayed", 1).await;
    let due = now_micros() + 3_000_000;
    let later = TaskEvent {
        run_at: Some(due),
        ..event("step", Some("k"), 0)
    };
    scene
        .send(&[
            later,
            event("step", Some("k"), 1),
            event("step", Some("k"), 2),
        ])
        .await;
    let trail = Trail::default();
    let worker = scene.work(&[], stubborn(&trail, Duration::ZERO, |_| false));
    scene.until(SUCCESSES, 2).await;
    assert!(now_micros() < due, "the test was too slow to tell");
    assert_eq!(trail.times(0), 0);
    scene.until(PARKED, 1).await;
    scene.until(SUCCESSES, 3).await;
    assert!(now_micros() >= due);
    assert_eq!(trail.count(), 3);
    scene.until(PARKED, 0).await;
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_6_a_task_that_becomes_due_waits_behind_those_of_its_key_that_are_parked() {
    let scene = Scene::new("engine_delayed_behind", 1).await;
    let (trail, gate) = (Trail::default(), Gate::default());
    let closed = gate.clone();
    let later = TaskEvent {
        run_at: Some(now_micros() + 1_500_000),
        ..event("step", Some("k"), 9)
    };
    scene
        .send(&[
            event("step", Some("k"), 0),
            event("step", Some("k"), 1),
            later,
        ])
        .await;
    let stops = move |n| n == 0 && !closed.is_open();
    let worker = scene.work(&[], stubborn(&trail, Duration::from_millis(400), stops));
    let behind = "SELECT count(*) FROM parked_tasks WHERE kind = 'behind'";
    scene.until(behind, 2).await;
    assert_eq!(trail.times(9), 0);
    gate.open();
    scene.until(SUCCESSES, 3).await;
    scene.until(PARKED, 0).await;
    scene.until(KEYS, 0).await;
    assert_eq!(worker.stop(), 0);
    trail.assert_key_order();
    trail.assert_one_at_a_time();
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_for_later_come_once_when_their_worker_is_killed_before_and_while_they_are_due() {
    let scene = Scene::new("engine_delayed_kill", 2).await;
    let due = now_micros() + 4_000_000;
    let events: Vec<TaskEvent> = (0..300)
        .map(|n| TaskEvent {
            run_at: (n % 3 == 0).then_some(due + i64::try_from(n).unwrap() * 10_000),
            ..event("step", Some(&format!("key-{}", n % 7)), n)
        })
        .collect();
    scene.send(&events).await;
    let trail = Trail::default();
    let worker = scene.work(&[], stubborn(&trail, Duration::ZERO, |_| false));
    scene.until(PARKED, 100).await;
    worker.kill();
    let worker = scene.work(&[], stubborn(&trail, Duration::ZERO, |_| false));
    until("the first is due", || trail.times(0) > 0).await;
    worker.kill();
    let worker = scene.work(&[], stubborn(&trail, Duration::ZERO, |_| false));
    scene.until(SUCCESSES, 300).await;
    scene.until(PARKED, 0).await;
    assert_eq!(worker.stop(), 0);
    assert_eq!(scene.number(RESULTS).await, 300);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_15_followers_past_their_deadline_expire_without_waking_their_key() {
    let scene = Scene::new("engine_follower_deadline", 1).await;
    let late = TaskEvent {
        deadline: Some(now_micros() + 3_000_000),
        ..event("step", Some("k"), 1)
    };
    scene
        .send(&[
            event("step", Some("k"), 0),
            late,
            event("step", Some("k"), 2),
        ])
        .await;
    let trail = Trail::default();
    let worker = scene.work(&[], stubborn(&trail, Duration::from_secs(600), |n| n == 0));
    scene
        .until(
            "SELECT count(*) FROM task_results WHERE status = 'expired'",
            1,
        )
        .await;
    scene.until(PARKED, 2).await;
    assert_eq!(trail.count(), 1, "only the first was ever started");
    assert_eq!(
        scene.number("SELECT depth::bigint FROM parked_keys").await,
        2,
        "the key still waits, with one task less"
    );
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_6_a_redriven_task_goes_through_the_lane_of_its_key() {
    let scene = Scene::new("engine_redriven", 1).await;
    let (trail, gate) = (Trail::default(), Gate::default());
    let (closed, entering) = (gate.clone(), trail.clone());
    let worker = scene.work(&[], move |worker| {
        worker.register("step", move |task: Numbered, context: Context| {
            let (closed, running) = (closed.clone(), entering.enter(&context, task.n));
            async move {
                let _running = running;
                if task.n < 2 && context.run() == 0 {
                    return Err(TaskError::permanent("broken"));
                }
                while task.n == 2 && !closed.is_open() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(task.n)
            }
        })
    });
    scene
        .send(&[event("step", Some("k"), 0), event("step", Some("other"), 1)])
        .await;
    scene.until(DEAD, 2).await;
    scene.send(&[event("step", Some("k"), 2)]).await;
    until("the third task runs", || trail.times(2) == 1).await;
    redrive_all(&scene).await;
    scene.until(SUCCESSES, 1).await;
    assert_eq!(trail.times(0), 1, "its key is busy");
    gate.open();
    scene.until(SUCCESSES, 3).await;
    scene.until(PARKED, 0).await;
    assert_eq!(worker.stop(), 0);
    trail.assert_one_at_a_time();
    assert_eq!(trail.times(0), 2);
    scene.assert_books().await;
}

async fn redrive_all(scene: &Scene) {
    let mut connection = scene.connect().await;
    let rows = sqlx::query("SELECT partition, log_book, \"offset\", run FROM dead_letters")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let places: Vec<LetterPlace> = rows
        .iter()
        .map(|row| LetterPlace {
            partition: row.get(0),
            log_book: row.get(1),
            offset: row.get(2),
            run: row.get(3),
        })
        .collect();
    let about = serde_json::json!({});
    let mut journal = Journal::open(&mut connection, "test", "redrive", None, about)
        .await
        .unwrap();
    let terms = Terms {
        by: "test",
        max_redrives: 3,
        decoders: &Decoders::new(),
    };
    let done = redrive::redrive(
        &mut connection,
        &scene.consumer(),
        &places,
        terms,
        &mut journal,
    )
    .await
    .unwrap();
    assert_eq!(done.redriven.len(), places.len(), "{done:?}");
}
