//! The identity of a task: a UUIDv7 (RFC 9562, section 5.7).
//!
//! An id carries the millisecond of its birth, so ids sort by time and a result's day follows from
//! the id alone. Ids minted by one process are strictly ascending as long as the clock is not set
//! back by more than [`BELIEVED_SETBACK_MS`]; 58 bits of each come from a generator that was seeded
//! by the operating system and cannot be guessed.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::{Uuid, Variant};

use crate::day::Day;

/// How far the clock may go back before births follow it. Smaller steps keep the order of ids;
/// after a larger one, going on from the old time would date every new id into the future.
pub const BELIEVED_SETBACK_MS: u64 = 10_000;

/// The id of a task, always a UUIDv7; displayed in lower case with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId([u8; 16]);

/// Why 16 bytes or a text are no task id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskIdError {
    /// The text is no UUID at all.
    #[error("expected a UUID, found {found:?}")]
    NotUuid {
        /// The beginning of the text as it was given.
        found: String,
    },
    /// A UUID of another layout than that of RFC 9562.
    #[error("expected a UUID of the RFC 9562 variant, found another variant in {found}")]
    Variant {
        /// The id as it was given.
        found: Uuid,
    },
    /// A UUID of another version, which carries no birth time.
    #[error("expected a UUID of version 7, found version {version} in {found}")]
    Version {
        /// The version of the id as it was given.
        version: u8,
        /// The id as it was given.
        found: Uuid,
    },
}

impl TaskId {
    /// A new id, born now by the system clock and greater than every id this process minted before.
    pub fn mint() -> Self {
        let tick = next_tick(unix_ticks());
        let ms = (tick >> TICK_BITS).to_be_bytes();
        let within = (tick & TICK_MASK) as u16;
        let random = random_u64();
        // 16 bits of time within the millisecond: 12 in rand_a, 4 at the top of rand_b, so that
        // byte order is birth order (RFC 9562, section 6.2, method 3).
        let a = (0x7000 | (within >> 4)).to_be_bytes();
        let b =
            (0x8000_0000_0000_0000 | (u64::from(within & 0xF) << 58) | (random >> 6)).to_be_bytes();
        Self::assemble(ms, a, b)
    }

    /// A new id born at that instant, in milliseconds since the Unix epoch (below 2^48, the range
    /// of a UUIDv7; later instants become the last one). For tests and tools: two ids of the same
    /// millisecond are in no particular order.
    pub fn mint_at(unix_ms: u64) -> Self {
        let ms = unix_ms.min((1 << 48) - 1).to_be_bytes();
        let a = (0x7000 | (random_u64() >> 52) as u16).to_be_bytes();
        let b = (0x8000_0000_0000_0000 | (random_u64() >> 2)).to_be_bytes();
        Self::assemble(ms, a, b)
    }

    fn assemble(ms: [u8; 8], a: [u8; 2], b: [u8; 8]) -> Self {
        let [_, _, m0, m1, m2, m3, m4, m5] = ms;
        let [a0, a1] = a;
        let [b0, b1, b2, b3, b4, b5, b6, b7] = b;
        Self([
            m0, m1, m2, m3, m4, m5, a0, a1, b0, b1, b2, b3, b4, b5, b6, b7,
        ])
    }

    /// Takes 16 bytes in network order as an id, when they are a UUIDv7.
    ///
    /// # Errors
    /// [`TaskIdError::Variant`] or [`TaskIdError::Version`] for any other UUID.
    #[inline]
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, TaskIdError> {
        if bytes[6] >> 4 == 7 && bytes[8] >> 6 == 0b10 {
            Ok(Self(bytes))
        } else {
            Err(Self::refusal(bytes))
        }
    }

    #[cold]
    fn refusal(bytes: [u8; 16]) -> TaskIdError {
        let found = Uuid::from_bytes(bytes);
        if found.get_variant() == Variant::RFC4122 {
            TaskIdError::Version {
                version: found.get_version_num() as u8,
                found,
            }
        } else {
            TaskIdError::Variant { found }
        }
    }

