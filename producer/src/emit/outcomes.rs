//! What becomes of rows: rejected here, acknowledged, refused by the broker, or not answered.
//!
//! Every row that was read is counted once, and settles its place in the window once.

use std::borrow::Cow;

use millrace_schemas::{Decoders, Framing};

use super::acknowledged::{NotOpen, Place, Settled};
use super::ending::Stop;
use super::misfit::{Misfit, MisfitKind};
use super::run::Emit;
use crate::delivery::{Delivery, DeliveryFailure, Undelivered};

impl Emit<'_> {
    pub(super) fn reject(&mut self, place: Place, misfit: Misfit, raw: &[u8]) {
        if self.write_down(place, &misfit, raw) {
            self.acknowledged.rejected(place);
        } else {
            self.stop.get_or_insert(Stop::Rejected { place, misfit });
        }
    }

    /// Counts a rejected line and writes it into the rejects file; false when there is none, or it
    /// cannot be written.
    fn write_down(&mut self, place: Place, misfit: &Misfit, raw: &[u8]) -> bool {
        self.summary.rejected += 1;
        self.metrics.rejected(misfit.kind.label());
        let name = self
            .plan
            .inputs
            .get(place.file)
            .map_or_else(String::new, ToString::to_string);
        let Some(rejects) = &mut self.rejects else {
            return false;
        };
        match rejects.write(&name, place.line, misfit, raw) {
            Ok(()) => true,
            Err(error) => {
                let path = rejects.path().to_owned();
                self.stop.get_or_insert(Stop::Rejects { path, error });
                false
            }
        }
    }

    /// Takes in the reports that have arrived.
    pub(super) fn collect(&mut self) {
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.submitter.deliveries(&mut deliveries);
        for Delivery { ticket, outcome } in deliveries.drain(..) {
            let settled = match outcome {
                Ok(()) => {
                    self.summary.acknowledged += 1;
                    self.acknowledged
                        .settle(ticket, Settled::Acknowledged)
                        .map(drop)
                }
                Err(undelivered) => self.undelivered(ticket, &undelivered),
            };
            if let Err(error) = settled {
                tracing::error!(%error, "the Kafka client reported twice on an event");
            }
        }
        self.deliveries = deliveries;
        if let Some(latency) = self.submitter.take_latency() {
            self.latencies.record(latency);
            self.metrics.acknowledge_latencies(&mut self.latencies);
            self.metrics
                .queue_messages(usize::try_from(self.submitter.in_flight()).unwrap_or(usize::MAX));
        }
        self.metrics
            .read(self.summary.read.saturating_sub(self.told.read));
        self.metrics
            .acknowledged(self.summary.acknowledged - self.told.acknowledged);
        self.told = self.summary;
    }

    fn undelivered(&mut self, ticket: u64, undelivered: &Undelivered) -> Result<(), NotOpen> {
        let failure = undelivered.failure;
        match failure {
            DeliveryFailure::Refused(_) => return self.refused(ticket, undelivered),
            DeliveryFailure::Unknown(_) => {
                self.summary.unknown += 1;
                self.stop.get_or_insert(Stop::Unanswered {
                    reason: failure.to_string(),
                });
            }
            DeliveryFailure::NotSent => self.summary.not_sent += 1,
            DeliveryFailure::Stopped(_) => {
                self.summary.not_sent += 1;
                let reason = self
                    .submitter
                    .fatal_error()
                    .unwrap_or_else(|| failure.to_string());
                self.stop.get_or_insert(Stop::Broker { reason });
            }
        }
        self.acknowledged.settle(ticket, Settled::Stuck).map(drop)
    }

    fn refused(&mut self, ticket: u64, undelivered: &Undelivered) -> Result<(), NotOpen> {
        let reason = undelivered.failure.to_string();
        let kind = if undelivered.failure.is_too_large() {
            MisfitKind::TooLarge
        } else {
            MisfitKind::Other
        };
        let misfit = Misfit {
            kind,
            column: 1,
            reason,
        };
        let decoders = match self.submitter.framing() {
            Framing::SingleObject => Decoders::new(),
            Framing::Confluent { schema_id } => Decoders::new().with_confluent_id(schema_id),
        };
        let decoded = decoders.decode(&undelivered.record);
        let raw = decoded.as_ref().map_or_else(
            |_| Cow::default(),
            |event| Cow::Borrowed(event.event().payload),
        );
        let end = if self.rejects.is_some() {
            Settled::Rejected
        } else {
            Settled::Stuck
        };
        let place = self.acknowledged.settle(ticket, end)?;
        if !self.write_down(place, &misfit, &raw) {
            self.stop.get_or_insert(Stop::Refused { place, misfit });
        }
        Ok(())
    }
}
