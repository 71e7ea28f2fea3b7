//! Makes producers wait before the embedded broker drops a record that nobody has read.
//!
//! The broker keeps 5 MiB and 100,000 batches of a partition. The guard counts what the group has
//! not committed, exactly as stored, and once a partition is past its mark every Produce request
//! is refused with a retriable error: producers wait and retry, nothing is lost. The distance
//! between mark and limit holds one largest request (1 MB).
//!
//! A connection that was refused is let in again only after a pause in its requests. The broker
//! does not check sequence numbers: let in between two requests that were sent together, it would
//! store the second before the first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::mock_cluster::Verdict;
use crate::mock_log::MockEvent;
use crate::unread::Unread;

/// Requests that are sent together arrive together; a retry comes 100 ms later.
const PAUSE: Duration = Duration::from_millis(20);
/// A connection without pauses is let in all the same after this time.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the guard watches, and where its marks are.
#[derive(Debug, Clone)]
pub struct GuardOptions {
    /// The topic whose unread bytes count.
    pub topic: String,
    /// The consumer group whose commits make records count as read.
    pub group: String,
    /// Producers wait once a partition holds more unread bytes than this.
    pub hold_above: u64,
    /// They go on once every partition holds fewer than this.
    pub release_below: u64,
    /// Producers wait once a partition holds more unread batches than this.
    pub hold_above_batches: usize,
}

impl GuardOptions {
    /// The marks that fit the broker's limits: 3.5 MiB, 2 MiB and 80,000 batches.
    #[must_use]
    pub fn new(topic: &str, group: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            group: group.to_owned(),
            hold_above: 7 << 19,
            release_below: 2 << 20,
            hold_above_batches: 80_000,
        }
    }
}

/// What has happened in an embedded broker so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbeddedState {
    /// Old records of some partition were dropped, read or not.
    pub truncated: bool,
    /// Guarded only: the most bytes a partition held that the group had not committed.
    pub most_unread: u64,
    /// Guarded only: how often producers were made to wait.
    pub holds: u64,
    /// Guarded only: the most records dropped at once before the group had committed them.
    pub lost: u64,
}

/// The state behind the log lines of one broker.
#[derive(Debug)]
pub(crate) struct BrokerGuard {
    options: Option<GuardOptions>,
    unread: HashMap<i32, Unread>,
    held: bool,
    refused: HashMap<String, Refused>,
    state: EmbeddedState,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    last: Instant,
    free_since: Option<Instant>,
}

impl BrokerGuard {
    pub fn new(options: Option<GuardOptions>) -> Self {
        Self {
            options,
            unread: HashMap::new(),
            held: false,
            refused: HashMap::new(),
            state: EmbeddedState::default(),
        }
    }

    pub fn state(&self) -> EmbeddedState {
        self.state
    }

    /// Takes notice of one event, and judges it if it is a Produce request.
    pub fn judge(&mut self, event: &MockEvent<'_>, now: Instant) -> Verdict {
        match *event {
            MockEvent::ProduceReceived { peer } => return self.judge_produce(peer, now),
            MockEvent::Appended {
                topic,
                partition,
                bytes,
                start,
                end,
            } => {
                self.state.truncated |= start > 0;
                if self.watches(topic, None) {
                    self.append(partition, bytes, start, end);
                }
            }
            MockEvent::Committed {
                topic,
                partition,
                offset,
                group,
            } => {
                if self.watches(topic, Some(group)) {
                    self.unread.entry(partition).or_default().commit(offset);
                    self.release_if_read();
                }
            }
        }
        Verdict::Proceed
    }

    fn watches(&self, topic: &str, group: Option<&str>) -> bool {
        self.options.as_ref().is_some_and(|options| {
            options.topic == topic && group.is_none_or(|group| options.group == group)
        })
    }

    fn append(&mut self, partition: i32, bytes: u64, start: i64, end: i64) {
        let Some(options) = &self.options else { return };
        let unread = self.unread.entry(partition).or_default();
        unread.append(end, bytes);
        self.state.most_unread = self.state.most_unread.max(unread.bytes());
        let dropped = u64::try_from(start - unread.committed()).unwrap_or_default();
        if dropped > self.state.lost {
            self.state.lost = dropped;
            tracing::error!(
                partition,
                records = dropped,
                "embedded broker: RECORDS LOST: it dropped them before the group had read them; \
                 run this again with KAFKA=apache"
            );
        }
        let full =
            unread.bytes() > options.hold_above || unread.batches() > options.hold_above_batches;
        if full && !self.held {
            self.held = true;
            self.state.holds += 1;
            if self.state.holds == 1 {
                tracing::warn!(
                    partition,
                    unread_bytes = unread.bytes(),
                    "embedded broker: a partition holds nearly all that it can keep, so producers \
                     wait until it is read; start a worker, or use KAFKA=apache"
                );
            }
        }
    }

