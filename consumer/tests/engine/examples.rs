//! The examples, as programs of their own: what the README says of them.

use std::path::Path;
use std::process::{Command, Output};

use millrace_schemas::TaskEvent;
use sqlx::Row as _;

use super::scene::{Scene, event};

/// Runs an example until it is idle.
async fn run(scene: &Scene, name: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_consumer"))
        .with_file_name("examples")
        .join(name);
    assert!(
        program.exists(),
        "{} is not built: cargo build --examples",
        program.display()
    );
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars() {
        if variable.starts_with("MILLRACE_") {
            command.env_remove(variable);
        }
    }
    command
        .env("KAFKA_BOOTSTRAP_SERVERS", scene.broker.bootstrap())
        .env("DATABASE_URL", scene.url())
        .env("MILLRACE_SCHEMA", &scene.schema)
        .env("MILLRACE_TOPIC", &scene.topic)
        .env("MILLRACE_GROUP", &scene.group)
        .args(["--exit-when-idle", "2s", "--allow-unreplicated"])
        .args(["--metrics-listen", "127.0.0.1:0"]);
    tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap()
}

fn of(task_type: &str, key: Option<&str>, payload: &str) -> TaskEvent {
    TaskEvent {
        payload: payload.as_bytes().to_vec(),
        ..event(task_type, key, 0)
    }
}

/// Results as text, in order.
async fn told(scene: &Scene, query: &'static str) -> Vec<String> {
    let mut connection = scene.connect().await;
    let rows = sqlx::query(query).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_email_worker_sends_one_at_once_one_at_the_second_attempt_and_one_never() {
    let scene = Scene::new("example_email", 2).await;
    let mails = ["ada@example.org", "busy@example.org", "nobody"].map(|to| {
        let mail = format!("{{\"to\":\"{to}\",\"body\":\"Hello\"}}");
        of("email.send", Some(to), &mail)
    });
    scene.send(&mails).await;
    let done = run(&scene, "email").await;
    assert!(done.status.success(), "{done:?}");
    let results = told(
        &scene,
        "SELECT key || ': ' || status || ' after ' || attempts || coalesce(', ' || (result->>'bytes'), '') \
         FROM task_results ORDER BY key",
    );
    assert_eq!(
        results.await,
        [
            "ada@example.org: success after 1, 5",
            "busy@example.org: success after 2, 5",
            "nobody: failed after 1"
        ]
    );
    let letters = told(
        &scene,
        "SELECT reason || ': ' || error FROM dead_letters ORDER BY 1",
    );
    assert_eq!(letters.await, ["permanent: \"nobody\" is no address"]);
    scene.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_thumbnail_worker_computes_on_blocking_threads_and_takes_many_at_once() {
    let scene = Scene::new("example_thumbnails", 2).await;
    let pictures = [
        "{\"width\":1920,\"height\":1080,\"seed\":1}",
        "{\"width\":8,\"height\":8,\"seed\":2}",
    ];
    let mut events: Vec<TaskEvent> = pictures
        .iter()
        .map(|picture| of("thumbnail.make", None, picture))
        .collect();
    events.extend((0..1_000).map(|n| {
        let entry = format!("{{\"name\":\"picture {n}\"}}");
        of("thumbnail.index", None, &entry)
    }));
    scene.send(&events).await;
    let done = run(&scene, "thumbnails").await;
    assert!(done.status.success(), "{done:?}");
    let results = told(
        &scene,
        "SELECT task_type || ' ' || status || ' ' || count(*) FROM task_results GROUP BY task_type, status ORDER BY 1",
    );
    assert_eq!(
        results.await,
        [
            "thumbnail.index success 1000",
            "thumbnail.make failed 1",
            "thumbnail.make success 1"
        ]
    );
    let together = "SELECT count(*) FROM task_results WHERE (result->>'together_with')::int > 0";
    assert!(scene.number(together).await > 0, "none came with another");
    scene.assert_books().await;
}
