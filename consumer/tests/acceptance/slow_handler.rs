//! A handler slower than all of the group's patience keeps its worker in the group.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use millrace_consumer::{Context, TaskError};
use millrace_devstack::can_run_apache_kafka;
use serde::Deserialize;

use crate::sending::{Sender, task};
use crate::stage::{PARKED, SUCCESSES, Stage};
use crate::{ALONE, eventually};

#[derive(Deserialize)]
struct Numbered {
    n: usize,
}

const SLOW: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_longer_than_max_poll_interval_keeps_its_worker_in_the_group() {
    if !can_run_apache_kafka("acceptance: slow handlers")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    let stage = Stage::shared("slow_handler", 4).await;
    let slow_calls = Arc::new(AtomicUsize::new(0));
    let (waits, blocks) = (Arc::clone(&slow_calls), Arc::clone(&slow_calls));
    let worker = stage.work(
        &[
            "-X",
            "max.poll.interval.ms=10000",
            "-X",
            "session.timeout.ms=6000",
            "-X",
            "heartbeat.interval.ms=1000",
        ],
        |worker| {
            worker
                .register("waits", move |task: Numbered| {
                    waits.fetch_add(1, Ordering::SeqCst);
                    async move {
                        tokio::time::sleep(SLOW).await;
                        Ok::<_, TaskError>(task.n)
                    }
                })
                .register_blocking("blocks", move |task: Numbered, _: Context| {
                    blocks.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(SLOW);
                    Ok::<_, TaskError>(task.n)
                })
                .register("quick", |task: Numbered| async move {
                    Ok::<_, TaskError>(task.n)
                })
        },
    );
    let sender = Sender::to(&stage);
    // The follower of each slow one has its key, so that it has to wait.
    for (n, slow) in ["waits", "blocks"].into_iter().enumerate() {
        sender
            .send([
                task(slow, Some(slow), format!(r#"{{"n":{n}}}"#)),
                task("quick", Some(slow), r#"{"n":9}"#.to_owned()),
            ])
            .await;
    }
    eventually("both slow handlers run", 60, async || {
        (slow_calls.load(Ordering::SeqCst) == 2).then_some(())
    })
    .await;
    let began = Instant::now();
    let claims = stage.claims().await;
    assert_eq!(claims.len(), 4);
    let mut quick = 0;
    while began.elapsed() < SLOW - Duration::from_secs(2) {
        let more: Vec<_> = (0..20)
            .map(|n| task("quick", None, format!(r#"{{"n":{n}}}"#)))
            .collect();
        sender.send(more).await;
        quick += 20;
        // Others flow while two are slow; their followers wait.
        stage.until(SUCCESSES, quick, 5).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(worker.is_running());
    }
    assert_eq!(
        stage.claims().await,
        claims,
        "nobody lost or claimed a partition"
    );
    stage.until(SUCCESSES, quick + 4, 30).await;
    assert!(began.elapsed() >= SLOW - Duration::from_secs(1));
    assert_eq!(slow_calls.load(Ordering::SeqCst), 2, "each ran once");
    assert_eq!(stage.claims().await, claims);
    let once = "SELECT count(*) FROM task_results WHERE attempts = 1 AND run = 0";
    assert_eq!(stage.number(once).await, quick + 4);
    let in_order = "SELECT count(*) FROM task_results slow JOIN task_results follower USING (key) \
         WHERE slow.task_type <> 'quick' AND follower.task_type = 'quick' AND follower.completed_at >= slow.completed_at";
    assert_eq!(stage.number(in_order).await, 2, "followers came after");
    stage.until(PARKED, 0, 5).await;
    assert_eq!(worker.stop(), 0);
    stage.assert_books();
}
