//! Millrace's store: everything that Postgres knows, behind one fence.
//!
//! Producers and consumers import this crate; it imports only the contract and telemetry. SQL lives here
//! and nowhere else, one table or transaction a file.

pub mod allowances;
pub mod api_keys;
pub mod audit;
mod books;
pub mod callback_secrets;
pub mod callbacks;
mod canary;
pub mod cancels;
mod connection;
mod copy;
pub mod days;
mod dead_letters;
mod dedup;
pub mod deployment;
pub mod discard;
mod draft;
mod fate;
mod fence;
pub mod finished;
mod flush;
pub mod frozen;
mod headers;
pub mod idempotency;
pub mod known;
pub mod letters;
mod look_up;
mod migrations;
pub mod moves;
mod nodelay;
pub mod notices;
pub mod operations_log;
pub mod outbox;
pub mod overview;
pub mod parked;
mod parking;
mod patience;
pub mod pauses;
pub mod position;
mod present;
pub mod progress;
mod progressing;
pub mod redrive;
pub mod results;
mod rows;
pub mod schemas_known;
mod task_status;
mod trouble;
mod waking;
mod withdrawal;
mod writer;

pub use books::{Counts, Outcome};
pub use connection::{AddressError, Database, Purpose};
pub use copy::{Body, CopyBuffer, RESULT_COLUMNS, ResultRow, Status};
pub use fence::FenceLoss;
pub use headers::Headers;
pub use migrations::{MigrationError, migrate};
pub use rows::{
    Advance, DeadLetter, Due, Ending, Flush, Origin, Output, ParkKind, Parking, Reason, Settling,
    Share, storable,
};
pub use trouble::Trouble;
pub use writer::{End, Incidents, ShareEnd, Writer};
