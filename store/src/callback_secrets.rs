//! What callbacks are signed with, and which targets want no more.

use sqlx::{Connection, PgConnection, Row};

use crate::operations_log::{self, Entry};
use crate::trouble::Trouble;

/// A secret of a tenant, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SecretInfo {
    /// Whose callbacks it signs.
    pub tenant: String,
    /// Its name.
    pub id: String,
    /// Since when, RFC 3339, UTC.
    pub created_at: String,
    /// When it was revoked, RFC 3339, UTC.
    pub revoked_at: Option<String>,
}

/// Keeps a new secret. Callbacks are signed with it from now on, and with those before it.
///
/// # Errors
/// When the database cannot be written, or the tenant has a secret of this name.
pub async fn create(
    connection: &mut PgConnection,
    tenant: &str,
    id: &str,
    secret: &str,
    by: &str,
) -> Result<(), Trouble> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "INSERT INTO callback_secrets (tenant, id, secret, created_by) VALUES ($1, $2, $3, $4)",
    )
    .bind(tenant)
    .bind(id)
    .bind(secret)
    .bind(by)
    .execute(&mut *transaction)
    .await?;
    log(&mut transaction, "callback_secret_created", tenant, id, by).await?;
    transaction.commit().await?;
    Ok(())
}

/// Revokes a secret. False when there is none of this name that was not revoked before.
///
/// # Errors
/// When the database cannot be written.
pub async fn revoke(
    connection: &mut PgConnection,
    tenant: &str,
    id: &str,
    by: &str,
) -> Result<bool, Trouble> {
    let mut transaction = connection.begin().await?;
    let done = sqlx::query(
        "UPDATE callback_secrets SET revoked_at = now() WHERE tenant = $1 AND id = $2 AND revoked_at IS NULL",
    )
    .bind(tenant)
    .bind(id)
    .execute(&mut *transaction)
    .await?;
    if done.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(false);
    }
    log(&mut transaction, "callback_secret_revoked", tenant, id, by).await?;
    transaction.commit().await?;
    Ok(true)
}

/// All secrets, by tenant and age.
///
/// # Errors
/// When the database cannot be read.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<SecretInfo>, Trouble> {
    let rows = sqlx::query(
        "SELECT tenant, id, to_char(created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS created_at, \
           to_char(revoked_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS revoked_at \
         FROM callback_secrets ORDER BY tenant, callback_secrets.created_at, id",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(SecretInfo {
                tenant: row.try_get("tenant")?,
                id: row.try_get("id")?,
                created_at: row.try_get("created_at")?,
                revoked_at: row.try_get("revoked_at")?,
            })
        })
        .collect()
}

/// Lets callbacks of a tenant go to a target again that had answered 410. False when they went there anyway.
///
/// # Errors
/// When the database cannot be written.
pub async fn enable(
    connection: &mut PgConnection,
    tenant: &str,
    target: &str,
    by: &str,
) -> Result<bool, Trouble> {
    let mut transaction = connection.begin().await?;
    let done =
        sqlx::query("DELETE FROM callback_targets_disabled WHERE tenant = $1 AND target = $2")
            .bind(tenant)
            .bind(target)
            .execute(&mut *transaction)
            .await?;
    if done.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(false);
    }
    log(
        &mut transaction,
        "callback_target_enabled",
        tenant,
        target,
        by,
    )
    .await?;
    transaction.commit().await?;
    Ok(true)
}

async fn log(
    connection: &mut PgConnection,
    action: &str,
    tenant: &str,
    name: &str,
    by: &str,
) -> Result<(), Trouble> {
    let entry = Entry {
        by,
        action,
        reason: None,
        detail: &serde_json::json!({"tenant": tenant, "name": name}),
    };
    operations_log::append(connection, &entry).await?;
    Ok(())
}
