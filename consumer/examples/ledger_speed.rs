//! What the ledger costs a record, in nanoseconds: opened, planned, settled in batches and passed by
//! the frontier. Pure computation, one thread.
//!
//! `cargo run --release --example ledger_speed`

use std::time::Instant;

use millrace_consumer::engine::{Ledger, LedgerError, Offset, Outcome};

const BATCH: i64 = 10_000;
const BATCHES: i64 = 1_000;

fn main() -> Result<(), LedgerError> {
    println!("batches of {BATCH} records, {BATCHES} batches");
    report("settled in order", 0, in_order)?;
    report(
        "settled in order, a control record after every 100",
        100,
        in_order,
    )?;
    report("settled in reverse", 0, reversed)?;
    report(
        "settled in reverse, a control record after every 100",
        100,
        reversed,
    )?;
    Ok(())
}

fn in_order(_: &mut [Offset]) {}

fn reversed(batch: &mut [Offset]) {
    batch.reverse();
}

/// Runs all batches and prints the time a record. `every` is how many records lie between two
/// offsets without one; zero for none.
fn report(name: &str, every: i64, arrange: fn(&mut [Offset])) -> Result<(), LedgerError> {
    let mut ledger = Ledger::new(Offset(0), u64::MAX);
    let mut batch = Vec::new();
    let mut arranged = Vec::new();
    let mut offset = 0;
    let mut booked = 0;
    let started = Instant::now();
    for _ in 0..BATCHES {
        batch.clear();
        for _ in 0..BATCH {
            if every > 0 && offset % (every + 1) == every {
                offset += 1;
            }
            ledger.open(Offset(offset), offset)?;
            batch.push(Offset(offset));
            offset += 1;
        }
        let plan = ledger.plan(&batch)?;
        arranged.clone_from(&batch);
        arrange(&mut arranged);
        ledger.settle_all(arranged.iter().map(|&offset| (offset, Outcome::Result)))?;
        booked += ledger.advance_to(plan.next_offset)?.counts.total();
    }
    let records = BATCH * BATCHES;
    let nanoseconds = started.elapsed().as_secs_f64() * 1e9 / records as f64;
    println!("{nanoseconds:6.1} ns/record  {name} ({booked} offsets booked)");
    Ok(())
}
