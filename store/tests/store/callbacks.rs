//! Callbacks: written for each end that is to be told, taken by one at a time, and kept only by whoever still has
//! them.

use std::time::Duration;

use millrace_schemas::{TaskEvent, TaskId};
use millrace_store::Outcome::{Duplicate, Result as Done};
use millrace_store::callbacks::{self, Attempted, Callback, Full, Looked, Next, Which};
use millrace_store::finished;
use sqlx::{Connection as _, PgConnection};

use crate::events::keyed;
use crate::world::World;

const LEASE: Duration = Duration::from_secs(45);

/// Rows of a tenant for these targets, due now, in this order.
async fn write_of(world: &World, tenant: &str, targets: &[&str]) {
    for (place, target) in targets.iter().enumerate() {
        let id = TaskId::mint();
        world
            .sql(&format!(
                "INSERT INTO callbacks (group_id, topic, task_id, run, tenant, target, due_at) \
                 VALUES ('{}', '{}', '{id}', 0, '{tenant}', '{target}', now() - interval '1 s' + {place} * interval '1 ms')",
                world.consumer.group, world.consumer.topic,
            ))
            .await;
    }
}

async fn write(world: &World, targets: &[&str]) {
    write_of(world, "acme", targets).await;
}

/// Hosts of the tenant `acme` that are full.
fn full(hosts: &[&str]) -> Full {
    let of_acme = hosts
        .iter()
        .map(|host| ("acme".to_owned(), (*host).to_owned()));
    Full {
        hosts: of_acme.collect(),
        ..Full::default()
    }
}

