//! Looking around every few seconds: is it still the same log, how far does it reach, who is behind.
//!
//! A topic that was deleted and created again under a running worker shows by its id; an idle partition
//! whose position is the log's end is known to be settled up to the moment of asking. Lag comes from
//! librdkafka's statistics once a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_store::position::{self, Fence, Progress};
use millrace_store::{FenceLoss, Purpose, deployment};
use rdkafka::consumer::Consumer as _;

use super::diagnosis::another_log;
use super::log::{self, Bounds, LogError};
use super::owner::Owner;
use super::standing::Standing;
use super::statistics::PartitionStatistics;
use super::stop::StopReason;
use crate::engine::{Offset, Partition};

/// How often the brokers are asked.
const EVERY: Duration = Duration::from_secs(5);
const BROKER_DEADLINE: Duration = Duration::from_secs(4);
/// Longest that a look around may take, the database's part included.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);
/// A topic counts as gone only when so many answers in a row say so: a broker that has just started, or a
/// topic just created, may be unknown for a moment.
const MISSING_ANSWERS: u32 = 2;

/// When the brokers were asked last, and what they keep saying.
#[derive(Debug, Default)]
pub struct Watch {
    next: Option<Instant>,
    asking: bool,
    missing: u32,
    /// Why everything stands still, by the last answer: it outlives the partitions, which Kafka takes back
    /// when their topic is gone.
    verdict: Option<StopReason>,
}

/// What a look around found.
pub struct Watched {
    asked_ms: i64,
    found: Result<Found, WatchError>,
}

struct Found {
    /// The log is another one.
    another: Option<StopReason>,
    bounds: BTreeMap<Partition, Bounds>,
    /// Claims that are no longer in their rows: a worker without work would not learn it by a flush.
    lost: Vec<(i32, Fence, FenceLoss)>,
}

#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Database(#[from] millrace_store::Trouble),
    #[error("asking the brokers was cut off: {0}")]
    CutOff(#[from] tokio::task::JoinError),
    #[error("looking around took over {LOOK_DEADLINE:?}")]
    TooSlow,
}

impl Watch {
    /// The next tick looks.
    pub(super) const fn look_now(&mut self) {
        self.next = None;
    }
}

impl Owner {
    /// Asks the brokers when it is time.
    pub(super) fn look_around(&mut self, at: Instant) {
        if self.watch.asking
            || self.watch.next.is_some_and(|next| at < next)
            || !self.owned.assigned
        {
            return;
        }
        self.watch.asking = true;
        self.watch.next = Some(at + EVERY);
        let partitions: Vec<Partition> = self
            .owned
            .running()
            .map(|(partition, _)| Partition(partition))
            .collect();
        let fences: Vec<(i32, Fence)> = self
            .owned
            .running()
            .map(|(partition, running)| (partition, running.fence))
            .collect();
        let (claims, back) = (self.claims.clone(), self.watchers.clone());
        tokio::spawn(async move {
            let asked_ms = now_ms();
            let look = async {
                let client = Arc::clone(&claims.client);
                let topic = claims.consumer.topic.clone();
                let (identity, bounds) = tokio::task::spawn_blocking(move || {
                    let identity = log::identify(client.client(), &topic, BROKER_DEADLINE)?;
                    let bounds =
                        log::all_bounds(client.as_ref(), &topic, &partitions, BROKER_DEADLINE)?;
                    Ok::<_, LogError>((identity, bounds))
                })
                .await??;
                let mut connection = claims.database.connect(Purpose::Operations).await?;
                let pinned = deployment::pinned(&mut connection).await?;
                let rows = position::all(&mut connection, &claims.consumer).await?;
                Ok(Found {
                    another: pinned.and_then(|pinned| another_log(&pinned, &identity)),
                    bounds,
                    lost: lost_claims(&fences, &rows),
                })
            };
            let found = match tokio::time::timeout(LOOK_DEADLINE, look).await {
                Ok(found) => found,
                Err(_) => Err(WatchError::TooSlow),
            };
            // The owner is gone only at the very end.
            let _ = back.send(Watched { asked_ms, found });
        });
    }

