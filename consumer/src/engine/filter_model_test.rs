//! The filter of parked keys against a multiset.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::CountingFilter;

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert { key: u8, times: u16 },
    Remove { key: u8, times: u16 },
    Empty,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Up to 600 times each, so that counters of a byte are full after a few steps.
    let times = prop_oneof![6 => 1..4_u16, 1 => 4..600_u16];
    let step = prop_oneof![
        5 => (any::<u8>(), times.clone()).prop_map(|(key, times)| Step::Insert { key, times }),
        4 => (any::<u8>(), times).prop_map(|(key, times)| Step::Remove { key, times }),
        1 => Just(Step::Empty),
    ];
    prop::collection::vec(step, 0..80)
}

/// Keys that differ little: the filter has to spread them itself.
fn key(number: u64) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

proptest! {
    #[test]
    fn what_is_in_is_always_found(steps in steps()) {
        let mut filter = CountingFilter::new();
        let mut model: BTreeMap<u8, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert { key: k, times } => for _ in 0..times {
                    filter.insert(&key(u64::from(k)));
                    *model.entry(k).or_default() += 1;
                },
                Step::Remove { key: k, times } => for _ in 0..times {
                    if let Some(held) = model.get_mut(&k).filter(|held| **held > 0) {
                        *held -= 1;
                        prop_assert!(filter.remove(&key(u64::from(k))));
                    }
                },
                Step::Empty => for (k, held) in std::mem::take(&mut model) {
                    for _ in 0..held {
                        prop_assert!(filter.remove(&key(u64::from(k))));
                    }
                },
            }
            for (k, held) in &model {
                prop_assert!(*held == 0 || filter.may_contain(&key(u64::from(*k))));
            }
            prop_assert_eq!(filter.len(), model.values().sum::<u64>());
            prop_assert_eq!(filter.is_empty(), filter.held_bytes() == 0);
        }
    }
}

fn found_in_vain(
    keys: impl Iterator<Item = [u8; 16]>,
    others: impl Iterator<Item = [u8; 16]>,
) -> usize {
    let mut filter = CountingFilter::new();
    for key in keys {
        filter.insert(&key);
    }
    others.filter(|other| filter.may_contain(other)).count()
}

#[test]
fn among_ten_thousand_keys_less_than_one_stranger_in_a_hundred_is_found() {
    let hash = |number: u64| -> [u8; 16] { number_hash(number) };
    let hashes = found_in_vain((0..10_000).map(hash), (10_000..110_000).map(hash));
    assert!(hashes < 1_000, "{hashes} of 100,000 hashes");
    let counted = found_in_vain((0..10_000).map(key), (10_000..110_000).map(key));
    assert!(counted < 1_000, "{counted} of 100,000 numbers");
    // As the ids of tasks: 48 bits of milliseconds, then bits that are random but for six.
    let id = |number: u64| {
        let mut id = number_hash(number);
        let ms = (1_760_000_000_000 + number / 50).to_be_bytes();
        for (to, from) in id.iter_mut().zip(ms.iter().skip(2)) {
            *to = *from;
        }
        id[6] = id[6] & 0x0f | 0x70;
        id[8] = id[8] & 0x3f | 0x80;
        id
    };
    let ids = found_in_vain((0..10_000).map(id), (10_000..110_000).map(id));
    assert!(ids < 1_000, "{ids} of 100,000 ids");
}

/// Sixteen bytes that look random and are the same in every run.
fn number_hash(number: u64) -> [u8; 16] {
    let low = number.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(32) ^ number;
    let high = low.wrapping_mul(0xa076_1d64_78bd_642f) ^ low >> 29;
    let mut bytes = [0; 16];
    for (to, from) in bytes
        .iter_mut()
        .zip(low.to_le_bytes().into_iter().chain(high.to_be_bytes()))
    {
        *to = from;
    }
    bytes
}

#[test]
fn what_cannot_be_in_is_not_taken_out() {
    let mut filter = CountingFilter::new();
    assert!(!filter.remove(&key(1)));
    filter.insert(&key(1));
    assert!(!filter.remove(&key(2)));
    assert!(filter.may_contain(&key(1)));
    assert_eq!(filter.len(), 1);
}

#[test]
fn a_filter_that_is_empty_again_has_forgotten_even_full_counters() {
    let mut filter = CountingFilter::new();
    assert_eq!(filter.held_bytes(), 0);
    for _ in 0..1_000 {
        filter.insert(&key(1));
    }
    assert_eq!(filter.held_bytes(), 128 << 10);
    for _ in 0..1_000 {
        assert!(filter.may_contain(&key(1)));
        assert!(filter.remove(&key(1)));
    }
    assert!(!filter.may_contain(&key(1)));
    assert_eq!(filter.held_bytes(), 0);
}
