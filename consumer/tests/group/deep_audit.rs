//! The audit trusts no count: what is missing in the tables is found.

use super::events::events;
use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_result_is_found_by_counting_and_by_reading_the_log_again() {
    let Some(scene) = Scene::apache("deleted_row", 2).await else {
        return;
    };
    scene.send_each(2, 100).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.balanced_books().results, 200);
    scene
        .execute("DELETE FROM task_results WHERE partition = 1 AND \"offset\" = 42")
        .await;
    let ended = scene.audit(&["--deep"]);
    assert_eq!(ended.code, 1, "{}", ended.words);
    assert!(ended.words.contains("NOT BALANCED"), "{}", ended.words);
    let lines = ended.json();
    assert_eq!(
        (&lines[0]["balanced"], &lines[1]["balanced"]),
        (&true.into(), &false.into())
    );
    assert_eq!(lines[1]["deep"]["missing"], 1);
    assert_eq!(scene.audit(&[]).code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_swapped_for_another_is_found_only_by_reading_the_log_again() {
    let Some(scene) = Scene::apache("swapped_row", 1).await else {
        return;
    };
    scene.send_to(0, &events(100)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    let swap = "UPDATE task_results SET task_id = gen_random_uuid() WHERE \"offset\" = 42";
    scene.execute(swap).await;
    assert_eq!(scene.audit(&[]).code, 0);
    let ended = scene.audit(&["--deep"]);
    assert_eq!(ended.code, 1, "{}", ended.words);
    let part = scene.audit(&["--deep", "--partition", "0", "--from", "43", "--to", "90"]);
    assert_eq!(part.code, 0, "{}", part.words);
    assert_eq!(part.json()[0]["deep"]["records"], 47);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_were_tampered_with_do_not_balance() {
    let scene = Scene::embedded("tampered", 1).await;
    scene.send_to(0, &events(100)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene
        .execute("UPDATE partition_progress SET results = results - 1")
        .await;
    let ended = scene.audit(&[]);
    assert_eq!(ended.code, 1, "{}", ended.words);
    assert_eq!(ended.json()[0]["balanced"], false);
    let moved = "UPDATE partition_progress SET gaps = gaps + 1";
    scene.execute(moved).await;
    let ended = scene.audit(&[]);
    assert_eq!(ended.code, 1, "a result booked as a gap: {}", ended.words);
}
