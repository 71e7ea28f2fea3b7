//! Dead letters planted by hand: as a flush leaves them, without a worker.

use millrace_schemas::{Framing, TaskEvent};
use millrace_store::audit;
use millrace_store::position::Consumer;
use millrace_store::{Database, Purpose};

use super::events::framed;
use super::scene::Scene;

/// A record that was set aside.
pub struct Planted {
    pub event: Option<TaskEvent>,
    pub value: Vec<u8>,
    pub reason: &'static str,
}

impl Planted {
    /// A task that failed.
    pub fn failed(event: &TaskEvent, reason: &'static str) -> Planted {
        Planted {
            value: framed(event, Framing::SingleObject),
            event: Some(event.clone()),
            reason,
        }
    }

    /// Bytes that are no event.
    pub fn bytes(value: &[u8]) -> Planted {
        Planted {
            event: None,
            value: value.to_vec(),
            reason: "undecodable",
        }
    }
}

impl Scene {
    /// Sets records aside at the offsets 0, 1, 2 … of partition 0, with failed results, books and outbox.
    pub async fn plant(&self, planted: &[Planted]) {
        let mut connection = self.database().await;
        for (offset, one) in (0_i64..).zip(planted) {
            let event = one.event.as_ref();
            let id = event.map(|event| event.task_id.as_uuid());
            sqlx::query(
                "INSERT INTO dead_letters (group_id, topic, partition, log_book, \"offset\", run, task_id, tenant, task_type, \
                   reason, error, attempts, record_key, record_value, headers, record_time) \
                 VALUES ($1, $2, 0, 1, $3, 0, $4, $5, $6, $7, 'it went wrong', 1, $8, $9, \
                   '{\"colour\": [\"blue\", \"green\"]}', to_timestamp(1800000000))",
            )
            .bind(&self.group)
            .bind(&self.topic)
            .bind(offset)
            .bind(id)
            .bind(event.map(|event| event.tenant.as_str()))
            .bind(event.map(|event| event.task_type.as_str()))
            .bind(one.reason)
            .bind(event.and_then(|event| event.key.as_ref().map(|key| key.as_bytes())))
            .bind(&one.value)
            .execute(&mut connection)
            .await
            .unwrap();
            if let Some(event) = event {
                sqlx::query(
                    "INSERT INTO task_results (task_id, submitted_at, completed_at, \"offset\", partition, day, status, run, \
                       attempts, fingerprint, topic, tenant, task_type, content_type) \
                     VALUES ($1, now(), now(), $2, 0, DATE '1970-01-01' + $3, 'failed', 0, 1, $1, $4, $5, $6, 'text/plain')",
                )
                .bind(id)
                .bind(offset)
                .bind(event.task_id.birth_day().days_since_epoch())
                .bind(&self.topic)
                .bind(&event.tenant)
                .bind(&event.task_type)
                .execute(&mut connection)
                .await
                .unwrap();
            }
        }
        sqlx::query(
            "INSERT INTO partition_progress (group_id, topic, partition, seq, first_offset, next_offset, high_offset, dead_letters) \
             VALUES ($1, $2, 0, 1, 0, $3, $3, $3)",
        )
        .bind(&self.group)
        .bind(&self.topic)
        .bind(i64::try_from(planted.len()).unwrap())
        .execute(&mut connection)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO outbox (kind, group_id, topic, partition, log_book, \"offset\", run) \
             SELECT 'dead_letter_copy', group_id, topic, partition, log_book, \"offset\", run FROM dead_letters",
        )
        .execute(&mut connection)
        .await
        .unwrap();
    }

    /// What the store is asked for.
    pub fn consumer(&self) -> Consumer {
        Consumer {
            group: self.group.clone(),
            topic: self.topic.clone(),
        }
    }

    /// The database as the binary opens it.
    pub fn store(&self) -> Database {
        Database::new(&self.database_url(), &self.schema).unwrap()
    }

    /// What the audit finds wrong.
    pub async fn imbalances(&self) -> Vec<String> {
        let mut connection = self.store().connect(Purpose::Reading).await.unwrap();
        let audits = audit::partitions(&mut connection, &self.consumer())
            .await
            .unwrap();
        audits
            .iter()
            .flat_map(audit::PartitionAudit::findings)
            .collect()
    }
}
