//! Owners that stand still while they hold a lock.

use std::time::{Duration, Instant};

use millrace_store::Purpose;
use millrace_store::position;

use crate::events::events;
use crate::world::{World, flush_of, held, records, share};

#[tokio::test]
async fn finding_14_a_frozen_owner_is_thrown_out_and_the_next_claim_goes_on() {
    let world = World::new("frozen").await;
    world.claim_as(0, "frozen").await;
    let mut frozen = world.database.connect(Purpose::Writer).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT FROM partition_progress WHERE partition = 0 FOR UPDATE")
        .execute(&mut frozen)
        .await
        .unwrap();
    let began = Instant::now();
    let mut connection = world.operations().await;
    let next = loop {
        match position::claim(&mut connection, &world.consumer, &[0], "next").await {
            Ok(rows) => break held(&rows[0]),
            // Both wait five seconds; a claim that came at once may be cut off first.
            Err(trouble) => {
                assert!(began.elapsed() < Duration::from_secs(15), "{trouble}");
                connection = world.operations().await;
            }
        }
    };
    assert!(began.elapsed() < Duration::from_secs(12));
    assert_eq!(next.next, 0);
    assert!(
        sqlx::raw_sql("COMMIT").execute(&mut frozen).await.is_err(),
        "the frozen session is gone"
    );
}

#[tokio::test]
async fn finding_14_every_connection_carries_its_limits() {
    let world = World::new("limits").await;
    for purpose in [Purpose::Writer, Purpose::Operations, Purpose::Reading] {
        let mut connection = world.database.connect(purpose).await.unwrap();
        for (setting, unlimited) in [
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("tcp_keepalives_idle", "7200"),
            ("tcp_user_timeout", "0"),
            ("client_connection_check_interval", "0"),
        ] {
            let value: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_ne!(value, unlimited, "{setting} for {purpose:?}");
        }
        let schema: Option<String> = sqlx::query_scalar("SELECT current_schema()::text")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(schema.as_deref(), Some(world.schema.as_str()));
    }
}

#[tokio::test]
async fn finding_14_claims_and_flushes_over_many_partitions_never_wait_in_a_ring() {
    let world = World::new("ring").await;
    for partition in 0..6 {
        world.claim(partition).await;
    }
    let claimers = (0..4).map(|number: i32| {
        let (database, consumer) = (world.database.clone(), world.consumer.clone());
        tokio::spawn(async move {
            let mut connection = database.connect(Purpose::Operations).await.unwrap();
            let mut order: Vec<i32> = (0..6).collect();
            order.rotate_left(usize::try_from(number).unwrap());
            if number % 2 == 1 {
                order.reverse();
            }
            for _ in 0..40 {
                let rows = position::claim(&mut connection, &consumer, &order, "w")
                    .await
                    .unwrap();
                assert_eq!(rows.len(), 6);
            }
        })
    });
    // One more claims and flushes; a deadlock would be an outage to its writer.
    let mut writer = world.writer();
    let claimers: Vec<_> = claimers.collect();
    for _ in 0..20 {
        let mut shares = Vec::new();
        for partition in [1, 4] {
            let owner = world.claim(partition).await;
            shares.push(share(&owner, records(owner.next, &events(2))));
        }
        world.flush(&mut writer, &flush_of(shares)).await;
    }
    for claimer in claimers {
        claimer.await.expect("no claim met a deadlock");
    }
    assert_eq!(writer.take_incidents().outages, 0);
}
