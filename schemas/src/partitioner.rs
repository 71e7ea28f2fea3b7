//! Which partition a key belongs to, as every Java client computes it.
//!
//! librdkafka does the same under `partitioner=murmur2_random`; this copy is for tools and tests
//! that must know without a broker. The golden values of Apache Kafka's own tests hold it.

/// The partition of a record key among `partitions` (1 or more; with fewer the answer is 0):
/// Kafka's murmur2, its sign bit cleared, modulo the count.
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    let positive = (murmur2(key) & 0x7FFF_FFFF) as i32;
    positive.checked_rem(partitions.max(1)).unwrap_or(0)
}

/// `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_B28C;
    const M: u32 = 0x5BD1_E995;
    const R: u32 = 24;

    // Java arrays have 32-bit lengths, and so has the seed.
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(M);
        mixed ^= mixed >> R;
        hash = hash.wrapping_mul(M) ^ mixed.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::{murmur2, partition_for_key};

    #[test]
    fn murmur2_equals_the_java_clients() {
        let golden: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in golden {
            assert_eq!(
                murmur2(key) as i32,
                hash,
                "{:?}",
                String::from_utf8_lossy(key)
            );
        }
    }

    #[test]
    fn the_partition_is_the_positive_hash_modulo_the_count() {
        assert_eq!(partition_for_key(b"abc", 12), 479_470_107 % 12);
        assert_eq!(partition_for_key(b"21", 12), (-973_932_308 & i32::MAX) % 12);
        assert_eq!(partition_for_key(b"21", 1), 0);
        assert_eq!(partition_for_key(b"21", 0), 0);
    }
}
