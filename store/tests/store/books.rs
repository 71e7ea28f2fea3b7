//! The books: every offset counted once, when the position passes it.

use millrace_store::{Counts, End, Outcome, Writer};

use crate::events::{event, events, keyed, raw, record};
use crate::world::{Held, World, flush_of, record_share, records, share};

async fn landed(world: &World, writer: &mut Writer, held: &mut Held, share: millrace_store::Share) {
    let next = share.advance.next_offset;
    match world.flush(writer, &flush_of(vec![share])).await.remove(0) {
        End::Landed { fence, .. } => {
            held.fence = fence;
            held.next = next;
        }
        End::Lost(loss) => panic!("{loss:?}"),
    }
}

#[tokio::test]
async fn finding_16_results_duplicates_letters_and_gaps_add_up_to_the_offsets() {
    let world = World::new("books").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let batch = vec![
        record(2, &keyed("a")),
        record(3, &keyed("a")),
        raw(7, "no event"),
        record(8, &event()),
    ];
    let mut share = share(&owner, batch);
    share.advance.next_offset = 10;
    share.advance.counted.gaps = 6;
    landed(&world, &mut writer, &mut owner, share).await;
    let row = world.progress(0).await;
    let counts = Counts {
        results: 2,
        duplicates: 1,
        dead_letters: 1,
        gaps: 6,
        ..Counts::default()
    };
    assert_eq!(
        (row.next_offset, row.counts, row.counts.total()),
        (10, counts, 10)
    );
    assert_eq!(
        (row.leader_epoch, row.frontier_ms),
        (Some(7), Some(1_800_000_000_000))
    );
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_position_can_pass_gaps_alone() {
    let world = World::new("gaps").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut gap = share(&owner, Vec::new());
    gap.advance.next_offset = 3;
    gap.advance.counted.gaps = 3;
    landed(&world, &mut writer, &mut owner, gap).await;
    assert_eq!(world.progress(0).await.counts.gaps, 3);
    world.land(&mut writer, &mut owner, &events(1)).await;
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_13_records_beyond_the_position_are_counted_when_it_passes_them() {
    let world = World::new("out_of_order").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    // Offset 0 takes its time; 1 to 3 are settled.
    let beyond = vec![record(1, &event()), raw(2, "no event"), record(3, &event())];
    let ahead = record_share(&owner, beyond, 0);
    landed(&world, &mut writer, &mut owner, ahead).await;
    let row = world.progress(0).await;
    assert_eq!(
        (row.next_offset, row.high_offset, row.counts),
        (0, 4, Counts::default())
    );
    assert_eq!(world.findings().await, Vec::<String>::new());

    let mut head = record_share(&owner, records(0, &events(1)), 4);
    head.advance.counted = Counts {
        results: 2,
        dead_letters: 1,
        ..Counts::default()
    };
    landed(&world, &mut writer, &mut owner, head).await;
    let row = world.progress(0).await;
    assert_eq!(
        (row.next_offset, row.counts.results, row.counts.dead_letters),
        (4, 3, 1)
    );
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_had_landed_beyond_the_position_before_a_crash_is_settled_without_running_again() {
    let world = World::new("beyond_crash").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = events(5);
    let letter = raw(3, "no event");
    let ahead = record_share(&owner, vec![record(2, &tasks[2]), letter], 0);
    landed(&world, &mut writer, &mut owner, ahead).await;

    let mut owner = world.claim(0).await;
    let high = world.progress(0).await.high_offset;
    assert_eq!((owner.next, high), (0, 4));
    let mut all = vec![
        record(0, &tasks[0]),
        record(1, &tasks[1]),
        record(2, &tasks[2]),
    ];
    all.extend([raw(3, "no event"), record(4, &tasks[4])]);
    let mut again = share(&owner, all);
    again.may_repeat = true;
    let incidents = {
        landed(&world, &mut writer, &mut owner, again).await;
        writer.take_incidents()
    };
    assert_eq!(
        incidents.conflicts, 0,
        "looked up before, not refused after"
    );
    let row = world.progress(0).await;
    assert_eq!((row.counts.results, row.counts.dead_letters), (4, 1));
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_outcomes_of_a_flush_come_in_the_order_of_its_records() {
    let world = World::new("order").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let batch = vec![
        raw(0, ""),
        record(1, &keyed("a")),
        raw(2, "x"),
        record(3, &keyed("a")),
    ];
    let outcomes = world.land_records(&mut writer, &mut owner, batch).await;
    use Outcome::{DeadLetter, Duplicate, Result};
    assert_eq!(outcomes, [DeadLetter, Result, DeadLetter, Duplicate]);
}
