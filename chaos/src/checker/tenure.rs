//! Tenures: the time from one claim of a partition to the next, by whoever made it.
//!
//! A partition's tenures are numbered by the sequence number of the claim with which they began. A fencing
//! token, and every step of the trail, belongs to the tenure of the last claim at or before its number.

use std::collections::{BTreeMap, HashMap};

use crate::trail::Step;

/// The tenures of all partitions.
#[derive(Debug, Default)]
pub struct Tenures {
    /// For each partition, by the claim's number: who made it.
    claims: HashMap<i32, BTreeMap<i64, String>>,
}

impl Tenures {
    /// From the trail.
    pub fn of(steps: &[Step]) -> Self {
        let mut tenures = Self::default();
        for step in steps.iter().filter(|step| step.claimed) {
            if step.claim.is_some() {
                let claims = tenures.claims.entry(step.partition).or_default();
                claims.insert(step.seq, step.writer.clone());
            }
        }
        tenures
    }

    /// The tenure that a number of a partition belongs to: the claim's number and its maker.
    pub fn at(&self, partition: i32, seq: i64) -> Option<(i64, &str)> {
        let claims = self.claims.get(&partition)?;
        let (began, maker) = claims.range(..=seq).next_back()?;
        Some((*began, maker))
    }
}
