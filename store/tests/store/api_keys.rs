//! Keys and limits of callers: kept, told to the front doors, and remembered with who did it.

use std::time::Duration;

use millrace_store::api_keys::{self, ApiKey, Scope, TenantLimits};
use millrace_store::notices::{Notice, Notices};
use millrace_store::operations_log;

use crate::world::World;

fn key(id: &str) -> ApiKey {
    ApiKey {
        id: id.to_owned(),
        hash: [7; 32],
        tenant: "acme".to_owned(),
        scopes: vec![Scope::Submit, Scope::Read],
        note: Some("the shop".to_owned()),
        created_at: String::new(),
        revoked_at: None,
    }
}

#[tokio::test]
async fn a_key_is_made_once_and_revoked_once() {
    let world = World::new("api_keys").await;
    let mut connection = world.operations().await;
    let mut notices = Notices::connect(&world.database, &Notice::FOR_DOORS)
        .await
        .unwrap();
    api_keys::create(&mut connection, &key("one"), "ann")
        .await
        .unwrap();
    assert!(
        api_keys::create(&mut connection, &key("one"), "ann")
            .await
            .is_err()
    );
    assert!(
        api_keys::revoke(&mut connection, "one", "bob")
            .await
            .unwrap()
    );
    assert!(
        !api_keys::revoke(&mut connection, "one", "bob")
            .await
            .unwrap()
    );
    assert!(
        !api_keys::revoke(&mut connection, "two", "bob")
            .await
            .unwrap()
    );
    let access = api_keys::access(&mut connection).await.unwrap();
    let [found] = access.keys.as_slice() else {
        panic!("{access:?}");
    };
    assert_eq!((found.hash, &*found.tenant), ([7; 32], "acme"));
    assert_eq!(found.scopes, [Scope::Submit, Scope::Read]);
    assert!(found.revoked_at.is_some() && !found.created_at.is_empty());
    for _ in 0..2 {
        let word = tokio::time::timeout(Duration::from_secs(5), notices.next()).await;
        assert_eq!(word.unwrap().unwrap().notice, Notice::Access);
    }
    let log = operations_log::latest(&mut connection, 10).await.unwrap();
    let done: Vec<_> = log
        .iter()
        .map(|entry| (&*entry.action, &*entry.by))
        .collect();
    assert_eq!(
        done,
        [("api_key_revoked", "bob"), ("api_key_created", "ann")]
    );
    assert!(
        !log.iter()
            .any(|entry| entry.detail.to_string().contains("hash"))
    );
}

#[tokio::test]
async fn limits_are_replaced_and_taken_away() {
    let world = World::new("tenant_limits").await;
    let mut connection = world.operations().await;
    let mut limits = TenantLimits {
        tenant: "acme".to_owned(),
        tasks_per_second: Some(2.5),
        burst: None,
        in_flight: Some(3),
    };
    api_keys::limit(&mut connection, &limits, "ann")
        .await
        .unwrap();
    let access = api_keys::access(&mut connection).await.unwrap();
    assert_eq!(access.limits, [limits.clone()]);
    (limits.tasks_per_second, limits.in_flight) = (None, None);
    api_keys::limit(&mut connection, &limits, "ann")
        .await
        .unwrap();
    let access = api_keys::access(&mut connection).await.unwrap();
    assert_eq!(access.limits, []);
}
