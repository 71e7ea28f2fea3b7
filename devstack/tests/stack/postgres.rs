use millrace_devstack::{PrivatePostgres, TestDb};
use sqlx::{Connection as _, PgConnection};

use crate::within;

async fn rows(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM kept")
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

async fn write(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(statement)
        .execute(&mut connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn postgres_keeps_committed_rows_over_a_kill_and_a_restart_on_the_same_address() {
    within(120, async {
        let mut postgres = PrivatePostgres::start_temp().await.unwrap();
        let url = postgres.url();
        write(&url, "CREATE TABLE kept (n int)").await;
        write(&url, "INSERT INTO kept VALUES (1), (2), (3)").await;

        let former = postgres.mark().unwrap();
        let helpers = former.children();
        assert!(!helpers.is_empty(), "Postgres has background processes");
        postgres.kill().await.unwrap();
        assert!(!former.is_alive());
        assert!(
            helpers.iter().all(|helper| !helper.is_alive()),
            "and they die with it"
        );
        assert!(PgConnection::connect(&url).await.is_err());

        postgres.start_again().await.unwrap();
        assert_eq!(postgres.url(), url);
        assert_eq!(rows(&url).await, 3);

        write(&url, "INSERT INTO kept VALUES (4)").await;
        postgres.restart().await.unwrap();
        assert_eq!(rows(&url).await, 4);
        assert_eq!(
            rows(&postgres.socket_url()).await,
            4,
            "the socket leads to the same place"
        );
    })
    .await;
}

#[tokio::test]
async fn a_cluster_opened_again_in_its_folder_has_its_rows_and_a_stopped_one_says_so() {
    within(120, async {
        let dir = tempfile::tempdir().unwrap();
        let mut postgres = PrivatePostgres::start(dir.path()).await.unwrap();
        let (url, home) = (postgres.url(), postgres.home().to_owned());
        write(&url, "CREATE TABLE kept AS SELECT 1 AS n").await;
        postgres.stop().await.unwrap();
        assert!(postgres.kill().await.is_err(), "there is nothing to kill");
        drop(postgres);

        let postgres = PrivatePostgres::start(dir.path()).await.unwrap();
        assert_eq!(rows(&postgres.url()).await, 1);
        drop(postgres);
        std::fs::remove_dir_all(home).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_test_gets_a_schema_of_its_own_and_takes_it_along() {
    within(120, async {
        let (one, two) = (
            TestDb::new("same").await.unwrap(),
            TestDb::new("same").await.unwrap(),
        );
        assert_eq!(one.url, two.url);
        assert_ne!(one.schema, two.schema);

        let mut connection = PgConnection::connect(&one.url).await.unwrap();
        let create = format!("CREATE SCHEMA {}", one.schema);
        sqlx::query(sqlx::AssertSqlSafe(create))
            .execute(&mut connection)
            .await
            .unwrap();
        let schema = one.schema.clone();
        drop(one);
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname = $1")
            .bind(schema)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(left, 0);
    })
    .await;
}
