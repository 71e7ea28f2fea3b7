//! What is done with a task. One handler so far: [`record`], for events that are to be rows.

pub mod record;
