//! Positions moved by hand: booked, with a reason, and taken up by workers that run.

use std::sync::Arc;

use super::books::Books;
use super::events::events;
use super::scene::Scene;

async fn drained(name: &str) -> Scene {
    let scene = Scene::embedded(name, 1).await;
    scene.send_to(0, &events(100)).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_range_is_booked_as_lost_with_its_reason() {
    let scene = drained("skipped").await;
    scene.send_to(0, &events(50)).await;
    let moved = scene.set_position("0", "+20");
    assert_eq!(
        (&moved[0]["lost"], &moved[0]["replayed"]),
        (&20.into(), &0.into())
    );
    assert_eq!(scene.drain(&[]).await.code, 0);
    let books = scene.balanced_books();
    assert_eq!((books.results, books.lost, books.lag), (30, 20, 0));
    assert_eq!(scene.results().await, 130);
    let show = scene.run(&["position", "show"]);
    assert_eq!(show.code, 0, "{}", show.words);
    assert!(show.words.contains("from 100 to 120"), "{}", show.words);
    assert!(show.words.contains("a test"), "{}", show.words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_read_again_keeps_its_results() {
    let scene = drained("read_again").await;
    let moved = scene.set_position("all", "earliest");
    assert_eq!(moved[0]["replayed"], 100);
    assert_eq!(scene.drain(&[]).await.code, 0);
    assert_eq!(scene.results().await, 100);
    let expected = Books {
        results: 100,
        ..Books::default()
    };
    assert_eq!(scene.balanced_books(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_takes_a_move_up_by_itself() {
    let scene = drained("live_move").await;
    let mut worker = scene.worker(&[]);
    scene.until_owners(1, 1).await;
    assert_eq!(scene.set_position("0", "-100")[0]["replayed"], 100);
    scene.send_to(0, &events(10)).await;
    scene.until_position(0, 110).await;
    assert_eq!(scene.results().await, 110);
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
    assert_eq!(scene.balanced_books().results, 110);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_takes_a_move_up_by_itself() {
    let scene = drained("idle_move").await;
    let mut worker = scene.worker(&[]);
    scene.until_owners(1, 1).await;
    scene.set_position("0", "earliest");
    scene.until_position(0, 100).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
    assert_eq!(scene.balanced_books().results, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_and_a_refused_move_change_nothing() {
    let scene = drained("dry_run").await;
    let set = |arguments: &[&str]| {
        let mut all = vec!["position", "set"];
        all.extend(arguments);
        scene.run(&all)
    };
    let dry = [
        "--partition",
        "0",
        "--to",
        "earliest",
        "--reason",
        "r",
        "--dry-run",
    ];
    assert_eq!(set(&dry).code, 0);
    for wrong in [
        &["--partition", "0", "--to", "earliest"][..],
        &["--partition", "0", "--to", "earliest", "--reason", ""],
        &["--partition", "1", "--to", "earliest", "--reason", "r"],
        &["--partition", "0", "--to", "101", "--reason", "r"],
        &["--partition", "0", "--to", "-101", "--reason", "r"],
        &["--partition", "0", "--to", "sideways", "--reason", "r"],
        &["--to", "earliest", "--reason", "r"],
    ] {
        let ended = set(wrong);
        assert_eq!(ended.code, 2, "{wrong:?}: {}", ended.words);
    }
    assert_eq!(scene.position(0).await, Some(100));
    let moves = "SELECT count(*) FROM position_history";
    assert_eq!(scene.number(moves).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_moves_while_it_is_looked_at_is_not_taken_for_a_cut_log() {
    let scene = Arc::new(Scene::embedded("moves_on", 1).await);
    scene.migrate();
    let mut worker = scene.worker(&["-X", "fetch.wait.max.ms=1"]);
    scene.until_owners(1, 1).await;
    let sending = scene.clone();
    let flow = tokio::spawn(async move {
        let producer = sending.producer(&[("linger.ms", "0")]);
        loop {
            sending.send_with(&producer, 0, &events(1)).await;
        }
    });
    for _ in 0..30 {
        let show = tokio::task::block_in_place(|| scene.run(&["position", "show"]));
        assert_eq!(show.code, 0, "{}", show.words);
    }
    flow.abort();
    assert_eq!(worker.stop().await, 0, "{}", worker.words());
}
