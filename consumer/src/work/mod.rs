//! Between the log and the database: tasks in memory, attempts in flight, look-ups, and the writers.

pub mod attempts;
pub mod careful_queue;
pub mod controls;
pub mod floor;
pub mod flusher;
pub mod job;
pub mod keyed;
pub mod reports;
pub mod scout;
pub mod waking;
