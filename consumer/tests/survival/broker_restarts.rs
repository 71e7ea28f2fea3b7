//! The broker goes away in the middle, alone and together with Postgres, and the run completes by itself.

use std::sync::Arc;

use crate::input::lines;
use crate::law_two::LawTwo;
use crate::proof::{Times, prove};
use crate::stage::Stage;
use crate::{ALONE, within};
use millrace_devstack::{ApacheKafka, KafkaOptions, PrivatePostgres, can_run_apache_kafka};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_completes_over_a_restarted_and_a_killed_broker_and_both_away_together() {
    if !can_run_apache_kafka("survival: the broker restarted and killed")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    within(900, async {
        let mut kafka = ApacheKafka::start_temp(KafkaOptions::default())
            .await
            .unwrap();
        let mut postgres = PrivatePostgres::start_temp().await.unwrap();
        let stage = Arc::new(Stage::on("broker", kafka.bootstrap(), postgres.url()).await);
        let count = lines(40_000);
        let file = stage.edits(count);
        let rate = (count / 20).to_string();
        let law_two = LawTwo::watch(&stage);
        let mut workers = [0, 1].map(|_| stage.worker(&["--exit-when-idle", "8s"]));
        let mut emitting = stage.emitting(&file, &["--rate", &rate]);

        stage.settles(count / 5, 120).await;
        kafka.restart().await.unwrap();
        stage.settles(2 * count / 5, 120).await;
        kafka.kill().await.unwrap();
        kafka.start_again().await.unwrap();
        stage.settles(3 * count / 5, 120).await;
        postgres.kill().await.unwrap();
        kafka.kill().await.unwrap();
        postgres.start_again().await.unwrap();
        kafka.start_again().await.unwrap();

        assert_eq!(emitting.exit(180).await, 0, "{}", emitting.words());
        stage.settles(count, 180).await;
        for worker in &mut workers {
            assert_eq!(worker.exit(90).await, 0, "{}", worker.words());
        }
        let seen = law_two.held().await;
        let proof = prove(&stage, count, Times::EachRecord).await;
        eprintln!(
            "broker restarted and killed: {proof:?}, law 2: {} samples",
            seen.samples
        );
    })
    .await;
}
