//! What the commands for people print: of one task, of the partitions, of the books.

use std::collections::BTreeSet;

use millrace_schemas::TaskId;
use serde_json::Value;

use super::events::{Raw, event, events};
use super::scene::{Scene, eventually};

/// `consumer task ID` as JSON, with its exit code.
fn task(scene: &Scene, id: TaskId) -> (i32, Value) {
    let ended = scene.run(&["task", &id.to_string(), "--format", "json"]);
    (ended.code, ended.json())
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_found_by_its_id_however_it_ended() {
    let scene = Scene::embedded("task_reports", 1).await;
    let mut first = event(1);
    first.dedup_key = Some("once".to_owned());
    let mut again = event(1);
    again.dedup_key = Some("once".to_owned());
    again.reply = true;
    scene.send_to(0, &[first.clone(), again.clone()]).await;
    let broken = TaskId::mint();
    let letter = Raw {
        headers: vec![("task_id", broken.to_string())],
        ..Raw::of(b"no event")
    };
    scene.send_raw(&scene.producer(&[]), 0, &[letter]).await;
    assert_eq!(scene.drain(&[]).await.code, 0);

    let (code, report) = task(&scene, first.task_id);
    assert_eq!((code, &report["status"]), (0, &"success".into()));
    assert_eq!(report["result"]["result"]["n"], 1);
    assert_eq!(report["result"]["offset"], 0);
    let (code, report) = task(&scene, again.task_id);
    assert_eq!((code, &report["status"]), (0, &"success".into()));
    assert_eq!(report["result"]["duplicate_of"], first.task_id.to_string());
    let (code, report) = task(&scene, broken);
    assert_eq!((code, &report["status"]), (0, &"failed".into()));
    assert_eq!(report["dead_letters"][0]["reason"], "undecodable");
    assert_eq!(report["dead_letters"][0]["offset"], 2);

    let words = scene.run(&["task", &first.task_id.to_string()]).output;
    assert!(words.contains("status  success"), "{words}");
    let nonsense = scene.run(&["task", "no-id"]);
    assert_eq!(nonsense.code, 2, "{}", nonsense.words);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_without_a_row_is_accepted_until_every_partition_has_passed_its_birth() {
    let scene = Scene::embedded("accepted", 2).await;
    // An event may be on its way for a while after its birth.
    let nobody = TaskId::mint_at(TaskId::mint().born_ms() - 60_000);
    let (code, report) = task(&scene, nobody);
    assert_eq!((code, &report["status"]), (0, &"accepted".into()));
    let mut worker = scene.worker(&[]);
    eventually("the id is unknown", async || {
        let (code, report) = task(&scene, nobody);
        (code == 1 && report["status"] == "unknown").then_some(())
    })
    .await;
    assert_eq!(task(&scene, TaskId::mint()).1["status"], "accepted");
    let later = TaskId::mint_at(nobody.born_ms() + 600_000);
    assert_eq!(task(&scene, later).1["status"], "accepted");
    let long_gone = TaskId::mint_at(1_000_000_000_000);
    assert_eq!(task(&scene, long_gone).1["status"], "gone");
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_the_owner_the_position_and_the_lag() {
    let scene = Scene::embedded("status", 2).await;
    scene.send_each(2, 10).await;
    let mut worker = scene.worker(&[]);
    scene.until_results(20).await;
    let ended = scene.run(&["status", "--format", "json"]);
    assert_eq!(ended.code, 0, "{}", ended.words);
    let line = &ended.json()["partitions"][1];
    let owner = line["owner"].as_str().unwrap();
    assert!(owner.ends_with(&format!(":{}", worker.pid())), "{owner}");
    let numbers = ["partition", "position", "log_end", "lag", "results"].map(|name| &line[name]);
    assert_eq!(numbers.map(|n| n.as_i64().unwrap()), [1, 10, 10, 0, 10]);
    assert_eq!(worker.stop().await, 0);
    scene.send_to(0, &events(5)).await;
    let status = scene.run(&["status", "--format", "json"]).json();
    let line = &status["partitions"][0];
    assert_eq!((&line["owner"], &line["lag"]), (&Value::Null, &5.into()));
    let table = scene.run(&["status"]).output;
    assert!(
        table.lines().next().unwrap().contains("settled_up_to"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 3, "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_prints_what_the_interface_names() {
    let scene = Scene::embedded("audit_print", 2).await;
    assert_eq!(scene.audit(&[]).json(), Value::Array(Vec::new()));
    scene.send_each(2, 10).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene.send_to(1, &events(3)).await;
    let ended = scene.audit(&[]);
    assert_eq!(
        ended.code, 0,
        "behind is not out of balance: {}",
        ended.words
    );
    let named = [
        "partition",
        "first_offset",
        "next_offset",
        "results",
        "duplicates",
        "dead_letters",
        "parked",
        "gaps",
        "lost",
        "lag",
        "balanced",
    ];
    let lines = ended.json();
    for line in lines.as_array().unwrap() {
        assert_eq!(keys(line), BTreeSet::from(named));
        assert_eq!(line["balanced"], true);
    }
    assert_eq!(lines[1]["lag"], 3);
    let table = scene.run(&["audit"]).output;
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, named);
    assert!(table.lines().nth(1).unwrap().ends_with("yes"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_needs_no_broker() {
    let scene = Scene::embedded("audit_alone", 1).await;
    scene.send_to(0, &events(10)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    let mut command = scene.command(&["audit", "--format", "json"]);
    command.env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1");
    let ended = super::scene::finish(command);
    assert_eq!(ended.code, 0, "{}", ended.words);
    let lines = ended.json();
    assert_eq!(
        (&lines[0]["results"], &lines[0]["lag"]),
        (&10.into(), &Value::Null)
    );
}
