//! Workers that are killed or share their partitions with others while tasks fail and wait: each task has one
//! result, and order holds.

use std::time::Duration;

use millrace_consumer::{Context, Policy, TaskError, Worker};
use millrace_schemas::TaskEvent;

use super::scene::{PARKED, RESULTS, SUCCESSES, Scene, event, until};
use super::trail::{Numbered, Trail};

/// Each fifth task fails twice; waits are short and in memory, or in the database for each tenth.
fn faltering(trail: &Trail) -> impl FnOnce(Worker) -> Worker {
    let trail = trail.clone();
    move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = trail.enter(&context, task.n);
                async move {
                    let _running = running;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let wait = if task.n.is_multiple_of(10) { 700 } else { 100 };
                    if task.n.is_multiple_of(5) && context.attempt() < 3 {
                        return Err(TaskError::retry("not yet").after(Duration::from_millis(wait)));
                    }
                    Ok(task.n)
                }
            })
            .with(Policy {
                park_after: Duration::from_millis(400),
                max_attempts: 1_000,
                ..Policy::default()
            })
    }
}

fn events(count: usize) -> Vec<TaskEvent> {
    // 7 keys, so that each key has tasks that fail and tasks that do not.
    (0..count)
        .map(|n| event("step", Some(&format!("key-{}", n % 7)), n))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_leave_each_task_one_result_and_its_place_in_the_order() {
    let scene = Scene::new("engine_kills", 2).await;
    scene.send(&events(600)).await;
    let trail = Trail::default();
    for _ in 0..4 {
        let worker = scene.work(&[], faltering(&trail));
        let before = trail.count();
        until("some work is done", || trail.count() >= before + 60).await;
        worker.kill();
    }
    let settled = scene.number(SUCCESSES).await;
    let began = trail.count();
    let worker = scene.work(&[], faltering(&trail));
    scene
        .until_within(Duration::from_secs(120), SUCCESSES, 600)
        .await;
    scene.until(PARKED, 0).await;
    assert_eq!(worker.stop(), 0);
    assert_eq!(scene.number(RESULTS).await, 600);
    let again: Vec<usize> = trail.runs()[began..].iter().map(|run| run.n).collect();
    let mut ended: Vec<usize> = again.clone();
    ended.sort_unstable();
    ended.dedup();
    assert_eq!(
        ended.len(),
        600 - usize::try_from(settled).unwrap(),
        "what has a result is not run again"
    );
    trail.assert_key_order();
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_holds_while_partitions_go_to_and_fro_between_two_workers() {
    let scene = Scene::new("engine_to_and_fro", 4).await;
    let all = events(800);
    let trail = Trail::default();
    let first = scene.work(&[], faltering(&trail));
    scene.send(&all[..200]).await;
    for round in 1..4 {
        let second = scene.work(&[], faltering(&trail));
        scene.send(&all[round * 200..(round + 1) * 200]).await;
        let before = trail.count();
        until("both work", || trail.count() >= before + 100).await;
        assert_eq!(second.stop(), 0);
    }
    scene
        .until_within(Duration::from_secs(180), SUCCESSES, 800)
        .await;
    scene.until(PARKED, 0).await;
    assert_eq!(first.stop(), 0);
    assert_eq!(scene.number(RESULTS).await, 800);
    trail.assert_key_order();
    scene.assert_books().await;
}
