//! The names of requests: one task a name, whoever asks when, and whoever dies in between.

use std::time::Duration;

use millrace_schemas::{Fingerprint, TaskId};
use millrace_store::idempotency::{self, Hold, Named, Sent, Settled, Taken, Terms};
use sqlx::PgConnection;

use crate::world::World;

const TERMS: Terms = Terms {
    lease: Duration::from_secs(15),
    window: Duration::from_secs(7 * 86_400),
};

fn named(tenant: &str, key: &str, content: u8) -> Named {
    Named {
        tenant: tenant.into(),
        key: key.into(),
        task_id: TaskId::mint(),
        fingerprint: Fingerprint([content; 16]),
    }
}

async fn take(connection: &mut PgConnection, request: &Named) -> Taken {
    let mut taken = idempotency::take(connection, std::slice::from_ref(request), TERMS)
        .await
        .unwrap();
    assert_eq!(taken.len(), 1);
    taken.remove(0)
}

/// Takes a name that has to be free, or given up.
async fn hold(connection: &mut PgConnection, request: &Named) -> Hold {
    match take(connection, request).await {
        Taken::Send(hold) => hold,
        other => panic!("{other:?}"),
    }
}

async fn settle(connection: &mut PgConnection, request: &Named, hold: Hold, sent: Sent) {
    let settled = Settled {
        tenant: request.tenant.clone(),
        key: request.key.clone(),
        hold,
        sent,
    };
    idempotency::settle(connection, &[settled]).await.unwrap();
}

async fn leases_end(world: &World) {
    world
        .sql("UPDATE idempotency_keys SET busy_until = now() - interval '1 ms' WHERE busy_until IS NOT NULL")
        .await;
}

#[tokio::test]
async fn a_repeat_gets_the_id_of_the_first_and_another_payload_is_refused() {
    let world = World::new("names").await;
    let mut connection = world.operations().await;
    let first = named("acme", "order-1", 1);
    let held = hold(&mut connection, &first).await;
    assert_eq!((held.task_id, held.is_repeat), (first.task_id, false));
    let repeat = named("acme", "order-1", 1);
    assert!(matches!(
        take(&mut connection, &repeat).await,
        Taken::Busy(wait) if wait > Duration::from_secs(10) && wait <= TERMS.lease
    ));
    settle(&mut connection, &first, held, Sent::Accepted).await;
    assert_eq!(
        take(&mut connection, &repeat).await,
        Taken::Accepted(first.task_id)
    );
    let other = named("acme", "order-1", 2);
    assert_eq!(take(&mut connection, &other).await, Taken::OtherContent);
    let stranger = named("globex", "order-1", 2);
    let theirs = hold(&mut connection, &stranger).await;
    assert_eq!(theirs.task_id, stranger.task_id);
}

#[tokio::test]
async fn a_request_whose_front_door_died_is_sent_again_under_its_id() {
    let world = World::new("names_died").await;
    let mut connection = world.operations().await;
    let first = named("acme", "a", 1);
    let lost = hold(&mut connection, &first).await;
    leases_end(&world).await;
    let repeat = named("acme", "a", 1);
    let held = hold(&mut connection, &repeat).await;
    assert_eq!((held.task_id, held.is_repeat), (first.task_id, true));
    // Whoever was thought dead comes back, and says what it knows: it is the same task.
    settle(&mut connection, &first, lost, Sent::Accepted).await;
    assert_eq!(
        take(&mut connection, &named("acme", "a", 1)).await,
        Taken::Accepted(first.task_id)
    );
}

#[tokio::test]
async fn a_refusal_frees_the_name_for_anybody() {
    let world = World::new("names_refused").await;
    let mut connection = world.operations().await;
    let first = named("acme", "a", 1);
    let held = hold(&mut connection, &first).await;
    settle(&mut connection, &first, held, Sent::No).await;
    let other = named("acme", "a", 2);
    assert_eq!(
        hold(&mut connection, &other).await.task_id,
        other.task_id,
        "no event of the first request can be there"
    );
}

