//! Order and parallelism as a type's policy says: by key, by partition, or not at all; within the limits.

use std::time::Duration;

use millrace_consumer::{Context, Mode, Policy, TaskError, Worker};
use millrace_schemas::TaskEvent;

use super::scene::{PARKED, SUCCESSES, Scene, event, until};
use super::trail::{Numbered, Trail};

/// Tasks that take some milliseconds; each third one fails at its first attempt.
fn faltering(trail: &Trail, policy: Policy) -> impl FnOnce(Worker) -> Worker {
    let trail = trail.clone();
    move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = trail.enter(&context, task.n);
                async move {
                    let _running = running;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    if task.n.is_multiple_of(3) && context.attempt() == 1 {
                        return Err(TaskError::retry("not yet"));
                    }
                    Ok(task.n)
                }
            })
            .with(policy)
    }
}

fn by_partition() -> Policy {
    Policy {
        mode: Mode::Partition,
        backoff_base: Duration::from_millis(20),
        backoff_cap: Duration::from_millis(20),
        park_after: Duration::ZERO,
        ..Policy::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_partition_all_tasks_start_in_the_order_of_the_log_and_none_is_parked() {
    let scene = Scene::new("engine_by_partition", 1).await;
    let events: Vec<TaskEvent> = (0..200)
        .map(|n| event("step", Some(&format!("k{}", n % 9)), n))
        .collect();
    scene.send(&events).await;
    let trail = Trail::default();
    let worker = scene.work(&[], faltering(&trail, by_partition()));
    scene.until(SUCCESSES, 200).await;
    assert_eq!(worker.stop(), 0);
    let order: Vec<usize> = trail.runs().iter().map(|run| run.n).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(trail.most_at_once(|_| true), 1);
    assert_eq!(scene.number(PARKED).await, 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_partition_order_holds_when_the_worker_ends_while_a_task_waits_for_another_attempt() {
    let scene = Scene::new("engine_by_partition_stop", 1).await;
    let events: Vec<TaskEvent> = (0..50)
        .map(|n| event("step", Some(&format!("k{}", n % 9)), n))
        .collect();
    scene.send(&events).await;
    let trail = Trail::default();
    let slow = Policy {
        backoff_base: Duration::from_secs(60),
        backoff_cap: Duration::from_secs(60),
        ..by_partition()
    };
    let worker = scene.work(&[], faltering(&trail, slow));
    until("the first has failed", || {
        trail.count() == 1 && trail.running() == 0
    })
    .await;
    assert_eq!(worker.stop(), 0);
    assert_eq!(
        scene.number(PARKED).await,
        0,
        "tasks of this mode are never parked"
    );
    let worker = scene.work(&[], faltering(&trail, by_partition()));
    scene.until(SUCCESSES, 50).await;
    assert_eq!(worker.stop(), 0);
    let order: Vec<usize> = trail.runs().iter().map(|run| run.n).collect();
    assert!(order.is_sorted(), "{order:?}");
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unordered_a_task_that_fails_holds_up_nobody_of_its_key() {
    let scene = Scene::new("engine_unordered", 1).await;
    let trail = Trail::default();
    let entering = trail.clone();
    let worker = scene.work(&[], move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = entering.enter(&context, task.n);
                async move {
                    let _running = running;
                    match task.n {
                        0 => Err(TaskError::retry("in memory").after(Duration::from_secs(3))),
                        1 => Err(TaskError::retry("parked").after(Duration::from_secs(600))),
                        n => Ok(n),
                    }
                }
            })
            .with(Policy {
                mode: Mode::Unordered,
                ..Policy::default()
            })
    });
    let events: Vec<TaskEvent> = (0..50).map(|n| event("step", Some("k"), n)).collect();
    scene.send(&events).await;
    scene.until(SUCCESSES, 48).await;
    scene.until(PARKED, 1).await;
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_at_once_than_the_worker_and_the_type_allow_and_no_type_starves() {
    let scene = Scene::new("engine_limits", 1).await;
    let trail = Trail::default();
    let entering = trail.clone();
    let worker = scene.work(&["--concurrency", "40"], move |worker| {
        let other = entering.clone();
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = entering.enter(&context, task.n);
                async move {
                    let _running = running;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, TaskError>(task.n)
                }
            })
            .register("narrow", move |task: Numbered, context: Context| {
                let running = other.enter(&context, task.n);
                async move {
                    let _running = running;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, TaskError>(task.n)
                }
            })
            .with(Policy {
                max_in_flight: Some(3),
                ..Policy::default()
            })
    });
    let mut events: Vec<TaskEvent> = (0..3_000).map(|n| event("step", None, n)).collect();
    events.extend((10_000..10_100).map(|n| event("narrow", None, n)));
    scene.send(&events).await;
    scene.until(SUCCESSES, 3_100).await;
    assert_eq!(worker.stop(), 0);
    assert_eq!(
        trail.most_at_once(|_| true),
        40,
        "one partition is enough to use them all"
    );
    assert_eq!(trail.most_at_once(|run| run.n >= 10_000), 3);
    let runs = trail.runs();
    let last_narrow = runs.iter().rposition(|run| run.n >= 10_000).unwrap();
    assert!(
        last_narrow < 3_000,
        "they started while the others still had work: {last_narrow}"
    );
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_tasks_of_one_partition_run_at_once() {
    let scene = Scene::new("engine_wide", 1).await;
    let trail = Trail::default();
    let entering = trail.clone();
    let events: Vec<TaskEvent> = (0..200)
        .map(|n| event("step", Some(&format!("k{n}")), n))
        .collect();
    scene.send(&events).await;
    let worker = scene.work(&[], move |worker| {
        let seen = entering.clone();
        worker.register("step", move |task: Numbered, context: Context| {
            let (running, seen) = (entering.enter(&context, task.n), seen.clone());
            async move {
                let _running = running;
                while seen.count() < 200 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok::<_, TaskError>(task.n)
            }
        })
    });
    scene.until(SUCCESSES, 200).await;
    assert_eq!(trail.most_at_once(|_| true), 200);
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}