    fn release_if_read(&mut self) {
        let Some(options) = &self.options else { return };
        let read = |unread: &Unread| {
            unread.bytes() < options.release_below
                && unread.batches() <= options.hold_above_batches / 2
        };
        self.held &= !self.unread.values().all(read);
    }

    fn judge_produce(&mut self, peer: &str, now: Instant) -> Verdict {
        let known = self.refused.get_mut(peer);
        if self.held {
            match known {
                Some(refused) => {
                    *refused = Refused {
                        last: now,
                        free_since: None,
                    }
                }
                None => {
                    self.refused.insert(
                        peer.to_owned(),
                        Refused {
                            last: now,
                            free_since: None,
                        },
                    );
                }
            }
            return Verdict::RefuseProduce;
        }
        let Some(refused) = known else {
            return Verdict::Proceed;
        };
        let free_since = *refused.free_since.get_or_insert(now);
        let paused = now.duration_since(refused.last) >= PAUSE;
        if paused || now.duration_since(free_since) >= PATIENCE {
            self.refused.remove(peer);
            return Verdict::Proceed;
        }
        refused.last = now;
        Verdict::RefuseProduce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn appended(bytes: u64, start: i64, end: i64) -> MockEvent<'static> {
        MockEvent::Appended {
            topic: "tasks",
            partition: 0,
            bytes,
            start,
            end,
        }
    }

    fn committed(offset: i64) -> MockEvent<'static> {
        MockEvent::Committed {
            topic: "tasks",
            partition: 0,
            offset,
            group: "workers",
        }
    }

    const PRODUCE: MockEvent<'static> = MockEvent::ProduceReceived { peer: "a:1" };

    #[test]
    fn producers_wait_from_the_mark_on_and_go_on_after_a_pause_once_it_is_read() {
        let mut guard = BrokerGuard::new(Some(GuardOptions::new("tasks", "workers")));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(guard.judge(&PRODUCE, at(0)), Verdict::Proceed);
        guard.judge(&appended(3 * MIB, 0, 10), at(0));
        assert_eq!(guard.judge(&PRODUCE, at(1)), Verdict::Proceed);
        guard.judge(&appended(MIB, 0, 20), at(1));

        assert_eq!(guard.judge(&PRODUCE, at(2)), Verdict::RefuseProduce);
        guard.judge(&committed(10), at(3));
        assert_eq!(
            guard.judge(&PRODUCE, at(4)),
            Verdict::RefuseProduce,
            "sent with the last one"
        );
        let other = MockEvent::ProduceReceived { peer: "b:2" };
        assert_eq!(
            guard.judge(&other, at(5)),
            Verdict::Proceed,
            "was never refused"
        );
        assert_eq!(guard.judge(&PRODUCE, at(104)), Verdict::Proceed);
        assert_eq!(guard.state().holds, 1);
    }

    #[test]
    fn a_busy_connection_is_not_refused_for_ever() {
        let mut guard = BrokerGuard::new(Some(GuardOptions::new("tasks", "workers")));
        let start = Instant::now();
        guard.judge(&appended(4 * MIB, 0, 10), start);
        guard.judge(&PRODUCE, start);
        guard.judge(&committed(10), start);
        let admitted = (1..1000)
            .map(|n| Duration::from_millis(10 * n))
            .find(|after| guard.judge(&PRODUCE, start + *after) == Verdict::Proceed);
        assert_eq!(admitted, Some(PATIENCE + Duration::from_millis(10)));
    }

    #[test]
    fn dropped_records_are_lost_only_if_the_group_had_not_committed_them() {
        let mut guard = BrokerGuard::new(Some(GuardOptions::new("tasks", "workers")));
        let now = Instant::now();
        guard.judge(&appended(MIB, 0, 10), now);
        guard.judge(&committed(10), now);
        guard.judge(&appended(MIB, 10, 20), now);
        assert_eq!((guard.state().truncated, guard.state().lost), (true, 0));
        guard.judge(&appended(MIB, 15, 30), now);
        assert_eq!(guard.state().lost, 5);
    }

    #[test]
    fn other_topics_and_other_groups_do_not_count() {
        let mut guard = BrokerGuard::new(Some(GuardOptions::new("tasks.dlq", "workers")));
        guard.judge(&appended(9 * MIB, 0, 10), Instant::now());
        assert_eq!(guard.judge(&PRODUCE, Instant::now()), Verdict::Proceed);
    }
}
