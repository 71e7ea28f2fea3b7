//! Flushes out and back in: what is handed to which writer, and what a landed flush settles.
//!
//! Kafka's offset is stored only here, after the flush that made it durable. A partition has one writer, and
//! a writer takes its partitions in turn, so that none waits for the others for ever. Whoever waits for a task
//! to land hears of it here, and so does the budget.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use millrace_store::{End, Flush, Incidents, Outcome, ParkKind, Reason, Settling, ShareEnd};
use millrace_telemetry::{DatabaseErrorKind, LatencyBatch, RedoPath};
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::claims::Ahead;
use super::in_air::{Settled, Tracked};
use super::owner::Owner;
use super::standing::Standing;
use crate::engine::{AloneEnd, Charge, LaneKey, Offset, Partition, Spot};
use crate::handlers::CancelReason;
use crate::work::attempts::Attempt;
use crate::work::flusher::{Job, Landed};

/// Most that one flush carries: larger ones gain nothing and only make the others wait.
const FLUSH_MOST: Charge = Charge {
    events: 20_000,
    bytes: 8 << 20,
};

impl Owner {
    /// Gives every free writer what its partitions have.
    pub(super) fn dispatch(&mut self) {
        let now = Instant::now();
        self.next_flush = None;
        for lane in 0..self.writers.len() {
            let Some(writer) = self.writers.get(lane).filter(|writer| !writer.busy) else {
                continue;
            };
            let rests_until = writer.rests_until(now);
            let ready = self.ready(lane);
            if ready.is_empty() {
                continue;
            }
            if let Some(until) = rests_until {
                self.next_flush = Some(self.next_flush.map_or(until, |next| next.min(until)));
                continue;
            }
            let flush = self.gather(ready);
            if flush.shares.is_empty() {
                continue;
            }
            let job = Job {
                flush,
                decoders: self.decoders.clone(),
            };
            if let Some(writer) = self.writers.get_mut(lane)
                && !writer.send(job)
            {
                self.writer_gone = true;
            }
        }
    }

    /// Partitions of one writer that have something to land.
    fn ready(&self, lane: usize) -> Vec<i32> {
        let writers = self.writers.len();
        let leaving = self.leaving.iter().flat_map(|leaving| leaving.rest.iter());
        let leaving = leaving.map(|(partition, running)| (*partition, &**running));
        self.owned
            .running()
            .chain(leaving)
            .filter(|(partition, running)| {
                lane_of(*partition, writers) == lane && running.has_work()
            })
            .map(|(partition, _)| partition)
            .collect()
    }

    /// The next flush of these partitions, some at least: in turn, each time from another one on.
    fn gather(&mut self, mut ready: Vec<i32>) -> Flush {
        let turn = self.first_lane % ready.len();
        self.first_lane = self.first_lane.wrapping_add(1);
        ready.rotate_left(turn);
        let mut room = FLUSH_MOST;
        let mut flush = Flush::default();
        let mut wrong = Vec::new();
        for partition in ready {
            let owned = self.owned.partitions.get_mut(&partition);
            let leaving = self.leaving.as_mut();
            let Some(running) = owned.and_then(Standing::running_mut).or_else(|| {
                let rest = leaving.and_then(|leaving| leaving.rest.get_mut(&partition));
                rest.map(Box::as_mut)
            }) else {
                continue;
            };
            match running.cut(partition, room) {
                Ok(share) => {
                    let bytes = share.records.iter().map(Settling::held_bytes).sum();
                    room = room.saturating_sub(Charge {
                        events: share.records.len() as u64,
                        bytes,
                    });
                    flush.shares.push(share);
                }
                Err(error) => wrong.push((partition, error)),
            }
            if room.events == 0 || room.bytes == 0 {
                break;
            }
        }
        for (partition, error) in wrong {
            self.disagree(partition, &error);
        }
        flush.shares.sort_unstable_by_key(|share| share.partition);
        flush
    }

