//! How a worker ends: idle, drained, out of time, or at once.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sqlx::{Connection as _, PgConnection};

use super::events::events;
use super::scene::Scene;

/// A lock that lets no flush through while it is held.
pub async fn hold_up_flushes(connection: &mut PgConnection) -> sqlx::PgTransaction<'_> {
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("LOCK TABLE task_results IN SHARE MODE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_ends_with_0_once_everything_is_written() {
    let scene = Scene::embedded("ends_idle", 4).await;
    scene.send_each(4, 1_000).await;
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 0, "{}", ended.words);
    let books = scene.balanced_books();
    assert_eq!((books.results, books.lag), (4_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_topic_is_idle() {
    let scene = Scene::embedded("empty_topic", 4).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.balanced_books().results, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_signal_ends_at_once_and_what_was_not_written_is_read_again() {
    let scene = Scene::embedded("second_signal", 2).await;
    let mut connection = scene.database().await;
    let lock = hold_up_flushes(&mut connection).await;
    scene.send_each(2, 100).await;
    let mut worker = scene.worker(&[]);
    worker
        .until_metric("millrace_inflight_events", &[], |held| held > 0.0)
        .await;
    worker.signal(Signal::SIGTERM);
    worker.until_said("stopping").await;
    let began = Instant::now();
    assert_eq!(worker.stop().await, 130);
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(lock);
    connection.close().await.unwrap();
    assert_eq!(scene.results().await, 0);
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.balanced_books().results, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_misses_its_deadline_ends_with_130() {
    let scene = Scene::embedded("drain_deadline", 1).await;
    let mut connection = scene.database().await;
    let lock = hold_up_flushes(&mut connection).await;
    scene.send_to(0, &events(100)).await;
    let mut worker = scene.worker(&["--shutdown-deadline", "1s"]);
    worker
        .until_metric("millrace_inflight_events", &[], |held| held > 0.0)
        .await;
    assert_eq!(worker.stop().await, 130, "{}", worker.words());
    drop(lock);
    connection.close().await.unwrap();
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.balanced_books().results, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_its_database_ends_at_the_first_signal() {
    let scene = Scene::embedded("no_database", 1).await;
    let mut command = scene.worker_command(&[]);
    command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere");
    let mut worker = super::worker::Worker::start(command);
    worker.until_said("the database is not available").await;
    assert_eq!(worker.get("/healthz").await.0, 200, "waiting is not death");
    assert_eq!(worker.get("/readyz").await.0, 503);
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
}

#[tokio::test(flavor = "multi_thread")]
async fn started_at_the_latest_a_new_group_reads_only_what_comes_from_then_on() {
    let scene = Scene::embedded("start_latest", 2).await;
    scene.send_each(2, 100).await;
    assert_eq!(scene.drain(&["--start", "latest"]).await.code, 0);
    assert_eq!(scene.results().await, 0);
    scene.send_each(2, 50).await;
    assert_eq!(scene.drain(&["--start", "latest"]).await.code, 0);
    let books = scene.balanced_books();
    assert_eq!((books.results, books.gaps, books.lost), (100, 0, 0));
    let firsts = "SELECT count(*) FROM partition_progress WHERE first_offset = 100";
    assert_eq!(scene.number(firsts).await, 2);
}