async fn take(
    world: &World,
    connection: &mut PgConnection,
    most: usize,
    without: &[&str],
) -> Vec<Callback> {
    let mut looked = Looked::default();
    let full = full(without);
    let taken = callbacks::take(connection, &world.consumer, most, LEASE, &full, &mut looked);
    let taken = taken.await.unwrap();
    assert!(looked.at_all());
    taken
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
async fn a_host_is_one_however_its_url_goes_on() {
    let world = World::new("callbacks_one_host").await;
    let mut connection = world.operations().await;
    let targets = [
        "http://h.example",
        "http://h.example/1",
        "http://h.example?1",
        "http://h.example#1",
        "http://h.example\\1",
        "HTTPS://H.Example?a@b/c",
        "http://user:word@h.example?1",
        "http://a@b@h.example#c@d",
    ];
    write(&world, &targets).await;
    let none = take(&world, &mut connection, 10, &["h.example"]).await;
    assert_eq!(hosts(&none), Vec::<&str>::new());
    let all = take(&world, &mut connection, 10, &[]).await;
    assert_eq!(hosts(&all), ["h.example"; 8]);
}

#[tokio::test]
async fn with_very_many_hosts_each_has_its_turn() {
    let world = World::new("callbacks_many_hosts").await;
    let mut connection = world.operations().await;
    let rows = (0..1_200).map(|n| format!("('{}', 'http://h{n}.example/')", TaskId::mint()));
    let rows: Vec<_> = rows.collect();
    world
        .sql(&format!(
            "INSERT INTO callbacks (group_id, topic, task_id, run, tenant, target) \
             SELECT '{}', '{}', id::uuid, 0, 'acme', target FROM (VALUES {}) v(id, target)",
            world.consumer.group,
            world.consumer.topic,
            rows.join(", ")
        ))
        .await;
    let (mut looked, nothing) = (Looked::default(), Full::default());
    let mut look = async |looked: &mut Looked, most| {
        let taken = callbacks::take(
            &mut connection,
            &world.consumer,
            most,
            LEASE,
            &nothing,
            looked,
        );
        taken.await.unwrap().len()
    };
    assert_eq!(look(&mut looked, 2_000).await, 1_000);
    assert!(!looked.at_all());
    assert_eq!(look(&mut looked, 150).await, 150);
    assert!(looked.at_all());
    assert_eq!(
        look(&mut looked, 2_000).await,
        0,
        "of the first thousand nothing is due"
    );
    assert!(!looked.has_met());
    assert_eq!(look(&mut looked, 2_000).await, 50);
    assert!(looked.at_all() && looked.has_met());
}

#[tokio::test]
async fn what_another_sender_is_taking_is_passed_over() {
    let world = World::new("callbacks_taken").await;
    let (mut one, mut other) = (world.operations().await, world.operations().await);
    write(
        &world,
        &[
            "http://a.example/1",
            "http://a.example/2",
            "http://a.example/3",
        ],
    )
    .await;
    let mut transaction = one.begin().await.unwrap();
    let taken = take(&world, &mut transaction, 2, &[]).await;
    let rest = take(&world, &mut other, 2, &[]).await;
    assert_eq!((taken.len(), rest.len()), (2, 1));
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn what_is_full_for_one_tenant_is_not_for_another() {
    let world = World::new("callbacks_tenants").await;
    let mut connection = world.operations().await;
    write(&world, &["http://a.example/1", "http://b.example/1"]).await;
    write_of(&world, "other", &["http://a.example/2"]).await;
    let tenants = Full {
        tenants: vec!["acme".to_owned()],
        ..Full::default()
    };
    for (full, expected) in [
        (tenants, vec!["a.example"]),
        (full(&["a.example"]), vec!["b.example", "a.example"]),
    ] {
        let mut looked = Looked::default();
        let taken = callbacks::take(
            &mut connection,
            &world.consumer,
            10,
            LEASE,
            &full,
            &mut looked,
        );
        let taken = taken.await.unwrap();
        assert_eq!(hosts(&taken), expected, "{full:?}");
        callbacks::give_back(&mut connection, &taken).await.unwrap();
    }
}

#[tokio::test]
async fn a_duplicate_that_wants_to_be_called_back_gets_a_row_and_a_callback() {
    let world = World::new("callbacks_duplicate").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let wanting = || TaskEvent {
        callback: Some("https://a.example/1".to_owned()),
        ..keyed("a")
    };
    let (first, in_batch, across) = (keyed("a"), wanting(), wanting());
    let both = [first.clone(), in_batch.clone()];
    let outcomes = world.land(&mut writer, &mut owner, &both).await;
    assert_eq!(outcomes, [Done, Duplicate]);
    let later = std::slice::from_ref(&across);
    assert_eq!(
        world.land(&mut writer, &mut owner, later).await,
        [Duplicate]
    );
    let mut connection = world.operations().await;
    let due = take(&world, &mut connection, 10, &[]).await;
    let ids: Vec<TaskId> = due.iter().map(|one| one.task_id).collect();
    assert_eq!(ids, [in_batch.task_id, across.task_id]);
    let ends = finished::finished(&mut connection, &ids).await.unwrap();
    for id in ids {
        assert_eq!(ends[&id].duplicate_of, Some(first.task_id));
    }
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn one_whose_attempt_failed_is_sent_again_on_demand_and_every_attempt_is_told() {
    let world = World::new("callbacks_again").await;
    let mut connection = world.operations().await;
    write(&world, &["https://a.example/1"]).await;
    let taken = take(&world, &mut connection, 1, &[]).await;
    let task = taken[0].task_id;
    let failed = |callback: &Callback| Attempted {
        status_code: Some(503),
        error: Some("the target answered 503".to_owned()),
        ..attempted(callback, Next::Again(Duration::from_secs(3_600)))
    };
    let which = Which::Task(task);
    let again = callbacks::send_again(&mut connection, &which, "test").await;
    assert_eq!(again.unwrap(), 0, "its first attempt is on its way");
    callbacks::attempted(&mut connection, &[failed(&taken[0])])
        .await
        .unwrap();
    assert!(take(&world, &mut connection, 1, &[]).await.is_empty());
    let again = callbacks::send_again(&mut connection, &which, "test").await;
    assert_eq!(again.unwrap(), 1);
    let taken = take(&world, &mut connection, 1, &[]).await;
    assert_eq!(taken[0].attempts, 0, "the schedule begins anew");
    callbacks::attempted(&mut connection, &[attempted(&taken[0], Next::Delivered)])
        .await
        .unwrap();
    let tries = callbacks::tries(&mut connection, task).await.unwrap();
    let told: Vec<_> = tries
        .iter()
        .map(|one| (one.attempt, one.status_code, one.error.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            (1, Some(503), Some("the target answered 503")),
            (2, Some(200), None)
        ]
    );
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
