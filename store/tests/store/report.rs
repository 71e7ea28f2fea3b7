//! What is known of one task.

use std::time::Duration;

use millrace_schemas::{Fingerprint, TaskEvent, TaskId};
use millrace_store::idempotency::{self, Named, Terms};
use millrace_store::results::{ON_ITS_WAY, TaskReport, report};

use crate::events::{born_in_days, event, keyed, saying};
use crate::world::World;

async fn about(world: &World, id: TaskId) -> TaskReport {
    let mut connection = world.operations().await;
    report(&mut connection, &world.consumer, id).await.unwrap()
}

#[tokio::test]
async fn a_task_is_told_by_its_row_its_letter_or_its_birth() {
    let world = World::new("report").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (done, far) = (event(), born_in_days(400));
    let again = TaskEvent {
        reply: true,
        ..keyed("a")
    };
    let conflict = TaskEvent {
        payload: b"1".to_vec(),
        ..keyed("a")
    };
    let batch = [
        done.clone(),
        keyed("a"),
        again.clone(),
        conflict.clone(),
        far.clone(),
    ];
    world.land(&mut writer, &mut owner, &batch).await;

    let done = about(&world, done.task_id).await;
    assert_eq!(done.status, "success");
    assert_eq!(done.result.unwrap()["result"]["to"], "a@example.org");
    let again = about(&world, again.task_id).await;
    assert!(
        again.explanation.contains("a duplicate of task"),
        "{again:?}"
    );
    let conflict = about(&world, conflict.task_id).await;
    assert_eq!(
        (conflict.status.as_str(), conflict.dead_letters.len()),
        ("failed", 1)
    );
    assert_eq!(conflict.dead_letters[0]["reason"], "dedup_conflict");
    let far = about(&world, far.task_id).await;
    assert_eq!((far.status.as_str(), far.dead_letters.len()), ("failed", 1));
    assert_eq!(
        about(&world, born_in_days(-30).task_id).await.status,
        "gone"
    );
}

#[tokio::test]
async fn finding_20_an_id_without_a_row_is_accepted_until_every_partition_has_passed_its_birth() {
    let world = World::new("accepted").await;
    let (first, second) = (world.claim(0).await, world.claim(1).await);
    let id = event().task_id;
    let born = i64::try_from(id.born_ms()).unwrap();
    let mut connection = world.operations().await;
    assert_eq!(about(&world, id).await.status, "accepted");
    // An event may be on its way for a while after its birth.
    let passed = born + i64::try_from(ON_ITS_WAY.as_millis()).unwrap();
    for (held, time, status) in [
        (first, passed + 1, "accepted"),
        (second, born + 1, "accepted"),
        (second, passed, "accepted"),
        (second, passed + 1, "unknown"),
    ] {
        let idle = [(held.partition, held.fence, time)];
        millrace_store::position::refresh_frontier(&mut connection, &world.consumer, &idle)
            .await
            .unwrap();
        assert_eq!(about(&world, id).await.status, status);
    }
}

#[tokio::test]
async fn an_id_that_stands_beside_an_idempotency_key_may_come_at_any_time() {
    let world = World::new("named_id").await;
    let held = world.claim(0).await;
    let mut connection = world.operations().await;
    let request = Named {
        tenant: "acme".into(),
        key: "order-1".into(),
        task_id: event().task_id,
        fingerprint: Fingerprint([1; 16]),
    };
    let terms = Terms {
        lease: Duration::from_secs(15),
        window: Duration::from_secs(86_400),
    };
    idempotency::take(&mut connection, std::slice::from_ref(&request), terms)
        .await
        .unwrap();
    let long_after = i64::try_from(request.task_id.born_ms()).unwrap() + 3_600_000;
    let idle = [(held.partition, held.fence, long_after)];
    millrace_store::position::refresh_frontier(&mut connection, &world.consumer, &idle)
        .await
        .unwrap();
    assert_eq!(about(&world, request.task_id).await.status, "accepted");
    assert_eq!(about(&world, event().task_id).await.status, "unknown");
}

#[tokio::test]
async fn a_result_that_only_postgres_takes_for_json_is_shown_as_text() {
    let world = World::new("odd_report").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (half, deep, huge) = (
        saying(r#"["\ud800"]"#),
        saying(&("[".repeat(120) + &"]".repeat(120))),
        saying("1e999"),
    );
    world
        .land(
            &mut writer,
            &mut owner,
            &[half.clone(), deep.clone(), huge.clone()],
        )
        .await;
    let half = about(&world, half.task_id).await.result.unwrap();
    assert_eq!(half["result"], r#"["\ud800"]"#);
    let deep = about(&world, deep.task_id).await.result.unwrap();
    assert!(deep["result"].is_array());
    let huge = about(&world, huge.task_id).await.result.unwrap();
    assert_eq!(huge["result"], "1e999");
}
