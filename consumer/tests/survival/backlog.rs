//! Records that wait inside the Kafka client while the database is slow are still records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::input;
use crate::process::Process;
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
        let (many, few) = (2_000, 200);
        // The last ones come to a partition that has nothing to do, when the worker is full already.
        let partition_of = |id| move |one| (one == 0) == (id >= many);
        let file = input::write_keyed(&stage.path("keyed"), many + few, PARTITIONS, partition_of);
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
        let flags = ["--key-field", "/key", "--rate", "4000"];
        stage.emit(&file, &flags).await;
        until("the worker gives up waiting", 20, async || {
            held_back(&worker, "hard").await > 0.0
        })
        .await;
        armed.store(false, Ordering::Release);
        proxy.release();

        stage.settles(many + few, 60).await;
        assert_eq!(worker.exit(60).await, 0, "{}", worker.words());
        prove(&stage, many + few, Times::EachRecord).await;
    })
    .await;
}

/// Seconds for which the worker has held back under this pressure.
async fn held_back(worker: &Process, pressure: &str) -> f64 {
    let series = format!("millrace_backpressure_seconds_total{{pressure=\"{pressure}\"");
    worker.metric(&series).await.unwrap_or_default()
}
