//! The one row that says whose schema this is: which group, topic and log.
//!
//! Pinned at the first start and never changed in passing; a worker that meets another log stops and asks.

use sqlx::{PgConnection, Row};

use crate::trouble::Trouble;

/// What was pinned at the first start, or what the broker says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// Kafka's cluster id, where the broker tells one.
    pub cluster_id: Option<String>,
    /// Kafka's topic id, where the broker tells one: a topic created again has another.
    pub topic_id: Option<String>,
    /// How many partitions the topic has.
    pub partition_count: i32,
}

/// Reads the row; `None` before the first start.
///
/// # Errors
/// When the database cannot be read.
pub async fn pinned(connection: &mut PgConnection) -> Result<Option<Deployment>, Trouble> {
    let row = sqlx::query(
        "SELECT group_id, topic, cluster_id, topic_id, partition_count FROM deployment",
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Deployment {
        group: row.try_get("group_id")?,
        topic: row.try_get("topic")?,
        cluster_id: row.try_get("cluster_id")?,
        topic_id: row.try_get("topic_id")?,
        partition_count: row.try_get("partition_count")?,
    }))
}

/// Pins `now` unless something is pinned already; returns what is pinned.
///
/// # Errors
/// When the database cannot be written.
pub async fn pin(connection: &mut PgConnection, now: &Deployment) -> Result<Deployment, Trouble> {
    sqlx::query(
        "INSERT INTO deployment (group_id, topic, cluster_id, topic_id, partition_count) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(&now.group)
    .bind(&now.topic)
    .bind(&now.cluster_id)
    .bind(&now.topic_id)
    .bind(now.partition_count)
    .execute(&mut *connection)
    .await?;
    pinned(connection)
        .await?
        .ok_or_else(|| Trouble::Outage("the deployment row is not there after writing it".into()))
}

/// Pins another log: part of moving every position by hand.
pub(crate) async fn repin(connection: &mut PgConnection, now: &Deployment) -> Result<(), Trouble> {
    sqlx::query("UPDATE deployment SET cluster_id = $1, topic_id = $2, partition_count = $3, pinned_at = now()")
        .bind(&now.cluster_id)
        .bind(&now.topic_id)
        .bind(now.partition_count)
        .execute(connection)
        .await?;
    Ok(())
}
