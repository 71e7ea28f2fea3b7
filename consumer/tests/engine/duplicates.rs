//! Finding 9: a handler does not run for a repeat of a task, wherever the first one is.

use std::time::Duration;

use millrace_consumer::{Context, Policy, TaskError, Worker};
use millrace_schemas::TaskEvent;

use super::scene::{PARKED, SUCCESSES, Scene, event, until};
use super::trail::{Numbered, Trail};

const DUPLICATES: &str = "SELECT coalesce(sum(duplicates), 0)::bigint FROM partition_progress";
const PASSED: &str = "SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_progress";

/// A repeat is another event with the same key, deduplication key and payload; `n` names the request.
fn request(dedup: &str, n: usize) -> TaskEvent {
    TaskEvent {
        dedup_key: Some(dedup.to_owned()),
        reply: true,
        ..event("step", Some("k"), n)
    }
}

fn handler(
    trail: &Trail,
    attempt: impl Fn(u16) -> Result<u16, TaskError> + Clone + Send + Sync + 'static,
) -> impl FnOnce(Worker) -> Worker {
    let trail = trail.clone();
    move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = trail.enter(&context, task.n);
                let attempt = attempt.clone();
                async move {
                    let _running = running;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    attempt(context.attempt())
                }
            })
            .with(Policy {
                park_after: Duration::from_millis(100),
                ..Policy::default()
            })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_9_a_repeat_of_a_task_in_flight_does_not_run_and_points_to_the_first() {
    let scene = Scene::new("engine_repeats", 1).await;
    let mut events = Vec::new();
    for n in 0..20 {
        events.extend((0..3).map(|_| request(&format!("request {n}"), n)));
    }
    scene.send(&events).await;
    let trail = Trail::default();
    let worker = scene.work(&[], handler(&trail, Ok));
    scene.until(DUPLICATES, 40).await;
    let pointing = "SELECT count(*) FROM task_results r JOIN task_results f ON f.task_id = r.duplicate_of \
                    WHERE f.duplicate_of IS NULL AND f.status = r.status";
    scene.until(pointing, 40).await;
    assert_eq!(trail.count(), 20);
    // Long after the first, from the table alone.
    scene.send(&[request("request 7", 7)]).await;
    scene.until(DUPLICATES, 41).await;
    assert_eq!(trail.count(), 20);
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_9_a_repeat_of_a_parked_task_does_not_run_also_after_a_kill() {
    let scene = Scene::new("engine_repeats_parked", 1).await;
    let trail = Trail::default();
    let later = |attempt| match attempt {
        1 => Err(TaskError::retry("later").after(Duration::from_secs(6))),
        attempt => Ok(attempt),
    };
    let worker = scene.work(&[], handler(&trail, later));
    scene.send(&[request("one", 1), request("one", 1)]).await;
    scene.until(PARKED, 1).await;
    scene.until(DUPLICATES, 1).await;
    scene.send(&[request("one", 1)]).await;
    scene.until(DUPLICATES, 2).await;
    worker.kill();
    scene.send(&[request("one", 1)]).await;
    let worker = scene.work(&[], handler(&trail, later));
    scene.until(DUPLICATES, 3).await;
    scene.until(SUCCESSES, 4).await;
    scene.until(PARKED, 0).await;
    assert_eq!(
        trail.count(),
        2,
        "two attempts at the first, none at its repeats"
    );
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_9_another_request_under_a_used_key_is_a_dead_letter_and_does_not_run() {
    let scene = Scene::new("engine_dedup_conflict", 1).await;
    let trail = Trail::default();
    let worker = scene.work(&[], handler(&trail, Ok));
    // The same key of a request with other content, in flight and later.
    scene.send(&[request("one", 1), request("one", 2)]).await;
    let conflicts = "SELECT count(*) FROM dead_letters WHERE reason = 'dedup_conflict'";
    scene.until(conflicts, 1).await;
    scene.send(&[request("one", 3)]).await;
    scene.until(conflicts, 2).await;
    scene.until(PASSED, 3).await;
    until("all have ended", || trail.running() == 0).await;
    assert_eq!((trail.times(1), trail.count()), (1, 1));
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_9_a_repeat_that_runs_long_has_stopped_before_the_next_of_its_key_starts() {
    let scene = Scene::new("engine_repeats_long", 1).await;
    let trail = Trail::default();
    let entered = trail.clone();
    let worker = scene.work(&[], move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = entered.enter(&context, task.n);
                let is_repeat = task.n == 0 && entered.times(0) > 1;
                async move {
                    let _running = running;
                    if is_repeat {
                        context.cancelled().await;
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                    Ok::<_, TaskError>(task.n)
                }
            })
            .with(Policy {
                run_long_after: Duration::from_millis(100),
                ..Policy::default()
            })
    });
    let first = event("step", Some("k"), 0);
    scene.send(std::slice::from_ref(&first)).await;
    scene.until(SUCCESSES, 1).await;
    // Without a deduplication key only the flush finds a repeat: by its id, when it is parked as running.
    scene.send(&[first, event("step", Some("k"), 1)]).await;
    scene.until(DUPLICATES, 1).await;
    scene.until(SUCCESSES, 2).await;
    until("all have ended", || trail.running() == 0).await;
    assert_eq!((trail.times(0), trail.times(1)), (2, 1));
    trail.assert_one_at_a_time();
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}
