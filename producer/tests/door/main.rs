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
mod grpc;
mod life;
mod names;
mod outages;
mod page;
mod refusals;
mod rough;
mod scene;
mod tls;
mod watching;
