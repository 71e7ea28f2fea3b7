//! The ceiling: bare binary COPY of the same rows into the same table, with nothing else running.
//!
//! Rows are encoded before the clock starts. Each batch is one transaction into `task_results`, the
//! parent table, as any client would write it; nothing is fenced, checked or looked up. With several
//! connections, batches are dealt out in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use millrace_schemas::partition_for_key;
use millrace_store::{Body, CopyBuffer, RESULT_COLUMNS, ResultRow};

use crate::rows::Room;
use crate::servers::PARTITIONS;
use crate::tables::Tables;

/// Rows in a batch, as in a worker's largest flush.
pub const BATCH: u64 = 20_000;
/// Bytes handed to the socket at once, as the worker does.
const CHUNK: usize = 256 * 1024;

/// Rows in Postgres' binary format, in batches.
#[derive(Debug)]
pub struct EncodedRows {
    batches: Vec<Vec<u8>>,
    rows: u64,
}

impl EncodedRows {
    /// The first `events` events as rows.
    pub fn encoded(events: u64, topic: &str) -> Self {
        let mut room = Room::default();
        let mut next_offsets = [0_i64; PARTITIONS as usize];
        let batch = |first: u64| {
            let mut buffer = CopyBuffer::new();
            for index in first..(first + BATCH).min(events) {
                let event = room.event(index, false);
                let partition =
                    partition_for_key(event.record_key().unwrap_or_default(), PARTITIONS);
                let mut offset = 0;
                if let Some(next) = next_offsets.get_mut(partition as usize) {
                    offset = *next;
                    *next += 1;
                }
                buffer.result(&ResultRow {
                    event: &event,
                    day: event.task_id.birth_day(),
                    fingerprint: event.fingerprint(),
                    topic,
                    partition,
                    offset,
                    completed_at: event.submitted_at,
                    run: 0,
                    attempts: 1,
                    body: Body::Payload,
                });
            }
            buffer.into_bytes()
        };
        let batches = (0..events).step_by(BATCH as usize).map(batch).collect();
        Self {
            batches,
            rows: events,
        }
    }

    /// Bytes of a row in the COPY stream, on average.
    pub fn mean_row_bytes(&self) -> f64 {
        let bytes: usize = self.batches.iter().map(Vec::len).sum();
        bytes as f64 / self.rows.max(1) as f64
    }
}

/// Copies all rows into fresh tables over so many connections; returns the time it took.
///
/// # Errors
/// When the database refuses, or rows are missing afterwards.
pub async fn run(
    url: &str,
    name: &str,
    rows: &Arc<EncodedRows>,
    connections: usize,
) -> anyhow::Result<Duration> {
    let tables = Tables::fresh(url, name).await?;
    let mut writers = Vec::with_capacity(connections);
    for _ in 0..connections {
        writers.push(tables.connect_as_writer().await?);
    }
    tables.settle().await?;
    let statement = format!("COPY task_results ({RESULT_COLUMNS}) FROM STDIN (FORMAT binary)");
    let began = Instant::now();
    let mut at_work = Vec::with_capacity(connections);
    for (turn, mut connection) in writers.into_iter().enumerate() {
        let (rows, statement) = (Arc::clone(rows), statement.clone());
        at_work.push(tokio::spawn(async move {
            let mut copied = 0;
            for batch in rows.batches.iter().skip(turn).step_by(connections) {
                let mut copy = connection.copy_in_raw(&statement).await?;
                for chunk in batch.chunks(CHUNK) {
                    copy.send(chunk).await?;
                }
                copied += copy.finish().await?;
            }
            Ok::<u64, sqlx::Error>(copied)
        }));
    }
    let mut copied = 0;
    for writer in at_work {
        copied += writer.await??;
    }
    let took = began.elapsed();
    ensure!(
        copied == rows.rows,
        "{copied} of {} rows were copied",
        rows.rows
    );
    tables.discard().await?;
    Ok(took)
}
