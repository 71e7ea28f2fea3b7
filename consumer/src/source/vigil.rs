//! Answers and wishes that come in beside the loop, and the watch over what should move and does not.

use std::time::{Duration, Instant};

use millrace_store::Ending;
use millrace_store::progress::State;

use super::closing::OwnerError;
use super::owner::Owner;
use super::partition::SPAN_CAP;
use super::standing::Standing;
use crate::engine::{LaneKey, Laned as _, Pressure, Resolved, Spot};
use crate::handlers::{CancelReason, ProgressNote};
use crate::work::floor::News;
use crate::work::reports::Reported;
use crate::work::scout::Answers;

/// A task that runs longer is shown as processing.
const SHOWN_AFTER: Duration = Duration::from_secs(2);
/// Tasks of one key that stay in memory when memory is short.
const LANE_DEPTH: usize = 1_000;
/// A lane that has been busy for so long without a break is a slow one.
const SLOW_LANE: Duration = Duration::from_secs(5);

impl Owner {
    /// Takes in the answer to a question that was asked beside the loop.
    pub(super) fn take_news(&mut self, news: News) {
        match news {
            News::Known(answers) => self.known(answers),
            News::Woken(woken) => self.woken(woken),
            News::Noted(noted) => self.noted(noted),
            News::Cleared {
                partition,
                token,
                done,
            } => self.cleared(partition, token, done),
        }
    }

    /// Tasks were looked up: they may start, or it turned out why not.
    fn known(&mut self, answers: Answers) {
        self.floor.scout.answered(&answers);
        for (asked, known) in answers {
            let partition = asked.question.partition;
            let spot = Spot {
                log_book: asked.question.log_book,
                offset: asked.question.offset,
            };
            let Some(running) = self
                .at_work(partition)
                .filter(|running| running.token == asked.token)
            else {
                continue;
            };
            let is_out_of_date = asked
                .question
                .dedup
                .is_some_and(|(hash, _)| running.keyed.waits(&hash, spot));
            if is_out_of_date || !running.lanes.is_to_be_known(asked.lane, spot) {
                continue;
            }
            let is_fetched = running
                .lanes
                .get_mut(asked.lane, spot)
                .is_some_and(|job| job.parked.is_some());
            if let Some(outcome) = known.settled.filter(|_| !is_fetched) {
                self.end_in_lane(partition, asked.lane, spot, Ending::Known(outcome));
                continue;
            }
            if known.owner.is_some() {
                let Some(job) = running.lanes.get_mut(asked.lane, spot) else {
                    continue;
                };
                let ending = Ending::Repeat(job.key_hash);
                self.end_in_lane(partition, asked.lane, spot, ending);
                continue;
            }
            let may_wait = matches!(asked.lane, LaneKey::Key(_)) && known.parked > 0;
            match running.lanes.known(asked.lane, spot, may_wait) {
                Resolved::Next => self.offer(partition, asked.lane),
                Resolved::Waits => {}
                Resolved::Park(jobs) => {
                    running.give_away(asked.lane, jobs);
                }
            }
        }
        self.balance_all();
    }

    /// Wishes have changed: running tasks that are to be cancelled are asked to stop; those that wait are ended.
    pub(super) fn heed_wishes(&mut self) {
        let controls = self.floor.controls.clone();
        self.floor.waking.soon();
        if controls.cancels.is_empty() {
            return;
        }
        let mut waiting = Vec::new();
        let mut running_spots = std::collections::HashSet::new();
        for (partition, running) in self.owned.running_mut() {
            let token = running.token;
            for (lane, begun, job) in running.lanes.iter_mut() {
                if controls.is_cancelled(&job.task) {
                    if begun {
                        running_spots.insert((partition, token, job.spot()));
                    }
                    waiting.push((partition, lane, job.spot(), begun));
                }
            }
        }
        self.stop_attempts(CancelReason::Requested, |attempt| {
            running_spots.contains(&(attempt.offer.partition, attempt.offer.token, attempt.spot))
        });
        for (partition, lane, spot, begun) in waiting {
            let attempted = begun
                && self.floor.attempts.iter().any(|(_, attempt)| {
                    attempt.offer.partition == partition && attempt.spot == spot
                });
            if !attempted {
                self.end_in_lane(partition, lane, spot, Ending::Cancelled);
            }
        }
    }

