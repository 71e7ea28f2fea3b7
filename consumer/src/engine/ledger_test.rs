//! What the ledger promises in the cases that a generated history does not reach.

use super::{Counts, Ledger, LedgerError, Offset, Opened, Outcome};

#[test]
fn a_gap_of_a_billion_offsets_costs_one_record() {
    let mut ledger = Ledger::new(Offset(0), 1_000);
    assert_eq!(
        ledger.open(Offset(1_000_000_000), 5),
        Ok(Opened { gap: 1_000_000_000 })
    );
    assert_eq!(ledger.gap_to(Offset(3_000_000_000)), 1_999_999_999);
    assert_eq!(ledger.span(), 1);
    assert_eq!(
        ledger.settle(Offset(1_000_000_000), Outcome::Result),
        Ok(())
    );
    let advanced = ledger.advance();
    assert_eq!(advanced.next_offset, Offset(3_000_000_000));
    assert_eq!(
        advanced.counts,
        Counts {
            results: 1,
            gaps: 2_999_999_999,
            ..Counts::NONE
        }
    );
}

#[test]
fn the_frontier_goes_no_further_than_the_flush_wrote() {
    let mut ledger = Ledger::new(Offset(0), 1_000);
    assert_eq!(ledger.open(Offset(0), 1), Ok(Opened { gap: 0 }));
    let plan = ledger.plan(&[Offset(0)]);
    assert_eq!(
        ledger.open(Offset(5), 2),
        Ok(Opened { gap: 4 }),
        "while the flush is in the air"
    );
    assert_eq!(ledger.settle(Offset(0), Outcome::Result), Ok(()));

    let advanced = plan.and_then(|plan| ledger.advance_to(plan.next_offset));

    assert_eq!(advanced.map(|a| a.next_offset), Ok(Offset(1)));
    assert_eq!(
        ledger.plan(&[]).map(|plan| plan.counted.gaps),
        Ok(4),
        "the next flush writes them"
    );
}

#[test]
fn the_frontier_cannot_pass_what_has_not_ended() {
    let mut ledger = Ledger::new(Offset(10), 1_000);
    assert_eq!(ledger.open(Offset(10), 1), Ok(Opened { gap: 0 }));
    assert_eq!(ledger.open(Offset(11), 1), Ok(Opened { gap: 0 }));
    assert_eq!(ledger.settle(Offset(11), Outcome::Parked), Ok(()));
    let unsettled = LedgerError::Unsettled { offset: Offset(10) };
    assert_eq!(ledger.advance_to(Offset(12)), Err(unsettled));
    assert_eq!(
        ledger.advance_to(Offset(13)),
        Err(LedgerError::NotOpen { offset: Offset(13) })
    );
    let backwards = LedgerError::BelowFrontier {
        offset: Offset(9),
        frontier: Offset(10),
    };
    assert_eq!(ledger.advance_to(Offset(9)), Err(backwards));
    assert_eq!(ledger.frontier(), Offset(10));
    assert_eq!(ledger.high(), Some(Offset(11)));
}
