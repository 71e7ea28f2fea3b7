//! Pauses and allowances, and that workers hear of them.

use std::time::Duration;

use millrace_devstack::TestDb;
use millrace_schemas::TaskId;
use millrace_store::notices::{self, Notice, Notices};
use millrace_store::pauses::{self, Pause, Scope};
use millrace_store::{Trouble, allowances, cancels, operations_log};

use crate::world::{DEADLINE, World};

/// How soon a running worker hears of what people do.
const SOON: Duration = Duration::from_secs(1);

async fn heard(listener: &mut Notices) -> Notice {
    tokio::time::timeout(SOON, listener.next())
        .await
        .expect("a notice within a second")
        .unwrap()
        .notice
}

async fn names(world: &World) -> Vec<(Scope, String)> {
    let mut connection = world.operations().await;
    let all = pauses::all(&mut connection).await.unwrap();
    all.into_iter().map(|one| (one.scope, one.name)).collect()
}

#[tokio::test]
async fn a_pause_is_set_heard_and_lifted_once_however_often_it_is_asked_for() {
    let world = World::new("pauses").await;
    let mut connection = world.operations().await;
    let mut listener = Notices::connect(&world.database, &Notice::FOR_WORKERS)
        .await
        .unwrap();

    assert!(
        pauses::set(
            &mut connection,
            Scope::TaskType,
            "mail",
            "ann",
            Some("provider down")
        )
        .await
        .unwrap()
    );
    assert_eq!(heard(&mut listener).await, Notice::Pauses);
    assert!(
        !pauses::set(&mut connection, Scope::TaskType, "mail", "bob", None)
            .await
            .unwrap()
    );
    assert_eq!(heard(&mut listener).await, Notice::Pauses);
    // A tenant may be called like a type.
    assert!(
        pauses::set(&mut connection, Scope::Tenant, "mail", "ann", None)
            .await
            .unwrap()
    );
    let both = [
        (Scope::TaskType, "mail".to_owned()),
        (Scope::Tenant, "mail".to_owned()),
    ];
    assert_eq!(names(&world).await, both);
    let first: Pause = pauses::all(&mut connection).await.unwrap().remove(0);
    assert_eq!(
        (first.by.as_str(), first.reason.as_deref()),
        ("ann", Some("provider down"))
    );

    assert!(
        pauses::clear(&mut connection, Scope::TaskType, "mail", "bob")
            .await
            .unwrap()
    );
    assert!(
        !pauses::clear(&mut connection, Scope::TaskType, "mail", "bob")
            .await
            .unwrap()
    );
    assert_eq!(names(&world).await, both[1..]);
    for _ in 0..3 {
        assert_eq!(heard(&mut listener).await, Notice::Pauses);
    }

    let log = operations_log::latest(&mut connection, 10).await.unwrap();
    let deeds: Vec<(&str, &str)> = log
        .iter()
        .map(|one| (one.action.as_str(), one.by.as_str()))
        .collect();
    assert_eq!(
        deeds,
        [("resume", "bob"), ("pause", "ann"), ("pause", "ann")],
        "only what changed something"
    );
}

#[tokio::test]
async fn notices_of_a_schema_with_the_longest_name_are_heard_there_and_nowhere_else() {
    let own = TestDb::new("long").await.unwrap();
    let mut name = own.schema.clone();
    name.push_str(&"x".repeat(63 - name.len()));
    let neighbour = format!("{}y", &name[..62]);
    let (url, kept) = (own.url.clone(), own.schema.clone());
    let long = World::at(url.clone(), name.clone(), None).await;
    let other = World::at(url.clone(), neighbour.clone(), None).await;
    let mut here = Notices::connect(&long.database, &Notice::FOR_WORKERS)
        .await
        .unwrap();
    let mut there = Notices::connect(&other.database, &Notice::FOR_WORKERS)
        .await
        .unwrap();
    let mut connection = long.operations().await;
    for notice in Notice::FOR_WORKERS {
        notices::tell(&mut connection, notice).await.unwrap();
        assert_eq!(heard(&mut here).await, notice);
    }
    let silence = tokio::time::timeout(Duration::from_millis(200), there.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    drop((here, there, connection));
    let last = World::at(url, kept, Some(own)).await;
    last.sql(&format!("DROP SCHEMA {name} CASCADE")).await;
    last.sql(&format!("DROP SCHEMA {neighbour} CASCADE")).await;
}

#[tokio::test]
async fn a_notice_is_sent_with_its_transaction_and_not_before() {
    let world = World::new("notice_tx").await;
    let mut listener = Notices::connect(&world.database, &Notice::FOR_WORKERS)
        .await
        .unwrap();
    let mut connection = world.operations().await;
    let mut undone = sqlx::Connection::begin(&mut connection).await.unwrap();
    notices::tell(&mut undone, Notice::Parked).await.unwrap();
    undone.rollback().await.unwrap();
    cancels::request(&mut connection, TaskId::mint(), None, "me")
        .await
        .unwrap();
    assert_eq!(heard(&mut listener).await, Notice::Cancels);
}

#[tokio::test]
async fn a_listener_whose_connection_broke_says_so() {
    let world = World::new("notice_cut").await;
    let mut listener = Notices::connect(&world.database, &Notice::FOR_WORKERS)
        .await
        .unwrap();
    let pids = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND query LIKE '%";
    assert_eq!(world.number(&format!("{pids}{}%'", world.schema)).await, 1);
    let end = tokio::time::timeout(DEADLINE, listener.next())
        .await
        .unwrap();
    assert!(matches!(end, Err(Trouble::Outage(_))), "{end:?}");
}

#[tokio::test]
async fn a_partition_is_allowed_to_go_on_up_to_an_offset_of_its_log() {
    let world = World::new("allowances").await;
    let mut connection = world.operations().await;
    let allow = allowances::allow(&mut connection, &world.consumer, 0, 50, "ann").await;
    assert!(!allow.unwrap(), "no partition, nothing to allow");
    world.claim(0).await;
    let mut listener = Notices::connect(&world.database, &Notice::FOR_WORKERS)
        .await
        .unwrap();
    for until in [50, 70] {
        assert!(
            allowances::allow(&mut connection, &world.consumer, 0, until, "ann")
                .await
                .unwrap()
        );
        assert_eq!(heard(&mut listener).await, Notice::Pauses);
    }
    let all = allowances::all(&mut connection, &world.consumer)
        .await
        .unwrap();
    let found: Vec<(i32, i32, i64)> = all
        .iter()
        .map(|one| (one.partition, one.log_book, one.until_offset))
        .collect();
    assert_eq!(found, [(0, 1, 70)]);
}
