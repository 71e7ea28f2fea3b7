//! A writer: one connection that lands flushes, whatever happens to the database meanwhile.
//!
//! It never gives up and never skips: an outage is waited out, a lost COMMIT answer is looked up, a row
//! that meets another is merged, and a row that the database refuses is found by halving and becomes a dead
//! letter, but only after the canary said that the database itself is well. The connection is its own, and
//! survives nothing but a clean COMMIT or ROLLBACK.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::Decoders;
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use crate::books::{Counts, Outcome};
use crate::canary::{self, Health};
use crate::connection::{Database, Purpose};
use crate::days::{self, Retention};
use crate::dedup::Writing;
use crate::fence::FenceLoss;
use crate::flush::{self, Part, PartEnd, Setup, Stage, Trail};
use crate::position::{Consumer, Fence};
use crate::rows::{DeadLetter, Flush, Reason, Share};
use crate::trouble::Trouble;

/// Longest that one transaction may take, a little over the server's own statement timeout.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(25);
/// Flushes that a partition stays on the merging path after it met a row that was there.
const MERGES_AFTER_CONFLICT: u32 = 16;
/// Failures in a row, while rows were being written, before the canary is asked whose fault it is.
const PATIENCE: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// How often a long outage is logged again.
const REMIND: Duration = Duration::from_secs(10);

/// How one partition's share of a flush ended.
#[derive(Debug)]
pub struct ShareEnd {
    /// The partition.
    pub partition: i32,
    /// The claim under which it was written.
    pub claim: Uuid,
    /// What became of it.
    pub end: End,
}

/// What became of a share.
#[derive(Debug)]
pub enum End {
    /// Durable.
    Landed {
        /// The fence for the next flush.
        fence: Fence,
        /// One for each record, in order.
        outcomes: Vec<Outcome>,
        /// `submitted_at` of each new result, microseconds since the Unix epoch.
        submitted: Vec<i64>,
        /// Reasons of the new dead letters.
        reasons: Vec<Reason>,
    },
    /// Nothing more of it was written.
    Lost(FenceLoss),
}

/// What a writer did beside landing rows, for metrics; taken with [`Writer::take_incidents`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Incidents {
    /// Attempts that failed because the database was away.
    pub outages: u64,
    /// Attempts redone by merging.
    pub conflicts: u64,
    /// Attempts that the database refused while it was well.
    pub refusals: u64,
    /// COMMITs whose answer was lost.
    pub unknown_commits: u64,
}

/// Lands flushes over one connection of its own.
#[derive(Debug)]
pub struct Writer {
    database: Database,
    consumer: Consumer,
    retention: Retention,
    /// Taken for each attempt and put back only when it ended cleanly: see the module's promise.
    connection: Option<PgConnection>,
    /// Flushes for which a partition is still written by merging.
    merging: HashMap<i32, u32>,
    incidents: Incidents,
}

/// A share on its way.
struct Progressing<'a> {
    share: &'a Share,
    fence: Fence,
    landed: flush::Landed,
    earlier: Counts,
    refused: HashMap<i64, DeadLetter>,
    end: Option<FenceLoss>,
    complete: bool,
}

impl<'a> Progressing<'a> {
    fn new(share: &'a Share) -> Self {
        Self {
            share,
            fence: share.fence,
            landed: flush::Landed::default(),
            earlier: Counts::default(),
            refused: HashMap::new(),
            end: None,
            complete: false,
        }
    }

    const fn is_open(&self) -> bool {
        self.end.is_none() && !self.complete
    }

    /// The next part, of at most `size` records.
    fn part(&self, size: usize) -> Part<'_> {
        let done = self.landed.outcomes.len();
        let rest = self.share.records.get(done..).unwrap_or_default();
        let records = rest.get(..size.min(rest.len())).unwrap_or_default();
        Part {
            partition: self.share.partition,
            fence: self.fence,
            records,
            refused: &self.refused,
            advance: (records.len() == rest.len()).then_some(self.share.advance),
            earlier: self.earlier,
        }
    }

    fn take_in(&mut self, end: PartEnd) {
        match end {
            PartEnd::Lost(loss) => self.end = Some(loss),
            PartEnd::Landed(landed) => {
                let done = self.landed.outcomes.len();
                for (record, outcome) in self.share.records.iter().skip(done).zip(&landed.outcomes)
                {
                    if record.offset < self.share.advance.next_offset {
                        self.earlier.count(*outcome);
                    }
                }
                self.landed.outcomes.extend(landed.outcomes);
                self.landed.submitted.extend(landed.submitted);
                self.landed.reasons.extend(landed.reasons);
                self.fence.seq += 1;
                self.complete = self.landed.outcomes.len() == self.share.records.len();
            }
        }
    }

    fn into_end(self) -> ShareEnd {
        let end = match self.end {
            Some(loss) => End::Lost(loss),
            None => End::Landed {
                fence: self.fence,
                outcomes: self.landed.outcomes,
                submitted: self.landed.submitted,
                reasons: self.landed.reasons,
            },
        };
        ShareEnd {
            partition: self.share.partition,
            claim: self.share.fence.claim,
            end,
        }
    }
}

