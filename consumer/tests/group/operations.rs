//! Working on what runs: pauses, cancel requests, allowances, and ranges of the log that run again.
//!
//! What the commands write and print; that workers obey is tried where workers are.

use std::process::Command;
use std::time::Duration;

use millrace_schemas::TaskId;
use rdkafka::producer::FutureRecord;
use serde_json::{Value, json};

use super::events::{Raw, event, events, framed};
use super::scene::{Ended, Scene, finish};

async fn drained(name: &str) -> Scene {
    let scene = Scene::embedded(name, 1).await;
    scene.send_to(0, &events(100)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene
}

/// A command that succeeds, as JSON.
fn told(scene: &Scene, arguments: &[&str]) -> Value {
    let ended = scene.run(&[arguments, &["--format", "json"]].concat());
    assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.words);
    ended.json()
}

fn set(scene: &Scene, flags: &[&str]) -> Ended {
    let fixed = ["position", "set", "--partition", "0", "--format", "json"];
    scene.run(&[&fixed, flags].concat())
}

fn without_brokers(scene: &Scene, arguments: &[&str]) -> Ended {
    let mut command: Command = scene.command(arguments);
    command.env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1");
    finish(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_is_listed_until_it_is_resumed() {
    let scene = Scene::embedded("pause", 1).await;
    let pause = ["pause", "--type", "mail", "--reason", "provider down"];
    let first = told(&scene, &pause);
    let expected = json!([{"scope": "task_type", "name": "mail", "paused": true, "changed": true}]);
    assert_eq!(first, expected);
    assert_eq!(told(&scene, &pause)[0]["changed"], false);
    told(&scene, &["pause", "--tenant", "acme", "--by", "ann"]);

    let ended = without_brokers(&scene, &["pause", "--format", "json"]);
    assert_eq!(ended.code, 0, "{}", ended.words);
    let listed = ended.json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["reason"]),
        (&json!("mail"), &json!("provider down"))
    );
    assert!(listed[0]["by"].as_str().unwrap().contains('@'), "{listed}");
    assert_eq!(
        (&listed[1]["name"], &listed[1]["by"]),
        (&json!("acme"), &json!("ann"))
    );
    assert_eq!(told(&scene, &["status"])["pauses"], listed);

    let ended = without_brokers(&scene, &["resume", "--type", "mail", "--format", "json"]);
    assert_eq!(ended.json()[0]["changed"], true, "{}", ended.words);
    assert_eq!(
        told(&scene, &["resume", "--type", "mail"])[0]["changed"],
        false
    );
    assert_eq!(told(&scene, &["pause"]).as_array().unwrap().len(), 1);
    let deeds = scene
        .texts("SELECT action FROM operations_log ORDER BY id")
        .await;
    assert_eq!(deeds, ["pause", "pause", "resume"]);

    for wrong in [
        &["pause", "--type", "mail", "--tenant", "acme"][..],
        &["pause", "--reason", "because"],
        &["resume"],
        &["resume", "--type", "mail", "--partition", "0"],
        &["resume", "--type", "mail", "--until", "3"],
    ] {
        let ended = scene.run(wrong);
        assert_eq!(ended.code, 2, "{wrong:?}: {}", ended.words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_18_cancelling_is_a_request_and_what_is_done_stays_done() {
    let scene = Scene::embedded("cancel", 1).await;
    let task = event(1);
    scene.send_to(0, std::slice::from_ref(&task)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    let (done, open) = (
        task.task_id.to_string(),
        TaskId::mint_at(task.task_id.born_ms() + 600_000),
    );
    let open = open.to_string();

    for _ in 0..2 {
        let answer = told(&scene, &["cancel", &open, "--by", "ann"]);
        assert_eq!(
            (&answer["answer"], &answer["status"]),
            (&json!("requested"), &json!("accepted"))
        );
    }
    assert!(
        scene
            .run(&["cancel", &open])
            .output
            .starts_with("requested")
    );
    let answer = told(&scene, &["cancel", &done]);
    assert_eq!(
        (&answer["answer"], &answer["status"]),
        (&json!("done"), &json!("success"))
    );

    let asked = scene
        .texts("SELECT task_id::text || ' ' || by FROM task_cancels")
        .await;
    assert_eq!(asked, [format!("{open} ann")]);
    assert_eq!(
        scene.results().await,
        1,
        "only the owner writes how a task ends"
    );
    let report = told(&scene, &["task", &open]);
    assert_eq!(
        (&report["status"], &report["cancel_request"]["by"]),
        (&json!("accepted"), &json!("ann"))
    );
    assert_eq!(told(&scene, &["status"])["cancels_pending"], 1);

    let gone = TaskId::mint_at(1_000_000_000_000).to_string();
    let ended = scene.run(&["cancel", &gone, "--format", "json"]);
    assert_eq!(
        (ended.code, &ended.json()["answer"]),
        (1, &json!("unknown"))
    );
    assert_eq!(scene.run(&["cancel", "no-id"]).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_allowed_to_go_on_up_to_the_end_that_its_log_has() {
    let scene = drained("allowance").await;
    scene.send_to(0, &events(20)).await;
    let allowed = "SELECT until_offset FROM decode_allowances";
    assert_eq!(
        told(&scene, &["resume", "--partition", "0"])[0]["until_offset"],
        120
    );
    assert_eq!(scene.number(allowed).await, 120);
    assert_eq!(
        told(&scene, &["status"])["partitions"][0]["allowed_until"],
        120
    );
    let flags = [
        "resume",
        "--partition",
        "0",
        "--until",
        "110",
        "--format",
        "json",
    ];
    let ended = without_brokers(&scene, &flags);
    assert_eq!(ended.code, 0, "{}", ended.words);
    assert_eq!(scene.number(allowed).await, 110);
    assert_eq!(
        scene
            .run(&["resume", "--partition", "1", "--until", "5"])
            .code,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_is_known_when_the_brokers_are_away() {
    let scene = drained("status_alone").await;
    scene
        .send_raw(&scene.producer(&[]), 0, &[Raw::of(b"no event")])
        .await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene
        .execute(
            "INSERT INTO parked_tasks (group_id, topic, partition, log_book, \"offset\", key_hash, task_id, kind, run, attempts, age_ms, \
               parked_at, tenant, task_type, headers, record_value) \
             SELECT group_id, topic, partition, 1, 200 + number, gen_random_uuid(), gen_random_uuid(), kind::park_kind, 0, 1, 0, \
               now(), 'acme', 'mail', '', '' \
             FROM partition_progress, unnest(ARRAY['retry', 'behind', 'delayed', 'running', 'redrive', 'behind']) \
               WITH ORDINALITY AS of(kind, number); \
             INSERT INTO parked_keys SELECT group_id, topic, partition, key_hash, now() + ((\"offset\" - 202) * interval '1 hour'), 1 \
               FROM parked_tasks WHERE kind <> 'delayed'; \
             UPDATE partition_progress SET suspect_log_book = 1, suspect_offset = 7, suspect_starts = 2, decode_window = 13",
        )
        .await;
    let ended = without_brokers(&scene, &["status", "--format", "json"]);
    assert_eq!(ended.code, 0, "{}", ended.words);
    let status = ended.json();
    let line = &status["partitions"][0];
    let kinds = json!({"retry": 1, "behind": 2, "delayed": 1, "running": 1, "redrive": 1});
    for (name, value) in [
        ("position", json!(101)),
        ("log_end", Value::Null),
        ("lag", Value::Null),
        ("stopped", Value::Null),
        ("results", json!(100)),
        ("dead_letters", json!(1)),
        ("dead_letters_open", json!(1)),
        ("parked_by_kind", kinds),
        ("parked_keys_due", json!(2)),
        ("careful", json!(true)),
        ("suspect_offset", json!(7)),
        ("undecodable", json!(2)),
        ("unclean_starts", json!(0)),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    assert_eq!(
        (&status["brokers"], &status["outbox_pending"]),
        (&json!(false), &json!(1))
    );
    let table = without_brokers(&scene, &["status"]).output;
    assert!(
        table.contains("retry:1,behind:2,delayed:1,running:1,redrive:1"),
        "{table}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_partition_is_named_by_status() {
    let scene = drained("status_stopped").await;
    scene
        .execute("UPDATE partition_progress SET next_offset = 900")
        .await;
    let ended = scene.run(&["status"]);
    assert!(ended.output.contains("STOPPED"), "{}", ended.output);
    assert!(
        ended.words.contains("beyond the log's end"),
        "{}",
        ended.words
    );
    let line = &told(&scene, &["status"])["partitions"][0];
    assert!(line["stopped"].is_string(), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_16_a_withdrawn_range_runs_again_and_its_book_balances() {
    let scene = drained("withdraw").await;
    let completed = "SELECT completed_at::text FROM task_results ORDER BY \"offset\"";
    let before = scene.texts(completed).await;
    let flags = ["--to", "60", "--withdraw", "--reason", "wrong handler"];
    let dry = set(&scene, &[&flags[..], &["--dry-run"]].concat());
    assert_eq!(dry.code, 0, "{}", dry.words);
    let rows =
        json!({"partition": 0, "results": 40, "dead_letters": 0, "parked": 0, "dedup_keys": 0});
    assert_eq!(dry.json()[0]["withdrawn"], rows);
    assert_eq!(
        (scene.results().await, scene.position(0).await),
        (100, Some(100))
    );

    let ended = set(&scene, &[&flags[..], &["--by", "ann"]].concat());
    assert_eq!(ended.code, 0, "{}", ended.words);
    assert_eq!(ended.json()[0]["withdrawn"], rows);
    assert_eq!(
        (scene.results().await, scene.position(0).await),
        (60, Some(60))
    );
    assert_eq!(scene.drain(&[]).await.code, 0);

    let after = scene.texts(completed).await;
    assert_eq!(after.len(), 100);
    assert_eq!(after[..60], before[..60]);
    let again = after[60..].iter().zip(&before[60..]);
    assert!(again.clone().all(|(after, before)| after > before));
    let books = scene.balanced_books();
    assert_eq!((books.results, books.lag), (40, 0));
    let shown = told(&scene, &["position", "show"]);
    let history = &shown[0]["history"][0];
    assert_eq!(
        (&history["next_offset"], &history["moved_to"]),
        (&json!(100), &json!(60))
    );
    assert_eq!(
        (&history["moved_by"], &history["reason"]),
        (&json!("ann"), &json!("wrong handler"))
    );

    for wrong in [
        &["--to", "60", "--withdraw"][..],
        &["--to", "60", "--withdraw", "--reason", ""],
    ] {
        assert_eq!(set(&scene, wrong).code, 2, "{wrong:?}");
    }
    scene.send_to(0, &events(10)).await;
    let ahead = set(&scene, &["--to", "105", "--withdraw", "--reason", "r"]);
    assert_eq!(ahead.code, 2, "{}", ahead.words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_runs_a_withdrawn_range_again_by_itself() {
    let scene = drained("withdraw_live").await;
    let mut worker = scene.worker(&[]);
    scene.until_owners(1, 1).await;
    let ended = set(&scene, &["--to", "earliest", "--withdraw", "--reason", "r"]);
    assert_eq!(ended.code, 0, "{}", ended.words);
    assert_eq!(ended.json()[0]["withdrawn"]["results"], 100);
    scene.until_position(0, 100).await;
    scene.until_results(100).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
    assert_eq!(scene.balanced_books().results, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_set_by_time() {
    let Some(scene) = Scene::apache("by_time", 1).await else {
        return;
    };
    let now = chrono::Utc::now();
    let producer = scene.producer(&[]);
    for (number, hours) in [5, 4, 2, 1].into_iter().enumerate() {
        let at = now - chrono::Duration::hours(hours);
        let value = framed(&event(number), millrace_schemas::Framing::SingleObject);
        let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&scene.topic)
            .partition(0)
            .timestamp(at.timestamp_millis())
            .payload(&value);
        producer
            .send(record, Duration::from_secs(30))
            .await
            .unwrap();
    }
    assert_eq!(scene.drain(&[]).await.code, 0);
    let three_hours_ago = (now - chrono::Duration::hours(3)).to_rfc3339();
    for (to, found) in [
        (three_hours_ago.as_str(), 2),
        ("-270m", 1),
        ("2001-01-01T00:00:00Z", 0),
        ("-1s", 4),
    ] {
        let ended = set(&scene, &["--to", to, "--reason", "r", "--dry-run"]);
        assert_eq!(ended.code, 0, "{to}: {}", ended.words);
        assert_eq!(ended.json()[0]["to"], found, "{to}");
    }
    for wrong in ["2026-11-21", "yesterday", "-2x"] {
        let ended = set(&scene, &["--to", wrong, "--reason", "r", "--dry-run"]);
        assert_eq!(ended.code, 2, "{wrong}: {}", ended.words);
    }
}
