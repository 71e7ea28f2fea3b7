//! Rows that the database refuses while it is well itself.

use std::time::Duration;

use millrace_store::Outcome::{self, DeadLetter as Dead, Result as Done};
use millrace_store::{DeadLetter, End, Ending, Headers, Reason};

use crate::events::{event, events, raw, record, saying};
use crate::world::{World, flush_of, records, share};

/// Refuses results that say "poison".
const REFUSE_POISON: &str =
    "ALTER TABLE task_results ADD CONSTRAINT no_poison CHECK (result::text NOT LIKE '%poison%')";

fn poison() -> millrace_schemas::TaskEvent {
    saying(r#"{"say":"poison"}"#)
}

#[tokio::test]
async fn finding_05_a_refused_row_becomes_a_dead_letter_and_the_rest_of_its_batch_lands() {
    let world = World::new("refused").await;
    world.sql(REFUSE_POISON).await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut batch = events(200);
    batch[77] = poison();
    batch[78] = poison();

    let outcomes = world.land(&mut writer, &mut owner, &batch).await;

    let dead: Vec<usize> = (0..200).filter(|at| outcomes[*at] == Dead).collect();
    assert_eq!(dead, [77, 78]);
    assert!(writer.take_incidents().refusals > 0);
    let letters = format!(
        "SELECT count(*) FROM dead_letters WHERE reason = 'row_refused' AND \"offset\" IN (77, 78) \
         AND position('poison'::bytea in record_value) > 0 AND error LIKE '%no_poison%' AND task_id IN ('{}', '{}')",
        batch[77].task_id, batch[78].task_id
    );
    assert_eq!(world.number(&letters).await, 2);
    let failed = "SELECT count(*) FROM task_results WHERE status = 'failed' AND error->>'code' = 'row_refused' AND result IS NULL";
    assert_eq!(world.number(failed).await, 2);
    let row = world.progress(0).await;
    assert_eq!(
        (row.next_offset, row.counts.results, row.counts.dead_letters),
        (200, 198, 2)
    );
    assert_eq!(row.seq, owner.fence.seq);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_28_one_refused_row_does_not_touch_the_other_partitions() {
    let world = World::new("refused_p0").await;
    world.sql(REFUSE_POISON).await;
    let (first, second) = (world.claim(0).await, world.claim(1).await);
    let mut bad = events(10);
    bad[3] = poison();
    let flush = flush_of(vec![
        share(&first, records(0, &bad)),
        share(&second, records(0, &events(10))),
    ]);

    let ends = world.flush(&mut world.writer(), &flush).await;

    let outcomes: Vec<&Vec<Outcome>> = ends
        .iter()
        .map(|end| match end {
            End::Landed { outcomes, .. } => outcomes,
            End::Lost(loss) => panic!("{loss:?}"),
        })
        .collect();
    assert_eq!(outcomes[1], &vec![Done; 10]);
    assert_eq!(
        outcomes[0]
            .iter()
            .filter(|outcome| **outcome == Dead)
            .count(),
        1
    );
    assert_eq!(world.progress(1).await.counts.results, 10);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_28_a_partition_whose_letters_are_refused_too_waits_alone() {
    let world = World::new("waits_alone").await;
    world.sql(REFUSE_POISON).await;
    world
        .sql("ALTER TABLE dead_letters ADD CONSTRAINT not_zero CHECK (partition <> 0 OR reason = 'canary' OR group_id LIKE '%canary')")
        .await;
    let (first, second) = (world.claim(0).await, world.claim(1).await);
    let flush = flush_of(vec![
        share(&first, records(0, &[poison()])),
        share(&second, records(0, &events(5))),
    ]);
    let mut writer = world.writer();
    let flying = world.flush(&mut writer, &flush);
    let others_land = async {
        while world.progress(1).await.next_offset < 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(world.progress(0).await.next_offset, 0);
        world
            .sql("ALTER TABLE dead_letters DROP CONSTRAINT not_zero")
            .await;
    };
    let (ends, ()) = tokio::join!(flying, others_land);
    assert!(ends.iter().all(|end| matches!(end, End::Landed { .. })));
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_record_whose_failed_result_is_refused_too_still_becomes_a_dead_letter() {
    let world = World::new("no_row_at_all").await;
    world
        .sql("ALTER TABLE task_results ADD CONSTRAINT not_them CHECK (tenant <> 'banned')")
        .await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let banned = millrace_schemas::TaskEvent {
        tenant: "banned".into(),
        ..event()
    };
    let outcomes = world
        .land(&mut writer, &mut owner, &[event(), banned, event()])
        .await;
    assert_eq!(outcomes, [Done, Dead, Done]);
    assert_eq!(world.results().await, 2);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_letter_that_the_worker_wrote_keeps_its_reason_when_its_failed_result_is_refused() {
    let world = World::new("keeps_reason").await;
    world
        .sql("ALTER TABLE task_results ADD CONSTRAINT not_them CHECK (tenant <> 'banned')")
        .await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut bad = raw(0, "no event");
    bad.headers = Headers::collect([("tenant", b"ban\0ned".as_slice())].into_iter());
    bad.ending = Ending::Dead(Box::new(DeadLetter {
        reason: Reason::Undecodable,
        error: "not an event".into(),
        key: Some(b"k\0ey".to_vec()),
        task_id: Some(event().task_id),
        tenant: Some("banned".into()),
    }));
    assert_eq!(
        world.land_records(&mut writer, &mut owner, vec![bad]).await,
        [Dead]
    );
    let kept = "SELECT count(*) FROM dead_letters WHERE reason = 'undecodable' AND record_key = 'k\\000ey'::bytea \
         AND headers->'tenant'->>0 = U&'ban\\FFFDned' AND task_id IS NOT NULL";
    assert_eq!(world.number(kept).await, 1);
}

#[tokio::test]
async fn undecodable_bytes_with_an_id_in_their_header_get_a_failed_result_where_the_id_is_free() {
    let world = World::new("header_id").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let taken = event();
    world
        .land(&mut writer, &mut owner, std::slice::from_ref(&taken))
        .await;
    let ids = [
        event().task_id,
        taken.task_id,
        crate::events::born_in_days(-2_000).task_id,
    ];
    let batch = (1..)
        .zip(ids)
        .map(|(offset, id)| {
            let mut bad = raw(offset, "no event");
            bad.ending = Ending::Dead(Box::new(DeadLetter {
                task_id: Some(id),
                tenant: Some("acme".into()),
                ..DeadLetter::about_event(Reason::Undecodable, "quotes \0 the payload")
            }));
            bad
        })
        .collect();
    assert_eq!(
        world.land_records(&mut writer, &mut owner, batch).await,
        [Dead; 3]
    );
    assert_eq!(
        world
            .number("SELECT count(*) FROM task_results WHERE status = 'failed'")
            .await,
        1
    );
    assert_eq!(
        world
            .number("SELECT count(*) FROM task_results WHERE status = 'success'")
            .await,
        1
    );
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 3);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_timestamp_that_no_calendar_knows_refuses_nothing() {
    let world = World::new("timestamps").await;
    let (mut writer, owner) = (world.writer(), world.claim(0).await);
    let mut good = record(0, &event());
    good.timestamp_ms = i64::MAX;
    let mut bad = raw(1, "no event");
    bad.timestamp_ms = 1_800_000_000_000_000_000;
    let mut share = share(&owner, vec![good, bad]);
    share.advance.frontier_ms = Some(i64::MAX);
    let ends = world.flush(&mut writer, &flush_of(vec![share])).await;
    let [End::Landed { outcomes, .. }] = &ends[..] else {
        panic!("{ends:?}");
    };
    assert_eq!(outcomes, &[Done, Dead]);
    assert_eq!(world.number("SELECT count(*) FROM dead_letters WHERE record_time IS NULL AND reason = 'undecodable'").await, 1);
    assert_eq!(world.progress(0).await.frontier_ms, None);
}