/// How a flush is being cut while a refused row is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// All partitions in one transaction.
    Together,
    /// One partition at a time, at most so many records.
    Alone(usize),
}

/// A row of failures.
struct Trying {
    failures: u32,
    rows_failures: u32,
    since: Option<Instant>,
    reminded: Instant,
}

impl Writer {
    /// A writer that connects when it first has something to write.
    #[must_use]
    pub fn new(database: Database, consumer: Consumer, retention: Retention) -> Self {
        Self {
            database,
            consumer,
            retention,
            connection: None,
            merging: HashMap::new(),
            incidents: Incidents::default(),
        }
    }

    /// What happened since the last call.
    pub fn take_incidents(&mut self) -> Incidents {
        std::mem::take(&mut self.incidents)
    }

    /// Lands the flush and says how each share ended, in the order of the shares. It returns only when
    /// nothing is left to do; whoever cannot wait drops the future, which rolls back what is in the air.
    pub async fn flush(&mut self, flush: &Flush, decoders: &Arc<Decoders>) -> Vec<ShareEnd> {
        let mut shares: Vec<Progressing<'_>> = flush.shares.iter().map(Progressing::new).collect();
        let mut cut = Cut::Together;
        let mut trail = Trail::default();
        let mut trying = Trying {
            failures: 0,
            rows_failures: 0,
            since: None,
            reminded: Instant::now(),
        };
        for share in &flush.shares {
            if share.may_repeat {
                self.merging.entry(share.partition).or_insert(1);
            }
        }
        while let Some(chosen) = choose(&shares, cut) {
            let parts: Vec<Part<'_>> = chosen
                .iter()
                .filter_map(|index| shares.get(*index))
                .map(|s| s.part(cut.size()))
                .collect();
            let writing = if parts
                .iter()
                .any(|part| self.merging.contains_key(&part.partition))
            {
                Writing::Merge
            } else {
                Writing::Copy
            };
            let outcome = self.attempt(&parts, decoders, writing, &mut trail).await;
            match outcome {
                Ok(ends) => {
                    self.landed(&parts, writing);
                    trying.recovered();
                    for (index, end) in chosen.into_iter().zip(ends) {
                        if let Some(share) = shares.get_mut(index) {
                            share.take_in(end);
                        }
                    }
                    cut = cut.grown();
                }
                Err(trouble) => {
                    let partitions: Vec<i32> = parts.iter().map(|part| part.partition).collect();
                    let single = single_record(&parts);
                    if self
                        .weigh(&trouble, &partitions, writing, &trail, &mut trying)
                        .await
                    {
                        self.incidents.refusals += 1;
                        cut = match (cut, single) {
                            (_, Some(offset)) => {
                                if !refuse(&mut shares, &chosen, offset, &trouble) {
                                    trying.wait(&trouble).await;
                                }
                                cut
                            }
                            (Cut::Together, None) => Cut::Alone(usize::MAX),
                            (Cut::Alone(size), None) => {
                                let most = shares
                                    .iter()
                                    .map(|s| s.share.records.len())
                                    .max()
                                    .unwrap_or(1);
                                Cut::Alone((size.min(most) / 2).max(1))
                            }
                        };
                    }
                }
            }
        }
        shares.into_iter().map(Progressing::into_end).collect()
    }

    async fn attempt(
        &mut self,
        parts: &[Part<'_>],
        decoders: &Decoders,
        writing: Writing,
        trail: &mut Trail,
    ) -> Result<Vec<PartEnd>, Trouble> {
        trail.stage = Stage::Fence;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.database.connect(Purpose::Writer).await?,
        };
        let setup = Setup {
            consumer: &self.consumer,
            decoders,
            retention: self.retention,
            writing,
        };
        let attempt = flush::attempt(&mut connection, &setup, parts, trail);
        match tokio::time::timeout(ATTEMPT_DEADLINE, attempt).await {
            Ok(Ok(ends)) => {
                self.connection = Some(connection);
                Ok(ends)
            }
            Ok(Err(trouble)) => Err(trouble),
            Err(_) => Err(Trouble::Outage(format!(
                "a flush took over {ATTEMPT_DEADLINE:?}"
            ))),
        }
    }