    /// Takes in what a look around found.
    pub(super) fn watched(&mut self, watched: Watched) {
        self.watch.asking = false;
        match watched.found {
            Ok(Found {
                another: None,
                bounds,
                lost,
            }) => {
                self.watch.missing = 0;
                self.watch.verdict = None;
                self.health.ready("kafka", Ok(()));
                self.health.ready("database", Ok(()));
                self.take_losses(&lost);
                self.refresh_frontiers(&bounds, watched.asked_ms);
            }
            Ok(Found {
                another: Some(reason),
                ..
            }) => self.stop_all(&reason),
            Err(WatchError::Log(LogError::TopicMissing { topic })) => {
                self.watch.missing += 1;
                if self.watch.missing >= MISSING_ANSWERS {
                    self.stop_all(&StopReason::TopicMissing { topic });
                }
            }
            Err(error @ WatchError::Database(_)) => {
                self.health.ready("database", Err(error.to_string()))
            }
            Err(error) => {
                tracing::warn!(%error, "the brokers do not answer");
                self.health.ready("kafka", Err(error.to_string()));
            }
        }
        self.report_readiness();
    }

    /// A flush in the air finds out by itself.
    fn take_losses(&mut self, lost: &[(i32, Fence, FenceLoss)]) {
        for (partition, fence, loss) in lost {
            let still = matches!(
                self.owned.partitions.get(partition),
                Some(Standing::Running(running)) if running.fence == *fence && !running.is_flying()
            );
            if still {
                self.fence_lost(*partition, fence.claim, *loss);
            }
        }
    }

    fn stop_all(&mut self, reason: &StopReason) {
        let running: Vec<i32> = self
            .owned
            .running()
            .map(|(partition, _)| partition)
            .collect();
        for partition in running {
            self.stop_dead(partition, reason.clone());
        }
        self.watch.verdict = Some(reason.clone());
    }

    /// Why partitions stand still, in words.
    pub(super) fn stops(&self) -> Vec<String> {
        let stops = self.owned.stops();
        let mut words: Vec<String> = stops
            .map(|(partition, reason)| format!("partition {partition}: {reason}"))
            .collect();
        if words.is_empty() {
            words.extend(self.watch.verdict.as_ref().map(ToString::to_string));
        }
        words
    }

    fn report_readiness(&self) {
        let stops = self.stops();
        let claiming = self
            .owned
            .partitions
            .values()
            .filter(|s| matches!(s, Standing::Claiming { .. }))
            .count();
        self.health.ready(
            "partitions",
            match (stops.is_empty(), claiming) {
                (false, _) => Err(stops.join("; ")),
                (true, 0) => Ok(()),
                (true, waiting) => Err(format!("{waiting} partitions are not claimed yet")),
            },
        );
    }

    /// Idle partitions at the log's end are settled up to the moment of asking.
    fn refresh_frontiers(&self, bounds: &BTreeMap<Partition, Bounds>, asked_ms: i64) {
        let idle: Vec<(i32, Fence, i64)> = self
            .owned
            .running()
            .filter(|(partition, running)| {
                running.is_idle()
                    && bounds
                        .get(&Partition(*partition))
                        .is_some_and(|b| b.end <= running.ledger.frontier())
            })
            .map(|(partition, running)| (partition, running.fence, asked_ms))
            .collect();
        if idle.is_empty() {
            return;
        }
        let claims = self.claims.clone();
        tokio::spawn(async move {
            let refreshed = async {
                let mut connection = claims.database.connect(Purpose::Operations).await?;
                position::refresh_frontier(&mut connection, &claims.consumer, &idle).await
            };
            if let Err(error) = refreshed.await {
                tracing::debug!(%error, "the frontier times of idle partitions were not refreshed");
            }
        });
    }

