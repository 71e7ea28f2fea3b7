//! The ledger against a map that remembers every single offset, over generated histories.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::ledger_model::Model;
use super::{Counts, Ledger, LedgerError, Offset, Opened, Outcome};

#[derive(Clone, Debug)]
enum Step {
    /// A record comes, `gap` offsets behind the last one.
    Receive {
        gap: i64,
        timestamp_ms: i64,
    },
    /// The fetcher reports that it stands `gap` offsets further with nothing in between.
    ReachEnd {
        gap: i64,
    },
    /// Some open records end out of turn, as after a look-up.
    Settle {
        picks: Vec<(prop::sample::Index, Outcome)>,
    },
    /// A flush of some open records; what is in `meanwhile` happens while it is in the air.
    Flush {
        picks: Vec<(prop::sample::Index, Outcome)>,
        meanwhile: Vec<Step>,
    },
    /// Any offset near the window is settled, rightly or wrongly.
    SettleAnything {
        at: prop::sample::Index,
        outcome: Outcome,
    },
    /// A record comes again, or one from before the position.
    Rewind {
        back: i64,
    },
    Advance,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        6 => Just(Outcome::Result),
        1 => Just(Outcome::Duplicate),
        1 => Just(Outcome::DeadLetter),
        1 => Just(Outcome::Parked),
    ]
}

fn gap() -> impl Strategy<Value = i64> {
    prop_oneof![8 => Just(0_i64), 3 => 1..3_i64, 1 => 3..40_i64]
}

fn reception() -> impl Strategy<Value = Step> {
    (gap(), 0..10_000_i64).prop_map(|(gap, timestamp_ms)| Step::Receive { gap, timestamp_ms })
}

fn picks(most: usize) -> impl Strategy<Value = Vec<(prop::sample::Index, Outcome)>> {
    prop::collection::vec((any::<prop::sample::Index>(), outcome()), 0..most)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let in_the_air = prop_oneof![
        6 => reception(),
        1 => gap().prop_map(|gap| Step::ReachEnd { gap }),
    ];
    let step = prop_oneof![
        12 => reception(),
        1 => gap().prop_map(|gap| Step::ReachEnd { gap }),
        2 => picks(4).prop_map(|picks| Step::Settle { picks }),
        4 => (picks(12), prop::collection::vec(in_the_air, 0..6))
            .prop_map(|(picks, meanwhile)| Step::Flush { picks, meanwhile }),
        2 => (any::<prop::sample::Index>(), outcome())
            .prop_map(|(at, outcome)| Step::SettleAnything { at, outcome }),
        1 => (1..30_i64).prop_map(|back| Step::Rewind { back }),
        2 => Just(Step::Advance),
    ];
    prop::collection::vec(step, 0..150)
}

/// The open offsets that `picks` name, each once, ascending.
fn chosen(model: &Model, picks: &[(prop::sample::Index, Outcome)]) -> BTreeMap<i64, Outcome> {
    let open = model.open();
    if open.is_empty() {
        return BTreeMap::new();
    }
    picks
        .iter()
        .map(|(pick, outcome)| (*pick.get(&open), *outcome))
        .collect()
}

fn take_step(ledger: &mut Ledger, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match step {
        Step::Receive { gap, timestamp_ms } => {
            let offset = model.expected + gap;
            let opened = ledger.open(Offset(offset), *timestamp_ms);
            prop_assert_eq!(
                opened,
                Ok(Opened {
                    gap: gap.unsigned_abs()
                })
            );
            model.receive(offset, *timestamp_ms);
        }
        Step::ReachEnd { gap } => {
            let end = model.expected + gap;
            prop_assert_eq!(ledger.gap_to(Offset(end)), gap.unsigned_abs());
            model.skip_to(end);
        }
        Step::Settle { picks } => {
            let ended = chosen(model, picks);
            let of_ledger = ended
                .iter()
                .rev()
                .map(|(&offset, &outcome)| (Offset(offset), outcome));
            prop_assert_eq!(ledger.settle_all(of_ledger), Ok(()));
            for (offset, outcome) in ended {
                prop_assert_eq!(model.settle(offset, outcome), Ok(()));
            }
        }
        Step::Flush { picks, meanwhile } => flush(ledger, model, &chosen(model, picks), meanwhile)?,
        Step::SettleAnything { at, outcome } => {
            let from = model.first - 2;
            let reach = usize::try_from(model.expected + 3 - from).unwrap_or(1);
            let offset = from + i64::try_from(at.index(reach)).unwrap_or(0);
            let planned = ledger.plan(&[Offset(offset)]).map(|_| ());
            let settled = ledger.settle(Offset(offset), *outcome);
            prop_assert_eq!(planned, settled);
            prop_assert_eq!(settled, model.settle(offset, *outcome));
        }
        Step::Rewind { back } => {
            let found = Offset(model.expected - back);
            let expected = Offset(model.expected);
            let refused = Err(LedgerError::Rewound { expected, found });
            prop_assert_eq!(ledger.open(found, 0), refused);
            prop_assert_eq!(ledger.gap_to(found), 0);
        }
        Step::Advance => {
            let expected = model.possible_move();
            let advanced = ledger.advance();
            prop_assert_eq!(advanced.next_offset, expected.next_offset);
            prop_assert_eq!(advanced.counts, expected.counts);
            model.booked += advanced.counts;
            model.frontier = advanced.next_offset.0;
        }
    }
    Ok(())
}

