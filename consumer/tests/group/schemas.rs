//! Schemas that nobody here knows: such records are early, not broken, so their partition waits.

use millrace_schemas::{CURRENT_SCHEMA, Decoders, Framing, TaskEvent};

use super::events::{Raw, event, events, framed};
use super::scene::{Scene, eventually};

/// Tomorrow's schema: today's with one text more.
fn newer_schema() -> (String, u64) {
    let mut schema: serde_json::Value = serde_json::from_str(CURRENT_SCHEMA).unwrap();
    let field = serde_json::json!({"name": "note", "type": "string", "default": ""});
    schema["fields"].as_array_mut().unwrap().push(field);
    let text = schema.to_string();
    let fingerprint = Decoders::new().learn(&text).unwrap();
    (text, fingerprint)
}

/// A record of it: the new field comes last, and holds `hi`.
fn newer_record(event: &TaskEvent) -> Raw {
    let (_, fingerprint) = newer_schema();
    let today = framed(event, Framing::SingleObject);
    let value = [
        &[0xC3, 0x01],
        &fingerprint.to_le_bytes()[..],
        &today[10..],
        b"\x04hi",
    ]
    .concat();
    Raw::of(&value)
}

/// Three known records, two newer ones, and three known ones.
async fn send_mixed(scene: &Scene) {
    scene.send_to(0, &events(3)).await;
    let newer = [newer_record(&event(3)), newer_record(&event(4))];
    scene.send_raw(&scene.producer(&[]), 0, &newer).await;
    scene.send_to(0, &events(3)).await;
}

async fn publish(scene: &Scene) {
    let (text, fingerprint) = newer_schema();
    let mut connection = scene.database().await;
    sqlx::query("INSERT INTO schemas_known (fingerprint, schema_json) VALUES ($1, $2)")
        .bind(fingerprint.cast_signed())
        .bind(text)
        .execute(&mut connection)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_schema_stops_its_partition_alone_until_it_is_published() {
    let scene = Scene::embedded("unknown_schema", 2).await;
    send_mixed(&scene).await;
    scene.send_to(1, &events(5)).await;
    let mut worker = scene.worker(&[]);
    scene.until_results(8).await;
    worker.until_said("stands still").await;
    let (_, fingerprint) = newer_schema();
    let hex = format!("{fingerprint:016x}");
    assert!(
        worker.words().to_lowercase().contains(&hex),
        "{}",
        worker.words()
    );
    worker
        .until_metric("millrace_partition_stopped", &["partition=\"0\""], |v| {
            v == 1.0
        })
        .await;
    eventually("not ready, and why", async || {
        let (status, page) = worker.get("/readyz").await;
        (status == 503 && page.to_lowercase().contains(&hex)).then_some(())
    })
    .await;
    scene.send_to(1, &events(5)).await;
    scene.until_results(13).await;
    assert_eq!(scene.position(0).await, Some(3));

    publish(&scene).await;
    scene.until_results(18).await;
    worker
        .until_metric("millrace_partition_stopped", &["partition=\"0\""], |v| {
            v == 0.0
        })
        .await;
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
    let books = scene.audit(&[]);
    assert_eq!(books.code, 0, "{}", books.words);
    let numbers =
        "SELECT sum((result->>'n')::bigint)::bigint FROM task_results WHERE partition = 0";
    assert_eq!(scene.number(numbers).await, 3 + 7 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_before_an_unknown_schema_says_that_it_needs_a_decision() {
    let scene = Scene::embedded("schema_exit_3", 1).await;
    send_mixed(&scene).await;
    for _ in 0..2 {
        let ended = scene.drain(&[]).await;
        assert_eq!(ended.code, 3, "{}", ended.words);
        assert!(ended.words.contains("consumer migrate"), "{}", ended.words);
        assert_eq!(
            (scene.position(0).await, scene.results().await),
            (Some(3), 3)
        );
    }
    publish(&scene).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.results().await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deep_audit_reads_records_of_a_published_schema() {
    let scene = Scene::embedded("deep_published", 1).await;
    send_mixed(&scene).await;
    publish(&scene).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.balanced_books().results, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn confluent_framing_is_read_under_its_schema_id_and_waited_for_under_another() {
    let scene = Scene::embedded("confluent", 1).await;
    let framing = Framing::Confluent { schema_id: 7 };
    let records: Vec<Raw> = (0..4)
        .map(|n| Raw::of(&framed(&event(n), framing)))
        .collect();
    scene.send_raw(&scene.producer(&[]), 0, &records).await;
    for flags in [&[][..], &["--schema-id", "8"]] {
        let ended = scene.drain(flags).await;
        assert_eq!(ended.code, 3, "{}", ended.words);
        assert!(ended.words.contains('7'), "{}", ended.words);
        assert!(ended.words.contains("--schema-id"), "{}", ended.words);
        assert_eq!(scene.results().await, 0);
    }
    scene.send_to(0, &events(2)).await;
    assert_eq!(scene.drain(&["--schema-id", "7"]).await.code, 0);
    let ended = scene.audit(&["--deep", "--schema-id", "7"]);
    assert_eq!(ended.code, 0, "{}", ended.words);
    assert_eq!(super::books::books(&ended).results, 6);
}
