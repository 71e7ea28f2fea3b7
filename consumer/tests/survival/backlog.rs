//! Records that wait inside the Kafka client while the database is slow are still records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::input::lines;
use crate::proof::{Times, prove};
use crate::proxy::{Proxy, Verdict, says};
use crate::stage::{PARTITIONS, Stage};
use crate::{ALONE, until, within};
use millrace_devstack::can_run_apache_kafka;

#[tokio::test(flavor = "multi_thread")]
async fn records_that_wait_in_the_client_are_never_taken_for_gaps() {
    if !can_run_apache_kafka("survival: records that wait in the client")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(400, async {
        let stage = Stage::shared("waiting").await;
        let count = lines(40_000) / 4;
        let file = stage.edits(count);
        let armed = Arc::new(AtomicBool::new(false));
        let hold = Arc::clone(&armed);
        let slow = move |piece: &[u8]| {
            if hold.load(Ordering::Acquire) && says(piece, "COMMIT") {
                Verdict::Hold
            } else {
                Verdict::Pass
            }
        };
        let proxy = Proxy::to(&stage.database_url, Box::new(slow)).await;
        let url = proxy.url(&stage.database_url);
        let flags = ["--exit-when-idle", "3s", "--max-in-flight", "1000"];
        let mut worker = stage.worker_at(&url, &flags);
        let all = usize::try_from(PARTITIONS).unwrap();
        until("all partitions are at their end", 60, async || {
            stage.held_by(worker.pid).await.len() == all
                && worker.metric("kafka_consumergroup_lag{").await == Some(0.0)
        })
        .await;

        armed.store(true, Ordering::Release);
        stage.emit(&file, &[]).await;
        // By the worker's own reports, several of which have gone by then.
        until("records have waited for seconds", 20, async || {
            let waited = worker.metric("kafka_consumergroup_lag_seconds{").await;
            waited.is_some_and(|seconds| seconds > 15.0)
        })
        .await;
        armed.store(false, Ordering::Release);
        proxy.release();

        stage.settles(count, 60).await;
        assert_eq!(worker.exit(60).await, 0, "{}", worker.words());
        prove(&stage, count, Times::EachRecord).await;
    })
    .await;
}