fn flush(
    ledger: &mut Ledger,
    model: &mut Model,
    ended: &BTreeMap<i64, Outcome>,
    meanwhile: &[Step],
) -> Result<(), TestCaseError> {
    let settling: Vec<Offset> = ended.keys().copied().map(Offset).collect();
    let mut after = model.clone();
    for (&offset, &outcome) in ended {
        prop_assert_eq!(after.settle(offset, outcome), Ok(()));
    }
    let expected = after.possible_move();

    let plan = ledger
        .plan(&settling)
        .map_err(|e| TestCaseError::fail(e.to_string()))?;
    let by_the_flush: Counts = ended
        .range(..plan.next_offset.0)
        .map(|(_, outcome)| *outcome)
        .collect();
    prop_assert_eq!(plan.next_offset, expected.next_offset);
    prop_assert_eq!(plan.counted + by_the_flush, expected.counts);
    prop_assert_eq!(plan.boundary, ended.range(..plan.next_offset.0).count());
    prop_assert_eq!(plan.timestamp_ms, expected.timestamp_ms);
    prop_assert_eq!(plan.high, after.high());

    for step in meanwhile {
        take_step(ledger, model, step)?;
    }
    let of_ledger = ended
        .iter()
        .map(|(&offset, &outcome)| (Offset(offset), outcome));
    prop_assert_eq!(ledger.settle_all(of_ledger), Ok(()));
    for (&offset, &outcome) in ended {
        prop_assert_eq!(model.settle(offset, outcome), Ok(()));
    }
    let advanced = ledger.advance_to(plan.next_offset);
    prop_assert_eq!(advanced.map(|a| a.counts), Ok(plan.counted + by_the_flush));
    model.booked += expected.counts;
    model.frontier = plan.next_offset.0;
    Ok(())
}

fn compare(ledger: &Ledger, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(ledger.frontier(), Offset(model.frontier));
    prop_assert_eq!(ledger.expected(), Offset(model.expected));
    prop_assert_eq!(
        model.frontier - model.first,
        model.booked.total(),
        "the books balance"
    );
    prop_assert_eq!(ledger.pending(), model.open().len());
    let oldest = ledger
        .oldest_pending()
        .map(|pending| (pending.offset.0, pending.timestamp_ms));
    prop_assert_eq!(oldest, model.first_open());
    prop_assert_eq!(
        ledger.frontier_timestamp_ms(),
        model.timestamp_below(model.frontier)
    );
    prop_assert_eq!(ledger.high(), model.high());
    prop_assert_eq!(ledger.span(), model.records_from_frontier());
    prop_assert_eq!(ledger.is_full(), model.records_from_frontier() >= SPAN_CAP);
    Ok(())
}

const SPAN_CAP: u64 = 12;

proptest! {
    #[test]
    fn a_ledger_agrees_with_a_map_of_every_offset(first in 0..100_i64, steps in steps()) {
        let mut ledger = Ledger::new(Offset(first), SPAN_CAP);
        let mut model = Model::new(first);
        for step in &steps {
            take_step(&mut ledger, &mut model, step)?;
            compare(&ledger, &model)?;
        }
        let ended = model.open().into_iter().map(|offset| (offset, Outcome::Result)).collect();
        flush(&mut ledger, &mut model, &ended, &[])?;
        compare(&ledger, &model)?;
        prop_assert_eq!(model.frontier, model.expected, "nothing pending: all received is booked");
    }

    #[test]
    fn a_plan_of_offsets_that_do_not_ascend_is_refused(
        offsets in prop::collection::vec(0..20_i64, 2..6)
    ) {
        let mut ledger = Ledger::new(Offset(0), 100);
        for offset in 0..20 {
            prop_assert!(ledger.open(Offset(offset), 0).is_ok());
        }
        let distinct: BTreeSet<i64> = offsets.iter().copied().collect();
        let ascends = offsets.iter().eq(distinct.iter());
        let plan = ledger.plan(&offsets.iter().copied().map(Offset).collect::<Vec<_>>());
        prop_assert_eq!(ascends, plan.is_ok());
        if !ascends {
            let unsorted = matches!(plan, Err(LedgerError::Unsorted { .. }));
            prop_assert!(unsorted);
        }
    }
}
