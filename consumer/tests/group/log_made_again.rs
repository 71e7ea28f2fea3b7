//! A topic that is deleted, and one that is created again under the same name: offsets name other
//! records then, so nothing is read until somebody has decided.

use super::events::events;
use super::scene::{Scene, eventually};

async fn recreate(scene: &Scene, partitions: i32) {
    scene.topics().delete(&scene.topic).await.unwrap();
    scene.create_topic(partitions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_between_two_runs_is_noticed_and_not_skipped() {
    let Some(scene) = Scene::apache("again_between", 2).await else {
        return;
    };
    scene.send_each(2, 10).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    recreate(&scene, 2).await;
    // The new log has passed the old positions: no offset is out of range.
    scene.send_each(2, 30).await;
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 3, "{}", ended.words);
    assert_eq!(scene.results().await, 20);
    for partition in 0..2 {
        let why = scene.stopped(partition).unwrap();
        assert!(why.contains("topic id"), "{why}");
    }
    let one = [
        "position",
        "set",
        "--partition",
        "0",
        "--to",
        "earliest",
        "--reason",
        "r",
    ];
    assert_eq!(
        scene.run(&one).code,
        2,
        "one position alone would mix two logs"
    );
    scene.set_position("all", "earliest");
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.results().await, 80);
    let books = scene.balanced_books();
    assert_eq!((books.results, books.lost, books.lag), (60, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_under_a_running_worker_is_noticed_and_not_skipped() {
    let Some(scene) = Scene::apache("again_live", 2).await else {
        return;
    };
    scene.send_each(2, 10).await;
    let mut worker = scene.worker(&[]);
    scene.until_results(20).await;
    recreate(&scene, 2).await;
    scene.send_each(2, 30).await;
    worker.until_said("the log is another one").await;
    for partition in ["partition=\"0\"", "partition=\"1\""] {
        worker
            .until_metric("millrace_partition_stopped", &[partition], |v| v == 1.0)
            .await;
    }
    assert_eq!(scene.results().await, 20);
    scene.set_position("all", "earliest");
    scene.until_results(80).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
    assert_eq!(scene.balanced_books().results, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_on_a_topic_made_again_needs_a_decision() {
    let Some(scene) = Scene::apache("again_exit_3", 1).await else {
        return;
    };
    scene.send_to(0, &events(10)).await;
    let mut worker = scene.worker(&["--exit-when-idle", "20s"]);
    scene.until_results(10).await;
    recreate(&scene, 1).await;
    scene.send_to(0, &events(5)).await;
    assert_eq!(worker.ended().await, 3, "{}", worker.words());
    assert_eq!(scene.results().await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_under_a_running_worker_is_no_quiet_end() {
    let Some(scene) = Scene::apache("deleted_live", 1).await else {
        return;
    };
    scene.send_to(0, &events(10)).await;
    let mut worker = scene.worker(&["--exit-when-idle", "20s"]);
    scene.until_results(10).await;
    scene.topics().delete(&scene.topic).await.unwrap();
    worker.until_said("does not exist any more").await;
    eventually("not ready", async || {
        (worker.get("/readyz").await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(worker.ended().await, 3, "{}", worker.words());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_with_fewer_partitions_is_another_log() {
    let Some(scene) = Scene::apache("again_fewer", 3).await else {
        return;
    };
    scene.send_each(3, 10).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    recreate(&scene, 1).await;
    scene.send_to(0, &events(5)).await;
    assert_eq!(scene.drain(&[]).await.code, 3);
    scene.set_position("all", "earliest");
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 0, "{}", ended.words);
    assert_eq!(scene.results().await, 35);
}
