//! Which letters a command is about: a filter, fixed at one moment.

use std::time::Duration;

use chrono::{DateTime, Utc};
use millrace_schemas::TaskId;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use uuid::Uuid;

use crate::position::Consumer;
use crate::rows::{Reason, uuid_of};
use crate::trouble::Trouble;

/// Which letters are meant. An empty list and `None` leave their part open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these partitions.
    pub partitions: Vec<i32>,
    /// Of these task types.
    pub task_types: Vec<String>,
    /// For these reasons.
    pub reasons: Vec<Reason>,
    /// Of these tenants.
    pub tenants: Vec<String>,
    /// With these record keys.
    pub keys: Vec<String>,
    /// Of these tasks.
    pub task_ids: Vec<TaskId>,
    /// Set aside at least so long ago.
    pub older_than: Option<Duration>,
    /// Set aside at most so long ago.
    pub newer_than: Option<Duration>,
    /// Also those that were redriven or discarded.
    pub closed_too: bool,
}

impl Filter {
    /// Whether it leaves everything open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self
            == Self {
                closed_too: self.closed_too,
                ..Self::default()
            }
    }

    /// What it says, for the log of operations.
    #[must_use]
    pub fn describe(&self) -> serde_json::Value {
        let mut said = serde_json::Map::new();
        let reasons: Vec<&str> = self.reasons.iter().map(|reason| reason.as_str()).collect();
        let ids: Vec<String> = self.task_ids.iter().map(ToString::to_string).collect();
        let seconds = |age: Option<Duration>| age.map(|age| age.as_secs());
        for (name, value, is_set) in [
            (
                "partitions",
                serde_json::json!(self.partitions),
                !self.partitions.is_empty(),
            ),
            (
                "task_types",
                serde_json::json!(self.task_types),
                !self.task_types.is_empty(),
            ),
            ("reasons", serde_json::json!(reasons), !reasons.is_empty()),
            (
                "tenants",
                serde_json::json!(self.tenants),
                !self.tenants.is_empty(),
            ),
            ("keys", serde_json::json!(self.keys), !self.keys.is_empty()),
            ("task_ids", serde_json::json!(ids), !ids.is_empty()),
            (
                "older_than_seconds",
                serde_json::json!(seconds(self.older_than)),
                self.older_than.is_some(),
            ),
            (
                "newer_than_seconds",
                serde_json::json!(seconds(self.newer_than)),
                self.newer_than.is_some(),
            ),
        ] {
            if is_set {
                said.insert(name.to_owned(), value);
            }
        }
        serde_json::Value::Object(said)
    }

    /// Fixes the filter at the present moment, by the database's clock.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn now(self, connection: &mut PgConnection) -> Result<Selection, Trouble> {
        let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(connection)
            .await?;
        let before = |age: Duration| {
            chrono::Duration::from_std(age)
                .ok()
                .and_then(|age| now.checked_sub_signed(age))
                .unwrap_or(DateTime::UNIX_EPOCH)
        };
        Ok(Selection {
            until: self.older_than.map_or(now, before),
            from: self.newer_than.map(before),
            filter: self,
        })
    }
}

/// A filter at one moment.
#[derive(Debug, Clone)]
pub struct Selection {
    filter: Filter,
    from: Option<DateTime<Utc>>,
    until: DateTime<Utc>,
}

/// Binds $1 to $11. Only the partition, the task's id and the time have an index; the rest is read through.
macro_rules! selected {
    () => {
        "d.group_id = $1 AND d.topic = $2 AND (cardinality($3::int[]) = 0 OR d.partition = ANY($3)) \
         AND (cardinality($4::text[]) = 0 OR d.task_type = ANY($4)) AND (cardinality($5::text[]) = 0 OR d.reason = ANY($5)) \
         AND (cardinality($6::text[]) = 0 OR d.tenant = ANY($6)) AND (cardinality($7::bytea[]) = 0 OR d.record_key = ANY($7)) \
         AND (cardinality($8::uuid[]) = 0 OR d.task_id = ANY($8)) AND d.created_at <= $9 \
         AND ($10::timestamptz IS NULL OR d.created_at >= $10) \
         AND ($11::boolean OR (d.redriven_at IS NULL AND d.discarded_at IS NULL))"
    };
}

pub(super) use selected;

pub(super) type Asked<'q> = Query<'q, Postgres, PgArguments>;

/// Binds what [`selected`] asks for.
pub(super) fn bound<'q>(query: Asked<'q>, consumer: &Consumer, selection: &Selection) -> Asked<'q> {
    let Filter {
        partitions,
        task_types,
        reasons,
        tenants,
        keys,
        task_ids,
        closed_too,
        ..
    } = &selection.filter;
    let reasons: Vec<String> = reasons
        .iter()
        .map(|reason| reason.as_str().to_owned())
        .collect();
    let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.clone().into_bytes()).collect();
    let task_ids: Vec<Uuid> = task_ids.iter().copied().map(uuid_of).collect();
    query
        .bind(consumer.group.clone())
        .bind(consumer.topic.clone())
        .bind(partitions.clone())
        .bind(task_types.clone())
        .bind(reasons)
        .bind(tenants.clone())
        .bind(keys)
        .bind(task_ids)
        .bind(selection.until)
        .bind(selection.from)
        .bind(*closed_too)
}
