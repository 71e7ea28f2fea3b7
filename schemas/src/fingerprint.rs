//! Hashes by which tasks are compared, 128 bits of BLAKE3 each.
//!
//! Both are stored in Postgres and compared across versions of this code, so what goes into them
//! never changes; golden values in the tests hold that. Parts are length-prefixed, so no two
//! different lists of parts feed the hash the same bytes.

use std::fmt;

use crate::event::TaskEventRef;

/// What a task asks for: task type, content type, key and payload. Ids, times, tenant and trace
/// headers do not count, so a repeat of the same request has the same fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// The name of a request: tenant, record key and dedup key. Two events with the same hash within
/// the window are duplicates, or a conflict when their [`Fingerprint`]s differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DedupHash(pub [u8; 16]);

impl Fingerprint {
    pub(crate) fn of(event: &TaskEventRef<'_>) -> Self {
        let key = event.key.map(str::as_bytes);
        Self(hash_parts([
            Some(event.task_type.as_bytes()),
            Some(event.content_type.as_bytes()),
            key,
            Some(event.payload),
        ]))
    }
}

impl DedupHash {
    pub(crate) fn of(event: &TaskEventRef<'_>) -> Option<Self> {
        let dedup_key = event.dedup_key?;
        Some(Self(hash_parts([
            Some(event.tenant.as_bytes()),
            event.record_key(),
            Some(dedup_key.as_bytes()),
        ])))
    }
}

/// Whom a task waits behind: tenant and record key. The first part is missing, which that of a [`DedupHash`]
/// and of a [`Fingerprint`] never is, so none of them is ever another's.
pub(crate) fn lane_hash(event: &TaskEventRef<'_>) -> Option<[u8; 16]> {
    let key = event.record_key()?;
    Some(hash_parts([None, Some(event.tenant.as_bytes()), Some(key)]))
}

/// BLAKE3 hashes up to this many bytes as one chunk; a single call over one buffer then costs much
/// less than several updates of a hasher.
const CHUNK: usize = 1024;
/// A length of 64 bits takes at most ten bytes.
const PREFIX: usize = 10;

fn hash_parts<const N: usize>(parts: [Option<&[u8]>; N]) -> [u8; 16] {
    let bytes: usize = parts.iter().flatten().map(|part| part.len()).sum();
    let hash = if bytes + N * PREFIX <= CHUNK {
        let mut chunk = Chunk {
            bytes: [0; CHUNK],
            used: 0,
        };
        for part in parts {
            prefix(part, |byte| chunk.append(&[byte]));
            chunk.append(part.unwrap_or_default());
        }
        blake3::hash(chunk.bytes.get(..chunk.used).unwrap_or_default())
    } else {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            prefix(part, |byte| {
                hasher.update(&[byte]);
            });
            hasher.update(part.unwrap_or_default());
        }
        hasher.finalize()
    };
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_bytes()[..16]);
    short
}

/// Zero for a missing part, else its length plus one, as a little-endian base-128 number: short, so
/// that a usual event fits into few blocks of the hash.
fn prefix(part: Option<&[u8]>, mut put: impl FnMut(u8)) {
    let mut rest = part.map_or(0, |part| part.len() as u64 + 1);
    while rest > 0x7F {
        put(rest as u8 | 0x80);
        rest >>= 7;
    }
    put(rest as u8);
}

struct Chunk {
    bytes: [u8; CHUNK],
    used: usize,
}

impl Chunk {
    fn append(&mut self, more: &[u8]) {
        let end = self.used + more.len();
        if let Some(target) = self.bytes.get_mut(self.used..end) {
            target.copy_from_slice(more);
            self.used = end;
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl fmt::Display for DedupHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for DedupHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DedupHash({self})")
    }
}

#[cfg(test)]
#[path = "fingerprint_tests.rs"]
mod tests;
