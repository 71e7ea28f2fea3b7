//! Millrace's store: everything that Postgres knows, behind one fence.
//!
//! Producers and consumers import this crate; it imports only the contract and telemetry. SQL lives here
//! and nowhere else, one table or transaction a file.

pub mod audit;
mod books;
mod canary;
mod connection;
mod copy;
pub mod days;
mod dead_letters;
mod dedup;
pub mod deployment;
mod draft;
mod fate;
mod fence;
mod flush;
pub mod frozen;
mod headers;
mod look_up;
mod migrations;
pub mod moves;
mod nodelay;
mod patience;
pub mod position;
mod present;
mod progressing;
pub mod results;
mod rows;
pub mod schemas_known;
mod trouble;
mod writer;

pub use books::{Counts, Outcome};
pub use connection::{AddressError, Database, Purpose};
pub use copy::{Body, CopyBuffer, RESULT_COLUMNS, ResultRow, Status};
pub use fence::FenceLoss;
pub use migrations::{MigrationError, migrate};
pub use headers::Headers;
pub use rows::{
    Advance, DeadLetter, Due, Ending, Flush, Origin, Output, ParkKind, Parking, Reason, Settling, Share,
};
pub use trouble::Trouble;
pub use writer::{End, Incidents, ShareEnd, Writer};
