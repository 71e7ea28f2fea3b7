//! How a task can end, and what is left of each ending in the tables.

use std::time::Duration;

use millrace_consumer::{Context, Output, Payload, Policy, TaskError};
use millrace_schemas::TaskEvent;
use sqlx::Row as _;

use super::scene::{RESULTS, SUCCESSES, Scene, event};
use super::trail::{Numbered, Trail};

const DEAD: &str = "SELECT count(*) FROM dead_letters";

async fn letters(scene: &Scene) -> Vec<(String, i16)> {
    let mut connection = scene.connect().await;
    sqlx::query(
        "SELECT d.reason, r.attempts FROM dead_letters d JOIN task_results r USING (task_id) \
         WHERE r.status = 'failed' AND r.error IS NOT NULL AND d.attempts = r.attempts ORDER BY d.\"offset\"",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
    .iter()
    .map(|row| (row.get(0), row.get(1)))
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_returns_is_the_result_of_its_task() {
    let scene = Scene::new("engine_results", 1).await;
    let worker = scene.work(&[], |worker| {
        worker
            .register("typed", |task: Numbered| async move {
                Ok::<_, TaskError>(serde_json::json!({ "twice": task.n * 2 }))
            })
            .register_raw("raw", |payload: Payload, _: Context| async move {
                Ok::<_, TaskError>(Output {
                    content_type: "application/octet-stream".into(),
                    body: payload.iter().rev().copied().collect(),
                })
            })
            .register_blocking("blocking", |task: Numbered, _: Context| {
                Ok::<_, TaskError>(task.n + 1)
            })
    });
    scene
        .send(&[
            event("typed", None, 21),
            event("raw", None, 7),
            event("blocking", None, 41),
        ])
        .await;
    scene.until(SUCCESSES, 3).await;
    for query in [
        "SELECT count(*) FROM task_results WHERE task_type = 'typed' AND result::jsonb = '{\"twice\":42}' \
         AND result_bytes IS NULL AND attempts = 1 AND run = 0",
        "SELECT count(*) FROM task_results WHERE task_type = 'raw' AND result IS NULL \
         AND result_bytes = convert_to('}7:\"n\"{', 'UTF8') AND content_type = 'application/octet-stream'",
        "SELECT count(*) FROM task_results WHERE task_type = 'blocking' AND result::text = '42'",
    ] {
        assert_eq!(scene.number(query).await, 1, "{query}");
    }
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_succeed_is_a_dead_letter_with_its_reason_and_a_failed_result() {
    let scene = Scene::new("engine_dead", 1).await;
    let trail = Trail::default();
    let entering = trail.clone();
    let quick = Policy {
        max_attempts: 3,
        backoff_base: Duration::from_millis(10),
        backoff_cap: Duration::from_millis(10),
        ..Policy::default()
    };
    let worker = scene.work(&[], move |worker| {
        worker
            .register("step", move |task: Numbered, context: Context| {
                let running = entering.enter(&context, task.n);
                async move {
                    let _running = running;
                    match task.n {
                        0 => Err(TaskError::permanent("cannot be")),
                        1 => Err(TaskError::retry("never works")),
                        2 => panic!("a defect"),
                        3 => Err(TaskError::permanent("a NUL: \0 and \u{feff}")),
                        4 => Ok("x".repeat(2_000_000)),
                        _ => Ok("fine".to_owned()),
                    }
                }
            })
            .with(quick)
    });
    let mut events: Vec<TaskEvent> = (0..5).map(|n| event("step", Some("k"), n)).collect();
    events.push(event("nobody's", Some("k"), 5));
    events.push(TaskEvent {
        payload: b"{\"n\":\"text\"}".to_vec(),
        ..event("step", Some("k"), 6)
    });
    events.push(event("step", Some("k"), 7));
    scene.send(&events).await;
    scene.until(SUCCESSES, 1).await;
    scene.until(RESULTS, 8).await;
    let found = letters(&scene).await;
    let found: Vec<(&str, i16)> = found
        .iter()
        .map(|(reason, n)| (reason.as_str(), *n))
        .collect();
    assert_eq!(
        found,
        [
            ("permanent", 1),
            ("attempts_exhausted", 3),
            ("attempts_exhausted", 3),
            ("permanent", 1),
            ("permanent", 1),
            ("unknown_type", 0),
            ("permanent", 1),
        ]
    );
    assert_eq!(trail.times(1), 3);
    assert_eq!(trail.times(2), 3);
    assert_eq!(worker.stop(), 0);
    trail.assert_key_order();
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgres_would_refuse_ends_without_harm_to_others() {
    let scene = Scene::new("engine_refused", 1).await;
    let worker = scene.work(&[], |worker| {
        worker.register_raw("raw", |payload: Payload, _: Context| async move {
            let (content_type, body): (&str, Vec<u8>) = match &payload[..] {
                b"{\"n\":0}" => ("text/pl\0ain", b"a NUL in the media type".to_vec()),
                b"{\"n\":1}" => ("application/json", b"{not json".to_vec()),
                b"{\"n\":2}" => ("application/json", "[".repeat(100_000).into_bytes()),
                b"{\"n\":3}" => ("application/json", b"\"a \\u0000\"".to_vec()),
                b"{\"n\":4}" => ("text/plain", vec![0, 159, 146, 150]),
                _ => ("text/plain", b"fine".to_vec()),
            };
            Ok::<_, TaskError>(Output {
                content_type: content_type.to_owned().into(),
                body: body.into(),
            })
        })
    });
    let mut events: Vec<TaskEvent> = (0..100)
        .map(|n| event("raw", Some(&format!("{}", n % 9)), n))
        .collect();
    events.push(TaskEvent {
        tenant: "a\0b".to_owned(),
        ..event("raw", Some("k"), 100)
    });
    events.push(TaskEvent {
        content_type: "te\0xt".to_owned(),
        ..event("raw", Some("k"), 101)
    });
    events.push(event("raw", Some("k\0k"), 102));
    scene.send(&events).await;
    let ended = "SELECT (SELECT count(*) FROM task_results WHERE status = 'success') \
                 + (SELECT count(*) FROM dead_letters)";
    scene.until(ended, 103).await;
    println!("dead letters: {}", scene.number(DEAD).await);
    assert!(scene.number(DEAD).await <= 4);
    assert_eq!(worker.stop(), 0);
    scene.assert_books().await;
}
