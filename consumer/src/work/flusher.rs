//! The writers' tasks: each owns one connection and lands one flush after the other.
//!
//! The owner hands a writer its next flush only when the last one has come back, so while one is in the
//! air the next batch fills: the load decides how large a flush is. Small ones begin some milliseconds apart, since
//! each costs the database and whoever waits for its tasks as much as a large one; a lone task does not wait. A
//! partition belongs to one writer, partition modulo writers, so that flushes never wait for each other's rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_schemas::Decoders;
use millrace_store::{Flush, Incidents, ShareEnd, Writer};
use tokio::sync::mpsc;

/// Records of a flush that is not small.
const SMALL_FLUSH: usize = 64;
/// The least time from the begin of a small flush to the begin of the next one of the same writer.
const APART: Duration = Duration::from_millis(5);

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
    /// When the next one may begin.
    rests_until: Option<Instant>,
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
        Self {
            jobs,
            busy: false,
            rests_until: None,
        }
    }

    /// Whether its task has ended; it never should while the worker runs.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.jobs.is_closed()
    }

    /// When its next flush may begin, if not now.
    #[must_use]
    pub fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|until| *until > now)
    }

    /// Hands over a flush. False when the writer is busy or gone: the flush was not taken.
    pub fn send(&mut self, job: Job) -> bool {
        let shares = job.flush.shares.iter();
        let is_small = shares.map(|share| share.records.len()).sum::<usize>() < SMALL_FLUSH;
        self.rests_until = is_small.then(|| Instant::now() + APART);
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
