//! Records that cannot become results are set aside with all that is known of them, and the rest
//! flows.

use millrace_schemas::{Framing, TaskId};
use serde_json::Value;

use super::events::{Raw, event, framed};
use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_event_become_dead_letters_and_the_rest_flows() {
    let scene = Scene::embedded("undecodable", 1).await;
    let whole = framed(&event(0), Framing::SingleObject);
    let owner = TaskId::mint().to_string();
    let strangers = [
        Some(b"hello, this is no event".to_vec()),
        Some(whole[..whole.len() - 3].to_vec()),
        Some([&whole[..], b"x"].concat()),
        None,
        Some(Vec::new()),
    ];
    let mut log = Vec::new();
    for (number, value) in strangers.iter().enumerate() {
        log.push(Raw::of(&framed(&event(number), Framing::SingleObject)));
        log.push(Raw {
            value: value.clone(),
            key: Some(format!("key {number}").into_bytes()),
            headers: vec![
                ("task_id", owner.clone()),
                ("tenant", "acme".to_owned()),
                ("colour", "blue".to_owned()),
            ],
        });
    }
    log.push(Raw::of(&framed(&event(9), Framing::SingleObject)));
    scene.send_raw(&scene.producer(&[]), 0, &log).await;
    assert_eq!(scene.drain(&[]).await.code, 0);

    let books = scene.balanced_books();
    assert_eq!((books.results, books.dead_letters), (6, 5));
    let letters = scene
        .texts(
            "SELECT json_build_object('offset', \"offset\", 'reason', reason, 'error', error, \
               'bytes', encode(record_value, 'hex'), 'key', convert_from(record_key, 'UTF8'), \
               'headers', headers, 'task_id', task_id, 'tenant', tenant)::text \
             FROM dead_letters ORDER BY \"offset\"",
        )
        .await;
    for (number, value) in strangers.iter().enumerate() {
        let letter: Value = serde_json::from_str(&letters[number]).unwrap();
        let bytes = value.clone().unwrap_or_default();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(letter["offset"], 2 * number + 1);
        assert_eq!(letter["reason"], "undecodable");
        assert_eq!(letter["bytes"], hex);
        assert_eq!(letter["key"], format!("key {number}"));
        assert_eq!(letter["task_id"], owner);
        assert_eq!(letter["tenant"], "acme");
        assert!(!letter["error"].as_str().unwrap().is_empty());
        assert!(letter["headers"].to_string().contains("colour"), "{letter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_cannot_be_is_a_dead_letter_and_so_is_one_used_for_two_tasks() {
    let scene = Scene::embedded("ids", 1).await;
    let mut old = event(1);
    old.task_id = TaskId::mint_at(1_000_000_000_000);
    let first = event(2);
    let mut reused = event(3);
    reused.task_id = first.task_id;
    scene.send_to(0, &[old, first.clone(), reused, first]).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    let reasons = scene
        .texts("SELECT reason FROM dead_letters ORDER BY \"offset\"")
        .await;
    assert_eq!(reasons, ["id_out_of_range", "id_conflict"]);
    let books = scene.balanced_books();
    assert_eq!((books.results, books.duplicates), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedup_key_lands_once_and_with_other_content_it_is_a_conflict() {
    let scene = Scene::embedded("dedup", 1).await;
    let keyed = |number: usize| {
        let mut event = event(number);
        event.dedup_key = Some("k".to_owned());
        event
    };
    scene.send_to(0, &[keyed(1), keyed(1)]).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene.send_to(0, &[keyed(1), keyed(2)]).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    let books = scene.balanced_books();
    assert_eq!(
        (books.results, books.duplicates, books.dead_letters),
        (1, 2, 1)
    );
    let reasons = scene.texts("SELECT reason FROM dead_letters").await;
    assert_eq!(reasons, ["dedup_conflict"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_is_no_json_keeps_its_bytes() {
    let scene = Scene::embedded("no_json", 1).await;
    let mut broken = event(1);
    broken.payload = b"{\"open\": ".to_vec();
    let mut binary = event(2);
    binary.content_type = "application/octet-stream".to_owned();
    binary.payload = vec![0, 255, 0];
    scene.send_to(0, &[broken, binary]).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    let bytes = scene
        .texts("SELECT encode(result_bytes, 'escape') FROM task_results ORDER BY \"offset\"")
        .await;
    assert_eq!(bytes, ["{\"open\": ", "\\000\\377\\000"]);
    assert_eq!(scene.balanced_books().results, 2);
}
