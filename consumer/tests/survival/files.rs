//! Each line of a file lands as often as it was meant to, however often the file was sent.

use crate::input::lines;
use crate::proof::{Times, logged, prove};
use crate::stage::Stage;
use crate::{ALONE, until, within};
use millrace_devstack::can_run_apache_kafka;

/// Works until all is settled; the worker ends by itself.
async fn work_off(stage: &Stage) {
    let mut worker = stage.worker(&["--exit-when-idle", "2s"]);
    assert_eq!(worker.exit(600).await, 0, "{}", worker.words());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_sent_twice_with_a_dedup_field_lands_once() {
    if !can_run_apache_kafka("survival: a file sent twice with a dedup field")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(1_200, async {
        let stage = Stage::shared("dedup").await;
        let count = lines(40_000);
        let file = stage.edits(count);

        stage.emit(&file, &["--dedup-field", "/id"]).await;
        stage.emit(&file, &["--dedup-field", "/id"]).await;
        work_off(&stage).await;

        let proof = prove(&stage, count, Times::EachId).await;
        assert_eq!((proof.records, proof.rows), (2 * count, count), "{proof:?}");
        eprintln!("sent twice with a dedup field: {proof:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_sent_once_killed_half_way_and_sent_again_lands_once() {
    if !can_run_apache_kafka("survival: emit --once killed half-way")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(1_200, async {
        let stage = Stage::shared("once").await;
        let count = lines(40_000);
        let file = stage.edits(count);
        let rate = (count / 6).to_string();

        let emitting = stage.emitting(&file, &["--once", "--rate", &rate]);
        until("half of the file in the topic", 60, async || {
            logged(&stage).await >= count / 2
        })
        .await;
        emitting.kill();
        let sent = logged(&stage).await;
        assert!(
            sent < count,
            "it was killed too late: {sent} of {count} were sent"
        );
        let mut worker = stage.worker(&["--exit-when-idle", "5s"]);
        stage.emit(&file, &["--once"]).await;
        assert_eq!(worker.exit(600).await, 0, "{}", worker.words());

        let proof = prove(&stage, count, Times::EachId).await;
        assert_eq!(proof.rows, count, "{proof:?}");
        assert_eq!(
            proof.records,
            sent + count,
            "the second run repeats the first half"
        );
        eprintln!("killed half-way and sent again: {proof:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_sent_twice_without_a_key_lands_twice() {
    if !can_run_apache_kafka("survival: a file sent twice without a key")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(1_200, async {
        let stage = Stage::shared("twice").await;
        let count = lines(40_000);
        let file = stage.edits(count);

        stage.emit(&file, &[]).await;
        stage.emit(&file, &[]).await;
        work_off(&stage).await;

        let proof = prove(&stage, count, Times::EachRecord).await;
        assert_eq!(
            (proof.records, proof.rows),
            (2 * count, 2 * count),
            "{proof:?}"
        );
        eprintln!("sent twice without a key: {proof:?}");
    })
    .await;
}
