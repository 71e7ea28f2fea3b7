//! Producers that write in transactions: markers are gaps, and what was aborted never runs.

use std::time::Duration;

use millrace_schemas::Framing;
use rdkafka::producer::{FutureProducer, Producer as _};

use super::events::{Raw, event, framed};
use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(30);

fn records(count: usize) -> Vec<Raw> {
    (0..count)
        .map(|n| Raw::of(&framed(&event(n), Framing::SingleObject)))
        .collect()
}

/// librdkafka's transaction calls block.
async fn blocking<T: Send + 'static>(
    producer: &FutureProducer,
    call: impl FnOnce(FutureProducer) -> rdkafka::error::KafkaResult<T> + Send + 'static,
) -> T {
    let producer = producer.clone();
    tokio::task::spawn_blocking(move || call(producer))
        .await
        .unwrap()
        .unwrap()
}

/// One transaction to partition 0.
async fn transaction(scene: &Scene, producer: &FutureProducer, count: usize, commit: bool) {
    producer.begin_transaction().unwrap();
    scene.send_raw(producer, 0, &records(count)).await;
    if commit {
        blocking(producer, |producer| producer.commit_transaction(PATIENCE)).await;
    } else {
        blocking(producer, |producer| producer.abort_transaction(PATIENCE)).await;
    }
}

async fn transactional(scene: &Scene) -> FutureProducer {
    let producer = scene.producer(&[("transactional.id", &scene.group)]);
    blocking(&producer, |producer| producer.init_transactions(PATIENCE)).await;
    producer
}

#[tokio::test(flavor = "multi_thread")]
async fn markers_are_gaps_and_aborted_records_never_run() {
    let Some(scene) = Scene::apache("transactions", 1).await else {
        return;
    };
    let producer = transactional(&scene).await;
    transaction(&scene, &producer, 10, true).await;
    transaction(&scene, &producer, 7, false).await;
    transaction(&scene, &producer, 10, true).await;
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 0, "{}", ended.words);
    let books = scene.balanced_books();
    assert_eq!((books.results, books.gaps, books.lag), (20, 7 + 3, 0));
    assert_eq!(scene.results().await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_in_markers_and_aborted_records_is_read_to_its_end() {
    let Some(scene) = Scene::apache("trailing", 1).await else {
        return;
    };
    let producer = transactional(&scene).await;
    transaction(&scene, &producer, 5, true).await;
    let mut worker = scene.worker(&[]);
    scene.until_position(0, 6).await;
    worker
        .until_metric("kafka_consumergroup_lag", &[], |v| v == 0.0)
        .await;
    transaction(&scene, &producer, 7, false).await;
    scene.until_position(0, 14).await;
    worker
        .until_metric("kafka_consumergroup_lag", &[], |v| v == 0.0)
        .await;
    assert_eq!(worker.stop().await, 0);
    let books = scene.balanced_books();
    assert_eq!((books.results, books.gaps, books.lag), (5, 9, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_the_position_back_and_nothing_is_lost() {
    let Some(scene) = Scene::apache("open_transaction", 1).await else {
        return;
    };
    let producer = transactional(&scene).await;
    producer.begin_transaction().unwrap();
    scene.send_raw(&producer, 0, &records(5)).await;
    scene.send_raw(&scene.producer(&[]), 0, &records(5)).await;
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 0, "{}", ended.words);
    assert_eq!(
        (scene.results().await, scene.position(0).await),
        (0, Some(0))
    );
    blocking(&producer, |producer| producer.commit_transaction(PATIENCE)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    let books = scene.balanced_books();
    assert_eq!((books.results, books.gaps, books.lag), (10, 1, 0));
}
