//! Callbacks that are due: taken by one at a time, and kept only by whoever still has them.

use std::time::Duration;

use millrace_schemas::TaskId;
use millrace_store::callbacks::{self, Attempted, Callback, Next};
use sqlx::PgConnection;

use crate::world::World;

const LEASE: Duration = Duration::from_secs(45);

/// Rows for these targets, due now, in this order.
async fn write(world: &World, targets: &[&str]) {
    for (place, target) in targets.iter().enumerate() {
        let id = TaskId::mint();
        world
            .sql(&format!(
                "INSERT INTO callbacks (group_id, topic, task_id, run, tenant, target, due_at) \
                 VALUES ('{}', '{}', '{id}', 0, 'acme', '{target}', now() - interval '1 s' + {place} * interval '1 ms')",
                world.consumer.group, world.consumer.topic,
            ))
            .await;
    }
}

async fn take(
    world: &World,
    connection: &mut PgConnection,
    most: usize,
    without: &[&str],
) -> Vec<Callback> {
    let without: Vec<String> = without.iter().map(|host| (*host).to_owned()).collect();
    callbacks::take(connection, &world.consumer, most, LEASE, &without)
        .await
        .unwrap()
}

fn hosts(taken: &[Callback]) -> Vec<&str> {
    taken.iter().map(|one| &*one.host).collect()
}

fn attempted(callback: &Callback, next: Next) -> Attempted {
    Attempted {
        id: callback.id,
        until: callback.until,
        status_code: Some(200),
        error: None,
        took: Duration::from_millis(5),
        next,
    }
}

#[tokio::test]
async fn those_to_full_hosts_are_passed_over_and_those_given_back_are_due_again() {
    let world = World::new("callbacks_hosts").await;
    let mut connection = world.operations().await;
    write(
        &world,
        &[
            "https://A.example/1",
            "http://a.example/2",
            "http://b.example:81/1",
        ],
    )
    .await;
    let others = take(&world, &mut connection, 10, &["a.example"]).await;
    assert_eq!(hosts(&others), ["b.example:81"]);
    let rest = take(&world, &mut connection, 1, &[]).await;
    assert_eq!(hosts(&rest), ["a.example"]);
    callbacks::give_back(&mut connection, &rest).await.unwrap();
    let again = take(&world, &mut connection, 10, &[]).await;
    assert_eq!(hosts(&again), ["a.example", "a.example"]);
    assert!(take(&world, &mut connection, 10, &[]).await.is_empty());
}

#[tokio::test]
async fn an_attempt_that_ended_after_its_lease_changes_nothing() {
    let world = World::new("callbacks_late").await;
    let mut connection = world.operations().await;
    write(&world, &["https://a.example/1"]).await;
    let late = take(&world, &mut connection, 1, &[]).await;
    world
        .sql("UPDATE callbacks SET due_at = now() - interval '1 ms'")
        .await;
    let held = take(&world, &mut connection, 1, &[]).await;
    let done = attempted(&held[0], Next::Delivered);
    callbacks::attempted(&mut connection, &[done])
        .await
        .unwrap();
    callbacks::give_back(&mut connection, &late).await.unwrap();
    for next in [Next::Again(Duration::ZERO), Next::Disable, Next::GiveUp] {
        callbacks::attempted(&mut connection, &[attempted(&late[0], next)])
            .await
            .unwrap();
        assert!(take(&world, &mut connection, 1, &[]).await.is_empty());
    }
    let kept = callbacks::latest(&mut connection, None, None, None, 10)
        .await
        .unwrap();
    assert_eq!(
        (kept[0].outcome.as_str(), kept[0].attempts),
        ("delivered", 1)
    );
    assert_eq!(
        world
            .number("SELECT count(*) FROM callback_targets_disabled")
            .await,
        0
    );
}
