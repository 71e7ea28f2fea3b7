//! Who may call the front doors: keys of tenants, kept as hashes, and what a tenant may ask for at a time.
//!
//! A key has a public half, its id, and a secret half that is shown once. A secret is 256 random bits, so a plain
//! fast hash of it tells an attacker who reads the table nothing.

use sqlx::{Connection, PgConnection, Row};

use crate::notices::{self, Notice};
use crate::operations_log::{self, Entry};
use crate::trouble::Trouble;

/// What a key may be used for; the texts are those of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Hand over tasks.
    Submit,
    /// Ask for status and results.
    Read,
    /// Ask for tasks to be cancelled.
    Cancel,
    /// Look at all tenants' figures.
    Admin,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Self; 4] = [Self::Submit, Self::Read, Self::Cancel, Self::Admin];

    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Cancel => "cancel",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ApiKey {
    /// The half that may be shown.
    pub id: String,
    /// BLAKE3 of the whole key.
    #[serde(skip)]
    pub hash: [u8; 32],
    /// On whose behalf it calls.
    pub tenant: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// What people wrote down about it.
    pub note: Option<String>,
    /// Since when it is there, RFC 3339, UTC.
    pub created_at: String,
    /// When it was revoked, RFC 3339, UTC.
    pub revoked_at: Option<String>,
}

/// What a tenant may ask of one front door; absent: what the front door's flags say.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TenantLimits {
    /// Whose.
    pub tenant: String,
    /// Tasks that may be submitted in a second, in the long run.
    pub tasks_per_second: Option<f32>,
    /// Tasks that may be submitted at once after a quiet time.
    pub burst: Option<i32>,
    /// Requests that may be open at a time.
    pub in_flight: Option<i32>,
}

/// Everything that decides who may call and how much.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Access {
    /// All keys, revoked ones included.
    pub keys: Vec<ApiKey>,
    /// Tenants with limits of their own.
    pub limits: Vec<TenantLimits>,
}

/// Keeps a new key and tells the front doors.
///
/// # Errors
/// When the database cannot be written.
pub async fn create(connection: &mut PgConnection, key: &ApiKey, by: &str) -> Result<(), Trouble> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "INSERT INTO api_keys (id, hash, tenant, scopes, note, created_by) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&key.id)
    .bind(key.hash.as_slice())
    .bind(&key.tenant)
    .bind(&scopes)
    .bind(&key.note)
    .bind(by)
    .execute(&mut *transaction)
    .await?;
    let detail = serde_json::json!({"key": key.id, "tenant": key.tenant, "scopes": scopes});
    let entry = Entry {
        by,
        action: "api_key_created",
        reason: key.note.as_deref(),
        detail: &detail,
    };
    operations_log::append(&mut transaction, &entry).await?;
    notices::tell(&mut transaction, Notice::Access).await?;
    transaction.commit().await?;
    Ok(())
}

/// Revokes a key and tells the front doors. False when there is none of this id that was not revoked before.
///
/// # Errors
/// When the database cannot be written.
pub async fn revoke(connection: &mut PgConnection, id: &str, by: &str) -> Result<bool, Trouble> {
    let mut transaction = connection.begin().await?;
    let done = sqlx::query(
        "UPDATE api_keys SET revoked_at = now(), revoked_by = $2 WHERE id = $1 AND revoked_at IS NULL",
    )
    .bind(id)
    .bind(by)
    .execute(&mut *transaction)
    .await?;
    if done.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(false);
    }
    let detail = serde_json::json!({"key": id});
    let entry = Entry {
        by,
        action: "api_key_revoked",
        reason: None,
        detail: &detail,
    };
    operations_log::append(&mut transaction, &entry).await?;
    notices::tell(&mut transaction, Notice::Access).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Sets a tenant's limits, or takes them away where all are absent, and tells the front doors.
///
/// # Errors
/// When the database cannot be written.
pub async fn limit(
    connection: &mut PgConnection,
    limits: &TenantLimits,
    by: &str,
) -> Result<(), Trouble> {
    let mut transaction = connection.begin().await?;
    sqlx::query("DELETE FROM tenant_limits WHERE tenant = $1")
        .bind(&limits.tenant)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO tenant_limits (tenant, tasks_per_second, burst, in_flight) SELECT $1, $2, $3, $4 \
         WHERE $2 IS NOT NULL OR $3 IS NOT NULL OR $4 IS NOT NULL",
    )
    .bind(&limits.tenant)
    .bind(limits.tasks_per_second)
    .bind(limits.burst)
    .bind(limits.in_flight)
    .execute(&mut *transaction)
    .await?;
    let detail = serde_json::json!(limits);
    let entry = Entry {
        by,
        action: "tenant_limits_set",
        reason: None,
        detail: &detail,
    };
    operations_log::append(&mut transaction, &entry).await?;
    notices::tell(&mut transaction, Notice::Access).await?;
    transaction.commit().await?;
    Ok(())
}

/// Everything that decides who may call and how much, keys by their age.
///
/// # Errors
/// When the database cannot be read.
pub async fn access(connection: &mut PgConnection) -> Result<Access, Trouble> {
    let rows = sqlx::query(
        "SELECT id, hash, tenant, scopes, note, \
           to_char(created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS created_at, \
           to_char(revoked_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS revoked_at \
         FROM api_keys ORDER BY api_keys.created_at, id",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut access = Access::default();
    for row in &rows {
        let scopes: Vec<String> = row.try_get("scopes")?;
        let hash: Vec<u8> = row.try_get("hash")?;
        access.keys.push(ApiKey {
            id: row.try_get("id")?,
            hash: hash
                .try_into()
                .map_err(|_| Trouble::Refused("a key's hash is not of 32 bytes".to_owned()))?,
            tenant: row.try_get("tenant")?,
            scopes: scopes.iter().filter_map(|word| Scope::of(word)).collect(),
            note: row.try_get("note")?,
            created_at: row.try_get("created_at")?,
            revoked_at: row.try_get("revoked_at")?,
        });
    }
    let rows = sqlx::query(
        "SELECT tenant, tasks_per_second, burst, in_flight FROM tenant_limits ORDER BY tenant",
    )
    .fetch_all(connection)
    .await?;
    for row in &rows {
        access.limits.push(TenantLimits {
            tenant: row.try_get("tenant")?,
            tasks_per_second: row.try_get("tasks_per_second")?,
            burst: row.try_get("burst")?,
            in_flight: row.try_get("in_flight")?,
        });
    }
    Ok(access)
}
