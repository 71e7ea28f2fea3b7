//! Questions about parked tasks: when they are asked, and what comes back.

use std::collections::HashMap;
use std::time::Instant;

use millrace_store::Trouble;
use millrace_store::parked::Wake;
use uuid::Uuid;

use super::attempts::Offer;

/// When the table of parked tasks is asked next.
#[derive(Debug)]
pub struct WakeClock {
    /// Not before this.
    pub next: Instant,
    /// A question is out.
    pub asking: bool,
}

impl Default for WakeClock {
    fn default() -> Self {
        Self {
            next: Instant::now(),
            asking: false,
        }
    }
}

impl WakeClock {
    /// The next look at the clock asks.
    pub fn soon(&mut self) {
        self.next = Instant::now();
    }

    /// Asks no later than this.
    pub fn by(&mut self, at: Instant) {
        self.next = self.next.min(at);
    }
}

/// Parked tasks, and under which claims they were asked for.
#[derive(Debug)]
pub struct Woken {
    /// By partition.
    pub claims: HashMap<i32, Uuid>,
    /// What was found.
    pub found: Result<Wake, Trouble>,
}

/// The answer to the note that a task is about to run alone.
#[derive(Debug)]
pub struct Noted {
    /// Whose.
    pub offer: Offer,
    /// Whether the partition is still ours.
    pub ours: Result<bool, Trouble>,
}
