//! A schema of its own for each test, on one cluster that all tests share.
//!
//! The cluster is the one named by `MILLRACE_TEST_DATABASE_URL` (`make test` starts it), else one
//! private cluster for this process, started by the first test that asks and ended with the
//! process, however that ends.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::OnceCell;

use crate::{DevstackError, PrivatePostgres};

static SHARED: OnceCell<PrivatePostgres> = OnceCell::const_new();

/// A fresh schema name on the shared cluster. Dropping it drops the schema, if it was created.
#[derive(Debug)]
pub struct TestDb {
    /// Address of the database.
    pub url: String,
    /// The schema: a new name, not yet created. At most 63 bytes, no quoting needed.
    pub schema: String,
}

impl TestDb {
    /// A schema for the test `name` (letters, digits, underscores; cut if too long).
    ///
    /// # Errors
    /// When there is no cluster and none can be started.
    pub async fn new(name: &str) -> Result<Self, DevstackError> {
        Ok(Self {
            url: shared_url().await?,
            schema: fresh_schema(name),
        })
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let url = std::mem::take(&mut self.url);
        let schema = std::mem::take(&mut self.schema);
        // A thread of its own: dropping may happen inside or outside a runtime.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            runtime.block_on(drop_schema(&url, &schema)).ok()
        });
        // A schema that stays behind goes with the cluster.
        let _ = cleaner.join();
    }
}

async fn shared_url() -> Result<String, DevstackError> {
    if let Ok(url) = std::env::var("MILLRACE_TEST_DATABASE_URL") {
        return Ok(url);
    }
    Ok(SHARED
        .get_or_try_init(PrivatePostgres::start_temp)
        .await?
        .url())
}

fn fresh_schema(name: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    let name: String = name.chars().map(safe).take(40).collect();
    let unique = uuid::Uuid::now_v7().simple().to_string();
    format!("t_{name}_{}", unique.get(16..).unwrap_or_default())
}

async fn drop_schema(url: &str, schema: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    // A worker that a test left behind may hold locks; waiting for it for ever helps nobody.
    sqlx::query("SET lock_timeout = '3s'")
        .execute(&mut connection)
        .await?;
    let statement = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await?;
    connection.close().await
}