    /// A handler has said how far it is.
    pub(super) fn note_progress(&mut self, note: ProgressNote) {
        if let Some(attempt) = self.floor.attempts.get_mut(note.ticket) {
            attempt.progress = Some((note.fraction, note.note));
            attempt.progress_is_new = true;
        }
    }

    /// Tasks that run long, or have said something, are shown.
    pub(super) fn report_progress(&mut self, now: Instant) {
        let mut told = Vec::new();
        for (_, attempt) in self.floor.attempts.iter_mut() {
            let long =
                !attempt.reported && now.saturating_duration_since(attempt.started) >= SHOWN_AFTER;
            if long || std::mem::take(&mut attempt.progress_is_new) {
                attempt.reported = true;
                told.push((attempt.offer, attempt.spot, attempt.progress.clone()));
            }
        }
        for (offer, spot, progress) in told {
            let Some(running) = self.token_mut(offer.partition, offer.token) else {
                continue;
            };
            let claim = running.fence.claim;
            let Some(job) = running.lanes.begun_mut(offer.lane, spot) else {
                continue;
            };
            let mut report = Reported::of(job, State::Processing).under(claim);
            if let Some((fraction, note)) = progress {
                report.fraction = Some(fraction);
                report.note = Some(note);
            }
            self.floor.reports.tell(report);
        }
        let claims = &self.claims;
        self.floor
            .reports
            .write(now, &claims.database, &claims.consumer);
        self.floor
            .panel
            .forget(std::mem::take(&mut self.floor.cancelled));
    }

    /// Watches that frontiers move while something is pending: what is known to hold one up is waited for, and
    /// what is not ends the worker, so that another takes over.
    pub(super) fn watch_frontiers(&mut self, now: Instant) {
        let writing = self.writers.iter().any(|writer| writer.busy);
        // All places are taken, or one task runs alone: the others wait for that.
        let crowded = self.floor.attempts.is_crowded() || self.floor.careful.waits_for_silence();
        let limit = self.settings.stuck_after;
        let (mut lanes, mut careful) = (0, 0);
        let mut said = Vec::new();
        for (partition, standing) in &mut self.owned.partitions {
            let Standing::Running(running) = standing else {
                continue;
            };
            lanes += running.lanes.lanes();
            careful += usize::from(running.careful.is_careful());
            running
                .metrics
                .parked(running.parked.tasks.max(0).unsigned_abs());
            let attempts = self.floor.attempts.any_begun_of(*partition, running.token);
            if running.ledger.pending() == 0 {
                running.frontier_at = now;
            }
            let waits = now.saturating_duration_since(running.frontier_at);
            if waits >= limit / 2 && !running.stuck_said {
                running.stuck_said = true;
                said.push((*partition, waits));
            }
            running.stuck_said &= waits >= limit / 2;
            let done = running.ledger.pending() == 0;
            // Whatever it is that holds it up, it is under way, and bounded by itself.
            let in_writing = running.is_flying() || (writing && running.has_work());
            let looking = self.floor.scout.is_busy_for(*partition);
            let held = in_writing || looking || crowded || running.lanes.is_waiting();
            if done || (held && !attempts) {
                running.moved_at = now;
            }
            running
                .metrics
                .frontier_age(now.saturating_duration_since(running.moved_at));
            let age = running.standstill.look(done || held || attempts, now);
            if age >= limit {
                self.stuck = Some(OwnerError::Stuck {
                    partition: *partition,
                    offset: running.ledger.frontier().0,
                    for_seconds: age.as_secs(),
                });
            }
        }
        for (partition, age) in said {
            self.say_stuck(partition, age);
        }
        self.gauges.consumer.lanes(lanes);
        self.gauges.consumer.careful_partitions(careful);
        self.gauges
            .consumer
            .waiting_retries(self.floor.waiting_retries());
        self.gauges.consumer.pauses(
            self.floor.controls.paused_types.len(),
            self.floor.controls.paused_tenants.len(),
        );
        self.clear_notes(now);
    }

