//! The outbox: rows are leased, and go only when they were delivered.

use std::time::Duration;

use millrace_store::outbox::{self, Leased};

use crate::world::World;

const LEASE: Duration = Duration::from_secs(600);

/// Letters at the offsets `0..count`, each with a row in the outbox.
async fn planted(name: &str, count: i64) -> World {
    let world = World::new(name).await;
    world
        .sql(&format!(
            "INSERT INTO dead_letters (group_id, topic, partition, log_book, \"offset\", run, reason, error, attempts, \
               record_key, record_value, headers) \
             SELECT 'workers', 'tasks', 0, 1, n, 0, 'undecodable', 'no event', 0, 'key', decode('ff00', 'hex'), \
               '{{\"b\": [\"1\", \"2\"], \"a\": [\"\"]}}' FROM generate_series(0, {count} - 1) n; \
             INSERT INTO outbox (kind, group_id, topic, partition, log_book, \"offset\", run) \
             SELECT 'dead_letter_copy', group_id, topic, partition, log_book, \"offset\", run FROM dead_letters"
        ))
        .await;
    world
}

async fn taken(world: &World, most: i64, most_bytes: i64) -> Vec<Leased> {
    let mut connection = world.operations().await;
    outbox::take(&mut connection, &world.consumer, most, most_bytes, LEASE)
        .await
        .unwrap()
}

async fn rows(world: &World) -> i64 {
    world.number("SELECT count(*) FROM outbox").await
}

#[tokio::test]
async fn a_row_belongs_to_one_sender_until_its_lease_ends() {
    let world = planted("outbox_lease", 10).await;
    let (one, other) = tokio::join!(taken(&world, 6, 1_000), taken(&world, 6, 1_000));
    let mut offsets: Vec<i64> = one
        .iter()
        .chain(&other)
        .map(|leased| leased.letter.letter.place.offset)
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets.len(), one.len() + other.len(), "no row twice");
    while !taken(&world, 6, 1_000).await.is_empty() {}
    assert_eq!(rows(&world).await, 10, "a lease deletes nothing");
    world.sql("UPDATE outbox SET due_at = now()").await;
    assert_eq!(taken(&world, 100, 1_000).await.len(), 10);
}

#[tokio::test]
async fn a_lease_that_is_renewed_goes_on() {
    let world = planted("outbox_renew", 2).await;
    let ids: Vec<i64> = taken(&world, 2, 1_000)
        .await
        .iter()
        .map(|one| one.id)
        .collect();
    world.sql("UPDATE outbox SET due_at = now()").await;
    let mut connection = world.operations().await;
    outbox::renew(&mut connection, &ids[..1], LEASE)
        .await
        .unwrap();
    let due: Vec<i64> = taken(&world, 2, 1_000)
        .await
        .iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(due, ids[1..], "the other one was let go");
}

#[tokio::test]
async fn a_row_brings_its_letter_as_it_was() {
    let world = planted("outbox_letter", 1).await;
    let leased = taken(&world, 10, 1_000).await;
    let letter = &leased[0].letter;
    assert_eq!(letter.value, [0xff, 0]);
    assert_eq!(letter.letter.key.as_deref(), Some(b"key".as_slice()));
    let headers: Vec<(&str, &[u8])> = letter
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    assert!(headers.contains(&("a", b"")), "{headers:?}");
    let repeated: Vec<&[u8]> = headers
        .iter()
        .filter(|(name, _)| *name == "b")
        .map(|(_, value)| *value)
        .collect();
    assert_eq!(repeated, [b"1", b"2"]);
}

#[tokio::test]
async fn a_batch_is_bounded_in_bytes_but_never_empty() {
    let world = planted("outbox_bytes", 10).await;
    assert_eq!(taken(&world, 10, 7).await.len(), 3);
    assert_eq!(taken(&world, 10, 1).await.len(), 1);
}

#[tokio::test]
async fn a_failed_attempt_waits_longer_each_time_and_is_never_given_up() {
    let world = planted("outbox_failed", 1).await;
    let mut connection = world.operations().await;
    let id = taken(&world, 1, 1_000).await[0].id;
    let wait = "SELECT round(extract(epoch FROM due_at - clock_timestamp()))::bigint FROM outbox";
    let mut waits = Vec::new();
    for _ in 0..40 {
        outbox::failed(&mut connection, &[id], "the topic is\0 missing")
            .await
            .unwrap();
        waits.push(world.number(wait).await);
    }
    assert_eq!(waits[..5], [1, 2, 4, 8, 16]);
    assert_eq!(waits[39], 300);
    let said = world.text("SELECT attempts || ' ' || last_error FROM outbox");
    assert_eq!(said.await.unwrap(), "40 the topic is\u{FFFD} missing");
    assert!(taken(&world, 1, 1_000).await.is_empty(), "not due yet");
}

#[tokio::test]
async fn rows_go_when_they_were_delivered_or_their_letter_is_gone() {
    let world = planted("outbox_sent", 3).await;
    world
        .sql("DELETE FROM dead_letters WHERE \"offset\" = 1")
        .await;
    let leased = taken(&world, 10, 1_000).await;
    assert_eq!(leased.len(), 2);
    assert_eq!(rows(&world).await, 2, "nothing is left to copy at 1");
    let mut connection = world.operations().await;
    outbox::sent(&mut connection, &[leased[0].id])
        .await
        .unwrap();
    assert_eq!(rows(&world).await, 1);
    let backlog = outbox::backlog(&mut connection, &world.consumer)
        .await
        .unwrap();
    assert_eq!(backlog.rows, 1);
    assert!(backlog.oldest < Duration::from_secs(3_600), "{backlog:?}");
}

#[tokio::test]
async fn one_letter_is_copied_once_though_two_rows_name_it() {
    let world = planted("outbox_two_rows", 1).await;
    world
        .sql(
            "INSERT INTO outbox (kind, group_id, topic, partition, log_book, \"offset\", run) \
              SELECT kind, group_id, topic, partition, log_book, \"offset\", run FROM outbox",
        )
        .await;
    let leased = taken(&world, 10, 1_000).await;
    assert_eq!((leased.len(), rows(&world).await), (1, 1));
}
