//! Finding 18: a cancel request is a wish, and the owner of the task answers it: the task ends once, as cancelled
//! if it was not done. Deadlines and timeouts end what runs too long.

use std::time::Duration;

use millrace_consumer::{Context, Policy, TaskError, TaskId};
use millrace_schemas::TaskEvent;
use millrace_store::cancels;

use super::scene::{PARKED, RESULTS, SUCCESSES, Scene, event, now_micros, until};
use super::trail::{Numbered, Trail};

const CANCELLED: &str = "SELECT count(*) FROM task_results WHERE status = 'cancelled'";
const EXPIRED: &str = "SELECT count(*) FROM task_results WHERE status = 'expired'";
const REQUESTS: &str = "SELECT count(*) FROM task_cancels";

async fn cancel(scene: &Scene, tasks: &[TaskId]) {
    let mut connection = scene.connect().await;
    for task in tasks {
        cancels::request(&mut connection, *task, None, "test")
            .await
            .unwrap();
    }
}

fn ids(events: &[TaskEvent]) -> Vec<TaskId> {
    events.iter().map(|event| event.task_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_18_a_task_is_cancelled_wherever_it_is_and_ends_once() {
    let scene = Scene::new("engine_cancel", 1).await;
    let trail = Trail::default();
    let entering = trail.clone();
    // 0 runs until it is told to stop, 1 waits behind it, 2 waits in memory, 3 and 4 are parked, 5 is for later.
    let events = [
        event("step", Some("runs"), 0),
        event("step", Some("runs"), 1),
        event("step", Some("waits"), 2),
        event("step", Some("parked"), 3),
        event("step", Some("parked"), 4),
        TaskEvent {
            run_at: Some(now_micros() + 600_000_000),
            ..event("step", Some("later"), 5)
        },
    ];
    scene.send(&events).await;
    let worker = scene.work(&[], move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = entering.enter(&context, task.n);
                async move {
                    let _running = running;
                    match task.n {
                        0 => {
                            context.cancelled().await;
                            Err(TaskError::retry("stopped"))
                        }
                        2 => Err(TaskError::retry("soon").after(Duration::from_secs(50))),
                        3 => Err(TaskError::retry("later").after(Duration::from_secs(600))),
                        n => Ok(n),
                    }
                }
            })
            .with(Policy {
                park_after: Duration::from_secs(60),
                ..Policy::default()
            })
    });
    until("the first attempts", || trail.count() == 3).await;
    scene.until(PARKED, 3).await;
    // Those that wait first: one whose turn comes before its own request has arrived would rightly run.
    let last_first: Vec<TaskId> = ids(&events).into_iter().rev().collect();
    cancel(&scene, &last_first).await;
    scene.until(CANCELLED, 6).await;
    scene.until(PARKED, 0).await;
    scene.until("SELECT count(*) FROM parked_keys", 0).await;
    scene.until("SELECT count(*) FROM task_progress", 0).await;
    assert_eq!(scene.number(RESULTS).await, 6);
    assert_eq!(
        trail.count(),
        3,
        "nothing was started after its end was asked for"
    );
    scene
        .send(&[
            event("step", Some("runs"), 6),
            event("step", Some("parked"), 7),
        ])
        .await;
    scene.until(SUCCESSES, 2).await;
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_18_a_request_for_what_is_done_or_unknown_changes_nothing() {
    let scene = Scene::new("engine_cancel_done", 1).await;
    let trail = Trail::default();
    let entering = trail.clone();
    let worker = scene.work(&[], move |worker| {
        worker.register("step", move |task: Numbered, context: Context| {
            let running = entering.enter(&context, task.n);
            async move {
                let _running = running;
                Ok::<_, TaskError>(task.n)
            }
        })
    });
    let first: Vec<TaskEvent> = (0..5).map(|n| event("step", Some("k"), n)).collect();
    scene.send(&first).await;
    scene.until(SUCCESSES, 5).await;
    cancel(&scene, &ids(&first)).await;
    cancel(&scene, &[TaskId::mint()]).await;
    let mut more: Vec<TaskEvent> = (5..10).map(|n| event("step", Some("k"), n)).collect();
    // A worker hears of a request within a second or two, so the task that is cancelled ahead comes after that.
    more[4].run_at = Some(now_micros() + 4_000_000);
    cancel(&scene, &ids(&more[4..])).await;
    scene.until(REQUESTS, 7).await;
    scene.send(&more).await;
    scene.until(CANCELLED, 1).await;
    scene.until(SUCCESSES, 9).await;
    assert_eq!(trail.count(), 9);
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_18_a_request_outlives_the_worker_that_was_about_to_answer_it() {
    let scene = Scene::new("engine_cancel_kill", 1).await;
    let events: Vec<TaskEvent> = (0..50)
        .map(|n| event("step", Some(&format!("key-{n}")), n))
        .collect();
    scene.send(&events).await;
    let trail = Trail::default();
    let hanging = |trail: &Trail| {
        let trail = trail.clone();
        move |worker: millrace_consumer::Worker| {
            worker.register("step", move |task: Numbered, context: Context| {
                let running = trail.enter(&context, task.n);
                async move {
                    let _running = running;
                    context.cancelled().await;
                    Err::<(), _>(TaskError::retry("stopped"))
                }
            })
        }
    };
    let worker = scene.work(&[], hanging(&trail));
    until("all run", || trail.count() == 50).await;
    cancel(&scene, &ids(&events)).await;
    until("some are told", || trail.running() < 50).await;
    worker.kill();
    let worker = scene.work(&[], hanging(&trail));
    scene.until(CANCELLED, 50).await;
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_past_its_deadline_is_not_started_and_one_that_runs_into_it_is_stopped() {
    let scene = Scene::new("engine_deadline", 1).await;
    let trail = Trail::default();
    let entering = trail.clone();
    let worker = scene.work(&[], move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = entering.enter(&context, task.n);
                async move {
                    let _running = running;
                    match task.n {
                        // Stops when it is told to.
                        1 => {
                            context.cancelled().await;
                            Err(TaskError::retry("stopped"))
                        }
                        // Never stops.
                        2 => std::future::pending().await,
                        n => Ok(n),
                    }
                }
            })
            .with(Policy {
                grace: Duration::from_millis(300),
                ..Policy::default()
            })
    });
    let now = now_micros();
    let until_then = |n, key, deadline| TaskEvent {
        deadline: Some(deadline),
        ..event("step", Some(key), n)
    };
    scene
        .send(&[
            until_then(0, "a", now - 1),
            until_then(1, "b", now + 3_000_000),
            until_then(2, "c", now + 3_000_000),
            until_then(3, "d", now + 60_000_000),
            // Behind one that runs into its deadline, with room to spare itself.
            until_then(4, "c", now + 60_000_000),
        ])
        .await;
    scene.until(EXPIRED, 3).await;
    scene.until(SUCCESSES, 2).await;
    assert_eq!(trail.times(0), 0);
    assert_eq!(trail.count(), 4);
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_takes_too_long_has_failed_and_the_next_one_comes() {
    let scene = Scene::new("engine_timeout", 1).await;
    let trail = Trail::default();
    let entering = trail.clone();
    let worker = scene.work(&[], move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = entering.enter(&context, task.n);
                async move {
                    let _running = running;
                    if context.attempt() < 3 {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, TaskError>(task.n)
                }
            })
            .with(Policy {
                timeout: Some(Duration::from_millis(200)),
                grace: Duration::from_millis(100),
                backoff_base: Duration::from_millis(10),
                ..Policy::default()
            })
    });
    scene
        .send(&[event("step", Some("a"), 0), event("step", Some("a"), 1)])
        .await;
    scene.until(SUCCESSES, 2).await;
    assert_eq!(
        scene
            .number("SELECT sum(attempts)::bigint FROM task_results")
            .await,
        6
    );
    assert_eq!(worker.stop(), 0);
    trail.assert_key_order();
    trail.assert_one_at_a_time();
    scene.assert_books().await;
}
