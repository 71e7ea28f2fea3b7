//! What a redrive refuses, by name, and leaves as it was.

use millrace_schemas::{CURRENT_SCHEMA, Decoders, Framing, TaskEvent, encode};
use millrace_store::letters::LetterPlace;
use millrace_store::redrive::{Refusal, Terms, examine};
use millrace_store::{DeadLetter, Ending, Reason, Settling};

use crate::aside::ordered;
use crate::events::{born_in_days, event, raw};
use crate::redrive::{failed, one_of_each, place, redriven, redriven_with, refusals, terms};
use crate::world::{World, flush_of, record_share};

#[tokio::test]
async fn a_letter_beyond_the_position_is_its_owners_alone() {
    let world = World::new("redrive_beyond").await;
    let (mut writer, owner) = (world.writer(), world.claim(0).await);
    let ahead = record_share(&owner, vec![failed(3, &event())], 1);
    world.flush(&mut writer, &flush_of(vec![ahead])).await;
    let done = redriven(&world, &[place(3)]).await;
    assert_eq!(refusals(&done), [(3, Refusal::BeyondPosition)]);
    assert_eq!(world.number("SELECT count(*) FROM parked_tasks").await, 0);
    assert_eq!(world.results().await, 1);
    let open = "SELECT count(*) FROM dead_letters WHERE redriven_at IS NULL";
    assert_eq!(world.number(open).await, 1);
}

#[tokio::test]
async fn finding_12_bytes_go_back_to_work_once_their_schema_is_known() {
    let world = World::new("redrive_schema").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut schema: serde_json::Value = serde_json::from_str(CURRENT_SCHEMA).unwrap();
    let note = serde_json::json!({"name": "note", "type": "string", "default": ""});
    schema["fields"].as_array_mut().unwrap().push(note);
    let mut learned = Decoders::new();
    let fingerprint = learned.learn(&schema.to_string()).unwrap();
    let task = ordered("k");
    let mut today = Vec::new();
    encode(&task.as_ref(), Framing::SingleObject, &mut today);
    let newer = [
        &[0xC3, 0x01],
        &fingerprint.to_le_bytes()[..],
        &today[10..],
        b"\x04hi",
    ]
    .concat();
    let unread = Settling {
        ending: Ending::Dead(Box::new(DeadLetter {
            task_id: Some(task.task_id),
            ..DeadLetter::about_event(Reason::Undecodable, "as if it were broken")
        })),
        ..raw(0, newer)
    };
    world
        .land_records(&mut writer, &mut owner, vec![unread, raw(1, "no event")])
        .await;

    let places = [place(0), place(1)];
    let done = redriven(&world, &places).await;
    let undecodable = [(0, Refusal::Undecodable), (1, Refusal::Undecodable)];
    assert_eq!(refusals(&done), undecodable);
    assert_eq!(world.number("SELECT count(*) FROM parked_tasks").await, 0);

    let done = redriven_with(&world, &places, terms(&learned)).await;
    assert_eq!(done.redriven, [place(0)]);
    assert_eq!(refusals(&done), [(1, Refusal::Undecodable)]);
    let parked = world.text("SELECT concat_ws(' ', task_id, tenant, task_type) FROM parked_tasks");
    assert_eq!(parked.await.unwrap(), format!("{} acme mail", task.task_id));
    assert_eq!(
        world.results().await,
        0,
        "the failed result is withdrawn, too"
    );
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn ids_out_of_range_or_in_conflict_are_refused_by_name() {
    let world = World::new("redrive_ids").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let first = event();
    let other = TaskEvent {
        payload: b"1".to_vec(),
        ..first.clone()
    };
    let batch = [born_in_days(-40), first, other, born_in_days(40)];
    world.land(&mut writer, &mut owner, &batch).await;
    let places = [place(0), place(2), place(3)];
    let mut connection = world.operations().await;
    let looked = examine(
        &mut connection,
        &world.consumer,
        &places,
        terms(&world.decoders),
    )
    .await
    .unwrap();
    let done = redriven(&world, &places).await;
    assert_eq!(looked, done, "a dry run says what would be");
    let mut found = refusals(&done);
    found.sort_by_key(|(offset, _)| *offset);
    use Refusal::{IdConflict, IdOutOfRange};
    assert_eq!(
        found,
        [(0, IdOutOfRange), (2, IdConflict), (3, IdOutOfRange)]
    );
    assert!(
        done.refused
            .iter()
            .all(|refused| !refused.detail.is_empty())
    );
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_task_that_was_redriven_often_enough_is_left_alone() {
    let world = World::new("redrive_often").await;
    one_of_each(&world).await;
    world
        .sql("UPDATE dead_letters SET run = 5 WHERE \"offset\" = 1")
        .await;
    let fifth = LetterPlace { run: 5, ..place(1) };
    let done = redriven(&world, &[fifth]).await;
    assert_eq!(refusals(&done), [(1, Refusal::TooOften)]);
    let more = Terms {
        max_redrives: 6,
        ..terms(&world.decoders)
    };
    assert_eq!(
        redriven_with(&world, &[fifth], more).await.redriven,
        [fifth]
    );
    let run = "SELECT run::bigint FROM parked_tasks";
    assert_eq!(world.number(run).await, 6);
}

#[tokio::test]
async fn a_place_that_has_a_result_or_a_parked_task_is_refused() {
    let world = World::new("redrive_taken").await;
    one_of_each(&world).await;
    world
        .sql("UPDATE task_results SET status = 'success'")
        .await;
    let done = redriven(&world, &[place(1)]).await;
    assert_eq!(refusals(&done), [(1, Refusal::HasResult)]);
    world.sql("UPDATE task_results SET status = 'failed'").await;
    redriven(&world, &[place(1)]).await;
    world
        .sql("UPDATE dead_letters SET redriven_at = NULL")
        .await;
    let done = redriven(&world, &[place(1)]).await;
    assert_eq!(refusals(&done), [(1, Refusal::Waiting)]);
}
