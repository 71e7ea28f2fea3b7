//! Task ids: their day, their range, and ids that come twice.

use millrace_schemas::TaskEvent;
use millrace_store::Outcome::{DeadLetter, Duplicate, Result as Done};

use crate::events::{born_in_days, event};
use crate::world::World;

#[tokio::test]
async fn finding_10_a_result_lies_on_its_ids_own_birth_day() {
    let world = World::new("birth_day").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    // Yesterday's backlog, a clock that is fast across midnight, and the oldest day that is kept.
    let batch = [born_in_days(-1), born_in_days(1), born_in_days(-3), event()];
    assert_eq!(world.land(&mut writer, &mut owner, &batch).await, [Done; 4]);
    for task in &batch {
        let found = format!(
            "SELECT count(*) FROM task_results WHERE task_id = '{}' AND day = '{}'",
            task.task_id,
            task.task_id.birth_day()
        );
        assert_eq!(world.number(&found).await, 1);
    }
    // Replayed on another day or the same, an id has one result.
    assert_eq!(
        world.land(&mut writer, &mut owner, &batch).await,
        [Duplicate; 4]
    );
    assert_eq!(world.results().await, 4);
}

#[tokio::test]
async fn finding_10_ids_out_of_range_are_dead_letters_without_a_result() {
    let world = World::new("out_of_range").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let batch = [
        born_in_days(-4),
        born_in_days(2),
        born_in_days(3_650),
        born_in_days(-9_000),
        event(),
    ];
    let outcomes = world.land(&mut writer, &mut owner, &batch).await;
    assert_eq!(
        outcomes,
        [DeadLetter, DeadLetter, DeadLetter, DeadLetter, Done]
    );
    let letters = "SELECT count(*) FROM dead_letters WHERE reason = 'id_out_of_range' AND task_id IS NOT NULL AND tenant = 'acme'";
    assert_eq!(world.number(letters).await, 4);
    assert_eq!(world.results().await, 1);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_same_id_with_the_same_content_is_a_duplicate_in_a_batch_and_across_flushes() {
    let world = World::new("same_id").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let task = event();
    let batch = [task.clone(), event(), task.clone()];
    assert_eq!(
        world.land(&mut writer, &mut owner, &batch).await,
        [Done, Done, Duplicate]
    );
    assert_eq!(
        world.land(&mut writer, &mut owner, &[task]).await,
        [Duplicate]
    );
    assert_eq!(world.results().await, 2);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_21_an_id_of_another_tenant_or_content_is_a_conflict_and_harms_nobody() {
    let world = World::new("id_conflict").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let task = event();
    let by_tenant = TaskEvent {
        tenant: "mallory".into(),
        ..task.clone()
    };
    let by_content = TaskEvent {
        payload: b"[]".to_vec(),
        ..task.clone()
    };
    let in_batch = world
        .land(&mut writer, &mut owner, &[task.clone(), by_tenant.clone()])
        .await;
    let across = world
        .land(&mut writer, &mut owner, &[by_content, by_tenant])
        .await;
    assert_eq!(
        (in_batch, across),
        (vec![Done, DeadLetter], vec![DeadLetter; 2])
    );
    let untouched = "SELECT count(*) FROM task_results WHERE tenant = 'acme' AND status = 'success' AND \"offset\" = 0";
    assert_eq!(
        (world.number(untouched).await, world.results().await),
        (1, 1)
    );
    assert_eq!(
        world
            .number("SELECT count(*) FROM dead_letters WHERE reason = 'id_conflict'")
            .await,
        3
    );
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_same_id_in_two_partitions_has_one_result() {
    let world = World::new("two_partitions").await;
    let (mut first, mut second) = (world.claim(0).await, world.claim(1).await);
    let task = [event()];
    let (mut one, mut two) = (world.writer(), world.writer());
    let (a, b) = tokio::join!(
        world.land(&mut one, &mut first, &task),
        world.land(&mut two, &mut second, &task)
    );
    let mut outcomes = [a[0], b[0]];
    outcomes.sort_by_key(|outcome| *outcome == Duplicate);
    assert_eq!(outcomes, [Done, Duplicate]);
    assert_eq!(world.results().await, 1);
    assert_eq!(world.findings().await, Vec::<String>::new());
}
