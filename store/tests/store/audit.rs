//! What the audit finds.

use millrace_store::audit::{self, Traceable, Traced};

use crate::events::{event, events, keyed, raw, record};
use crate::world::World;

#[tokio::test]
async fn finding_16_a_deleted_and_an_extra_row_are_found() {
    let world = World::new("audit").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut batch = crate::world::records(0, &events(5));
    batch.push(raw(5, "no event"));
    world.land_records(&mut writer, &mut owner, batch).await;
    assert_eq!(world.findings().await, Vec::<String>::new());

    for (damage, word) in [
        (
            "DELETE FROM task_results WHERE \"offset\" = 2",
            "5 results are booked, but 4 are",
        ),
        (
            "INSERT INTO task_results SELECT (overlay(r.task_id::text placing '0000' from 15))::uuid, r.submitted_at, r.completed_at, 1, \
               r.partition, r.day, r.status, r.run, r.attempts, r.fingerprint, NULL, r.topic, r.tenant, r.task_type, r.key, \
               r.content_type, NULL, NULL, NULL FROM task_results r",
            "are in task_results",
        ),
        (
            "DELETE FROM dead_letters",
            "1 dead letters are booked, but 0",
        ),
        (
            "UPDATE partition_progress SET next_offset = next_offset + 1",
            "7 offsets were passed, but 6",
        ),
    ] {
        world.sql(damage).await;
        let findings = world.findings().await;
        assert!(
            findings.iter().any(|finding| finding.contains(word)),
            "{findings:?}"
        );
    }
}

#[tokio::test]
async fn the_deep_audit_tells_how_each_record_of_the_log_ended() {
    let world = World::new("trace").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = [event(), keyed("a"), keyed("a"), event()];
    let mut batch = crate::world::records(0, &tasks);
    batch.push(raw(4, "no event"));
    batch.push(record(5, &tasks[0]));
    world.land_records(&mut writer, &mut owner, batch).await;
    world
        .sql("DELETE FROM task_results WHERE \"offset\" = 3")
        .await;

    let old = crate::events::born_in_days(-40);
    let of = |offset: i64, task: &millrace_schemas::TaskEvent| Traceable {
        offset,
        event: Some((task.task_id, task.as_ref().dedup_hash().map(|hash| hash.0))),
    };
    let records = [
        of(0, &tasks[0]),
        of(1, &tasks[1]),
        of(2, &tasks[2]),
        of(3, &tasks[3]),
        Traceable {
            offset: 4,
            event: None,
        },
        of(5, &tasks[0]),
        of(6, &old),
        Traceable {
            offset: 7,
            event: None,
        },
    ];
    let mut connection = world.operations().await;
    let traced = audit::trace(&mut connection, &world.consumer, 0, &records)
        .await
        .unwrap();
    use Traced::{DeadLetter, Duplicate, Missing, Result, Unverifiable};
    let expected = [
        Result,
        Result,
        Duplicate,
        Missing,
        DeadLetter,
        Duplicate,
        Unverifiable,
        Missing,
    ];
    assert_eq!(traced, expected);
}
