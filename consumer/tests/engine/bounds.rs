//! Finding 8: what one key may hold up, and where its bounds are.

use std::time::Duration;

use millrace_consumer::{Context, TaskError, Worker};
use millrace_schemas::TaskEvent;

use super::parked::{Gate, stubborn};
use super::scene::{PARKED, SUCCESSES, Scene, event, until};
use super::trail::{Numbered, Trail};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_08_a_hot_key_that_stands_still_fills_no_budget_and_holds_up_no_other_key() {
    let scene = Scene::new("engine_hot_budget", 1).await;
    // Four times as many tasks of the hot key as the worker may hold, and the others lie behind them.
    let hot = (0..4_000).map(|n| event("step", Some("hot"), n));
    let others = (4_000..4_300).map(|n| event("step", Some(&format!("other-{}", n % 50)), n));
    let events: Vec<TaskEvent> = hot.chain(others).collect();
    scene.send(&events).await;
    let (trail, gate) = (Trail::default(), Gate::default());
    let (closed, entering) = (gate.clone(), trail.clone());
    let worker = scene.work(&["--max-in-flight", "1000"], move |worker: Worker| {
        worker.register("step", move |task: Numbered, context: Context| {
            let (closed, running) = (closed.clone(), entering.enter(&context, task.n));
            async move {
                let _running = running;
                while task.n == 0 && !closed.is_open() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok::<_, TaskError>(task.n)
            }
        })
    });
    scene
        .until_within(Duration::from_secs(120), SUCCESSES, 300)
        .await;
    assert_eq!(trail.times(0), 1, "the first of the hot key still runs");
    assert_eq!(trail.count(), 301, "none of its followers has started");
    gate.open();
    scene
        .until_within(Duration::from_secs(120), SUCCESSES, 4_300)
        .await;
    scene.until(PARKED, 0).await;
    assert_eq!(worker.stop(), 0);
    trail.assert_key_order();
    trail.assert_one_at_a_time();
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_08_too_many_parked_tasks_stop_the_reading_of_their_partition_until_there_are_fewer()
 {
    let scene = Scene::new("engine_parked_cap", 1).await;
    let events: Vec<TaskEvent> = (0..12_000).map(|n| event("step", Some("hot"), n)).collect();
    scene.send(&events).await;
    let (trail, gate) = (Trail::default(), Gate::default());
    let closed = gate.clone();
    let stops = move |n| n == 0 && !closed.is_open();
    let flags = ["--max-parked", "2000", "--max-in-flight", "1000"];
    let worker = scene.work(&flags, stubborn(&trail, Duration::from_secs(1), stops));
    scene
        .until("SELECT least(2000, count(*)) FROM parked_tasks", 2_000)
        .await;
    let tries = trail.times(0);
    until("the first one is tried again and again", || {
        trail.times(0) >= tries + 4
    })
    .await;
    // What was read before the bound was noticed is no more than the worker may hold.
    let parked = scene.number(PARKED).await;
    assert!(parked <= 3_100, "{parked} tasks are parked");
    gate.open();
    scene
        .until_within(Duration::from_secs(120), SUCCESSES, 12_000)
        .await;
    scene.until(PARKED, 0).await;
    assert_eq!(worker.stop(), 0);
    trail.assert_key_order();
    scene.assert_books().await;
}
