//! A worker frozen in the middle of a flush holds its rows' locks; the next owner gets them all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::input::lines;
use crate::process::Process;
use crate::proof::{Times, prove};
use crate::proxy::{Proxy, Verdict, says};
use crate::stage::{PARTITIONS, Stage};
use crate::{ALONE, until, within};
use millrace_devstack::can_run_apache_kafka;

/// From the freeze on: the session times out, the group settles, the lock is had.
const LONGEST: Duration = Duration::from_secs(15);

/// Where the flush stands when its worker freezes.
#[derive(Debug, Clone, Copy)]
enum Where {
    /// Half of a COPY has arrived; the server waits for the rest.
    InCopy,
    /// All rows have arrived; the server waits for COMMIT.
    BeforeCommit,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_within_its_copy_does_not_block_the_next_owner() {
    if !can_run_apache_kafka("survival: frozen within a COPY")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(400, frozen_within_a_flush(Where::InCopy)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_before_its_commit_does_not_block_the_next_owner() {
    if !can_run_apache_kafka("survival: frozen before a COMMIT")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(400, frozen_within_a_flush(Where::BeforeCommit)).await;
}

async fn frozen_within_a_flush(place: Where) {
    let stage = Stage::shared("flush").await;
    let count = lines(40_000) / 2;
    let file = stage.edits(count);
    let armed = Arc::new(AtomicBool::new(false));
    let proxy = Proxy::to(&stage.database_url, hold_at(place, Arc::clone(&armed))).await;
    let sleeper = stage.worker_at(&proxy.url(&stage.database_url), &[]);
    until("the sleeper holds all partitions", 60, async || {
        holds_all(&stage, &sleeper).await
    })
    .await;
    armed.store(true, Ordering::Release);
    stage.emit(&file, &[]).await;
    until("a flush is held", 30, async || proxy.holds() > 0).await;
    sleeper.freeze();

    let mut heir = stage.worker(&["--exit-when-idle", "3s"]);
    let took = until("the heir holds all partitions", 60, async || {
        holds_all(&stage, &heir).await
    })
    .await;
    assert!(took < LONGEST, "{place:?}: the heir waited for {took:?}");
    stage.settles(count, 60).await;
    assert_eq!(heir.exit(60).await, 0, "{}", heir.words());

    // What was held arrives at last, and changes nothing.
    let before = prove(&stage, count, Times::EachRecord).await;
    proxy.release();
    sleeper.thaw();
    until("the sleeper has joined again", 60, async || {
        holds_all(&stage, &sleeper).await
    })
    .await;
    sleeper.terminate();
    let mut sleeper = sleeper;
    assert_eq!(sleeper.exit(60).await, 0, "{}", sleeper.words());
    let after = prove(&stage, count, Times::EachRecord).await;
    assert_eq!(before.rows, after.rows);
    eprintln!(
        "frozen {place:?}: the next owner held everything after {:.1} s",
        took.as_secs_f64()
    );
}

async fn holds_all(stage: &Stage, worker: &Process) -> bool {
    stage.held_by(worker.pid).await.len() == usize::try_from(PARTITIONS).unwrap()
}

/// Holds the first writer that comes to the place, once armed, and lets everything else pass.
fn hold_at(place: Where, armed: Arc<AtomicBool>) -> Box<crate::proxy::Judge> {
    let in_copy = AtomicBool::new(false);
    Box::new(move |piece| {
        if !armed.load(Ordering::Acquire) {
            return Verdict::Pass;
        }
        let here = match place {
            // The first piece says COPY; the one after it brings rows.
            Where::InCopy if says(piece, "COPY ") => {
                in_copy.store(true, Ordering::Release);
                false
            }
            Where::InCopy => in_copy.load(Ordering::Acquire),
            Where::BeforeCommit => says(piece, "COMMIT"),
        };
        if here { Verdict::Hold } else { Verdict::Pass }
    })
}