#[tokio::test]
async fn an_unknown_outcome_keeps_the_name_for_its_own_repeat_also_when_that_is_refused() {
    let world = World::new("names_unknown").await;
    let mut connection = world.operations().await;
    let first = named("acme", "a", 1);
    let held = hold(&mut connection, &first).await;
    settle(&mut connection, &first, held, Sent::Unknown).await;
    for _ in 0..2 {
        assert_eq!(
            take(&mut connection, &named("acme", "a", 2)).await,
            Taken::OtherContent
        );
        let repeat = named("acme", "a", 1);
        let held = hold(&mut connection, &repeat).await;
        assert_eq!(held.task_id, first.task_id);
        // The first one's event may be in Kafka all the same.
        settle(&mut connection, &repeat, held, Sent::No).await;
    }
}

#[tokio::test]
async fn what_was_accepted_is_not_given_back_by_whoever_comes_late() {
    let world = World::new("names_late").await;
    let mut connection = world.operations().await;
    let first = named("acme", "a", 1);
    let held = hold(&mut connection, &first).await;
    settle(&mut connection, &first, held, Sent::Accepted).await;
    for late in [Sent::Unknown, Sent::No] {
        settle(&mut connection, &first, held, late).await;
        assert_eq!(
            take(&mut connection, &named("acme", "a", 1)).await,
            Taken::Accepted(first.task_id)
        );
    }
}

#[tokio::test]
async fn whoever_slept_beyond_its_lease_does_not_free_the_name_that_another_works_on() {
    let world = World::new("names_slept").await;
    let mut connection = world.operations().await;
    let first = named("acme", "a", 1);
    let slept = hold(&mut connection, &first).await;
    leases_end(&world).await;
    let repeat = named("acme", "a", 1);
    let held = hold(&mut connection, &repeat).await;
    for late in [Sent::No, Sent::Unknown] {
        settle(&mut connection, &first, slept, late).await;
        assert!(
            matches!(
                take(&mut connection, &named("acme", "a", 1)).await,
                Taken::Busy(_)
            ),
            "after {late:?}"
        );
    }
    settle(&mut connection, &repeat, held, Sent::Accepted).await;
    assert_eq!(
        take(&mut connection, &named("acme", "a", 1)).await,
        Taken::Accepted(first.task_id)
    );
}

#[tokio::test]
async fn a_name_is_free_when_its_window_has_closed_and_is_forgotten_then() {
    let world = World::new("names_window").await;
    let mut connection = world.operations().await;
    let old = [named("acme", "a", 1), named("acme", "b", 1)];
    for request in &old {
        let held = hold(&mut connection, request).await;
        settle(&mut connection, request, held, Sent::Accepted).await;
    }
    world
        .sql("UPDATE idempotency_keys SET taken_at = now() - interval '8 days'")
        .await;
    let new = named("acme", "a", 2);
    assert_eq!(hold(&mut connection, &new).await.task_id, new.task_id);
    let gone = idempotency::forget(&mut connection, TERMS.window, 10)
        .await
        .unwrap();
    assert_eq!(gone, 1);
    assert_eq!(
        world.number("SELECT count(*) FROM idempotency_keys").await,
        1
    );
}

#[tokio::test]
async fn two_front_doors_that_take_the_same_names_in_opposite_order_give_each_one_id() {
    let world = World::new("names_race").await;
    let keys: Vec<String> = (0..200).map(|n| format!("key-{n}")).collect();
    let door = async |reverse: bool| {
        let mut connection = world.operations().await;
        let mut requests: Vec<Named> = keys.iter().map(|key| named("acme", key, 1)).collect();
        if reverse {
            requests.reverse();
        }
        let taken = idempotency::take(&mut connection, &requests, TERMS)
            .await
            .unwrap();
        let sent = taken.iter().filter(|taken| matches!(taken, Taken::Send(_)));
        (sent.count(), taken.len())
    };
    let ((one, all), (other, _)) = tokio::join!(door(false), door(true));
    assert_eq!((one + other, all), (200, 200));
}
