//! The writers' tasks: each owns one connection and lands one flush after the other.
//!
//! The owner hands a writer its next flush only when the last one has come back, so while one is in the
//! air the next batch fills: no timer decides how large a flush is, the load does. A partition belongs to
//! one writer, partition modulo writers, so that flushes never wait for each other's rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_schemas::Decoders;
use millrace_store::{Flush, Incidents, ShareEnd, Writer};
use tokio::sync::mpsc;

/// A flush on its way to a writer.
#[derive(Debug)]
pub struct Job {
    /// What to land.
    pub flush: Flush,
    /// The schemas known when it was made.
    pub decoders: Arc<Decoders>,
}

/// A flush that came back.
#[derive(Debug)]
pub struct Landed {
    /// Which writer is free again.
    pub writer: usize,
    /// How each share ended.
    pub ends: Vec<ShareEnd>,
    /// How long it took, outages included.
    pub took: Duration,
    /// Records in it.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// What went wrong on the way.
    pub incidents: Incidents,
}

/// The owner's end of one writer.
#[derive(Debug)]
pub struct WriterLane {
    jobs: mpsc::Sender<Job>,
    /// Whether a flush of its is in the air.
    pub busy: bool,
}

impl WriterLane {
    /// Starts the task of writer number `number`.
    #[must_use]
    pub fn start(number: usize, mut writer: Writer, landed: mpsc::UnboundedSender<Landed>) -> Self {
        let (jobs, mut queue) = mpsc::channel::<Job>(1);
        tokio::spawn(async move {
            while let Some(job) = queue.recv().await {
                let began = Instant::now();
                let ends = writer.flush(&job.flush, &job.decoders).await;
                let (records, bytes) = size(&job.flush);
                let report = Landed {
                    writer: number,
                    ends,
                    took: began.elapsed(),
                    records,
                    bytes,
                    incidents: writer.take_incidents(),
                };
                if landed.send(report).is_err() {
                    return;
                }
            }
        });
        Self { jobs, busy: false }
    }

    /// Whether its task has ended; it never should while the worker runs.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Hands over a flush. False when the writer is busy or gone: the flush was not taken.
    pub fn send(&mut self, job: Job) -> bool {
        let sent = self.jobs.try_send(job).is_ok();
        self.busy |= sent;
        sent
    }
}

fn size(flush: &Flush) -> (u64, u64) {
    let records = flush.shares.iter().flat_map(|share| &share.records);
    records.fold((0, 0), |(count, bytes), record| {
        (count + 1, bytes + record.value.len() as u64)
    })
}
