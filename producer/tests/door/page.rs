//! The page for people, and the overview that it shows.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::access::key;
use crate::scene::{DEADLINE, Door, Scene, assert_problem, parts};

/// Asks as a key's holder until the latest failures are as many as expected.
async fn overview(door: &Door, key: Option<&str>, failures: usize) -> Value {
    let began = Instant::now();
    loop {
        let mut request = door.get("/v1/overview");
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let (status, body) = parts(request.send().await.unwrap()).await;
        assert_eq!(status, 200, "{body}");
        if body["failures"].as_array().unwrap().len() == failures {
            return body;
        }
        assert!(began.elapsed() < DEADLINE, "{body}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_whole_in_itself_and_its_figures_are_those_of_the_tables() {
    let scene = Scene::new("page").await;
    let door = scene.open(&[]);
    let _worker = scene.work();
    let page = door.get("/").send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let text = page.text().await.unwrap();
    assert!(!text.contains("src=\"http") && !text.contains("href=\"http"));

    for payload in 0..3 {
        let id = door
            .submit(&json!({"type": "echo", "payload": payload}))
            .await;
        door.until(&id, "success").await;
    }
    let id = door.submit(&json!({"type": "refuse", "payload": 7})).await;
    door.until(&id, "failed").await;
    let shown = overview(&door, None, 1).await;
    assert_eq!(
        [
            &shown["owners"],
            &shown["owned"],
            &shown["dead_letters_open"]
        ],
        [&json!(1), &shown["partitions"], &json!(1)],
        "{shown}"
    );
    let failure = &shown["failures"][0];
    assert_eq!(
        [
            &failure["task_id"],
            &failure["task_type"],
            &failure["reason"]
        ],
        [&json!(id), &json!("refuse"), &json!("permanent")]
    );
    assert!(failure["error"].as_str().unwrap().contains("never 7"));

    // With keys it takes the scope for it, and nobody sees the failures of others.
    let (_, acme) = key(&scene, "acme", "submit,read,admin");
    let (_, reader) = key(&scene, "acme", "submit,read");
    let began = Instant::now();
    // The front door hears of new keys one after the other.
    let refused = loop {
        let asked = door.get("/v1/overview").bearer_auth(&reader);
        let answer = asked.send().await.unwrap();
        if answer.status() == 403 {
            break answer;
        }
        assert!(began.elapsed() < DEADLINE, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_problem(refused, 403, "forbidden").await;
    let keyless = door.get("/v1/overview").send().await.unwrap();
    assert_problem(keyless, 401, "unauthorized").await;
    overview(&door, Some(&acme), 0).await;
    let submit = door.post("/v1/task/submit").bearer_auth(&acme);
    let submit = submit.json(&json!({"type": "refuse", "payload": 8}));
    let (_, body) = parts(submit.send().await.unwrap()).await;
    let shown = overview(&door, Some(&acme), 1).await;
    assert_eq!(shown["failures"][0]["task_id"], body["task_id"]);
    assert_eq!(shown["failures"][0]["tenant"], "acme");
}
