use millrace_devstack::{ApacheKafka, DevstackError, KafkaOptions, can_run_apache_kafka};

use crate::log_reader::{produce, read_all};
use crate::within;

#[tokio::test]
async fn apache_kafka_keeps_acknowledged_records_over_a_kill_on_the_same_address() {
    if !can_run_apache_kafka("devstack: Apache Kafka over a kill")
        .await
        .unwrap()
    {
        return;
    }
    within(180, async {
        let mut kafka = ApacheKafka::start_temp(KafkaOptions::default())
            .await
            .unwrap();
        let bootstrap = kafka.bootstrap();
        kafka
            .create_topic("kept", 3, &[("retention.ms", "-1")])
            .await
            .unwrap();
        produce(&bootstrap, "kept", 1, &[b"one", b"two", b"three"]).await;

        kafka.kill().await.unwrap();
        kafka.start_again().await.unwrap();

        assert_eq!(kafka.bootstrap(), bootstrap);
        assert_eq!(
            read_all(&bootstrap, "kept", 1).await,
            [&b"one"[..], b"two", b"three"]
        );
        produce(&bootstrap, "kept", 1, &[b"four"]).await;
        kafka.restart().await.unwrap();
        assert_eq!(read_all(&bootstrap, "kept", 1).await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn topics_are_made_grown_trimmed_and_deleted() {
    if !can_run_apache_kafka("devstack: topics").await.unwrap() {
        return;
    }
    within(180, async {
        let kafka = ApacheKafka::start_temp(KafkaOptions::default())
            .await
            .unwrap();
        let topics = kafka.topics().unwrap();
        assert_eq!(
            topics.partitions("tasks").await.unwrap(),
            None,
            "nothing makes itself"
        );

        assert!(topics.ensure("tasks", 2, 1).await.unwrap());
        assert!(!topics.ensure("tasks", 2, 1).await.unwrap(), "it exists");
        produce(&kafka.bootstrap(), "tasks", 0, &[b"old", b"new"]).await;
        kafka.delete_records("tasks", 0, 1).await.unwrap();
        kafka.increase_partitions("tasks", 5).await.unwrap();
        assert_eq!(topics.partitions("tasks").await.unwrap(), Some(5));

        kafka.delete_topic("tasks").await.unwrap();
        assert_eq!(topics.partitions("tasks").await.unwrap(), None);
        let again = kafka.delete_topic("tasks").await;
        assert!(
            matches!(again, Err(DevstackError::Topic { .. })),
            "{again:?}"
        );
    })
    .await;
}