    /// Takes in a flush that came back.
    pub(super) fn landed(&mut self, landed: Landed) {
        if let Some(writer) = self.writers.get_mut(landed.writer) {
            writer.busy = false;
        }
        self.gauges
            .database
            .flush(landed.took, landed.records, landed.bytes);
        self.note_incidents(landed.incidents);
        self.health.ready("database", Ok(()));
        let mut durable: Vec<(i32, Offset)> = Vec::new();
        let mut latencies = LatencyBatch::default();
        for ShareEnd {
            partition,
            claim,
            end,
        } in landed.ends
        {
            match end {
                End::Landed {
                    fence,
                    outcomes,
                    submitted,
                    reasons,
                } => {
                    self.count_letters(&outcomes, &reasons);
                    note_latencies(&mut latencies, &submitted);
                    let now = Instant::now();
                    let Some(running) = self.find(partition, claim) else {
                        continue;
                    };
                    match running.land(fence, &outcomes, now) {
                        Ok(settled) => {
                            durable.push((partition, settled.next_offset));
                            self.settled(partition, claim, settled);
                        }
                        Err(error) => self.disagree(partition, &error),
                    }
                }
                End::Lost(loss) => self.fence_lost(partition, claim, loss),
            }
        }
        self.gauges.consumer.end_to_end(&mut latencies);
        self.store_offsets(&durable);
        // Before anything more is read for what has landed: a tick later it would be too much.
        self.hold_full_partitions();
        self.finish_halting();
        self.finish_leaving_when_written();
        self.press(Instant::now());
    }

    fn settled(&mut self, partition: i32, claim: uuid::Uuid, settled: Settled) {
        self.gauges.consumer.gaps(settled.gaps.unsigned_abs());
        for (task_type, outcome, count) in settled.counted {
            let task_type = usize::from(task_type.0);
            self.gauges.consumer.tasks_of(task_type, outcome, count);
        }
        for (spot, tracked, outcome) in settled.heard {
            self.heard(partition, claim, spot, &tracked, outcome);
        }
        if self.is_running(partition, claim) {
            self.balance(partition);
            if self.budget.below_share_floor(Partition(partition)) {
                self.let_go_on(partition);
            }
        }
    }

    /// A task of whose landing somebody waits to hear.
    fn heard(
        &mut self,
        partition: i32,
        claim: uuid::Uuid,
        spot: Spot,
        tracked: &Tracked,
        outcome: Outcome,
    ) {
        let parked = outcome == Outcome::Parked;
        self.floor.cancelled.extend(tracked.cancelled);
        let Some(running) = self.find(partition, claim) else {
            return;
        };
        if let Some(hash) = tracked.dedup
            && let Some((lane, next)) = running.keyed.settled(hash, spot)
        {
            self.ask_again(partition, lane, next);
        }
        if tracked.becomes != Some(ParkKind::Running) {
            self.alone_ended(partition, spot, AloneEnd::Durable);
        }
        let Some(running) = self.find(partition, claim) else {
            return;
        };
        match tracked.becomes {
            Some(ParkKind::Retry | ParkKind::Behind | ParkKind::Redrive)
                if running.lanes.landed(tracked.lane) =>
            {
                self.floor.waking.soon();
            }
            Some(ParkKind::Running) if parked => running.follow(spot, true),
            Some(ParkKind::Running) => {
                running.follow(spot, false);
                let token = running.token;
                self.floor.waking.soon();
                self.void(partition, token, tracked.lane, spot);
            }
            Some(ParkKind::Delayed) => self.floor.waking.soon(),
            None if tracked.was.is_some()
                && !running.lanes.has(tracked.lane)
                && running.parked.keys.may_contain(&tracked.key_hash) =>
            {
                self.floor.waking.soon();
            }
            Some(_) | None => {}
        }
        if let Some(kind) = tracked.becomes.filter(|_| parked) {
            self.gauges.consumer.parked(kind.as_str(), 1);
        }
    }

