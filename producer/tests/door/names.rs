//! `Idempotency-Key`: one task a name, at any front door, with and without a worker.

use serde_json::{Value, json};

use crate::scene::{Door, Scene, assert_problem, parts};

async fn submit(door: &Door, name: &str, task: &Value) -> reqwest::Response {
    let request = door.post("/v1/task/submit").json(task);
    request
        .header("idempotency-key", name)
        .send()
        .await
        .unwrap()
}

async fn id_of(door: &Door, name: &str, task: &Value) -> String {
    let (status, body) = parts(submit(door, name, task).await).await;
    assert_eq!(status.as_u16(), 202, "{body}");
    body["task_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_gets_the_same_id_at_any_front_door_and_runs_once() {
    let scene = Scene::new("door_names").await;
    let (one, other) = (scene.open(&[]), scene.open(&[]));
    let task = json!({"type": "echo", "payload": 1});
    let first = id_of(&one, "\"order-1\"", &task).await;
    assert_eq!(
        id_of(&other, "order-1", &task).await,
        first,
        "while no worker runs"
    );
    let answer = submit(&other, "order-1", &json!({"type": "echo", "payload": 2})).await;
    assert_problem(answer, 422, "idempotency-key-reused").await;
    assert_ne!(id_of(&one, "order-2", &task).await, first);
    let _worker = scene.work();
    one.until(&first, "success").await;
    assert_eq!(
        id_of(&other, "order-1", &task).await,
        first,
        "after it is done"
    );
    assert_eq!(scene.number("SELECT count(*) FROM task_results").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_door_that_died_between_table_and_topic_leaves_no_second_task() {
    let scene = Scene::new("door_names_died").await;
    let door = scene.open(&[]);
    let task = json!({"type": "echo", "payload": 1});
    let first = id_of(&door, "a", &task).await;
    // As the table is when a front door dies before Kafka has answered, and when it dies after that.
    scene
        .sql("UPDATE idempotency_keys SET busy_until = now() + interval '1 hour'")
        .await;
    let answer = submit(&door, "a", &task).await;
    assert!(answer.headers().contains_key("retry-after"));
    assert_problem(answer, 409, "idempotency-key-in-progress").await;
    scene
        .sql("UPDATE idempotency_keys SET busy_until = now() - interval '1 s'")
        .await;
    assert_eq!(
        id_of(&door, "a", &task).await,
        first,
        "the same event again"
    );
    let _worker = scene.work();
    door.until(&first, "success").await;
    let settled = "SELECT coalesce(sum(results + duplicates), 0)::bigint FROM partition_progress";
    while scene.number(settled).await < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(scene.number("SELECT count(*) FROM task_results").await, 1);
    assert_eq!(
        scene
            .number("SELECT sum(duplicates)::bigint FROM partition_progress")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_the_same_time_under_one_name_are_one_task() {
    let scene = Scene::new("door_names_race").await;
    let doors = [scene.open(&[]), scene.open(&[])];
    let task = json!({"type": "echo", "payload": 1});
    let submits = (0..40).map(|n| submit(&doors[n % 2], "the same", &task));
    let mut ids = std::collections::BTreeSet::new();
    for answer in futures_util::future::join_all(submits).await {
        match parts(answer).await {
            (status, body) if status == 202 => {
                ids.insert(body["task_id"].as_str().unwrap().to_owned());
            }
            (status, body) => assert_eq!(status.as_u16(), 409, "{body}"),
        }
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_of_one_request_have_names_of_their_own() {
    let scene = Scene::new("door_names_bulk").await;
    let door = scene.open(&[]);
    let item = |name: &str, n: u8| json!({"type": "echo", "payload": n, "idempotency_key": name});
    let bulk = json!([item("a", 1), item("b", 2), item("a", 3)]);
    let (status, body) = parts(door.post("/v1/tasks").json(&bulk).send().await.unwrap()).await;
    assert_eq!(status.as_u16(), 207, "{body}");
    let kinds: Vec<_> = (0..3)
        .map(|n| body["items"][n]["status"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["accepted", "accepted", "refused"]);
    let kind = &body["items"][2]["error"]["type"];
    assert_eq!(kind, "/problems/idempotency-key-reused");
    let again = parts(
        door.post("/v1/tasks")
            .json(&json!([item("b", 2)]))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(again.1["items"][0]["task_id"], body["items"][1]["task_id"]);
}
