//! Payloads that call themselves JSON.

use millrace_schemas::TaskEvent;
use millrace_store::Outcome::Result as Done;

use crate::events::{event, saying};
use crate::world::World;

#[tokio::test]
async fn finding_05_json_that_postgres_would_choke_on_is_kept_as_bytes() {
    let world = World::new("deep_json").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let closed = "[".repeat(100_000) + &"]".repeat(100_000);
    let objects = "{\"a\":".repeat(20_000) + "1" + &"}".repeat(20_000);
    let batch = [
        saying(&"[".repeat(100_000)),
        saying(&closed),
        saying(&objects),
        saying("{\"a\":}"),
        saying(""),
        saying("\"raw \u{0} NUL\""),
        TaskEvent {
            payload: vec![b'"', 0xff, 0xfe, b'"'],
            ..event()
        },
    ];
    let outcomes = world.land(&mut writer, &mut owner, &batch).await;
    assert_eq!(outcomes, [Done; 7]);
    let bytes = "SELECT count(*) FROM task_results WHERE result IS NULL AND result_bytes IS NOT NULL AND status = 'success'";
    assert_eq!(world.number(bytes).await, 7);
    assert_eq!(
        world
            .number("SELECT max(length(result_bytes))::bigint FROM task_results")
            .await,
        200_000
    );
    assert_eq!(
        writer.take_incidents(),
        millrace_store::Incidents::default()
    );
}

#[tokio::test]
async fn finding_05_json_that_only_looks_odd_is_kept_as_json() {
    let world = World::new("odd_json").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let batch = [
        saying(&("[".repeat(120) + &"]".repeat(120))),
        saying(r#"{"nul":"\u0000","half":"\ud800","quote":"\"[[["}"#),
        saying(&format!("\"{}\"", "[".repeat(5_000))),
        saying(&format!("[{}[]]", "[],".repeat(5_000))),
        saying(" 1e400 "),
        TaskEvent {
            content_type: "application/problem+json; charset=utf-8".into(),
            ..event()
        },
    ];
    let outcomes = world.land(&mut writer, &mut owner, &batch).await;
    assert_eq!(outcomes, [Done; 6]);
    let json =
        "SELECT count(*) FROM task_results WHERE result IS NOT NULL AND result_bytes IS NULL";
    assert_eq!(world.number(json).await, 6);
}

#[tokio::test]
async fn what_does_not_call_itself_json_is_kept_as_bytes() {
    let world = World::new("bytes").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let text = TaskEvent {
        content_type: "text/plain".into(),
        ..saying("{}")
    };
    let huge = TaskEvent {
        content_type: "application/octet-stream".into(),
        payload: vec![0; 20 << 20],
        ..event()
    };
    assert_eq!(
        world.land(&mut writer, &mut owner, &[text, huge]).await,
        [Done, Done]
    );
    assert_eq!(
        world
            .number("SELECT sum(length(result_bytes))::bigint FROM task_results")
            .await,
        (20 << 20) + 2
    );
}
