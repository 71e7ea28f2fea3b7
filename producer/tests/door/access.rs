//! Who may come in: keys, scopes, tenants, and limits.

use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};

use crate::scene::{DEADLINE, Door, Scene, assert_problem, parts};

pub fn key(scene: &Scene, tenant: &str, scopes: &str) -> (String, String) {
    let made = scene
        .producer(&[
            "keys", "create", "--tenant", tenant, "--scopes", scopes, "--format", "json",
        ])
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

async fn submit(door: &Door, key: &str) -> Response {
    let request = door.post("/v1/task/submit").bearer_auth(key);
    request
        .json(&json!({"type": "echo", "payload": 1}))
        .send()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_never_sees_another_ones_tasks() {
    let scene = Scene::new("door_tenants").await;
    let (_, acme) = key(&scene, "acme", "submit,read,cancel");
    let (_, globex) = key(&scene, "globex", "submit,read,cancel");
    let (_, reader) = key(&scene, "acme", "read");
    let door = scene.open(&[]);
    assert_problem(
        door.get("/v1/task/x/status").send().await.unwrap(),
        401,
        "unauthorized",
    )
    .await;
    assert_problem(
        submit(&door, "mr_000000000000_1").await,
        401,
        "unauthorized",
    )
    .await;
    assert_problem(submit(&door, &reader).await, 403, "forbidden").await;
    let (_, body) = parts(submit(&door, &acme).await).await;
    let id = body["task_id"].as_str().unwrap().to_owned();
    let cancel = format!("/v1/task/{id}/cancel");
    // Nobody can say yet whose it is: the request counts for globex' own tasks only.
    door.post(&cancel)
        .bearer_auth(&globex)
        .send()
        .await
        .unwrap();
    let _worker = scene.work();
    let result = format!("/v1/task/{id}/result?wait=30s");
    let answer = door.get(&result).bearer_auth(&reader).send().await.unwrap();
    assert_eq!(parts(answer).await, (reqwest::StatusCode::OK, json!(1)));
    for path in ["status", "result", "events"] {
        let request = door
            .get(&format!("/v1/task/{id}/{path}"))
            .bearer_auth(&globex);
        assert_problem(request.send().await.unwrap(), 404, "not-found").await;
    }
    let answer = door
        .post(&cancel)
        .bearer_auth(&globex)
        .send()
        .await
        .unwrap();
    assert_problem(answer, 404, "not-found").await;
    let named = async |key: &str, payload: u8| {
        let request = door
            .post("/v1/task/submit")
            .bearer_auth(key)
            .header("idempotency-key", "1");
        let answer = request
            .json(&json!({"type": "echo", "payload": payload}))
            .send()
            .await;
        parts(answer.unwrap()).await.1["task_id"].clone()
    };
    assert_ne!(
        named(&acme, 1).await,
        named(&globex, 2).await,
        "names of tenants never meet"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_limits_hold_within_seconds_and_without_a_restart() {
    let scene = Scene::new("door_keys").await;
    let door = scene.open(&[]);
    let open = door.post("/v1/task/submit").json(&json!({"type": "echo"}));
    assert_eq!(
        open.send().await.unwrap().status(),
        202,
        "no key was ever made"
    );
    let (id, acme) = key(&scene, "acme", "submit");
    until(async || door.get("/v1/task/x/status").send().await.unwrap().status() == 401).await;
    assert_eq!(submit(&door, &acme).await.status(), 202);
    let limits = [
        "limits", "set", "--tenant", "acme", "--rate", "0.5", "--burst", "1",
    ];
    assert!(scene.producer(&limits).status().unwrap().success());
    until(async || submit(&door, &acme).await.status() == 429).await;
    let answer = submit(&door, &acme).await;
    let wait: u64 = answer.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_problem(answer, 429, "rate-limited").await;
    assert!(
        scene
            .producer(&["keys", "revoke", &id])
            .status()
            .unwrap()
            .success()
    );
    until(async || submit(&door, &acme).await.status() == 401).await;
    let again = scene.producer(&["keys", "revoke", &id]).output().unwrap();
    assert!(!again.status.success());
    let listed = scene.producer(&["keys", "list"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&id) && !listed.contains(&acme), "{listed}");
    assert_eq!(scene.number("SELECT count(*) FROM operations_log").await, 3);
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_it_listens_on_loopback_only_and_with_keys_where_it_is_told() {
    let scene = Scene::new("door_loopback").await;
    let anywhere = ["--listen", "0.0.0.0:0"];
    let door = scene.open(&anywhere);
    assert!(door.base.contains("127.0.0.1"));
    // Another of this machine's addresses, where only the whole address is heard.
    let elsewhere = format!("{}/", door.base.replace("127.0.0.1", "127.0.0.2"));
    assert!(scene.client.get(&elsewhere).send().await.is_err());
    key(&scene, "acme", "submit");
    let began = Instant::now();
    while scene.client.get(&elsewhere).send().await.is_err() {
        assert!(began.elapsed() < DEADLINE, "it does not open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(door.get("/").send().await.unwrap().status(), 200);
    assert!(scene.open(&anywhere).base.contains("0.0.0.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_its_key_is_revoked() {
    let scene = Scene::new("door_revoked").await;
    let (id, acme) = key(&scene, "acme", "submit,read");
    let door = scene.open(&[]);
    let (_, body) = parts(submit(&door, &acme).await).await;
    let path = format!("/v1/task/{}/events", body["task_id"].as_str().unwrap());
    let stream = door.get(&path).bearer_auth(&acme).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert!(
        scene
            .producer(&["keys", "revoke", &id])
            .status()
            .unwrap()
            .success()
    );
    let ended = tokio::time::timeout(DEADLINE, stream.bytes()).await;
    assert!(ended.is_ok(), "it goes on");
}