    /// Says all that is known of a frontier that does not move.
    fn say_stuck(&mut self, partition: i32, age: Duration) {
        let careful = &self.floor.careful;
        let waits_alone = (careful.current, careful.queue.len(), self.floor.held.len());
        let Some(running) = self.at_work(partition) else {
            return;
        };
        let oldest = running.ledger.oldest_pending().map(|one| one.offset);
        let spot = oldest.map(|offset| running.spot(offset));
        tracing::warn!(
            partition,
            offset = running.ledger.frontier().0,
            seconds = age.as_secs(),
            pending = running.ledger.pending(),
            in_memory = running.lanes.tasks(),
            in_the_air = running.is_flying(),
            written = running.is_written(),
            oldest = ?oldest,
            known_here = spot.map(|spot| running.is_known_here(spot)),
            lane = ?spot.and_then(|spot| running.lanes.find(spot)),
            careful = ?running.careful,
            alone_waiting_held = ?waits_alone,
            "the partition has not moved on for long"
        );
    }

    /// When memory is short, lanes that have been busy for long keep only their first tasks here: all of them
    /// together what fills a quarter of the budget.
    pub(super) fn trim_lanes(&mut self, now: Instant) {
        if !self.budget.is_half_full() {
            return;
        }
        let Some(before) = now.checked_sub(SLOW_LANE) else {
            return;
        };
        let slow: usize = self
            .owned
            .running()
            .map(|(_, running)| running.lanes.slow(before))
            .sum();
        let (limit, held) = (self.settings.budget, self.budget.held());
        let bytes_each = (held.bytes / held.events.max(1)).max(1);
        let room = limit.events.min(limit.bytes / bytes_each) / 4;
        let depth = usize::try_from(room).unwrap_or(LANE_DEPTH) / slow.max(1);
        let depth = depth.clamp(1, LANE_DEPTH);
        for (_, running) in self.owned.running_mut() {
            for (lane, jobs) in running.lanes.trim(depth, before) {
                tracing::debug!(
                    tasks = jobs.len(),
                    "a slow key keeps its later tasks in the database"
                );
                running.give_away(lane, jobs);
            }
        }
    }

    /// A partition of which too many tasks wait in the database is read no further until there are fewer.
    pub(super) fn hold_full_partitions(&mut self) {
        let most = self.settings.most_parked;
        let pressed = self.pressure == Pressure::Hard;
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (partition, standing) in &mut self.owned.partitions {
            let Standing::Running(running) = standing else {
                continue;
            };
            let (parked, span) = (running.parked.tasks, running.ledger.span());
            let is_wide = running.ledger.is_full();
            if !running.is_full && (parked >= most || running.deep_key || is_wide) {
                running.is_full = true;
                pause.push(*partition);
                tracing::warn!(
                    partition,
                    parked,
                    beyond_the_position = span,
                    "too many tasks wait in the database, or too many have ended beyond one that has not: the partition \
                     is read no further until there are fewer"
                );
            } else if running.is_full
                && parked < most - most / 10
                && span < SPAN_CAP - SPAN_CAP / 10
                && !running.deep_key
            {
                running.is_full = false;
                if !running.held_back && !pressed {
                    resume.push(*partition);
                }
            }
        }
        if !pause.is_empty() {
            self.pause(&pause);
        }
        if !resume.is_empty() {
            self.resume(&resume);
        }
    }
}
