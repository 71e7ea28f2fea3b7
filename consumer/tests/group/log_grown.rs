//! Partitions that were added: keys have moved, so the new ones wait for a decision.

use super::events::events;
use super::scene::{Scene, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_stop_and_the_old_ones_go_on_until_the_new_ones_are_taken_in() {
    let Some(scene) = Scene::apache("grown_live", 2).await else {
        return;
    };
    scene.send_each(2, 10).await;
    let mut worker = scene.worker(&["-X", "topic.metadata.refresh.interval.ms=1000"]);
    scene.until_results(20).await;
    scene
        .topics()
        .increase_partitions(&scene.topic, 4)
        .await
        .unwrap();
    scene.send_each(4, 10).await;
    worker.until_said("partition 3 is new").await;
    scene.until_results(40).await;
    eventually("not ready", async || {
        (worker.get("/readyz").await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(
        (scene.position(2).await, scene.position(3).await),
        (None, None)
    );
    assert!(scene.stopped(2).unwrap().contains("is new"));
    scene.set_position("2", "earliest");
    scene.until_results(50).await;
    assert_eq!(scene.position(3).await, None);
    scene.set_position("3", "earliest");
    scene.until_results(60).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
    assert_eq!(scene.balanced_books().results, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_added_between_two_runs_stop_a_fresh_start() {
    let Some(scene) = Scene::apache("grown_fresh", 1).await else {
        return;
    };
    scene.send_to(0, &events(10)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene
        .topics()
        .increase_partitions(&scene.topic, 2)
        .await
        .unwrap();
    scene.send_each(2, 10).await;
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 3, "{}", ended.words);
    assert_eq!(scene.results().await, 20);
    scene.set_position("1", "earliest");
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.balanced_books().results, 30);
}
