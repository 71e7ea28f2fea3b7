use millrace_devstack::{ApacheCluster, KafkaOptions, Tuning, can_run_apache_kafka};

use crate::log_reader::{produce, read_all};
use crate::within;

fn small() -> KafkaOptions {
    KafkaOptions {
        heap_mib: 256,
        tuning: Tuning::QuickStart,
        ..KafkaOptions::default()
    }
}

#[tokio::test]
async fn three_brokers_keep_taking_and_giving_records_while_any_one_is_killed() {
    if !can_run_apache_kafka("devstack: three brokers, one killed")
        .await
        .unwrap()
    {
        return;
    }
    within(180, async {
        let mut cluster = ApacheCluster::start_temp(vec![small(); 3]).await.unwrap();
        let bootstrap = cluster.bootstrap();
        assert_eq!(bootstrap.split(',').count(), 3);
        let topics = cluster.topics().unwrap();
        topics.create_replicated("kept", 3, 3, &[]).await.unwrap();
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for broker in 0..cluster.brokers() {
            let word = format!("while {broker} is down").into_bytes();
            cluster.broker_mut(broker).unwrap().kill().await.unwrap();
            produce(&bootstrap, "kept", 1, &[&word]).await;
            expected.push(word);
            cluster
                .broker_mut(broker)
                .unwrap()
                .start_again()
                .await
                .unwrap();
            assert_eq!(read_all(&bootstrap, "kept", 1).await, expected);
        }
    })
    .await;
}