    fn landed(&mut self, parts: &[Part<'_>], writing: Writing) {
        if writing == Writing::Merge {
            for part in parts {
                if let Some(left) = self.merging.get_mut(&part.partition) {
                    *left = left.saturating_sub(1);
                }
            }
            self.merging.retain(|_, left| *left > 0);
        }
    }

    /// Decides what a failure means and waits as long as it deserves. Returns whether a row is at fault.
    async fn weigh(
        &mut self,
        trouble: &Trouble,
        partitions: &[i32],
        writing: Writing,
        trail: &Trail,
        trying: &mut Trying,
    ) -> bool {
        if trail.stage == Stage::Commit {
            self.incidents.unknown_commits += 1;
            tracing::warn!(error = %trouble, "the answer to a COMMIT was lost: looking up whether it happened");
        }
        match trouble {
            Trouble::Conflict(detail) if writing == Writing::Copy => {
                self.incidents.conflicts += 1;
                tracing::info!(detail, ?partitions, "rows are there already: merging");
                for partition in partitions {
                    self.merging.insert(*partition, MERGES_AFTER_CONFLICT);
                }
                return false;
            }
            Trouble::Refused(detail) if trail.stage == Stage::Rows => {
                match canary::send(&self.database).await {
                    Health::Well => {
                        tracing::warn!(
                            detail,
                            ?partitions,
                            "the database refused a row: looking for it"
                        );
                        return true;
                    }
                    Health::Unwell(why) => {
                        tracing::warn!(detail, why, "the database refuses good rows, too: waiting")
                    }
                }
            }
            Trouble::MissingDay(_) => self.make_days().await,
            Trouble::Outage(_) | Trouble::Conflict(_) | Trouble::Refused(_) => {}
        }
        self.incidents.outages += 1;
        if trail.stage == Stage::Rows {
            trying.rows_failures += 1;
            if trying.rows_failures.is_multiple_of(PATIENCE)
                && canary::send(&self.database).await == Health::Well
            {
                tracing::warn!(error = %trouble, ?partitions, "the flush keeps failing while the database is well: looking for the row");
                return true;
            }
        }
        trying.wait(trouble).await;
        false
    }

    async fn make_days(&self) {
        let made = async {
            let mut connection = self.database.connect(Purpose::Operations).await?;
            days::ensure(&mut connection, self.retention).await
        };
        match made.await {
            Ok(count) => tracing::info!(count, "made the days that were missing"),
            Err(trouble) => {
                tracing::warn!(error = %trouble, "the missing days could not be made yet")
            }
        }
    }
}

impl Trying {
    async fn wait(&mut self, trouble: &Trouble) {
        self.failures += 1;
        let now = Instant::now();
        if self.since.is_none() {
            self.since = Some(now);
            self.reminded = now;
            tracing::warn!(error = %trouble, "the database is not available: waiting, nothing is lost");
        } else if now.duration_since(self.reminded) >= REMIND {
            self.reminded = now;
            let waited = self
                .since
                .map_or(0, |since| now.duration_since(since).as_secs());
            tracing::warn!(error = %trouble, waited_s = waited, "the database is still not available");
        }
        let wait = FIRST_WAIT
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST_WAIT);
        tokio::time::sleep(wait).await;
    }

    fn recovered(&mut self) {
        if let Some(since) = self.since.take() {
            tracing::info!(
                waited_s = since.elapsed().as_secs_f64(),
                "the database is back: flushed"
            );
        }
        self.failures = 0;
        self.rows_failures = 0;
    }
}

impl Cut {
    const fn size(self) -> usize {
        match self {
            Self::Together => usize::MAX,
            Self::Alone(size) => size,
        }
    }

    /// After a success the parts grow again.
    const fn grown(self) -> Self {
        match self {
            Self::Together => Self::Together,
            Self::Alone(size) => Self::Alone(size.saturating_mul(2)),
        }
    }
}

/// Indices of the shares in the next attempt; `None` when all have ended.
fn choose(shares: &[Progressing<'_>], cut: Cut) -> Option<Vec<usize>> {
    let mut open = shares
        .iter()
        .enumerate()
        .filter(|(_, share)| share.is_open())
        .map(|(index, _)| index);
    let chosen: Vec<usize> = match cut {
        Cut::Together => open.collect(),
        Cut::Alone(_) => open.next().into_iter().collect(),
    };
    (!chosen.is_empty()).then_some(chosen)
}

/// The offset of the only record in the attempt, if there is only one.
fn single_record(parts: &[Part<'_>]) -> Option<i64> {
    match parts {
        [part] => match part.records {
            [record] => Some(record.offset),
            _ => None,
        },
        _ => None,
    }
}

/// Makes a dead letter of the one record that the database refuses. False when it was made before, and
/// it is the letter that is refused: then only waiting is left.
fn refuse(
    shares: &mut [Progressing<'_>],
    chosen: &[usize],
    offset: i64,
    trouble: &Trouble,
) -> bool {
    let Some(share) = chosen.first().and_then(|index| shares.get_mut(*index)) else {
        return false;
    };
    tracing::warn!(partition = share.share.partition, offset, error = %trouble, "the database refuses this record: dead letter");
    share
        .refused
        .insert(
            offset,
            DeadLetter::about_event(Reason::RowRefused, trouble.to_string()),
        )
        .is_none()
}
