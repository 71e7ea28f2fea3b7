//! Migrating, pinning, publishing.

use millrace_schemas::released;
use millrace_store::deployment::{self, Deployment};
use millrace_store::{migrate, schemas_known};

use crate::world::World;

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let world = World::new("again").await;
    let shape = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace";
    let before = world.number(shape).await;
    migrate(&world.database, world.retention).await.unwrap();
    assert_eq!(world.number(shape).await, before);
}

#[tokio::test]
async fn many_may_migrate_a_new_schema_at_once() {
    let own = millrace_devstack::TestDb::new("at_once").await.unwrap();
    let retention = millrace_store::days::Retention::default();
    let database = millrace_store::Database::new(&own.url, &own.schema).unwrap();
    let migrator = || migrate(&database, retention);
    let ends = tokio::join!(migrator(), migrator(), migrator(), migrator(), migrator());
    for end in [ends.0, ends.1, ends.2, ends.3, ends.4] {
        end.unwrap();
    }
}

#[tokio::test]
async fn an_older_binary_accepts_what_a_newer_one_has_migrated() {
    let world = World::new("older").await;
    world
        .sql("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
              VALUES (9999, 'of a later release', true, '\\x00', 1)")
        .await;
    migrate(&world.database, world.retention).await.unwrap();
}

#[tokio::test]
async fn a_migration_that_differs_from_the_applied_one_is_refused() {
    let world = World::new("differs").await;
    world
        .sql("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1")
        .await;
    let error = migrate(&world.database, world.retention).await.unwrap_err();
    assert!(error.to_string().contains(&world.schema), "{error}");
}

#[tokio::test]
async fn finding_26_the_first_start_pins_the_log_and_later_ones_only_read_it() {
    let world = World::new("pin").await;
    let mut connection = world.operations().await;
    assert_eq!(deployment::pinned(&mut connection).await.unwrap(), None);
    let first = Deployment {
        group: "workers".into(),
        topic: "tasks".into(),
        cluster_id: Some("cluster".into()),
        topic_id: None,
        partition_count: 12,
    };
    let other = Deployment {
        group: "others".into(),
        topic_id: Some("id".into()),
        partition_count: 24,
        ..first.clone()
    };
    assert_eq!(
        deployment::pin(&mut connection, &first).await.unwrap(),
        first
    );
    assert_eq!(
        deployment::pin(&mut connection, &other).await.unwrap(),
        first
    );
    assert_eq!(world.number("SELECT count(*) FROM deployment").await, 1);
}

#[tokio::test]
async fn finding_12_every_released_schema_is_published_for_older_readers() {
    let world = World::new("schemas").await;
    let mut connection = world.operations().await;
    let published = schemas_known::all(&mut connection).await.unwrap();
    for schema in released() {
        assert!(published.iter().any(|text| text == schema.json));
    }
    assert_eq!(published.len(), released().len());
}
