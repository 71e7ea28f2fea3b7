//! Connections that break at any moment, between a COMMIT and its answer above all, double and lose nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::chance::Chance;
use crate::input::lines;
use crate::law_two::LawTwo;
use crate::proof::{Times, prove};
use crate::proxy::{Proxy, Verdict, says};
use crate::stage::Stage;
use crate::{ALONE, within};
use millrace_devstack::can_run_apache_kafka;

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_and_lost_commit_answers_cost_and_double_nothing() {
    if !can_run_apache_kafka("survival: cut connections and lost answers")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(900, async {
        let stage = Arc::new(Stage::shared("cuts").await);
        let count = lines(40_000) / 3;
        let file = stage.edits(count);
        let law_two = LawTwo::watch(&stage);
        let calm = Arc::new(AtomicBool::new(false));
        let line = || Proxy::to(&stage.database_url, fickle(Arc::clone(&calm)));
        let (first, second) = (line().await, line().await);
        // Few events a flush, so that there are many flushes to cut.
        let flags = ["--exit-when-idle", "8s", "--max-in-flight", "200"];
        let mut workers = [&first, &second].map(|proxy| stage.worker_at(&proxy.url(&stage.database_url), &flags));
        stage.emit(&file, &[]).await;

        stage.settles(count, 600).await;
        calm.store(true, Ordering::Release);
        let (mut unknown, mut losses) = (0.0, 0.0);
        for worker in &workers {
            let name = "millrace_database_errors_total{kind=\"unknown_commit\"}";
            unknown += worker.metric(name).await.unwrap_or_default();
            losses += worker
                .metric("millrace_fence_losses_total")
                .await
                .unwrap_or_default();
        }
        for worker in &mut workers {
            assert_eq!(worker.exit(60).await, 0, "{}", worker.words());
        }
        let seen = law_two.held().await;
        let proof = prove(&stage, count, Times::EachRecord).await;
        let cuts = first.cuts() + second.cuts();
        assert!(cuts >= 100, "only {cuts} cuts");
        eprintln!(
            "cut: {cuts} connections, {unknown} COMMITs of unknown fate, {losses} fences lost, {proof:?}, law 2: {} samples",
            seen.samples
        );
    })
    .await;
}

/// Cuts every fourth COMMIT before or after it arrives, one in twenty of the other messages, and now and then
/// the rows of a COPY, which come in many pieces.
fn fickle(calm: Arc<AtomicBool>) -> Box<crate::proxy::Judge> {
    let chance = Chance::new(6);
    Box::new(move |piece| {
        if calm.load(Ordering::Acquire) {
            return Verdict::Pass;
        }
        let (turn, which) = match piece.len() {
            _ if says(piece, "COMMIT") => (4, 2),
            0..4_096 => (20, 3),
            _ => (100, 3),
        };
        if chance.below(turn) > 0 {
            return Verdict::Pass;
        }
        match chance.below(which) {
            0 => Verdict::Cut,
            _ => Verdict::CutBeforeAnswer,
        }
    })
}
