//! A schema of its own for each test, with the hands that claim, flush and count in it.

use std::sync::Arc;
use std::time::Duration;

use millrace_devstack::TestDb;
use millrace_schemas::{Decoders, TaskEvent};
use millrace_store::days::Retention;
use millrace_store::position::{self, Consumer, Fence, Progress};
use millrace_store::{
    Advance, Counts, Database, End, Flush, Outcome, Purpose, Settling, Share, Writer, audit,
    migrate,
};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::events::record;

/// Everything a test meets is bounded by this.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A migrated schema.
pub struct World {
    pub database: Database,
    pub consumer: Consumer,
    pub retention: Retention,
    pub decoders: Arc<Decoders>,
    pub url: String,
    pub schema: String,
    /// Drops the schema at the end; none for a cluster that goes as a whole.
    _own: Option<TestDb>,
}

/// A claimed partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub partition: i32,
    pub fence: Fence,
    pub next: i64,
}

impl World {
    /// A schema on the shared cluster.
    pub async fn new(name: &str) -> Self {
        let own = TestDb::new(name).await.expect("a database for tests");
        let (url, schema) = (own.url.clone(), own.schema.clone());
        Self::at(url, schema, Some(own)).await
    }

    /// A schema at an address of one's own.
    pub async fn at(url: String, schema: String, own: Option<TestDb>) -> Self {
        let retention = Retention {
            result_days: 3,
            dedup_days: 2,
        };
        let database = Database::new(&url, &schema).unwrap();
        migrate(&database, retention).await.expect("migrating");
        Self {
            database,
            consumer: Consumer {
                group: "workers".into(),
                topic: "tasks".into(),
            },
            retention,
            decoders: Arc::new(Decoders::new()),
            url,
            schema,
            _own: own,
        }
    }

    /// The same schema by way of another address.
    pub fn by_way_of(&self, url: &str) -> Database {
        Database::new(url, &self.schema).unwrap()
    }

    pub async fn operations(&self) -> PgConnection {
        self.database.connect(Purpose::Operations).await.unwrap()
    }

    pub fn writer(&self) -> Writer {
        self.writer_to(self.database.clone())
    }

    pub fn writer_to(&self, database: Database) -> Writer {
        Writer::new(database, self.consumer.clone(), self.retention)
    }

    /// Makes the partition's row if it has none, and claims it.
    pub async fn claim(&self, partition: i32) -> Held {
        self.claim_as(partition, "worker-a").await
    }

    pub async fn claim_as(&self, partition: i32, owner: &str) -> Held {
        let mut connection = self.operations().await;
        position::create(&mut connection, &self.consumer, partition, 0)
            .await
            .unwrap();
        let claimed = position::claim(&mut connection, &self.consumer, &[partition], owner)
            .await
            .unwrap();
        held(&claimed[0])
    }

    pub async fn progress(&self, partition: i32) -> Progress {
        let mut connection = self.operations().await;
        let all = position::all(&mut connection, &self.consumer)
            .await
            .unwrap();
        all.into_iter()
            .find(|row| row.partition == partition)
            .expect("a row")
    }

    /// Runs statements of the test's own.
    pub async fn sql(&self, statements: &str) {
        let mut connection = self.operations().await;
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// The one number that a query gives.
    pub async fn number(&self, query: &str) -> i64 {
        let mut connection = self.operations().await;
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    /// The one text that a query gives.
    pub async fn text(&self, query: &str) -> Option<String> {
        let mut connection = self.operations().await;
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    pub async fn results(&self) -> i64 {
        self.number("SELECT count(*) FROM task_results").await
    }

    /// What the audit finds, over all partitions.
    pub async fn findings(&self) -> Vec<String> {
        let mut connection = self.operations().await;
        let audits = audit::partitions(&mut connection, &self.consumer)
            .await
            .unwrap();
        for one in &audits {
            assert_eq!(one.balanced(), one.findings().is_empty(), "{one:?}");
        }
        audits
            .iter()
            .flat_map(audit::PartitionAudit::findings)
            .collect()
    }

    /// Flushes with a deadline, so that a test that hangs says where.
    pub async fn flush(&self, writer: &mut Writer, flush: &Flush) -> Vec<End> {
        let ends = tokio::time::timeout(DEADLINE, writer.flush(flush, &self.decoders))
            .await
            .expect("the flush ends in time");
        let partitions: Vec<i32> = ends.iter().map(|end| end.partition).collect();
        let sent: Vec<i32> = flush.shares.iter().map(|share| share.partition).collect();
        assert_eq!(partitions, sent, "one end for each share, in order");
        ends.into_iter().map(|end| end.end).collect()
    }

    /// Lands events at the position of `held` and moves it on. Returns how they ended.
    pub async fn land(
        &self,
        writer: &mut Writer,
        held: &mut Held,
        events: &[TaskEvent],
    ) -> Vec<Outcome> {
        self.land_records(writer, held, records(held.next, events))
            .await
    }

    pub async fn land_records(
        &self,
        writer: &mut Writer,
        held: &mut Held,
        records: Vec<Settling>,
    ) -> Vec<Outcome> {
        let next = records.last().unwrap().offset + 1;
        let flush = Flush {
            shares: vec![share(held, records)],
        };
        match self.flush(writer, &flush).await.remove(0) {
            End::Landed {
                fence, outcomes, ..
            } => {
                held.fence = fence;
                held.next = next;
                outcomes
            }
            End::Lost(loss) => panic!("lost: {loss:?}"),
        }
    }
}

pub fn held(progress: &Progress) -> Held {
    Held {
        partition: progress.partition,
        fence: Fence {
            claim: progress.claim.expect("claimed"),
            seq: progress.seq,
        },
        next: progress.next_offset,
    }
}

/// Records of events at consecutive offsets.
pub fn records(from: i64, events: &[TaskEvent]) -> Vec<Settling> {
    (from..)
        .zip(events)
        .map(|(offset, event)| record(offset, event))
        .collect()
}

/// A share that settles all of its records and moves the position behind them.
pub fn share(held: &Held, records: Vec<Settling>) -> Share {
    let next_offset = records.last().map_or(held.next, |record| record.offset + 1);
    Share {
        partition: held.partition,
        fence: held.fence,
        records,
        advance: Advance {
            next_offset,
            counted: Counts::default(),
            leader_epoch: Some(7),
            frontier_ms: Some(1_800_000_000_000),
            decode_window: None,
            clears_suspect: false,
        },
        may_repeat: false,
    }
}

pub fn flush_of(shares: Vec<Share>) -> Flush {
    Flush { shares }
}

/// A share whose records lie beyond the position, which stays at `next_offset`.
pub fn record_share(held: &Held, records: Vec<Settling>, next_offset: i64) -> Share {
    let mut share = share(held, records);
    share.advance.next_offset = next_offset;
    share
}
