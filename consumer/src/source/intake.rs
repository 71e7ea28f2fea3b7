//! Taking records in: each is opened in its ledger, decoded, and goes to its handler or into its lane.
//!
//! Records of a partition that does not run are dropped: its claim decides later where it goes on. Bytes
//! that do not decode become a dead letter; bytes of an unknown schema stop the partition, since they are
//! not broken, only early. The stock handler's records end here and now, unless something is known that
//! concerns them: then they take the same way as all others.

use millrace_schemas::{TaskEventRef, headers};
use millrace_store::known::Question;
use millrace_store::{DeadLetter, Due, Ending, Headers, Origin, ParkKind, Reason, Settling};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};

use super::admission::{Admitted, Arrival, admit};
use super::claims::Ahead;
use super::context::{comes_and_goes, kind_of};
use super::leader_epoch::epoch_of;
use super::owner::{Owner, Received};
use super::partition::Running;
use super::standing::Standing;
use super::stop::StopReason;
use crate::engine::{LaneKey, Laned as _, LedgerError, Offset, Partition, Placed};
use crate::handlers::record::record;
use crate::handlers::{Found, Spans};
use crate::work::attempts::Offer;
use crate::work::job::{Job, RECORD};
use crate::work::scout::Asked;

/// A jump of more offsets than this is checked against the brokers before it is taken for a gap.
const UNVOUCHED_GAP: u64 = 10_000;
/// Kept of a key that no event explains, in bytes.
const KEY_BYTES: usize = 4_096;
/// A task that is to run later than this is parked until then; what is sooner is not worth it.
const SOON_MICROS: i64 = 20_000;

impl Owner {
    /// Takes what a poll gave.
    pub(super) fn receive(&mut self, received: Received<'_>) {
        match received {
            Ok(message) => self.take(&message),
            Err(KafkaError::PartitionEOF(partition)) => {
                // While records are dropped, the end that the client meets is not ours.
                if let Some(Standing::Running(running)) = self.owned.partitions.get_mut(&partition)
                    && !running.skipped_some
                {
                    running.at_end = true;
                }
            }
            Err(error @ KafkaError::MessageConsumptionFatal(_)) => self.fatal = Some(error),
            Err(error) => self.consumption_failed(&error),
        }
    }

