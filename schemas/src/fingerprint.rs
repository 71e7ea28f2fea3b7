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

/// BLAKE3 hashes up to this many bytes as one chunk; a single call over one buffer then costs much
/// less than several updates of a hasher.
const CHUNK: usize = 1024;
const PREFIX: usize = 9;

fn hash_parts<const N: usize>(parts: [Option<&[u8]>; N]) -> [u8; 16] {
    let total: usize = parts
        .iter()
        .map(|part| PREFIX + part.map_or(0, <[u8]>::len))
        .sum();
    let hash = if total <= CHUNK {
        let mut buffer = [0; CHUNK];
        let mut free = buffer.as_mut_slice();
        for part in parts {
            append(&mut free, &prefix(part));
            append(&mut free, part.unwrap_or_default());
        }
        blake3::hash(buffer.get(..total).unwrap_or_default())
    } else {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher
                .update(&prefix(part))
                .update(part.unwrap_or_default());
        }
        hasher.finalize()
    };
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_bytes()[..16]);
    short
}

/// Present or absent, and the length: a missing part differs from an empty one.
fn prefix(part: Option<&[u8]>) -> [u8; PREFIX] {
    let [l0, l1, l2, l3, l4, l5, l6, l7] = (part.map_or(0, <[u8]>::len) as u64).to_le_bytes();
    [u8::from(part.is_some()), l0, l1, l2, l3, l4, l5, l6, l7]
}

fn append(free: &mut &mut [u8], bytes: &[u8]) {
    if let Some((target, rest)) = std::mem::take(free).split_at_mut_checked(bytes.len()) {
        target.copy_from_slice(bytes);
        *free = rest;
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
