//! What a partition remembers over a crash: unclean starts, the task that ran alone, what did not decode.

use millrace_store::position::{self, Suspect};
use uuid::Uuid;

use crate::aside::{land_share, land_to, retries, settles, share_to, wake};
use crate::events::{event, events, record};
use crate::world::{Held, World};

async fn note(world: &World, held: &Held, offset: i64, starts: u16) -> bool {
    let mut connection = world.operations().await;
    let suspect = suspect(offset, starts);
    position::note_suspect(
        &mut connection,
        &world.consumer,
        0,
        held.fence.claim,
        suspect,
    )
    .await
    .unwrap()
}

const fn suspect(offset: i64, starts: u16) -> Suspect {
    Suspect {
        log_book: 1,
        offset,
        starts,
    }
}

#[tokio::test]
async fn finding_04_the_task_that_ran_alone_and_its_starts_are_remembered_over_a_crash() {
    let world = World::new("suspect").await;
    let mut owner = world.claim(0).await;
    for starts in 1..4 {
        assert!(note(&world, &owner, 7, starts).await);
        owner = world.claim(0).await;
        assert_eq!(world.progress(0).await.suspect, Some(suspect(7, starts)));
    }
    assert!(note(&world, &owner, 8, 1).await);
    assert_eq!(world.progress(0).await.suspect, Some(suspect(8, 1)));
    let mut connection = world.operations().await;
    let cleared = position::clear_suspect(
        &mut connection,
        &world.consumer,
        0,
        owner.fence.claim,
        false,
    );
    assert!(cleared.await.unwrap());
    assert_eq!(world.progress(0).await.suspect, None);
    assert!(world.progress(0).await.unclean_starts > 3);
    let rested =
        position::clear_suspect(&mut connection, &world.consumer, 0, owner.fence.claim, true);
    assert!(rested.await.unwrap());
    assert_eq!(world.progress(0).await.unclean_starts, 0);
    // No flush depends on any of it.
    world
        .land(&mut world.writer(), &mut owner, &events(1))
        .await;
}

#[tokio::test]
async fn finding_04_the_flush_that_carries_the_end_of_the_noted_task_takes_the_note_away() {
    let world = World::new("suspect_ended").await;
    let mut owner = world.claim(0).await;
    assert!(note(&world, &owner, 7, 2).await);
    let mut writer = world.writer();
    world.land(&mut writer, &mut owner, &events(1)).await;
    assert_eq!(world.progress(0).await.suspect, Some(suspect(7, 2)));
    let mut share = share_to(&owner, Vec::new(), 8);
    share.advance.clears_suspect = true;
    land_share(&world, &mut writer, &mut owner, share).await;
    assert_eq!(world.progress(0).await.suspect, None);
}

#[tokio::test]
async fn law_05_a_worker_that_lost_its_partition_notes_no_suspect() {
    let world = World::new("suspect_fenced").await;
    let former = world.claim(0).await;
    let owner = world.claim_as(0, "worker-b").await;
    assert!(note(&world, &owner, 7, 1).await);
    assert!(!note(&world, &former, 9, 1).await);
    let mut connection = world.operations().await;
    let cleared =
        position::clear_suspect(&mut connection, &world.consumer, 0, Uuid::new_v4(), true);
    assert!(!cleared.await.unwrap());
    assert_eq!(world.progress(0).await.suspect, Some(suspect(7, 1)));
}

#[tokio::test]
async fn finding_04_only_a_position_that_moves_or_a_clean_release_makes_starts_clean_again() {
    let world = World::new("starts").await;
    let mut writer = world.writer();
    world.claim(0).await;
    let mut owner = world.claim(0).await;
    // Results beyond the position and ends of parked tasks say nothing of the task that it stands at.
    let ahead = vec![record(1, &event()), retries(2, &event(), 0)];
    land_to(&world, &mut writer, &mut owner, ahead, 0).await;
    let woken = wake(&world, &owner).await.keys.remove(0).tasks.remove(0);
    let end = settles(&woken, millrace_store::Ending::Payload);
    land_to(&world, &mut writer, &mut owner, vec![end], 0).await;
    assert_eq!(world.progress(0).await.unclean_starts, 2);
    let mut share = share_to(&owner, vec![record(0, &event())], 3);
    share.advance.counted.results = 2;
    land_share(&world, &mut writer, &mut owner, share).await;
    assert_eq!(world.progress(0).await.unclean_starts, 0);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_12_what_did_not_decode_is_remembered_over_a_restart() {
    let world = World::new("decode_window").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    assert_eq!(world.progress(0).await.decode_window, None);
    for window in [Some(0b1_0110), None] {
        let mut share = share_to(&owner, vec![record(owner.next, &event())], owner.next + 1);
        share.advance.decode_window = window;
        land_share(&world, &mut writer, &mut owner, share).await;
        assert_eq!(world.progress(0).await.decode_window, Some(0b1_0110));
    }
    world.claim(0).await;
    assert_eq!(world.progress(0).await.decode_window, Some(0b1_0110));
}
