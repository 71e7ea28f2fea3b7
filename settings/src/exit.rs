//! Exit codes of both binaries. Scripts stand on them, so they never change.

/// Done, and everything was accepted.
pub const DONE: u8 = 0;
/// Something was rejected, or the books do not balance.
pub const REJECTED: u8 = 1;
/// Wrong usage, or a wrong setting. Also what clap exits with.
pub const USAGE: u8 = 2;
/// A partition is stopped and needs a decision.
pub const STOPPED: u8 = 3;
/// Ended by a signal.
pub const INTERRUPTED: u8 = 130;
