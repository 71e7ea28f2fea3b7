//! A worker that slept through the loss of its partitions writes nothing when it wakes, and joins again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::input::lines;
use crate::law_two::LawTwo;
use crate::proof::{Times, prove};
use crate::stage::{PARTITIONS, Stage};
use crate::{ALONE, trail, until, within};
use millrace_devstack::can_run_apache_kafka;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_frozen_writes_nothing_after_its_partitions_went_elsewhere() {
    if !can_run_apache_kafka("survival: a frozen worker wakes")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(600, async {
        let stage = Arc::new(Stage::shared("frozen").await);
        trail::begin(&stage).await;
        let (sleeper_url, heir_url) = (trail::role(&stage, "sleeper").await, trail::role(&stage, "heir").await);
        let count = lines(40_000);
        let file = stage.edits(count);
        let rate = (count / 20).to_string();
        let law_two = LawTwo::watch(&stage);
        let mut sleeper = stage.worker_at(&sleeper_url, &["--exit-when-idle", "6s"]);
        let mut heir = stage.worker_at(&heir_url, &["--exit-when-idle", "6s"]);
        until("both hold partitions", 60, async || {
            !stage.held_by(sleeper.pid).await.is_empty() && !stage.held_by(heir.pid).await.is_empty()
        })
        .await;
        let mut emitting = stage.emitting(&file, &["--rate", &rate]);

        // Several times, so that it is caught before, in and after its flushes.
        let mut took_over = Vec::new();
        for nap in 1..=3 {
            stage.settles(nap * count / 8, 60).await;
            sleeper.freeze();
            let all = usize::try_from(PARTITIONS).unwrap();
            let took = until("the heir holds all partitions", 60, async || {
                stage.held_by(heir.pid).await.len() == all
            })
            .await;
            took_over.push(took.as_secs_f64());
            sleeper.thaw();
            until("the sleeper holds partitions again", 60, async || {
                !stage.held_by(sleeper.pid).await.is_empty()
            })
            .await;
        }
        assert_eq!(emitting.exit(120).await, 0, "{}", emitting.words());
        assert_eq!(sleeper.exit(120).await, 0, "{}", sleeper.words());
        assert_eq!(heir.exit(120).await, 0, "{}", heir.words());
        let seen = law_two.held().await;

        let mut connection = stage.connect().await;
        let steps = trail::steps(&mut connection).await;
        let past = trail::rows_past_the_fence(&mut connection).await;
        assert_eq!(past, 0, "rows of transactions that did not move their partition");
        let handed_over = only_holders_wrote(&steps);
        assert!(handed_over >= 3, "{handed_over} partitions changed hands");
        let proof = prove(&stage, count, Times::EachRecord).await;
        trail::end(&stage, &["sleeper", "heir"]).await;
        eprintln!(
            "frozen: taken over after {took_over:.1?} s, {handed_over} hand-overs, {} steps, {proof:?}, law 2: {} samples",
            steps.len(),
            seen.samples
        );
    })
    .await;
}

/// Every step that wrote was made by whoever claimed the partition last; returns how often one took over.
fn only_holders_wrote(steps: &[trail::Step]) -> usize {
    let mut holders: BTreeMap<i32, &trail::Step> = BTreeMap::new();
    let mut handed_over = 0;
    for step in steps {
        match (step.claimed, step.claim) {
            (true, None) => {}
            (true, Some(_)) => {
                let former = holders.insert(step.partition, step);
                handed_over +=
                    usize::from(former.is_some_and(|former| former.writer != step.writer));
                assert_eq!(step.rows, 0, "a claim writes no rows: {step:?}");
            }
            (false, claim) => {
                let holder = holders[&step.partition];
                assert_eq!(claim, holder.claim, "{step:?} after {holder:?}");
                assert_eq!(step.writer, holder.writer, "{step:?} after {holder:?}");
            }
        }
    }
    handed_over
}
