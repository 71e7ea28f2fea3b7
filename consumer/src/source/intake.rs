//! Taking records in: each is opened in its ledger, decoded, handled and charged to the budget.
//!
//! Records of a partition that does not run are dropped: its claim decides later where it goes on. Bytes
//! that do not decode become a dead letter; bytes of an unknown schema stop the partition, since they are
//! not broken, only early.

use millrace_schemas::headers;
use millrace_store::{DeadLetter, Ending, Reason};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::claims::Ahead;
use super::context::kind_of;
use super::leader_epoch::epoch_of;
use super::owner::{Owner, Received};
use super::standing::Standing;
use super::stop::StopReason;
use crate::engine::{Charge, LedgerError, Offset, Partition};
use crate::handlers::record::record;

/// A jump of more offsets than this is checked against the brokers before it is taken for a gap.
const UNVOUCHED_GAP: u64 = 10_000;
/// Kept of a stranger's headers, in bytes and in number.
const HEADER_BYTES: usize = 4_096;
const HEADER_COUNT: usize = 32;
/// Kept of a key that no event explains, in bytes.
const KEY_BYTES: usize = 4_096;

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
        self.gauges.broker.error(kind_of(error));
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
        let ending = match self.decoders.decode(value) {
            Ok(decoded) => record(&decoded.event()),
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
                None => Ending::Dead(Box::new(undecodable(message, &error.to_string()))),
            },
        };
        let timestamp = message.timestamp().to_millis().unwrap_or(-1);
        match running.take(offset, timestamp, epoch_of(message), value.into(), ending) {
            Ok(bytes) => self.charge(partition, bytes),
            Err(error) => self.disagree(partition, &error),
        }
    }

    fn charge(&mut self, partition: i32, bytes: u64) {
        self.budget
            .charge(Partition(partition), Charge::event(bytes));
        if self.owned.partitions.len() > 1 && self.budget.over_share(Partition(partition)) {
            self.hold_back(partition);
        }
    }

    /// The log and the ledger disagree: nothing is skipped, the partition starts over from its row.
    pub(super) fn disagree(&mut self, partition: i32, error: &LedgerError) {
        tracing::warn!(partition, %error, "the log and the ledger disagree: claiming the partition again");
        self.claim_again(partition, Ahead::Refused, None);
    }
}

/// A record that is no event, with all that it says about itself.
fn undecodable(message: &BorrowedMessage<'_>, error: &str) -> DeadLetter {
    let kept = message.headers().map(copy_headers).unwrap_or_default();
    let text = |name: &str| {
        kept.iter()
            .find(|(own, _)| own == name)
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
            .map(str::to_owned)
    };
    DeadLetter {
        reason: Reason::Undecodable,
        error: error.to_owned(),
        key: message
            .key()
            .map(|key| key.get(..KEY_BYTES).unwrap_or(key).to_vec()),
        task_id: text(headers::TASK_ID).and_then(|id| id.parse().ok()),
        tenant: text(headers::TENANT),
        headers: kept,
    }
}

fn copy_headers(found: &impl Headers) -> Vec<(String, Vec<u8>)> {
    let mut room = HEADER_BYTES;
    let mut kept = Vec::new();
    for header in found.iter().take(HEADER_COUNT) {
        let value = header.value.unwrap_or_default();
        let size = header.key.len() + value.len();
        if size > room {
            break;
        }
        room -= size;
        kept.push((header.key.to_owned(), value.to_vec()));
    }
    kept
}
