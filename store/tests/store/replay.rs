//! Offsets that are read again.

use millrace_schemas::TaskEvent;
use millrace_store::Outcome::{DeadLetter, Duplicate, Result as Done};
use millrace_store::{End, Outcome};

use crate::events::{born_in_days, event, events, keyed, raw, saying};
use crate::world::{Held, World, flush_of, records, share};

/// A partition whose position was set back by hand, in SQL: its rows are all there.
async fn set_back(world: &World) -> Held {
    world
        .sql("UPDATE partition_progress SET next_offset = 0, results = 0, duplicates = 0, dead_letters = 0")
        .await;
    world.claim(0).await
}

#[tokio::test]
async fn finding_17_a_replay_gives_the_same_outcomes_the_same_rows_and_the_right_counts() {
    let world = World::new("replay").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let asking = TaskEvent {
        reply: true,
        ..keyed("a")
    };
    let conflict = TaskEvent {
        payload: b"{}".to_vec(),
        ..keyed("a")
    };
    let twice = event();
    let stolen = TaskEvent {
        tenant: "mallory".into(),
        ..twice.clone()
    };
    let tasks = [
        event(),
        keyed("a"),
        keyed("a"),
        asking,
        conflict,
        twice.clone(),
        twice,
        stolen,
        born_in_days(9),
    ];
    let mut batch = records(0, &tasks);
    batch.push(raw(9, "no event"));
    let first = world.land_records(&mut writer, &mut owner, batch).await;
    assert_eq!(
        first,
        [
            Done, Done, Duplicate, Duplicate, DeadLetter, Done, Duplicate, DeadLetter, DeadLetter,
            DeadLetter
        ]
    );
    let rows = "SELECT string_agg(r::text, E'\\n' ORDER BY task_id) FROM task_results r";
    let letters = "SELECT string_agg(d::text, E'\\n' ORDER BY \"offset\") FROM dead_letters d";
    let before = (world.text(rows).await, world.text(letters).await);
    let counts = world.progress(0).await.counts;

    // Once as records that are known to repeat, once as records that meet their own rows by surprise.
    for known in [true, false] {
        let owner = set_back(&world).await;
        let mut writer = world.writer();
        let mut batch = records(0, &tasks);
        batch.push(raw(9, "no event"));
        let mut again = share(&owner, batch);
        again.may_repeat = known;
        let ends = world.flush(&mut writer, &flush_of(vec![again])).await;
        let [End::Landed { outcomes, .. }] = &ends[..] else {
            panic!("{ends:?}")
        };
        assert_eq!(*outcomes, first);
        assert_eq!(writer.take_incidents().conflicts, u64::from(!known));
        assert_eq!((world.text(rows).await, world.text(letters).await), before);
        assert_eq!(world.progress(0).await.counts, counts);
        assert_eq!(world.findings().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_replay_of_a_letter_whose_cause_has_gone_stays_a_letter() {
    let world = World::new("cause_gone").await;
    world
        .sql("ALTER TABLE task_results ADD CONSTRAINT no_poison CHECK (result::text NOT LIKE '%poison%')")
        .await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = [event(), saying("\"poison\"")];
    world.land(&mut writer, &mut owner, &tasks).await;
    world
        .sql("ALTER TABLE task_results DROP CONSTRAINT no_poison")
        .await;
    let mut owner = set_back(&world).await;
    let outcomes = world.land(&mut writer, &mut owner, &tasks).await;
    assert_eq!(outcomes, [Done, DeadLetter]);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_17_after_a_conflict_the_partition_goes_back_to_the_fast_path() {
    let world = World::new("fast_again").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = events(3);
    world.land(&mut writer, &mut owner, &tasks).await;
    let mut owner = set_back(&world).await;
    world.land(&mut writer, &mut owner, &tasks).await;
    assert_eq!(writer.take_incidents().conflicts, 1);
    for _ in 0..20 {
        world.land(&mut writer, &mut owner, &events(1)).await;
    }
    // Only the fast path meets rows by surprise.
    let mut owner = set_back(&world).await;
    world.land(&mut writer, &mut owner, &tasks).await;
    assert_eq!(writer.take_incidents().conflicts, 1);
}

#[tokio::test]
async fn a_large_replay_across_days_lands_in_one_flush() {
    let world = World::new("large").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut tasks = events(1_500);
    tasks.extend((0..1_500).map(|_| born_in_days(-1)));
    world.land(&mut writer, &mut owner, &tasks[..2_000]).await;
    let mut owner = set_back(&world).await;
    let outcomes = world.land(&mut writer, &mut owner, &tasks).await;
    assert_eq!(outcomes, vec![Outcome::Result; 3_000]);
    assert_eq!(world.results().await, 3_000);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn when_the_log_is_read_again_only_what_lies_before_a_record_counts() {
    let world = World::new("only_before").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let first = event();
    let again = TaskEvent {
        dedup_key: Some("a".into()),
        ..first.clone()
    };
    // The repeat did not take its key, so it went to this one.
    let takes_the_key = TaskEvent {
        payload: b"1".to_vec(),
        ..keyed("a")
    };
    let owner_of_b = keyed("b");
    let repeat_of_b = keyed("b");
    // The repeat left no row, so its id went to this one.
    let takes_the_id = TaskEvent {
        task_id: repeat_of_b.task_id,
        ..saying("2")
    };
    let tasks = [
        first,
        again,
        takes_the_key,
        owner_of_b,
        repeat_of_b,
        takes_the_id,
    ];
    let expected = [Done, Duplicate, Done, Done, Duplicate, Done];
    for task in tasks.chunks(1).zip(&expected) {
        assert_eq!(world.land(&mut writer, &mut owner, task.0).await, [*task.1]);
    }
    let mut owner = set_back(&world).await;
    assert_eq!(world.land(&mut writer, &mut owner, &tasks).await, expected);
    assert_eq!(world.findings().await, Vec::<String>::new());
}
