//! Workers share the partitions of a group, and come and go as they like.

use super::books::Books;
use super::events::events;
use super::scene::{Scene, eventually};

const PARTITIONS: i32 = 6;

fn only_results(results: i64) -> Books {
    Books {
        results,
        ..Books::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_partitions_and_each_event_lands_once() {
    let scene = Scene::embedded("two_workers_share", PARTITIONS).await;
    scene.send_each(PARTITIONS, 200).await;
    let (mut one, mut two) = (scene.worker(&[]), scene.worker(&[]));
    scene.until_owners(PARTITIONS.into(), 2).await;
    scene.send_each(PARTITIONS, 100).await;
    scene.until_results(1_800).await;
    assert_eq!((one.stop().await, two.stop().await), (0, 0));
    assert_eq!(scene.balanced_books(), only_results(1_800));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_worker_that_joins_takes_its_share_while_events_flow() {
    let scene = Scene::embedded("third_worker_joins", PARTITIONS).await;
    let mut workers = vec![scene.worker(&[]), scene.worker(&[])];
    scene.until_owners(PARTITIONS.into(), 2).await;
    workers.push(scene.worker(&[]));
    let mut sent = 0;
    eventually("three owners", async || {
        scene.send_each(PARTITIONS, 20).await;
        sent += 120;
        (scene.owners(PARTITIONS.into()).await == Some(3)).then_some(())
    })
    .await;
    scene.send_each(PARTITIONS, 20).await;
    scene.until_results(sent + 120).await;
    for worker in &mut workers {
        assert_eq!(worker.stop().await, 0);
    }
    assert_eq!(scene.balanced_books(), only_results(sent + 120));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_group_protocol_shares_the_partitions_as_well() {
    let scene = Scene::embedded("kip_848", PARTITIONS).await;
    let worker = || {
        let mut command = scene.command(&["run", "--metrics-listen", "127.0.0.1:0"]);
        command.args([
            "-X",
            "group.protocol=consumer",
            "-X",
            "fetch.wait.max.ms=10",
        ]);
        super::worker::Worker::start(command)
    };
    let (mut one, mut two) = (worker(), worker());
    scene.until_owners(PARTITIONS.into(), 2).await;
    scene.send_each(PARTITIONS, 100).await;
    scene.until_results(600).await;
    assert_eq!(one.stop().await, 0);
    scene.send_each(PARTITIONS, 100).await;
    scene.until_results(1_200).await;
    assert_eq!(two.stop().await, 0);
    assert_eq!(scene.balanced_books(), only_results(1_200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_writes_what_it_took_and_gives_its_claims_back() {
    let scene = Scene::embedded("leaves_clean", PARTITIONS).await;
    scene.send_each(PARTITIONS, 500).await;
    let mut worker = scene.worker(&[]);
    worker.until_said("claimed").await;
    assert_eq!(worker.stop().await, 0);
    let held = "SELECT count(*) FROM partition_progress \
                WHERE claim IS NOT NULL OR owner IS NOT NULL OR unclean_starts <> 0";
    assert_eq!(scene.number(held).await, 0);
    let settled = "SELECT sum(next_offset)::bigint FROM partition_progress";
    assert_eq!(scene.number(settled).await, scene.results().await);
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.balanced_books(), only_results(3_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_hands_over_and_no_record_is_settled_twice() {
    let scene = Scene::embedded("hands_over", PARTITIONS).await;
    let (mut one, mut two) = (scene.worker(&[]), scene.worker(&[]));
    scene.until_owners(PARTITIONS.into(), 2).await;
    scene.send_each(PARTITIONS, 300).await;
    assert_eq!(one.stop().await, 0);
    scene.send_each(PARTITIONS, 100).await;
    scene.until_results(2_400).await;
    assert_eq!(scene.owners(PARTITIONS.into()).await, Some(1));
    assert!(!two.said("disagree"), "{}", two.words());
    assert_eq!(two.stop().await, 0);
    assert_eq!(scene.balanced_books(), only_results(2_400));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_replaced_and_every_event_lands_once() {
    let scene = Scene::embedded("killed", PARTITIONS).await;
    let (mut one, mut two) = (scene.worker(&[]), scene.worker(&[]));
    scene.until_owners(PARTITIONS.into(), 2).await;
    scene.send_each(PARTITIONS, 500).await;
    one.kill().await;
    scene.send_each(PARTITIONS, 100).await;
    scene.until_results(3_600).await;
    scene.until_owners(PARTITIONS.into(), 1).await;
    assert_eq!(two.stop().await, 0);
    assert_eq!(scene.balanced_books(), only_results(3_600));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_workers_on_one_partition_one_works_and_the_others_end_idle() {
    let scene = Scene::embedded("one_partition", 1).await;
    scene.send_to(0, &events(1_000)).await;
    let flags = ["--exit-when-idle", "2s"];
    let mut workers = [
        scene.worker(&flags),
        scene.worker(&flags),
        scene.worker(&flags),
    ];
    for worker in &mut workers {
        assert_eq!(worker.ended().await, 0, "{}", worker.words());
    }
    assert_eq!(scene.balanced_books(), only_results(1_000));
}
