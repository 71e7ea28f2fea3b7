//! The contract between producers and consumers: what a task event is, how it is identified, and
//! how it looks on the wire.
//!
//! Nothing here does I/O. Producers [`encode()`] an event; consumers decode bytes from anywhere with
//! [`Decoders`], which answers with an event or with a [`DecodeError`] and never panics. The Avro
//! files under `avro/` are the schema; the hand-written encoder and decoder are held against them
//! by tests.

mod admission;
mod canonical;
mod day;
mod decode;
mod decoders;
mod encode;
mod error;
mod event;
mod field;
mod fingerprint;
mod framing;
pub mod headers;
pub mod limits;
mod partitioner;
mod released;
mod resolve;
mod task_id;

pub use day::Day;
pub use decoders::{Decoded, Decoders};
pub use encode::encode;
pub use error::{DecodeError, SchemaError, UnknownSchema};
pub use event::{TaskEvent, TaskEventRef};
pub use field::{Field, FieldOutOfRange, RangeProblem};
pub use fingerprint::{DedupHash, Fingerprint};
pub use framing::Framing;
pub use partitioner::partition_for_key;
pub use released::{CURRENT_FINGERPRINT, CURRENT_SCHEMA, ReleasedSchema, released};
pub use task_id::{TaskId, TaskIdError};
