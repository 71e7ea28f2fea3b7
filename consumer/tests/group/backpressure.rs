//! A database that is slow or away: the worker waits, stays small, and stays in the group.

use super::endings::hold_up_flushes;
use super::events::{Raw, event, framed};
use super::scene::{Scene, eventually};

use millrace_schemas::Framing;

/// What the worker may hold beyond its limit: a last drain, and one record a tick until it pauses.
const OVERSHOOT: f64 = 100.0;

#[tokio::test(flavor = "multi_thread")]
async fn while_nothing_can_be_written_memory_is_bounded_and_the_group_keeps_the_worker() {
    let scene = Scene::embedded("held_back", 4).await;
    let producer = scene.producer(&[]);
    for partition in 0..4 {
        let records: Vec<Raw> = (0..1_500)
            .map(|n| {
                let mut event = event(n);
                event.payload = format!("\"{}\"", "x".repeat(500)).into_bytes();
                Raw::of(&framed(&event, Framing::SingleObject))
            })
            .collect();
        scene.send_raw(&producer, partition, &records).await;
    }
    let mut connection = scene.database().await;
    let lock = hold_up_flushes(&mut connection).await;
    let mut worker = scene.worker(&["--max-in-flight", "100", "-X", "max.poll.interval.ms=2000"]);
    let hard = ["pressure=\"hard\""];
    worker
        .until_metric("millrace_backpressure_seconds_total", &hard, |v| v > 6.0)
        .await;
    let held = worker
        .metric("millrace_inflight_events", &[])
        .await
        .unwrap();
    assert!(
        (100.0..=100.0 + OVERSHOOT).contains(&held),
        "{held} events held"
    );
    assert!(worker.memory() < 150 << 20, "{} bytes", worker.memory());
    assert_eq!(worker.get("/healthz").await.0, 200);
    assert_eq!(scene.owners(4).await, Some(1));
    lock.rollback().await.unwrap();
    scene.until_results(6_000).await;
    for words in ["revoked:", "lost:", "thrown out"] {
        assert!(!worker.said(words), "{}", worker.words());
    }
    assert_eq!(worker.stop().await, 0);
    assert_eq!(scene.balanced_books().results, 6_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_and_comes_back_is_waited_for() {
    let mut scene = Scene::with_own_postgres(4).await;
    scene.send_each(4, 200).await;
    let mut worker = scene.worker(&["-X", "max.poll.interval.ms=2000"]);
    scene.until_results(800).await;
    scene.own_postgres().stop().await.unwrap();
    scene.send_each(4, 200).await;
    worker.until_said("the database is not available").await;
    eventually("not ready", async || {
        (worker.get("/readyz").await.0 == 503).then_some(())
    })
    .await;
    scene.own_postgres().start_again().await.unwrap();
    scene.until_results(1_600).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
    let books = scene.balanced_books();
    assert_eq!(
        (books.results, books.dead_letters, books.duplicates),
        (1_600, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_budget_lets_every_partition_through() {
    let scene = Scene::embedded("small_budget", 8).await;
    scene.send_each(8, 200).await;
    let ended = scene
        .drain(&["--max-in-flight", "100", "--max-in-flight-mib", "1"])
        .await;
    assert_eq!(ended.code, 0, "{}", ended.words);
    assert_eq!(scene.balanced_books().results, 1_600);
}
