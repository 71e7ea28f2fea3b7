//! Finding 13: a task that runs long costs nothing: it is parked as running, and the frontier moves on.

use std::time::Duration;

use millrace_consumer::{Context, Policy, TaskError, Worker};
use millrace_schemas::TaskEvent;

use super::scene::{PARKED, RESULTS, SUCCESSES, Scene, event, until};
use super::trail::{Numbered, Trail};

const RUNNING: &str = "SELECT count(*) FROM parked_tasks WHERE kind = 'running'";
const POSITION: &str = "SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_progress";
const PROGRESS: &str = "SELECT count(*) FROM task_progress";

fn slow_first(trail: &Trail, takes: Duration) -> impl FnOnce(Worker) -> Worker {
    let trail = trail.clone();
    move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = trail.enter(&context, task.n);
                async move {
                    let _running = running;
                    if task.n == 0 {
                        context.progress(0.25, "under way");
                        tokio::time::sleep(takes).await;
                    }
                    Ok::<_, TaskError>(task.n)
                }
            })
            .with(Policy {
                run_long_after: Duration::from_millis(500),
                ..Policy::default()
            })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_13_the_frontier_passes_a_task_that_runs_long_and_its_result_removes_its_row() {
    let scene = Scene::new("engine_long", 1).await;
    let events: Vec<TaskEvent> = (0..100)
        .map(|n| event("step", Some(&format!("k{}", n % 10)), n))
        .collect();
    scene.send(&events).await;
    let trail = Trail::default();
    // Longer than the client may go without a poll: the worker polls on, and stays in its group.
    let flags = ["-X", "max.poll.interval.ms=6000"];
    let worker = scene.work(&flags, slow_first(&trail, Duration::from_secs(10)));
    scene.until(SUCCESSES, 90).await;
    scene.until(RUNNING, 1).await;
    let reported = "SELECT count(*) FROM task_progress WHERE state = 'processing' AND fraction = 0.25 AND note = 'under way'";
    scene.until(reported, 1).await;
    scene.until(SUCCESSES, 100).await;
    scene.until(PARKED, 0).await;
    scene.until(PROGRESS, 0).await;
    assert_eq!(scene.number(POSITION).await, 100);
    assert_eq!(trail.count(), 100, "no attempt was made twice");
    assert_eq!(worker.stop(), 0);
    trail.assert_key_order();
    trail.assert_one_at_a_time();
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_13_a_long_task_whose_worker_is_killed_runs_again_before_those_behind_it() {
    let scene = Scene::new("engine_long_kill", 1).await;
    let events: Vec<TaskEvent> = (0..20).map(|n| event("step", Some("k"), n)).collect();
    scene.send(&events).await;
    let trail = Trail::default();
    let worker = scene.work(&[], slow_first(&trail, Duration::from_secs(3_600)));
    scene.until(RUNNING, 1).await;
    worker.kill();
    let worker = scene.work(&[], slow_first(&trail, Duration::from_millis(50)));
    scene.until(SUCCESSES, 20).await;
    scene.until(PARKED, 0).await;
    assert_eq!(worker.stop(), 0);
    assert_eq!(trail.times(0), 2);
    trail.assert_key_order();
    assert_eq!(scene.number(RESULTS).await, 20);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_another_attempt_is_shown_while_it_lasts() {
    let scene = Scene::new("engine_retrying", 1).await;
    scene.send(&[event("step", Some("k"), 0)]).await;
    let trail = Trail::default();
    let entering = trail.clone();
    let worker = scene.work(&[], move |worker| {
        worker.register("step", move |task: Numbered, context: Context| {
            let running = entering.enter(&context, task.n);
            async move {
                let _running = running;
                if context.attempt() == 1 {
                    return Err(TaskError::retry("not yet").after(Duration::from_secs(4)));
                }
                Ok(task.n)
            }
        })
    });
    until("the first attempt", || trail.count() == 1).await;
    scene
        .until("SELECT count(*) FROM task_progress WHERE state = 'retrying' AND next_attempt_at > now()", 1)
        .await;
    scene.until(SUCCESSES, 1).await;
    scene.until(PROGRESS, 0).await;
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}