    /// Lag, trailing gaps and committed offsets from librdkafka's numbers.
    pub(super) fn note_statistics(&mut self, found: &BTreeMap<i32, PartitionStatistics>) {
        let now = now_ms();
        let positions = self.positions();
        for (partition, running) in self.owned.running_mut() {
            let Some(numbers) = found.get(&partition).filter(|numbers| numbers.desired) else {
                running.metrics.lag(None);
                continue;
            };
            // What lies between the last record and the client's own position are control records. Where the
            // fetcher met the end says nothing: the numbers overtake records that wait in the client's queue.
            if running.at_end
                && let Some(position) = positions.get(&partition)
            {
                running.ledger.gap_to(*position);
            }
            let frontier = running.ledger.frontier().0;
            running.metrics.position(frontier);
            if numbers.committed_offset >= 0 {
                running.metrics.committed(numbers.committed_offset);
            }
            let Some(end) = numbers.end() else {
                running.metrics.lag(None);
                continue;
            };
            running.metrics.log_end(end);
            let behind = u64::try_from(end - frontier).unwrap_or(0);
            let oldest = running
                .ledger
                .oldest_pending_timestamp_ms()
                .or_else(|| running.ledger.frontier_timestamp_ms());
            match (behind, oldest) {
                (0, _) => running.metrics.lag(Some((0, 0.0))),
                (_, Some(oldest)) => running
                    .metrics
                    .lag(Some((behind, seconds_since(oldest, now)))),
                (_, None) => running.metrics.lag(None),
            }
        }
        let running = self.owned.running().count();
        self.gauges.consumer.partitions_owned(running);
        for standing in self.owned.partitions.values() {
            if let Standing::Stopped { metrics, .. } = standing {
                metrics.stopped(true);
            }
        }
        self.report_readiness();
    }

    /// One past the last record or control record that the client has handed over, of each partition.
    fn positions(&self) -> BTreeMap<i32, Offset> {
        let Ok(list) = self.client.position() else {
            return BTreeMap::new();
        };
        let elements = list.elements_for_topic(&self.claims.consumer.topic);
        let exact = elements.iter().filter_map(|one| match one.offset() {
            rdkafka::Offset::Offset(offset) => Some((one.partition(), Offset(offset))),
            _ => None,
        });
        exact.collect()
    }

    /// Whether everything that the group gave us is read to the end and written, or stands still.
    pub(super) fn all_done(&self) -> bool {
        let known = self.owned.assigned
            && self.owned.brokers_answer
            && (self.owned.group_is_steady || self.watch.verdict.is_some());
        let done = self
            .owned
            .partitions
            .values()
            .all(|standing| match standing {
                Standing::Running(running) => running.at_end && running.is_idle(),
                Standing::Stopped { .. } => true,
                Standing::Claiming { .. } | Standing::Halting { .. } => false,
            });
        known && done
    }
}

/// The fences that their rows do not know any more. A seq that is ahead is a flush that landed meanwhile.
fn lost_claims(fences: &[(i32, Fence)], rows: &[Progress]) -> Vec<(i32, Fence, FenceLoss)> {
    let loss = |partition: i32, fence: &Fence| {
        let row = rows.iter().find(|row| row.partition == partition);
        match row {
            None => Some(FenceLoss::RowGone),
            Some(row) if row.claim != Some(fence.claim) => Some(FenceLoss::Taken),
            Some(row) if row.seq < fence.seq => Some(FenceLoss::DatabaseMoved),
            Some(_) => None,
        }
    };
    fences
        .iter()
        .filter_map(|(partition, fence)| Some((*partition, *fence, loss(*partition, fence)?)))
        .collect()
}

fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    i64::try_from(now).unwrap_or(i64::MAX)
}

fn seconds_since(then_ms: i64, now_ms: i64) -> f64 {
    let waited = u64::try_from(now_ms.saturating_sub(then_ms)).unwrap_or(0);
    Duration::from_millis(waited).as_secs_f64()
}
