//! Chance that can be repeated: the same seed kills and cuts at the same turns.

use std::sync::Mutex;

/// A seeded source of numbers (SplitMix64), shared by the threads of a test.
pub struct Chance(Mutex<u64>);

impl Chance {
    /// From `MILLRACE_SURVIVAL_SEED`, mixed with `salt`.
    pub fn new(salt: u64) -> Chance {
        let seed = crate::setting("MILLRACE_SURVIVAL_SEED", 20_150_912);
        Chance(Mutex::new(seed.wrapping_add(salt)))
    }

    /// A number below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
