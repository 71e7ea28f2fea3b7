//! A writer: one connection that lands flushes, whatever happens to the database meanwhile.
//!
//! It never gives up and never skips: an outage is waited out, a lost COMMIT answer is looked up, rows that
//! meet others are looked up before they are written again, and a row that the database refuses is found by
//! halving and becomes a dead letter, but only after the canary said that the database itself is well. The
//! connection is its own, and survives nothing but a clean COMMIT or ROLLBACK.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::Decoders;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::books::Outcome;
use crate::canary::{self, Health};
use crate::connection::{Database, Purpose};
use crate::days::{self, Retention};
use crate::dedup::KeyDays;
use crate::fence::FenceLoss;
use crate::flush::{self, Footing, Part, PartEnd, Setup, Stage, Trail};
use crate::patience::Patience;
use crate::position::{Consumer, Fence};
use crate::progressing::{Cut, Progressing, choose, single_record};
use crate::rows::{Flush, Reason};
use crate::trouble::Trouble;

/// Longest that one transaction may take, a little over the server's own statement timeout.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(25);
/// Longest that making the missing days may take.
const DAYS_DEADLINE: Duration = Duration::from_secs(30);
/// Flushes for which a partition's rows are looked up first after it met one that was there.
const LOOK_UPS_AFTER_CONFLICT: u32 = 16;
/// Failures in a row after which the partitions of a flush are tried one by one, so that one whose row is
/// locked holds up none of the others.
const APART_AFTER: u32 = 2;
/// Failures in a row, while rows were being written, before the canary is asked whose fault it is.
const PATIENCE: u32 = 6;

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
    /// Attempts redone because rows were there already.
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
    /// Found out anew on each connection, since another server may answer it.
    key_days: KeyDays,
    /// Flushes for which a partition's rows are still looked up first.
    repeating: HashMap<i32, u32>,
    incidents: Incidents,
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
            key_days: KeyDays::default(),
            repeating: HashMap::new(),
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
        let mut turn = 0_usize;
        let mut trail = Trail::default();
        let mut patience = Patience::new();
        for share in &flush.shares {
            if share.may_repeat {
                self.repeating.entry(share.partition).or_insert(1);
            }
        }
        while let Some(chosen) = choose(&shares, cut, turn) {
            let parts: Vec<Part<'_>> = chosen
                .iter()
                .filter_map(|index| shares.get(*index))
                .map(|share| share.part(cut.size()))
                .collect();
            let footing = self.footing(&parts);
            match self.attempt(&parts, decoders, footing, &mut trail).await {
                Ok(ends) => {
                    self.landed(&parts, footing);
                    patience.recovered();
                    for (index, end) in chosen.into_iter().zip(ends) {
                        if let Some(share) = shares.get_mut(index) {
                            share.take_in(end);
                        }
                    }
                    cut = cut.grown();
                }
                Err(trouble) => {
                    turn = turn.wrapping_add(1);
                    let row_at_fault = self
                        .weigh(&trouble, &parts, footing, &trail, &mut patience)
                        .await;
                    let (single, several) = (single_record(&parts), parts.len() > 1);
                    let smaller = Cut::smaller(&parts);
                    if row_at_fault {
                        self.incidents.refusals += 1;
                        match (single, smaller) {
                            // A row that would be refused may also be one that the id's own row keeps out.
                            _ if footing == Footing::New => self.look_up_first(&parts),
                            (Some(name), _) => {
                                let share = chosen.first().and_then(|index| shares.get_mut(*index));
                                if !share.is_some_and(|share| share.refuse(name, &trouble)) {
                                    patience.wait(&trouble).await;
                                }
                            }
                            (None, Some(smaller)) => cut = smaller,
                            (None, None) => patience.wait(&trouble).await,
                        }
                    } else if several
                        && trail.stage != Stage::Connect
                        && patience.failures >= APART_AFTER
                    {
                        cut = Cut::Alone(usize::MAX);
                    } else if matches!(trouble, Trouble::Held(_))
                        && patience.failures.is_multiple_of(PATIENCE)
                        && let Some(smaller) = smaller
                    {
                        // What takes too long as a whole may pass in parts.
                        cut = smaller;
                    }
                }
            }
        }
        shares.into_iter().map(Progressing::into_end).collect()
    }

    /// From now on, for a while, rows of these partitions are looked up before they are written.
    fn look_up_first(&mut self, parts: &[Part<'_>]) {
        for part in parts {
            self.repeating
                .insert(part.partition, LOOK_UPS_AFTER_CONFLICT);
        }
    }

    fn footing(&self, parts: &[Part<'_>]) -> Footing {
        let repeats = |part: &Part<'_>| self.repeating.contains_key(&part.partition);
        if parts.iter().any(repeats) {
            Footing::Repeat
        } else {
            Footing::New
        }
    }

    async fn attempt(
        &mut self,
        parts: &[Part<'_>],
        decoders: &Decoders,
        footing: Footing,
        trail: &mut Trail,
    ) -> Result<Vec<PartEnd>, Trouble> {
        trail.stage = Stage::Connect;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.key_days = KeyDays::default();
                self.database.connect(Purpose::Writer).await?
            }
        };
        let setup = Setup {
            consumer: &self.consumer,
            decoders,
            retention: self.retention,
            footing,
        };
        let attempt = flush::attempt(&mut connection, &setup, parts, trail, &mut self.key_days);
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

    fn landed(&mut self, parts: &[Part<'_>], footing: Footing) {
        if footing == Footing::Repeat {
            for part in parts {
                if let Some(left) = self.repeating.get_mut(&part.partition) {
                    *left = left.saturating_sub(1);
                }
            }
            self.repeating.retain(|_, left| *left > 0);
        }
    }

    /// Decides what a failure means and waits as long as it deserves. Returns whether a row is at fault.
    async fn weigh(
        &mut self,
        trouble: &Trouble,
        parts: &[Part<'_>],
        footing: Footing,
        trail: &Trail,
        patience: &mut Patience,
    ) -> bool {
        let partitions: Vec<i32> = parts.iter().map(|part| part.partition).collect();
        if trail.stage == Stage::Commit {
            self.incidents.unknown_commits += 1;
            tracing::warn!(error = %trouble, "the answer to a COMMIT was lost: looking up whether it happened");
        }
        match trouble {
            Trouble::Conflict(detail) if footing == Footing::New => {
                self.incidents.conflicts += 1;
                tracing::info!(
                    detail,
                    ?partitions,
                    "rows are there already: looking them up"
                );
                self.look_up_first(parts);
                return false;
            }
            Trouble::Refused(detail) if trail.stage == Stage::Rows => {
                match canary::send(&self.database, &trail.days).await {
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
            // A lock or a slow statement says nothing about any row.
            Trouble::Held(_) => {
                self.incidents.outages += 1;
                patience.wait(trouble).await;
                return false;
            }
            Trouble::Outage(_) | Trouble::Conflict(_) | Trouble::Refused(_) => {}
        }
        self.incidents.outages += 1;
        if trail.stage == Stage::Rows {
            patience.rows_failures += 1;
            if patience.rows_failures.is_multiple_of(PATIENCE)
                && canary::send(&self.database, &trail.days).await == Health::Well
            {
                tracing::warn!(error = %trouble, ?partitions, "the flush keeps failing while the database is well: looking for the row");
                return true;
            }
        }
        patience.wait(trouble).await;
        false
    }

    async fn make_days(&self) {
        let made = async {
            let mut connection = self.database.connect(Purpose::Operations).await?;
            days::ensure(&mut connection, self.retention).await
        };
        let made = tokio::time::timeout(DAYS_DEADLINE, made);
        match made.await {
            Ok(Ok(count)) => tracing::info!(count, "made the days that were missing"),
            Ok(Err(trouble)) => {
                tracing::warn!(error = %trouble, "the missing days could not be made yet");
            }
            Err(_) => tracing::warn!("making the missing days took over {DAYS_DEADLINE:?}"),
        }
    }
}
