//! `consumer dead-letters`: what it prints, what it does, and what it refuses.

use std::time::{Duration, Instant};

use millrace_schemas::{TaskEvent, TaskId};
use serde_json::Value;

use super::events::event;
use super::planted::Planted;
use super::scene::{Ended, Scene};

fn letters(scene: &Scene, arguments: &[&str]) -> Ended {
    let mut all = vec!["dead-letters"];
    all.extend(arguments);
    scene.run(&all)
}

fn json(scene: &Scene, arguments: &[&str]) -> (i32, Value) {
    let mut all = arguments.to_vec();
    all.extend(["--format", "json"]);
    let ended = letters(scene, &all);
    (ended.code, ended.json())
}

fn offsets(list: &Value) -> Vec<i64> {
    let mut offsets: Vec<i64> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["offset"].as_i64().unwrap())
        .collect();
    offsets.sort_unstable();
    offsets
}

fn of_type(number: usize, task_type: &str, tenant: &str, key: &str) -> TaskEvent {
    TaskEvent {
        task_type: task_type.to_owned(),
        tenant: tenant.to_owned(),
        key: Some(key.to_owned()),
        ..event(number)
    }
}

/// 0: mail of acme; 1: mail of umbrella; 2: bytes; 3: a reused id.
async fn four(name: &str) -> (Scene, TaskEvent, TaskEvent) {
    let scene = Scene::embedded(name, 1).await;
    let first = of_type(1, "mail", "acme", "a");
    let second = of_type(2, "mail", "umbrella", "b");
    let conflict = of_type(3, "call", "acme", "c");
    scene
        .plant(&[
            Planted::failed(&first, "permanent"),
            Planted::failed(&second, "attempts_exhausted"),
            Planted::bytes(b"\xc3no event"),
            Planted::failed(&conflict, "id_conflict"),
        ])
        .await;
    (scene, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_filtered_and_shows_what_is_open() {
    let (scene, first, _) = four("letters_list").await;
    let id = first.task_id.to_string();
    let none: [i64; 0] = [];
    for (filter, wanted) in [
        (&[][..], &[0, 1, 2, 3][..]),
        (&["--type", "mail"], &[0, 1]),
        (&["--type", "mail", "--tenant", "acme"], &[0]),
        (&["--reason", "undecodable"], &[2]),
        (
            &["--reason", "undecodable", "--reason", "permanent"],
            &[0, 2],
        ),
        (&["--key", "b"], &[1]),
        (&["--task-id", &id], &[0]),
        (&["--partition", "1"], &none),
        (&["--older-than", "1h"], &none),
        (&["--newer-than", "1h"], &[0, 1, 2, 3]),
    ] {
        let mut arguments = vec!["list"];
        arguments.extend(filter);
        let (code, list) = json(&scene, &arguments);
        assert_eq!((code, offsets(&list).as_slice()), (0, wanted), "{filter:?}");
    }
    assert_eq!(
        json(&scene, &["list", "--limit", "3"])
            .1
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let table = letters(&scene, &["list"]);
    assert!(
        table.output.trim_start().starts_with("place"),
        "{}",
        table.output
    );
    assert!(
        table.words.contains("4 of 4 dead letters"),
        "{}",
        table.words
    );
    let unknown = letters(&scene, &["list", "--reason", "bad_luck"]);
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.words.contains("attempts_exhausted"),
        "{}",
        unknown.words
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn show_prints_all_that_was_kept_and_what_became_of_it() {
    let (scene, first, _) = four("letters_show").await;
    let id = first.task_id.to_string();
    let (code, shown) = json(&scene, &["show", "0:0"]);
    assert_eq!((code, &shown), (0, &json(&scene, &["show", &id]).1));
    let shown = &shown[0];
    assert_eq!(shown["reason"], "permanent");
    assert_eq!(shown["error"], "it went wrong");
    assert_eq!(shown["headers"][1]["value"]["text"], "green");
    assert_eq!(shown["event"]["task_id"], id);
    assert_eq!(
        shown["event"]["payload"]["json"],
        serde_json::json!({"n": 1})
    );
    assert_eq!(shown["task"]["status"], "failed");
    assert_eq!(
        (&shown["state"], &shown["waiting"]),
        (&"open".into(), &Value::Null)
    );

    let bytes = &json(&scene, &["show", "0:2"]).1[0];
    assert_eq!(bytes["event"], Value::Null);
    assert!(!bytes["undecodable"].as_str().unwrap().is_empty());
    assert_eq!(bytes["value"]["hex"], "c36e6f206576656e74");
    assert_eq!(bytes["value"]["bytes"], 9);

    letters(&scene, &["redrive", "--key", "a", "--by", "ann"]);
    let shown = &json(&scene, &["show", "0:0"]).1[0];
    assert_eq!(shown["waiting"]["kind"], "redrive");
    assert_eq!(shown["waiting"]["run"], 1);
    assert_eq!(shown["history"][0]["redriven_by"], "ann");
    let words = letters(&scene, &["show", "0:0"]).output;
    assert!(words.contains("by ann"), "{words}");

    assert_eq!(json(&scene, &["show", "0:99"]).0, 1);
    let nobody = TaskId::mint().to_string();
    assert_eq!(json(&scene, &["show", &nobody]).0, 1);
    assert_eq!(letters(&scene, &["show", "nonsense"]).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_11_a_redrive_is_tried_dry_first_then_done_once_and_written_down() {
    let (scene, first, _) = four("letters_redrive").await;
    let unfiltered = letters(&scene, &["redrive"]);
    assert_eq!(unfiltered.code, 2);
    assert!(unfiltered.words.contains("--all"), "{}", unfiltered.words);

    let (code, dry) = json(&scene, &["redrive", "--all", "--dry-run"]);
    assert_eq!((code, &dry["dry_run"]), (1, &true.into()));
    assert_eq!(
        (&dry["letters"], &dry["done"], &dry["refused"]),
        (&4.into(), &2.into(), &2.into())
    );
    let refusals = serde_json::json!({"id_conflict": 1, "undecodable": 1});
    assert_eq!(dry["refusals"], refusals);
    let kinds = dry["kinds"].as_array().unwrap();
    let mail = kinds
        .iter()
        .find(|kind| kind["reason"] == "permanent" && kind["task_type"] == "mail")
        .unwrap();
    assert_eq!((&mail["letters"], &mail["done"]), (&1.into(), &1.into()));
    assert_eq!(scene.number("SELECT count(*) FROM parked_tasks").await, 0);
    assert_eq!(scene.number("SELECT count(*) FROM operations_log").await, 0);

    let because = [
        "redrive",
        "--all",
        "--because",
        "the address book is back",
        "--by",
        "ann@desk",
    ];
    let (code, done) = json(&scene, &because);
    assert_eq!((code, &done["done"]), (1, &2.into()));
    let named = done["refused_letters"].as_array().unwrap();
    assert_eq!(named.len(), 2, "{done}");
    assert!(
        named
            .iter()
            .any(|one| one["offset"] == 3 && one["refusal"] == "id_conflict")
    );
    let id = format!("task_id = '{}'", first.task_id);
    let results = format!("SELECT count(*) FROM task_results WHERE {id}");
    let parked =
        format!("SELECT count(*) FROM parked_tasks WHERE {id} AND run = 1 AND kind = 'redrive'");
    assert_eq!(
        (scene.number(&results).await, scene.number(&parked).await),
        (0, 1)
    );
    let said = scene
        .texts(
            "SELECT concat_ws(' | ', action, by, reason, detail->'counts'->>'redriven', detail->'counts'->>'refused') \
             FROM operations_log",
        )
        .await;
    assert_eq!(
        said,
        ["redrive | ann@desk | the address book is back | 2 | 2"]
    );
    assert_eq!(scene.imbalances().await, Vec::<String>::new());

    let (code, again) = json(&scene, &["redrive", "--type", "mail"]);
    assert_eq!((code, &again["letters"]), (0, &0.into()));
    assert_eq!(offsets(&json(&scene, &["list"]).1), [2, 3]);
    assert_eq!(offsets(&json(&scene, &["list", "--all"]).1), [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_keeps_to_its_rate_its_limit_and_the_number_of_redrives() {
    let scene = Scene::embedded("letters_rate", 1).await;
    let planted: Vec<Planted> = (0..6)
        .map(|number| Planted::failed(&event(number), "permanent"))
        .collect();
    scene.plant(&planted).await;
    scene
        .execute("UPDATE dead_letters SET run = 5 WHERE \"offset\" = 0")
        .await;
    let begun = Instant::now();
    let (code, done) = json(
        &scene,
        &["redrive", "--all", "--limit", "5", "--rate", "2/s"],
    );
    assert_eq!(
        (code, &done["letters"], &done["done"]),
        (1, &5.into(), &4.into())
    );
    assert_eq!(done["refusals"]["redriven_too_often"], 1);
    assert!(
        begun.elapsed() >= Duration::from_millis(1_900),
        "{:?}",
        begun.elapsed()
    );
    let (code, done) = json(&scene, &["redrive", "--all", "--max-redrives", "6"]);
    assert_eq!((code, &done["done"]), (0, &2.into()));
    assert_eq!(
        letters(&scene, &["redrive", "--all", "--rate", "0"]).code,
        2
    );
    assert_eq!(scene.imbalances().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discard_wants_a_reason_and_keeps_the_books() {
    let (scene, ..) = four("letters_discard").await;
    let silent = letters(&scene, &["discard", "--all"]);
    assert_eq!(silent.code, 2);
    assert!(silent.words.contains("--because"), "{}", silent.words);
    let dry = [
        "discard",
        "--reason",
        "undecodable",
        "--because",
        "noise",
        "--dry-run",
    ];
    assert_eq!(json(&scene, &dry).1["done"], 1);
    assert_eq!(offsets(&json(&scene, &["list"]).1), [0, 1, 2, 3]);
    let (code, done) = json(&scene, &dry[..5]);
    assert_eq!((code, &done["done"]), (0, &1.into()));
    assert_eq!(offsets(&json(&scene, &["list"]).1), [0, 1, 3]);
    let all = json(&scene, &["list", "--all", "--reason", "undecodable"]).1;
    assert_eq!(
        (&all[0]["state"], &all[0]["discard_reason"]),
        (&"discarded".into(), &"noise".into())
    );
    assert_eq!(scene.imbalances().await, Vec::<String>::new());
    let said = scene
        .texts("SELECT action || ' ' || reason || ' ' || (detail->'counts'->>'discarded') FROM operations_log")
        .await;
    assert_eq!(said, ["discard noise 1"]);
    let (_, redriven) = json(&scene, &["redrive", "--reason", "undecodable"]);
    assert_eq!(redriven["letters"], 0);
}
