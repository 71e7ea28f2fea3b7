//! The producer: task events into Kafka.
//!
//! [`submitter`] is the one way in: it encodes an event, gives it its key and headers, and reports
//! when all in-sync replicas have it. [`emit`] feeds it from files.

pub mod delivery;
pub mod emit;
pub mod submitter;
pub mod topic;

pub use delivery::{Delivery, DeliveryFailure, Undelivered};
pub use submitter::{SubmitError, Submitted, Submitter};
pub use topic::{Topic, TopicError};
