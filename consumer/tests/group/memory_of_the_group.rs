//! Kafka remembers more than Postgres: a database that went back in time, or lost its table.

use super::events::events;
use super::scene::Scene;

/// Keeps the tables as they are now.
const BACKUP: &str = "CREATE TABLE kept_progress AS SELECT * FROM partition_progress";
/// Puts the database back to where it was: rows that came since are gone.
const RESTORE: &str = "\
    BEGIN; \
    DELETE FROM task_results r USING kept_progress k \
      WHERE r.partition = k.partition AND r.\"offset\" >= k.next_offset; \
    DELETE FROM partition_progress; \
    INSERT INTO partition_progress SELECT * FROM kept_progress; \
    COMMIT";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_between_two_runs_stops_a_fresh_start() {
    let Some(scene) = Scene::apache("restored_fresh", 1).await else {
        return;
    };
    scene.send_to(0, &events(100)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene.execute(BACKUP).await;
    scene.send_to(0, &events(100)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene.execute(RESTORE).await;
    assert_eq!(scene.results().await, 100);
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 3, "{}", ended.words);
    let why = scene.stopped(0).unwrap();
    assert!(why.contains("went back to an older state"), "{why}");
    assert!(why.contains("--to 100"), "{why}");
    scene.set_position("0", "100");
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 0, "{}", ended.words);
    assert_eq!(scene.results().await, 200);
    let books = scene.balanced_books();
    assert_eq!(
        (books.results, books.lag),
        (100, 0),
        "the open book begins at 100"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_back_under_a_running_worker_is_read_up_again() {
    let Some(scene) = Scene::apache("restored_live", 1).await else {
        return;
    };
    scene.send_to(0, &events(100)).await;
    let mut worker = scene.worker(&["-X", "auto.commit.interval.ms=100"]);
    scene.until_position(0, 100).await;
    scene.execute(BACKUP).await;
    scene.send_to(0, &events(100)).await;
    scene.until_position(0, 200).await;
    worker
        .until_metric("millrace_committed_offset", &[], |v| v == 200.0)
        .await;
    scene.execute(RESTORE).await;
    scene.send_to(0, &events(50)).await;
    scene.until_position(0, 250).await;
    assert_eq!(scene.results().await, 250);
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
    let books = scene.balanced_books();
    assert_eq!((books.results, books.duplicates, books.lag), (250, 0, 0));
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 0, "{}", ended.words);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_notices_that_its_database_went_back() {
    let Some(scene) = Scene::apache("restored_idle", 1).await else {
        return;
    };
    scene.send_to(0, &events(100)).await;
    let mut worker = scene.worker(&["-X", "auto.commit.interval.ms=100"]);
    scene.until_position(0, 100).await;
    scene.execute(BACKUP).await;
    scene.send_to(0, &events(100)).await;
    scene.until_position(0, 200).await;
    scene.execute(RESTORE).await;
    scene.until_position(0, 200).await;
    assert_eq!(scene.results().await, 200);
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
    assert_eq!(scene.balanced_books().results, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_table_stops_the_partition_instead_of_starting_over() {
    let Some(scene) = Scene::apache("lost_table", 2).await else {
        return;
    };
    scene.send_each(2, 10).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene
        .execute("DELETE FROM partition_progress WHERE partition = 1")
        .await;
    scene.send_each(2, 5).await;
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 3, "{}", ended.words);
    assert_eq!(scene.results().await, 25);
    let why = scene.stopped(1).unwrap();
    assert!(why.contains("the table was lost"), "{why}");
    assert!(why.contains("--to 10"), "{why}");
    scene.set_position("1", "10");
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.results().await, 30);
    assert_eq!(scene.balanced_books().lag, 0);
}
