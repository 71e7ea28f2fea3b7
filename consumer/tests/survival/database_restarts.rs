//! Postgres goes away in the middle, in order and by SIGKILL, and the run completes by itself.

use std::sync::Arc;

use crate::input::lines;
use crate::law_two::LawTwo;
use crate::proof::{Times, prove};
use crate::stage::Stage;
use crate::{ALONE, within};
use millrace_devstack::{PrivatePostgres, can_run_apache_kafka, test_kafka};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_completes_over_a_restarted_and_a_killed_postgres() {
    if !can_run_apache_kafka("survival: Postgres restarted and killed")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(900, async {
        let mut postgres = PrivatePostgres::start_temp().await.unwrap();
        let stage = Arc::new(Stage::on("pg", test_kafka().await.unwrap(), postgres.url()).await);
        let count = lines(40_000);
        let file = stage.edits(count);
        let rate = (count / 15).to_string();
        let law_two = LawTwo::watch(&stage);
        let mut workers = [0, 1].map(|_| stage.worker(&["--exit-when-idle", "6s"]));
        let mut emitting = stage.emitting(&file, &["--rate", &rate]);

        stage.settles(count / 5, 120).await;
        postgres.restart().await.unwrap();
        stage.settles(2 * count / 5, 120).await;
        postgres.kill().await.unwrap();
        postgres.start_again().await.unwrap();
        stage.settles(3 * count / 5, 120).await;
        // Away until all events are in the topic.
        postgres.kill().await.unwrap();
        assert_eq!(emitting.exit(120).await, 0, "{}", emitting.words());
        postgres.start_again().await.unwrap();

        stage.settles(count, 120).await;
        for worker in &mut workers {
            assert_eq!(worker.exit(60).await, 0, "{}", worker.words());
        }
        let seen = law_two.held().await;
        let proof = prove(&stage, count, Times::EachRecord).await;
        eprintln!(
            "Postgres restarted and killed: {proof:?}, law 2: {} samples",
            seen.samples
        );
    })
    .await;
}
