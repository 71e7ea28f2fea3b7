//! What happens to records between the log and the database.

pub mod flusher;
