//! The budget against a list of every charge not yet given back.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Budget, BudgetLimits, Charge, Partition, Pressure};

const LIMITS: BudgetLimits = BudgetLimits {
    limit: Charge {
        events: 40,
        bytes: 4_000,
    },
    overshoot: Charge {
        events: 4,
        bytes: 400,
    },
    patience: Duration::from_secs(2),
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Charge { partition: i32, bytes: u64 },
    Refund { pick: prop::sample::Index },
    RefundTooMuch { partition: i32 },
    Forget { partition: i32 },
    Wait { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = 0..4_i32;
    prop::collection::vec(
        prop_oneof![
            6 => (partition.clone(), 0..300_u64)
                .prop_map(|(partition, bytes)| Step::Charge { partition, bytes }),
            5 => any::<prop::sample::Index>().prop_map(|pick| Step::Refund { pick }),
            1 => partition.clone().prop_map(|partition| Step::RefundTooMuch { partition }),
            1 => partition.prop_map(|partition| Step::Forget { partition }),
            2 => (0..1_500_u64).prop_map(|ms| Step::Wait { ms }),
        ],
        0..200,
    )
}

proptest! {
    #[test]
    fn the_budget_holds_what_was_charged_and_not_given_back(steps in steps()) {
        let mut now = Instant::now();
        let mut budget = Budget::new(LIMITS, 4);
        let mut charges: Vec<(Partition, Charge)> = Vec::new();
        let held_by = |charges: &[(Partition, Charge)], partition| -> Charge {
            charges.iter().filter(|(of, _)| *of == partition).map(|(_, charge)| *charge).sum()
        };
        for step in steps {
            match step {
                Step::Charge { partition, bytes } => {
                    let partition = Partition(partition);
                    budget.charge(partition, Charge::event(bytes));
                    charges.push((partition, Charge::event(bytes)));
                }
                Step::Refund { .. } if charges.is_empty() => {}
                Step::Refund { pick } => {
                    let (partition, charge) = charges.swap_remove(pick.index(charges.len()));
                    prop_assert_eq!(budget.refund(partition, charge), Ok(()));
                }
                Step::RefundTooMuch { partition } => {
                    let partition = Partition(partition);
                    let too_much = held_by(&charges, partition) + Charge::bytes(1);
                    prop_assert!(budget.refund(partition, too_much).is_err());
                }
                Step::Forget { partition } => {
                    let partition = Partition(partition);
                    prop_assert_eq!(budget.forget(partition), held_by(&charges, partition));
                    charges.retain(|(of, _)| *of != partition);
                }
                Step::Wait { ms } => now += Duration::from_millis(ms),
            }

            let held: Charge = charges.iter().map(|(_, charge)| *charge).sum();
            prop_assert_eq!(budget.held(), held);
            prop_assert_eq!(budget.room(), LIMITS.limit.saturating_sub(held));
            for partition in (0..4).map(Partition) {
                prop_assert_eq!(budget.held_by(partition), held_by(&charges, partition));
                prop_assert!(!(budget.over_share(partition) && budget.below_share_floor(partition)));
            }
            let pressure = budget.pressure(now);
            if held.reaches(LIMITS.limit) {
                prop_assert_ne!(pressure, Pressure::Open);
            }
            if !held.exceeds(Charge { events: 30, bytes: 3_000 }) {
                prop_assert_eq!(pressure, Pressure::Open);
            }
        }
    }

    #[test]
    fn partitions_that_are_over_hold_two_even_shares_each_so_at_most_half_of_them_are(
        held in prop::collection::vec(0..40_u64, 4)
    ) {
        let mut budget = Budget::new(LIMITS, 4);
        for (partition, &events) in (0..).map(Partition).zip(&held) {
            budget.charge(partition, Charge { events, bytes: 0 });
        }
        let even_share = LIMITS.limit.events / 4;
        let over = |partition: &Partition| budget.over_share(*partition);
        for partition in (0..4).map(Partition).filter(over) {
            prop_assert!(budget.held_by(partition).events > 2 * even_share);
        }
        let fits = budget.held().events <= LIMITS.limit.events;
        prop_assert!(!fits || (0..4).map(Partition).filter(over).count() <= 2);
    }
}