    /// The id's 16 bytes in network order.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The same id as a [`Uuid`].
    pub const fn as_uuid(&self) -> Uuid {
        Uuid::from_bytes(self.0)
    }

    /// When the id was minted, by its minter's clock, in milliseconds since the Unix epoch.
    pub const fn born_ms(&self) -> u64 {
        let [m0, m1, m2, m3, m4, m5, ..] = self.0;
        u64::from_be_bytes([0, 0, m0, m1, m2, m3, m4, m5])
    }

    /// The UTC day of the id's birth, which is the day of the task's result.
    pub const fn birth_day(&self) -> Day {
        Day::from_unix_ms(self.born_ms())
    }
}

impl TryFrom<Uuid> for TaskId {
    type Error = TaskIdError;

    fn try_from(uuid: Uuid) -> Result<Self, TaskIdError> {
        Self::from_bytes(uuid.into_bytes())
    }
}

impl FromStr for TaskId {
    type Err = TaskIdError;

    fn from_str(text: &str) -> Result<Self, TaskIdError> {
        let uuid = Uuid::try_parse(text).map_err(|_| TaskIdError::NotUuid {
            found: text.chars().take(64).collect(),
        })?;
        Self::try_from(uuid)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_uuid().as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

impl Serialize for TaskId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_uuid().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Uuid::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A tick is 1/65,536 of a millisecond, so a process may mint 65 million ids a second before its
/// ids run ahead of the clock.
const TICK_BITS: u32 = 16;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;
static LAST_TICK: AtomicU64 = AtomicU64::new(0);

fn unix_ticks() -> u64 {
    // A clock before 1970 yields ids of 1970, which consumers refuse as out of range.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let within = u64::from(now.subsec_nanos() % 1_000_000) * (1 << TICK_BITS) / 1_000_000;
    let ms = now.as_secs() * 1_000 + u64::from(now.subsec_millis());
    (ms << TICK_BITS) | within
}

/// The tick for an id minted at `now`: past the last one given out, unless the clock was set back
/// so far that it is to be believed.
fn next_tick(now: u64) -> u64 {
    let mut last = LAST_TICK.load(Ordering::Relaxed);
    loop {
        let next = tick_after(last, now);
        match LAST_TICK.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return next,
            Err(seen) => last = seen,
        }
    }
}

fn tick_after(last: u64, now: u64) -> u64 {
    if now > last || last - now > BELIEVED_SETBACK_MS << TICK_BITS {
        now
    } else {
        last + 1
    }
}

const POOL: usize = 4096;

/// Random bytes of one thread: the output of keyed BLAKE3 under a key from the operating system,
/// taken in blocks because a call for eight bytes at a time would dominate minting.
struct RandomPool {
    stream: blake3::OutputReader,
    block: [u8; POOL],
    used: usize,
}

impl RandomPool {
    fn seeded() -> Self {
        // Each v7 UUID holds at least 32 bits that come straight from the operating system.
        let mut seed = blake3::Hasher::new();
        for _ in 0..8 {
            seed.update(Uuid::now_v7().as_bytes());
        }
        let stream = blake3::Hasher::new_keyed(seed.finalize().as_bytes()).finalize_xof();
        Self {
            stream,
            block: [0; POOL],
            used: POOL,
        }
    }

    fn next(&mut self) -> u64 {
        let end = self.used + 8;
        if let Some(Ok(bytes)) = self.block.get(self.used..end).map(<[u8; 8]>::try_from) {
            self.used = end;
            return u64::from_le_bytes(bytes);
        }
        self.stream.fill(&mut self.block);
        self.used = 8;
        let mut first = [0; 8];
        first.copy_from_slice(&self.block[..8]);
        u64::from_le_bytes(first)
    }
}

thread_local! {
    static RANDOM: RefCell<RandomPool> = RefCell::new(RandomPool::seeded());
}

fn random_u64() -> u64 {
    RANDOM.with_borrow_mut(RandomPool::next)
}

#[cfg(test)]
#[path = "task_id_tests.rs"]
mod tests;
