//! The producer: task events into Kafka.
//!
//! [`submitter`] is the one way in: it encodes an event, gives it its key and headers, and reports
//! when all in-sync replicas have it. [`emit`] feeds it from files.

pub mod client;
pub mod delivery;
pub mod door;
pub mod emit;
pub mod submitter;
pub mod topic;
mod wire;

pub use delivery::{Delivery, DeliveryFailure, Undelivered};
pub use submitter::{Submitted, Submitter};
pub use topic::{Topic, TopicError};
pub use wire::{SubmitError, Trace};

/// What is made from `schemas/proto/millrace/v1/tasks.proto`: the messages of the gRPC service, and a client of it.
#[expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes,
    reason = "the description is documented; the code is made from it"
)]
pub mod v1 {
    tonic::include_proto!("millrace.v1");
}
