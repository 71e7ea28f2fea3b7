//! Which keys of a partition may have tasks waiting in the database: a counting Bloom filter.
//!
//! A key that is in is always found, whatever was put in and taken out before; one that is not in may be
//! found as well, and then the look-up in the database tells. Among 10,000 keys that happens to less than
//! one in a hundred. Memory is fixed: 128 KiB however many keys are parked, and nothing while there are none.
//! A counter that is full stays full until the filter is empty. When in doubt, leave a key in: one too many
//! costs look-ups, one too few costs order.

/// How many counters there are: a power of two, so that an odd stride visits different ones.
const COUNTERS: usize = 1 << 17;
/// How many of them stand for a key.
const HASHES: u64 = 4;

/// The parked keys of one partition; see the module.
#[derive(Clone, Debug, Default)]
pub struct CountingFilter {
    /// None at all until the first key comes.
    counters: Box<[u8]>,
    len: u64,
}

impl CountingFilter {
    /// An empty filter.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a key in. One that is put in twice has to be taken out twice.
    pub fn insert(&mut self, key: &[u8; 16]) {
        if self.counters.is_empty() {
            self.counters = vec![0; COUNTERS].into_boxed_slice();
        }
        for at in places(key) {
            if let Some(counter) = self.counters.get_mut(at) {
                *counter = counter.saturating_add(1);
            }
        }
        self.len += 1;
    }

    /// Takes a key out that was put in. Returns false, and changes nothing, when it cannot have been. A key
    /// that was never put in and is found all the same takes others with it: only ever take out what is in.
    pub fn remove(&mut self, key: &[u8; 16]) -> bool {
        if !self.may_contain(key) {
            return false;
        }
        for at in places(key) {
            if let Some(counter) = self.counters.get_mut(at)
                && *counter != u8::MAX
            {
                *counter -= 1;
            }
        }
        self.len -= 1;
        if self.len == 0 {
            // Full counters would otherwise stay full for ever.
            self.counters = Box::default();
        }
        true
    }

    /// Whether a key may be in. It is not when this says no.
    #[must_use]
    pub fn may_contain(&self, key: &[u8; 16]) -> bool {
        self.len > 0 && places(key).all(|at| self.counters.get(at).is_some_and(|n| *n > 0))
    }

    /// How often a key was put in and not taken out.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is in.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it holds in memory, in bytes, beside its fixed size.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.counters.len()
    }
}

/// The counters of a key. Keys are hashes or the ids of tasks, and ids begin with the time: all bits are
/// mixed first.
fn places(key: &[u8; 16]) -> impl Iterator<Item = usize> {
    let whole = u128::from_le_bytes(*key);
    let mixed = mixed(whole as u64 ^ mixed((whole >> 64) as u64));
    let (first, stride) = (mixed & 0xffff_ffff, mixed >> 32 | 1);
    (0..HASHES).map(move |n| (first + n * stride) as usize & (COUNTERS - 1))
}

/// The finalizer of splitmix64: every bit of the answer depends on every bit of the word.
const fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
