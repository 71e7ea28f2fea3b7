//! Law 4: tasks of one key start one after another in log order, also through retries and parking.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_consumer::{Context, Policy, TaskError};
use serde::Deserialize;

use super::scene::{PARKED, RESULTS, SUCCESSES, Scene, event};

#[derive(Deserialize)]
struct Numbered {
    n: usize,
}

/// Which tasks ended well, by key, in order.
type Seen = Arc<Mutex<HashMap<String, Vec<usize>>>>;

fn note(seen: &Seen, context: &Context, n: usize) {
    let key = context.key().unwrap_or_default().to_owned();
    seen.lock().unwrap().entry(key).or_default().push(n);
}

fn assert_in_order(seen: &Seen, keys: usize, each: usize) {
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), keys);
    for (key, order) in seen.iter() {
        assert_eq!(order.len(), each, "{key}: {order:?}");
        assert!(order.is_sorted(), "{key}: {order:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_one_key_end_in_log_order_and_all_have_results() {
    let scene = Scene::new("engine_order", 2).await;
    let events: Vec<_> = (0..600)
        .map(|n| event("step", Some(&format!("key-{}", n % 20)), n))
        .collect();
    scene.send(&events).await;
    let seen = Seen::default();
    let noting = seen.clone();
    let worker = scene.work(&[], |worker| {
        worker.register("step", move |task: Numbered, context: Context| {
            let seen = noting.clone();
            async move {
                if task.n.is_multiple_of(3) {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                note(&seen, &context, task.n);
                Ok::<_, TaskError>(task.n)
            }
        })
    });
    scene.until(SUCCESSES, 600).await;
    assert_eq!(worker.stop(), 0);
    assert_in_order(&seen, 20, 30);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_task_fails_waits_for_it_in_memory_and_in_the_database() {
    for park_after in [Duration::from_secs(60), Duration::ZERO] {
        let scene = Scene::new("engine_retry", 1).await;
        let events: Vec<_> = (0..200)
            .map(|n| event("step", Some(&format!("key-{}", n % 10)), n))
            .collect();
        scene.send(&events).await;
        let seen = Seen::default();
        let noting = seen.clone();
        let worker = scene.work(&[], |worker| {
            worker
                .register("step", move |task: Numbered, context: Context| {
                    let seen = noting.clone();
                    async move {
                        if task.n.is_multiple_of(7) && context.attempt() < 3 {
                            return Err(TaskError::retry("not yet"));
                        }
                        note(&seen, &context, task.n);
                        Ok(task.n)
                    }
                })
                .with(Policy {
                    backoff_base: Duration::from_millis(30),
                    backoff_cap: Duration::from_millis(50),
                    park_after,
                    ..Policy::default()
                })
        });
        scene.until(RESULTS, 200).await;
        scene.until(PARKED, 0).await;
        assert_eq!(worker.stop(), 0);
        assert_in_order(&seen, 10, 20);
        scene.assert_books().await;
    }
}
