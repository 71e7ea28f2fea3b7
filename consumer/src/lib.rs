//! Placeholder.
pub mod engine;
pub mod source;
