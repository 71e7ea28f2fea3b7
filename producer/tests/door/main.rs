//! The front door as its callers meet it: the binary, a broker, a Postgres and a worker.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod access;
mod bulk;
mod called_back;
mod client;
mod client_answers;
mod client_double;
mod client_streams;
mod closing;
mod grpc;
mod life;
mod memory;
mod names;
mod outages;
mod page;
mod page_follow;
mod refusals;
mod rough;
mod rough_h2;
mod scene;
mod tls;
mod watching;