    fn consumption_failed(&mut self, error: &KafkaError) {
        let kind = kind_of(error);
        self.gauges.broker.error(kind);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                tracing::warn!(%error, "some position is outside its log: claiming every partition again to find out which");
                let running: Vec<i32> = self
                    .owned
                    .running()
                    .map(|(partition, _)| partition)
                    .collect();
                for partition in running {
                    self.claim_again(partition, Ahead::Refused, None);
                }
            }
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicId
                | RDKafkaErrorCode::UnknownPartition,
            ) => {
                tracing::warn!(%error, "the topic or a partition of it is not there: looking");
                self.watch.look_now();
            }
            Some(RDKafkaErrorCode::PollExceeded) => {
                tracing::error!(%error, "the worker did not poll in time and was thrown out of the group: it joins again");
            }
            // The callback has said so.
            _ if comes_and_goes(kind) => tracing::debug!(%error, "the Kafka client could not read"),
            _ => tracing::warn!(%error, "the Kafka client could not read; it goes on by itself"),
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), Offset(message.offset()));
        let closed = self.is_stopping() || self.client.context().log_changes() != self.log_changes;
        let Some(Standing::Running(running)) = self.owned.partitions.get_mut(&partition) else {
            return;
        };
        if closed {
            // The client's own position moves on nevertheless: from now on it says nothing about gaps.
            running.skipped_some = true;
            running.at_end = false;
            return;
        }
        let gap = running.ledger.expected().distance(offset);
        if gap > UNVOUCHED_GAP && running.vouched_gap.is_none_or(|vouched| offset > vouched) {
            tracing::warn!(
                partition,
                offset = offset.0,
                gap,
                "a wide gap in the log: asking the brokers before passing it"
            );
            self.claim_again(partition, Ahead::Refused, Some(offset));
            return;
        }
        let value = message.payload().unwrap_or_default();
        let taken = match self.decoders.decode(value) {
            Ok(decoded) => {
                let event = decoded.event();
                match self.floor.registry.find(event.task_type) {
                    Found::Record if self.floor.nothing_asked() && is_plain(running, &event) => {
                        let ending = record(&event);
                        end_at_once(running, message, Headers::default(), 1, ending, true)
                    }
                    found @ (Found::Record | Found::Handler(_) | Found::Nobody) => {
                        self.take_task(message, &event, found, Spans::of(value, &decoded))
                    }
                }
            }
            Err(error) => match error.unknown_schema() {
                Some(schema) => {
                    // Control records just before it are settled, so that the position stands at it.
                    running.ledger.gap_to(offset);
                    let reason = StopReason::UnknownSchema {
                        offset: offset.0,
                        schema,
                    };
                    self.halt(partition, reason);
                    return;
                }
                None => {
                    let headers = kept_headers(message);
                    let letter = undecodable(message, &headers, &error.to_string());
                    let ending = Ending::Dead(Box::new(letter));
                    end_at_once(running, message, headers, 0, ending, false)
                }
            },
        };
        match taken {
            Ok(()) => self.after_taking(partition),
            Err(error) => self.disagree(partition, &error),
        }
    }

    /// Takes a record whose task goes through a lane.
    fn take_task(
        &mut self,
        message: &BorrowedMessage<'_>,
        event: &TaskEventRef<'_>,
        found: Found,
        spans: Option<Spans>,
    ) -> Result<(), LedgerError> {
        let (partition, offset) = (message.partition(), Offset(message.offset()));
        let timestamp_ms = message.timestamp().to_millis().unwrap_or(-1);
        let Some(Standing::Running(running)) = self.owned.partitions.get_mut(&partition) else {
            return Ok(());
        };
        running.open(offset, timestamp_ms, epoch_of(message), true)?;
        let admitted = admit(
            &mut self.floor,
            Arrival {
                partition,
                spot: running.spot(offset),
                token: running.token,
                timestamp_ms,
                event,
                found,
                value: message.payload().unwrap_or_default().into(),
                spans,
                headers: kept_headers(message),
            },
        );
        match admitted {
            Admitted::Ends { lane, job, ending } => {
                running.hold(&job);
                running.settle(lane, job, ending);
            }
            Admitted::Runs { lane, job } => self.place(partition, lane, job, event),
        }
        Ok(())
    }

    /// Puts a task from the log where it belongs: into its lane, or into the database until it is due.
    fn place(&mut self, partition: i32, lane: LaneKey, job: Job, event: &TaskEventRef<'_>) {
        let (wall, now) = (self.floor.wall_micros, self.floor.now);
        let Some(Standing::Running(running)) = self.owned.partitions.get_mut(&partition) else {
            return;
        };
        running.hold(&job);
        if !self.floor.kept_days.contains(&event.task_id.birth_day()) {
            // It is not run; the flush has the last word, by the database's clock.
            let ending = Ending::Repeat(job.key_hash);
            running.settle(lane, job, ending);
            return;
        }
        let offset = Offset(job.spot().offset);
        let settled_before = running.may_be_settled(offset);
        if let Some(run_at) = event.run_at
            && run_at > wall + SOON_MICROS
        {
            if let Some(hash) = job.dedup {
                running.keyed.enter(hash, lane, job.spot());
            }
            let ending = job.parking(ParkKind::Delayed, Due::At(run_at));
            running.settle(lane, job, ending);
            return;
        }
        let spot = job.spot();
        // The lane knows more than the tables, as long as there is one.
        let key_may_wait = match lane {
            LaneKey::Key(hash) => {
                running.parked.keys.may_contain(&hash) && !running.lanes.is_sure(lane)
            }
            LaneKey::Partition | LaneKey::Alone(_) => false,
        };
        let keyed = job.dedup.filter(|_| job.task.task_type != RECORD);
        let first_of_key = keyed.is_none_or(|hash| running.keyed.enter(hash, lane, spot));
        let ask = settled_before || keyed.is_some() || key_may_wait;
        let question = (ask && first_of_key).then(|| Asked {
            token: running.token,
            lane,
            question: Question {
                partition,
                log_book: spot.log_book,
                offset: spot.offset,
                task_id: job.task.task_id,
                settled_before,
                dedup: keyed.map(|hash| (hash, event.fingerprint())),
                key_hash: key_may_wait.then_some(job.key_hash),
            },
        });
        let task_type = job.task.task_type;
        let token = running.token;
        match running.lanes.push(lane, job, !ask, now) {
            Placed::Next if task_type == RECORD => self.offer(partition, lane),
            Placed::Next => {
                let offer = Offer {
                    partition,
                    token,
                    lane,
                };
                self.floor.attempts.offer(task_type, offer);
            }
            Placed::Waits => {
                if let Some(question) = question {
                    self.floor.scout.ask(question);
                }
            }
            Placed::Full(job) => {
                let ending = job.parking(ParkKind::Behind, Due::WithKey);
                running.settle(lane, job, ending);
            }
        }
    }

    /// Asks again about a task that waited for an earlier one with its deduplication key.
    pub(super) fn ask_again(&mut self, partition: i32, lane: LaneKey, spot: crate::engine::Spot) {
        let Some(running) = self.owned.at_work(partition) else {
            return;
        };
        let token = running.token;
        let settled_before = running.may_be_settled(Offset(spot.offset));
        let key_may_wait =
            matches!(lane, LaneKey::Key(hash) if running.parked.keys.may_contain(&hash));
        let Some(job) = running.lanes.get_mut(lane, spot) else {
            return;
        };
        let Ok(decoded) = self.decoders.decode(&job.task.value) else {
            return;
        };
        let dedup = job.dedup.map(|hash| (hash, decoded.event().fingerprint()));
        // Of one that was fetched, the key's other tasks stand before it or behind it already.
        let key_may_wait = key_may_wait && job.parked.is_none();
        let settled_before = settled_before && job.parked.is_none();
        let question = Question {
            partition,
            log_book: spot.log_book,
            offset: spot.offset,
            task_id: job.task.task_id,
            settled_before,
            dedup,
            key_hash: key_may_wait.then_some(job.key_hash),
        };
        self.floor.scout.ask(Asked {
            token,
            lane,
            question,
        });
    }

    fn after_taking(&mut self, partition: i32) {
        self.balance(partition);
        if self.owned.partitions.len() > 1 && self.budget.over_share(Partition(partition)) {
            self.hold_back(partition);
        }
        if let Some(Standing::Running(running)) = self.owned.partitions.get_mut(&partition)
            && running.window.trips()
            && running.ledger.expected().0 > running.decode_allowed
        {
            let offset = running.ledger.expected().0;
            self.halt(partition, StopReason::MostUndecodable { partition, offset });
        }
    }

    /// The log and the ledger disagree: nothing is skipped, the partition starts over from its row.
    pub(super) fn disagree(&mut self, partition: i32, error: &LedgerError) {
        tracing::warn!(partition, %error, "the log and the ledger disagree: claiming the partition again");
        self.claim_again(partition, Ahead::Refused, None);
    }
}

