//! What a running worker shows of itself.

use super::events::events;
use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn lag_positions_and_outcomes_can_be_scraped() {
    let scene = Scene::embedded("scraped", 2).await;
    scene.send_each(2, 100).await;
    let mut worker = scene.worker(&[]);
    scene.until_results(200).await;
    let topic = format!("topic=\"{}\"", scene.topic);
    let group = format!("consumergroup=\"{}\"", scene.group);
    for partition in ["partition=\"0\"", "partition=\"1\""] {
        let labels = [group.as_str(), &topic, partition];
        worker
            .until_metric("kafka_consumergroup_lag", &labels, |v| v == 0.0)
            .await;
        worker
            .until_metric("kafka_consumergroup_lag_seconds", &labels, |v| v == 0.0)
            .await;
        let labels = [topic.as_str(), partition];
        worker
            .until_metric("millrace_log_end_offset", &labels, |v| v == 100.0)
            .await;
        worker
            .until_metric("millrace_position_offset", &labels, |v| v == 100.0)
            .await;
        worker
            .until_metric("millrace_committed_offset", &labels, |v| v == 100.0)
            .await;
    }
    let success = ["outcome=\"success\""];
    worker
        .until_metric("millrace_tasks_total", &success, |v| v == 200.0)
        .await;
    worker
        .until_metric("millrace_end_to_end_seconds_count", &[], |v| v == 200.0)
        .await;
    worker
        .until_metric("millrace_partitions_owned", &[], |v| v == 2.0)
        .await;
    worker
        .until_metric("millrace_build_info", &[], |v| v == 1.0)
        .await;
    assert_eq!(worker.get("/nothing").await.0, 404);
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_ready_when_it_has_claimed_its_partitions() {
    let scene = Scene::embedded("ready", 2).await;
    let mut worker = scene.worker(&[]);
    super::scene::eventually("ready", async || {
        (worker.get("/readyz").await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(scene.owners(2).await, Some(1));
    assert_eq!(worker.get("/healthz").await.0, 200);
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_shown_while_nothing_can_be_written() {
    let scene = Scene::embedded("lagging", 1).await;
    let mut connection = scene.database().await;
    let lock = super::endings::hold_up_flushes(&mut connection).await;
    scene.send_to(0, &events(500)).await;
    let mut worker = scene.worker(&[]);
    worker
        .until_metric("kafka_consumergroup_lag", &[], |v| v == 500.0)
        .await;
    worker
        .until_metric("kafka_consumergroup_lag_seconds", &[], |v| v > 1.0)
        .await;
    lock.rollback().await.unwrap();
    worker
        .until_metric("kafka_consumergroup_lag", &[], |v| v == 0.0)
        .await;
    worker
        .until_metric("kafka_consumergroup_lag_seconds", &[], |v| v == 0.0)
        .await;
    assert_eq!(worker.stop().await, 0);
    assert_eq!(scene.balanced_books().results, 500);
}