    /// A task that was to be parked while it runs has ended as a repeat of another one. Its handler is asked to
    /// stop, and its lane waits until it has: no two of a key run at once.
    fn void(&mut self, partition: i32, token: i64, lane: LaneKey, spot: Spot) {
        let is_its = |attempt: &Attempt| {
            let offer = attempt.offer;
            offer.partition == partition && offer.token == token && attempt.spot == spot
        };
        let mut runs = false;
        for (_, attempt) in self.floor.attempts.iter_mut() {
            if is_its(attempt) {
                attempt.is_void = true;
                runs = true;
            }
        }
        if runs {
            self.stop_attempts(CancelReason::Requested, is_its);
        } else {
            self.leave_lane(partition, token, lane, spot);
        }
    }

    /// Takes a task that has ended otherwise out of its lane.
    pub(super) fn leave_lane(&mut self, partition: i32, token: i64, lane: LaneKey, spot: Spot) {
        if let Some(running) = self.token_mut(partition, token)
            && let Some((job, next)) = running.lanes.remove(lane, spot)
        {
            running.let_go(&job);
            self.floor.reports.remove(job.task.task_id);
            self.lane_moved(partition, lane, next);
        }
        self.alone_ended(partition, spot, AloneEnd::Durable);
    }

    fn count_letters(&self, outcomes: &[Outcome], reasons: &[Reason]) {
        let repeats = outcomes.iter().filter(|o| **o == Outcome::Duplicate);
        self.gauges.consumer.duplicates(repeats.count() as u64);
        for reason in reasons {
            self.gauges.consumer.dead_letters(reason.as_str(), 1);
        }
    }

    fn note_incidents(&self, incidents: Incidents) {
        let database = &self.gauges.database;
        for (count, kind, path) in [
            (incidents.outages, DatabaseErrorKind::Outage, RedoPath::Same),
            (
                incidents.conflicts,
                DatabaseErrorKind::Conflict,
                RedoPath::OnConflict,
            ),
            (
                incidents.refusals,
                DatabaseErrorKind::Refused,
                RedoPath::Smaller,
            ),
        ] {
            for _ in 0..count {
                database.error(kind);
                database.redo(path);
            }
        }
        for _ in 0..incidents.unknown_commits {
            database.error(DatabaseErrorKind::UnknownCommit);
        }
    }

    /// Lets librdkafka commit the durable positions at its next interval; a hint for lag tools.
    pub(super) fn store_offsets(&self, durable: &[(i32, Offset)]) {
        if durable.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(durable.len());
        for (partition, offset) in durable {
            let added = list.add_partition_offset(
                &self.claims.consumer.topic,
                *partition,
                KafkaOffset::Offset(offset.0),
            );
            debug_assert!(added.is_ok(), "an offset is never negative");
        }
        if let Err(error) = self.client.store_offsets(&list) {
            // A partition that was lost a moment ago: its next owner commits it.
            tracing::debug!(%error, "Kafka's offsets were not stored");
        }
    }

    pub(super) fn fence_lost(
        &mut self,
        partition: i32,
        claim: uuid::Uuid,
        loss: millrace_store::FenceLoss,
    ) {
        self.gauges.database.fence_losses(1);
        self.gauges.database.error(DatabaseErrorKind::FenceLost);
        if !self.is_running(partition, claim) {
            // On the way out already: somebody else's claim is how a hand-over ends.
            self.forget_leaving(partition);
            return;
        }
        tracing::warn!(
            partition,
            ?loss,
            "the fence does not match: nothing was written, finding out whose partition it is"
        );
        let ahead = match loss {
            millrace_store::FenceLoss::DatabaseMoved => Ahead::Expected,
            millrace_store::FenceLoss::Taken | millrace_store::FenceLoss::RowGone => Ahead::Refused,
        };
        self.claim_again(partition, ahead, None);
    }
}

/// The writer of a partition.
fn lane_of(partition: i32, writers: usize) -> usize {
    usize::try_from(partition).unwrap_or(0) % writers.max(1)
}

fn note_latencies(latencies: &mut LatencyBatch, submitted: &[i64]) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    for submitted in submitted {
        latencies.record_micros(now.saturating_sub(*submitted).max(0));
    }
}