/// Whether nothing is known of an event that the stock handler would have to heed.
fn is_plain(running: &Running, event: &TaskEventRef<'_>) -> bool {
    event.run_at.is_none()
        && event.deadline.is_none()
        && running.lanes.is_empty()
        && running.parked.keys.is_empty()
}

/// Takes a record that ends at once.
fn end_at_once(
    running: &mut Running,
    message: &BorrowedMessage<'_>,
    headers: Headers,
    attempts: u16,
    ending: Ending,
    decoded: bool,
) -> Result<(), LedgerError> {
    let timestamp_ms = message.timestamp().to_millis().unwrap_or(-1);
    let offset = Offset(message.offset());
    running.open(offset, timestamp_ms, epoch_of(message), decoded)?;
    running.end_at_once(Settling {
        offset: offset.0,
        timestamp_ms,
        value: message.payload().unwrap_or_default().into(),
        headers,
        origin: Origin::Log,
        attempts,
        ending,
    });
    Ok(())
}

/// A record that is no event, with all that it says about itself.
fn undecodable(message: &BorrowedMessage<'_>, headers: &Headers, error: &str) -> DeadLetter {
    let text = |name: &str| headers.text(name).map(str::to_owned);
    DeadLetter {
        key: message
            .key()
            .map(|key| key.get(..KEY_BYTES).unwrap_or(key).to_vec()),
        task_id: text(headers::TASK_ID).and_then(|id| id.parse().ok()),
        tenant: text(headers::TENANT),
        ..DeadLetter::about_event(Reason::Undecodable, error)
    }
}

fn kept_headers(message: &BorrowedMessage<'_>) -> Headers {
    let Some(found) = message.headers() else {
        return Headers::default();
    };
    Headers::collect(
        found
            .iter()
            .map(|header| (header.key, header.value.unwrap_or_default())),
    )
}
