//! What is known when a COMMIT is not answered, or when the database is not where it was.

use millrace_store::{Counts, End, FenceLoss, Outcome};

use crate::events::{event, events, keyed, raw};
use crate::severed::{Break, Wire};
use crate::world::{World, flush_of, records, share};

#[tokio::test]
async fn finding_01_a_lost_commit_answer_is_looked_up_and_nothing_is_doubled() {
    let world = World::new("lost_ack").await;
    let wire = Wire::to(&world.url).await;
    let mut writer = world.writer_to(world.by_way_of(&wire.url));
    let mut owner = world.claim(0).await;
    let mut batch = records(0, &[event(), keyed("a"), keyed("a")]);
    batch.push(raw(3, "no event"));
    wire.break_next(Break::BeforeTheAnswer);

    let outcomes = world.land_records(&mut writer, &mut owner, batch).await;

    assert_eq!(wire.broken(), 1);
    assert_eq!(writer.take_incidents().unknown_commits, 1);
    let expected = [
        Outcome::Result,
        Outcome::Result,
        Outcome::Duplicate,
        Outcome::DeadLetter,
    ];
    assert_eq!(outcomes, expected);
    let row = world.progress(0).await;
    assert_eq!(row.seq, owner.fence.seq);
    let counts = Counts {
        results: 2,
        duplicates: 1,
        dead_letters: 1,
        ..Counts::default()
    };
    assert_eq!((row.next_offset, row.counts), (4, counts));
    assert_eq!(world.results().await, 2);
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 1);
    // And the fence fits the next flush.
    world.land(&mut writer, &mut owner, &events(1)).await;
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_01_a_commit_that_never_arrived_is_done_again() {
    let world = World::new("lost_commit").await;
    let wire = Wire::to(&world.url).await;
    let mut writer = world.writer_to(world.by_way_of(&wire.url));
    let mut owner = world.claim(0).await;
    wire.break_next(Break::BeforeTheCommit);

    let outcomes = world
        .land(&mut writer, &mut owner, &[keyed("a"), keyed("a"), event()])
        .await;

    assert_eq!(
        outcomes,
        [Outcome::Result, Outcome::Duplicate, Outcome::Result]
    );
    assert_eq!(wire.broken(), 1);
    assert_eq!(world.results().await, 2);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_01_an_answer_that_is_lost_for_a_partition_taken_meanwhile_is_a_loss() {
    let world = World::new("lost_and_taken").await;
    let wire = Wire::to(&world.url).await;
    let mut writer = world.writer_to(world.by_way_of(&wire.url));
    let (first, second) = (world.claim(0).await, world.claim(1).await);
    // The thief comes in the very transaction that the writer does not hear of.
    world
        .sql(
            "CREATE FUNCTION steal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.partition = 1 AND NEW.next_offset > 0 THEN NEW.claim := gen_random_uuid(); END IF; RETURN NEW; END $$; \
             CREATE TRIGGER steal BEFORE UPDATE ON partition_progress FOR EACH ROW EXECUTE FUNCTION steal()",
        )
        .await;
    wire.break_next(Break::BeforeTheAnswer);
    let flush = flush_of(vec![
        share(&first, records(0, &events(2))),
        share(&second, records(0, &events(2))),
    ]);

    let ends = world.flush(&mut writer, &flush).await;

    let [
        End::Landed {
            fence, outcomes, ..
        },
        End::Lost(FenceLoss::Taken),
    ] = &ends[..]
    else {
        panic!("{ends:?}");
    };
    assert_eq!((fence.seq, outcomes.len()), (first.fence.seq + 1, 2));
}

#[tokio::test]
async fn finding_01_a_database_that_went_back_is_noticed_by_seq() {
    let world = World::new("went_back").await;
    let mut writer = world.writer();
    let mut owner = world.claim(0).await;
    world.land(&mut writer, &mut owner, &events(3)).await;
    world
        .sql(
            "CREATE TABLE then_progress AS TABLE partition_progress; \
             CREATE TABLE then_results AS TABLE task_results",
        )
        .await;
    world.land(&mut writer, &mut owner, &events(5)).await;
    world
        .sql(
            "BEGIN; DELETE FROM partition_progress; INSERT INTO partition_progress SELECT * FROM then_progress; \
             DELETE FROM task_results; INSERT INTO task_results SELECT * FROM then_results; COMMIT",
        )
        .await;

    let ends = world
        .flush(
            &mut writer,
            &flush_of(vec![share(&owner, records(8, &events(1)))]),
        )
        .await;

    assert!(matches!(ends[..], [End::Lost(FenceLoss::DatabaseMoved)]));
    assert_eq!(
        world.results().await,
        3,
        "nothing was written over the hole"
    );
    assert_eq!(world.claim(0).await.next, 3, "the hole is read again");
}

#[tokio::test]
async fn finding_01_a_claim_handed_out_after_the_backup_matches_nothing_after_it() {
    let world = World::new("epoch_reuse").await;
    world.claim(0).await;
    world
        .sql("CREATE TABLE then_progress AS TABLE partition_progress")
        .await;
    let zombie = world.claim_as(0, "zombie").await;
    world
        .sql("DELETE FROM partition_progress; INSERT INTO partition_progress SELECT * FROM then_progress")
        .await;
    let owner = world.claim_as(0, "owner").await;
    assert_eq!(
        owner.fence.seq, zombie.fence.seq,
        "the number alone would match"
    );

    let ends = world
        .flush(
            &mut world.writer(),
            &flush_of(vec![share(&zombie, records(0, &events(1)))]),
        )
        .await;
    assert!(matches!(ends[..], [End::Lost(FenceLoss::Taken)]));
}

#[tokio::test]
async fn finding_01_a_flush_one_ahead_that_is_not_in_doubt_is_no_success() {
    let world = World::new("one_ahead").await;
    let mut writer = world.writer();
    let before = world.claim(0).await;
    let mut owner = before;
    world.land(&mut writer, &mut owner, &events(1)).await;

    let ends = world
        .flush(
            &mut writer,
            &flush_of(vec![share(&before, records(0, &events(1)))]),
        )
        .await;
    assert!(matches!(ends[..], [End::Lost(FenceLoss::DatabaseMoved)]));
    assert_eq!(world.results().await, 1);
}

#[tokio::test]
async fn a_flush_that_is_dropped_in_the_air_leaves_nothing() {
    let world = World::new("dropped").await;
    let mut writer = world.writer();
    let mut owner = world.claim(0).await;
    world.land(&mut writer, &mut owner, &events(1)).await;
    let mut blocker = world.operations().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE")
        .execute(&mut blocker)
        .await
        .unwrap();
    let flush = flush_of(vec![share(&owner, vec![raw(1, "no event")])]);
    {
        let flying = writer.flush(&flush, &world.decoders);
        let waiting = crate::claim::wait_for_lock_waiters(&world, 1);
        tokio::select! {
            _ = flying => panic!("the table was locked"),
            () = waiting => {}
        }
    }
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut blocker)
        .await
        .unwrap();

    let outcomes = world
        .land_records(&mut writer, &mut owner, vec![raw(1, "no event")])
        .await;
    assert_eq!(outcomes, [Outcome::DeadLetter]);
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 1);
    assert_eq!(world.findings().await, Vec::<String>::new());
}
