//! What of a partition waits in the database, as far as this claim knows.
//!
//! A key counts from the moment that one of its tasks is decided to wait, not from the moment that it is written:
//! in between, no look-up could find it. One too many costs a look-up, one too few would cost order.

use millrace_store::ParkKind;

use crate::engine::CountingFilter;

/// See the module.
#[derive(Debug, Default)]
pub struct ParkedHere {
    /// Keys of which tasks wait, as often as tasks do.
    pub keys: CountingFilter,
    /// Tasks.
    pub tasks: i64,
}

impl ParkedHere {
    /// One more task waits with its key.
    pub fn note(&mut self, key_hash: &[u8; 16]) {
        self.keys.insert(key_hash);
        self.tasks += 1;
    }

    /// One less does.
    pub fn unnote(&mut self, key_hash: &[u8; 16]) {
        self.keys.remove(key_hash);
        self.tasks -= 1;
    }

    /// Takes in how a task was parked and how it is from now on.
    pub fn change(
        &mut self,
        was: Option<ParkKind>,
        becomes: Option<ParkKind>,
        key_hash: &[u8; 16],
    ) {
        match (waits_with_key(was), waits_with_key(becomes)) {
            (false, true) => self.keys.insert(key_hash),
            (true, false) => {
                self.keys.remove(key_hash);
            }
            (true, true) | (false, false) => {}
        }
        // One for later waits with nobody, and is a row like any other.
        self.tasks += i64::from(becomes.is_some()) - i64::from(was.is_some());
    }
}

/// Whether a task that is parked so keeps later ones of its key waiting.
const fn waits_with_key(kind: Option<ParkKind>) -> bool {
    matches!(
        kind,
        Some(ParkKind::Retry | ParkKind::Behind | ParkKind::Running | ParkKind::Redrive)
    )
}
