//! Backpressure: what is held in memory goes into the budget, and the budget says what is read on.
//!
//! Guarantees to the worker that it holds about as much as it may, and to each partition that another one
//! that is behind cannot starve it. Under soft pressure records are taken one a tick, under hard pressure every
//! partition is paused; flushes that land relieve it.

use std::time::Instant;

use millrace_telemetry as telemetry;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::owner::Owner;
use super::standing::Standing;
use crate::engine::{Charge, Partition, Pressure};

impl Owner {
    /// Takes over into the budget what a partition holds and holds no longer.
    pub(super) fn balance(&mut self, partition: i32) {
        let Some(running) = self.at_work(partition) else {
            return;
        };
        let (charged, refunded) = running.take_charges();
        // Asked after each record and each batch of answers: mostly one of the two is there.
        if charged != Charge::NONE {
            self.budget.charge(Partition(partition), charged);
        }
        if refunded != Charge::NONE
            && let Err(error) = self.budget.refund(Partition(partition), refunded)
        {
            tracing::error!(%error, "the budget's books are wrong");
            self.budget.forget(Partition(partition));
        }
    }

    /// The same for all partitions: attempts that ended and parked tasks that came belong to any of them.
    pub(super) fn balance_all(&mut self) {
        let partitions: Vec<i32> = self
            .owned
            .running()
            .map(|(partition, _)| partition)
            .collect();
        for partition in partitions {
            self.balance(partition);
        }
    }

    /// Applies the budget's pressure: drain, one record a tick, or pause.
    pub(super) fn press(&mut self, at: Instant) {
        let pressure = self.budget.pressure(at);
        let held = self.budget.held();
        self.gauges.consumer.in_flight(held.events, held.bytes);
        let lasted = at.saturating_duration_since(self.pressed_since);
        match self.pressure {
            Pressure::Open => {}
            Pressure::Soft => self
                .gauges
                .consumer
                .held_back(telemetry::Pressure::Soft, lasted),
            Pressure::Hard => self
                .gauges
                .consumer
                .held_back(telemetry::Pressure::Hard, lasted),
        }
        self.pressed_since = at;
        if pressure == self.pressure {
            return;
        }
        match (self.pressure, pressure) {
            (_, Pressure::Hard) => {
                tracing::warn!(
                    events = held.events,
                    bytes = held.bytes,
                    "the budget is used up and nothing lands: pausing"
                );
                self.pause(&self.fetched());
            }
            (Pressure::Hard, _) => {
                tracing::info!("the budget has room again: resuming");
                self.resume(&self.fetched());
                for (_, running) in self.owned.running_mut() {
                    running.held_back = false;
                    // Those that are full are held again at the next tick.
                    running.is_full = false;
                }
            }
            (Pressure::Open | Pressure::Soft, _) => {}
        }
        self.pressure = pressure;
    }

    /// Pauses one partition that holds more than its share, so that it cannot starve the others.
    /// The last one that is read goes on: with nothing to fetch, librdkafka sleeps up to a second before it
    /// hears of a resume, and soft pressure holds that one back just as well.
    pub(super) fn hold_back(&mut self, partition: i32) {
        let others_are_read = self.owned.partitions.iter().any(|(other, standing)| {
            *other != partition
                && matches!(standing, Standing::Running(running)
                    if !running.held_back && !running.is_full && !running.at_end)
        });
        if !others_are_read {
            return;
        }
        if let Some(Standing::Running(running)) = self.owned.partitions.get_mut(&partition)
            && !running.held_back
        {
            running.held_back = true;
            self.pause(&[partition]);
        }
    }

    pub(super) fn let_go_on(&mut self, partition: i32) {
        if let Some(Standing::Running(running)) = self.owned.partitions.get_mut(&partition)
            && running.held_back
        {
            running.held_back = false;
            let stays = running.is_full;
            if !stays && self.pressure != Pressure::Hard {
                self.resume(&[partition]);
            }
        }
    }

    fn fetched(&self) -> Vec<i32> {
        let fetched = self
            .owned
            .partitions
            .iter()
            .filter(|(_, standing)| standing.is_fetched());
        fetched.map(|(partition, _)| *partition).collect()
    }

    pub(super) fn pause(&self, partitions: &[i32]) {
        if let Err(error) = self.client.pause(&self.list(partitions)) {
            tracing::debug!(%error, "pausing");
        }
    }

    pub(super) fn resume(&self, partitions: &[i32]) {
        if let Err(error) = self.client.resume(&self.list(partitions)) {
            tracing::debug!(%error, "resuming");
        }
    }

    /// A list of partitions as librdkafka wants it, without offsets.
    pub(super) fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.claims.consumer.topic, *partition);
        }
        list
    }
}
