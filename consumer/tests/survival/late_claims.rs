//! A claim that comes late takes the fence from the true owner; the true owner takes it back and finishes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::input::lines;
use crate::law_two::LawTwo;
use crate::proof::{Times, prove};
use crate::proxy::{Proxy, Verdict, says};
use crate::stage::{PARTITIONS, Stage};
use crate::{ALONE, until, within};
use millrace_devstack::can_run_apache_kafka;
use millrace_store::position::{self, Consumer};
use millrace_store::{Database, Purpose};

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_held_up_until_others_own_the_partitions_does_not_shut_them_out() {
    if !can_run_apache_kafka("survival: a claim held up by an outage")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(400, async {
        let stage = Arc::new(Stage::shared("late").await);
        let count = lines(40_000) / 2;
        let file = stage.edits(count);
        let law_two = LawTwo::watch(&stage);
        // The claim itself is on its way while everything else of the worker gets through.
        let held = |piece: &[u8]| {
            if says(piece, "SET claim = c.claim") {
                Verdict::Hold
            } else {
                Verdict::Pass
            }
        };
        let proxy = Proxy::to(&stage.database_url, Box::new(held)).await;
        let mut late =
            stage.worker_at(&proxy.url(&stage.database_url), &["--exit-when-idle", "5s"]);
        until("the late worker's claim is held", 60, async || {
            proxy.holds() > 0
        })
        .await;
        late.freeze();
        let mut owner = stage.worker(&["--exit-when-idle", "5s"]);
        let all = usize::try_from(PARTITIONS).unwrap();
        until("the owner holds all partitions", 60, async || {
            stage.held_by(owner.pid).await.len() == all
        })
        .await;
        let rate = (count / 8).to_string();
        let mut emitting = stage.emitting(&file, &["--rate", &rate]);
        stage.settles(count / 4, 60).await;

        proxy.release();
        late.thaw();

        assert_eq!(emitting.exit(60).await, 0, "{}", emitting.words());
        stage.settles(count, 90).await;
        assert_eq!(owner.exit(90).await, 0, "{}", owner.words());
        assert_eq!(late.exit(90).await, 0, "{}", late.words());
        law_two.held().await;
        prove(&stage, count, Times::EachRecord).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_true_owner_takes_a_stolen_fence_back_and_finishes() {
    if !can_run_apache_kafka("survival: stolen fences")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(400, async {
        let stage = Arc::new(Stage::shared("stolen").await);
        let count = lines(40_000);
        let file = stage.edits(count);
        let law_two = LawTwo::watch(&stage);
        stage.emit(&file, &[]).await;
        // So little may be in the air that partitions are held back all the time.
        let mut owner = stage.worker(&["--exit-when-idle", "4s", "--max-in-flight", "600"]);
        let database = Database::new(&stage.database_url, &stage.schema).unwrap();
        let consumer = Consumer {
            group: stage.group.clone(),
            topic: stage.topic.clone(),
        };
        let all: Vec<i32> = (0..PARTITIONS).collect();

        let mut thief = database.connect(Purpose::Operations).await.unwrap();
        for theft in 1..=20 {
            stage.settles(theft * count / 25, 60).await;
            let stolen = position::claim(&mut thief, &consumer, &all, "thief:0")
                .await
                .unwrap();
            assert_eq!(stolen.len(), all.len());
        }

        stage.settles(count, 90).await;
        let losses = owner.metric("millrace_fence_losses_total").await.unwrap();
        assert_eq!(owner.exit(60).await, 0, "{}", owner.words());
        let seen = law_two.held().await;
        let proof = prove(&stage, count, Times::EachRecord).await;
        assert!(losses >= 5.0, "{losses} fences lost in 20 thefts of all");
        eprintln!(
            "stolen: {losses} fences lost and taken back, {proof:?}, law 2: {} samples",
            seen.samples
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_line_went_dead_is_asked_again() {
    if !can_run_apache_kafka("survival: a claim on a dead line")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(400, async {
        let stage = Stage::shared("dead").await;
        let count = lines(40_000) / 4;
        let file = stage.edits(count);
        stage.emit(&file, &[]).await;
        // The first claim never arrives, and nobody closes its connection.
        let dead = AtomicBool::new(false);
        let once = move |piece: &[u8]| {
            if says(piece, "SET claim = c.claim") && !dead.swap(true, Ordering::AcqRel) {
                Verdict::Hold
            } else {
                Verdict::Pass
            }
        };
        let proxy = Proxy::to(&stage.database_url, Box::new(once)).await;
        let url = proxy.url(&stage.database_url);
        let mut worker = stage.worker_at(&url, &["--exit-when-idle", "2s"]);

        let took = stage.settles(count, 90).await;
        assert_eq!(worker.exit(60).await, 0, "{}", worker.words());
        assert_eq!(proxy.holds(), 1);
        prove(&stage, count, Times::EachRecord).await;
        eprintln!("a claim on a dead line cost {:.0} s", took.as_secs_f64());
    })
    .await;
}
