//! How the owner ends: it is told to stop, all is read and written, or it cannot go on.
//!
//! Guarantees to whoever runs it: when the owner says that it drained, whatever ended is durable; one that is
//! told to stop works until its deadline at the latest, and what is not written then is read again by whoever
//! comes next. Where it drained or was idle, its claims are given back before the group is left.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;

use super::context::GroupContext;
use super::owner::Owner;

/// How long leaving the group may take.
const LEAVE_GROUP_DEADLINE: Duration = Duration::from_secs(10);

/// Why the owner ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All was read and written.
    Idle,
    /// It was told to stop, and everything taken is durable.
    Drained,
    /// It was told to stop, and the deadline came first: the rest is read again by whoever comes next.
    DeadlinePassed,
}

/// How the owner ended, and what it leaves behind.
#[derive(Debug)]
pub struct Ending {
    /// Why.
    pub ended: Ended,
    /// Partitions that wait for a decision, in words.
    pub stopped: Vec<String>,
}

/// The client can never work again in this process.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// Fenced by another member with the same instance id, or the like.
    #[error(
        "the Kafka client ended for good: {0}. Where it says that the instance was fenced, two workers run with the same group.instance.id"
    )]
    Fatal(KafkaError),
    /// A writer ended, which it never does by itself.
    #[error("a writer has ended: this is a defect of Millrace; what was not written is read again")]
    WriterGone,
    /// A partition did not move on, though nothing that is known held it up.
    #[error(
        "partition {partition} has not moved on from offset {offset} for {for_seconds} s, though nothing holds it up: this is a \
         defect of Millrace. The worker ends, so that another one takes the partition; nothing is lost"
    )]
    Stuck {
        /// The partition.
        partition: i32,
        /// Where it stands.
        offset: i64,
        /// For how long.
        for_seconds: u64,
    },
    /// The client could not subscribe.
    #[error("subscribing to topic {topic}: {source}")]
    Subscribe {
        /// The topic.
        topic: String,
        /// What the client says.
        source: KafkaError,
    },
}

impl Owner {
    pub(super) fn begin_stop(&mut self) {
        tracing::info!("stopping: what was taken is written, then the group is left");
        self.stopping = Some(Instant::now() + self.settings.shutdown_deadline);
        for (_, running) in self.owned.running_mut() {
            running.begin_leaving();
        }
    }

    /// Whether no more records are taken in.
    pub(super) const fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    pub(super) fn note_idleness(&mut self, at: Instant) {
        if self.leaving.is_none() && self.all_done() {
            self.idle_since.get_or_insert(at);
        } else {
            self.idle_since = None;
        }
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        if let Some(deadline) = self.stopping {
            let written = self.leaving.is_none()
                && self.floor.attempts.is_empty()
                && self
                    .owned
                    .running()
                    .all(|(_, running)| running.is_written());
            if written {
                return Some(Ended::Drained);
            }
            return (Instant::now() >= deadline).then_some(Ended::DeadlinePassed);
        }
        let limit = self.settings.exit_when_idle?;
        self.idle_since
            .filter(|since| since.elapsed() >= limit)
            .map(|_| Ended::Idle)
    }

    /// Gives the claims back, lets librdkafka commit what is stored, and leaves the group.
    pub(super) async fn leave_group(self, ended: Ended) {
        if ended != Ended::DeadlinePassed {
            let held: Vec<_> = self
                .owned
                .running()
                .map(|(partition, running)| (partition, running.fence, running.suspect()))
                .collect();
            self.release(held).await;
        }
        self.client.context().close();
        let Self { client, claims, .. } = self;
        drop(claims);
        let left = async {
            // Questions under way hold the client, too: only the last one to let go leaves the group.
            while Arc::strong_count(&client) > 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::task::spawn_blocking(move || drop(client)).await
        };
        if tokio::time::timeout(LEAVE_GROUP_DEADLINE, left)
            .await
            .is_err()
        {
            tracing::warn!("leaving the group took over 10 s: its session times out by itself");
        }
    }
}

/// Whoever drops the owner where it stands drops the client, too, which then waits for an answer to the
/// rebalance that its leaving causes: nobody is left to give one.
pub(super) struct LeftStanding(pub(super) Weak<StreamConsumer<GroupContext>>);

impl Drop for LeftStanding {
    fn drop(&mut self) {
        if let Some(client) = self.0.upgrade() {
            client.context().close();
        }
    }
}
