//! A log that was cut below the position, or ends before it: what is gone is counted, not stepped
//! over.

use super::events::{Raw, event, events, framed};
use super::scene::{Kafka, Scene};

use millrace_schemas::Framing;

/// More than the embedded broker keeps of a partition, in records that do not compress.
async fn overfill(scene: &Scene) {
    let Kafka::Embedded(broker) = &scene.kafka else {
        panic!("only the embedded broker drops records in silence")
    };
    let producer = scene.producer(&[("batch.size", "100000"), ("linger.ms", "20")]);
    let mut sent = 0;
    while !broker.truncated() {
        let records: Vec<Raw> = (0..100)
            .map(|n| {
                let mut event = event(n);
                let noise: String = (0..300)
                    .map(|_| millrace_schemas::TaskId::mint().to_string())
                    .collect();
                event.payload = format!("\"{noise}\"").into_bytes();
                Raw::of(&framed(&event, Framing::SingleObject))
            })
            .collect();
        scene.send_raw(&producer, 0, &records).await;
        sent += records.len();
        assert!(sent < 10_000, "the broker keeps everything");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_the_broker_dropped_unread_stop_the_partition_and_are_booked_as_lost() {
    let scene = Scene::embedded("dropped", 2).await;
    scene.send_each(2, 10).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    overfill(&scene).await;
    scene.send_to(1, &events(10)).await;

    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 3, "{}", ended.words);
    assert!(
        ended.words.contains("retention passed the position"),
        "{}",
        ended.words
    );
    assert_eq!(
        (scene.position(0).await, scene.position(1).await),
        (Some(10), Some(20))
    );
    let show = scene.run(&["position", "show", "--format", "json"]);
    assert_eq!(show.code, 3, "{}", show.words);
    let start = show.json()[0]["log_start"].as_i64().unwrap();
    assert!(scene.stopped(0).unwrap().contains("position set"));
    assert_eq!(scene.stopped(1), None);

    let moved = scene.set_position("0", "earliest");
    assert_eq!(moved[0]["lost"], start - 10);
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 0, "{}", ended.words);
    let books = scene.balanced_books();
    assert_eq!((books.lost, books.lag), (start - 10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_falls_behind_retention_while_it_runs_stops_and_goes_on_when_told() {
    let Some(scene) = Scene::apache("cut_live", 2).await else {
        return;
    };
    scene.send_each(2, 10).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene.send_each(2, 90).await;
    scene
        .topics()
        .delete_records(&scene.topic, 0, 60)
        .await
        .unwrap();
    let mut worker = scene.worker(&[]);
    worker.until_said("stands still").await;
    scene.until_position(1, 100).await;
    assert_eq!(scene.position(0).await, Some(10));
    assert_eq!(scene.set_position("0", "earliest")[0]["lost"], 50);
    scene.until_position(0, 100).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
    let books = scene.balanced_books();
    assert_eq!((books.results, books.lost), (100 + 10 + 40 - 10, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_stop_a_fresh_start_until_they_are_booked() {
    let Some(scene) = Scene::apache("cut_fresh", 1).await else {
        return;
    };
    scene.send_to(0, &events(10)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene.send_to(0, &events(90)).await;
    scene
        .topics()
        .delete_records(&scene.topic, 0, 60)
        .await
        .unwrap();
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 3, "{}", ended.words);
    assert!(ended.words.contains("offsets 10 to 60"), "{}", ended.words);
    assert_eq!(scene.set_position("all", "earliest")[0]["lost"], 50);
    assert_eq!(scene.drain(&[]).await.code, 0);
    let books = scene.balanced_books();
    assert_eq!((books.results, books.lost, books.lag), (40, 50, 0));
    assert_eq!(scene.results().await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_beyond_the_logs_end_stops_the_partition() {
    let Some(scene) = Scene::apache("beyond_end", 1).await else {
        return;
    };
    scene.send_to(0, &events(10)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    let beyond = "UPDATE partition_progress SET next_offset = 500, high_offset = 500, gaps = 490";
    scene.execute(beyond).await;
    let ended = scene.drain(&[]).await;
    assert_eq!(ended.code, 3, "{}", ended.words);
    assert!(
        scene
            .stopped(0)
            .unwrap()
            .contains("beyond the log's end 10")
    );
    scene.set_position("0", "latest");
    scene.send_to(0, &events(5)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.balanced_books().results, 5);
}
