//! The front door's figures as text.

use std::fmt::{Result, Write as _};

use super::percentiles::Percentiles;
use super::{DoorLoads, DoorResults};
use crate::report::grouped;

/// One line for each load.
///
/// # Errors
/// Never in practice: text grows in memory.
pub fn loads(run: &DoorLoads, text: &mut String) -> Result {
    writeln!(
        text,
        "\n{:40} {:>12}   p50 ms   p99 ms   put off",
        "front door, under full load", "per second"
    )?;
    let loads = [
        ("bare route of the same framework", run.route),
        ("one task a request", run.single),
        ("ten tasks a request; tasks", run.bulk10),
        ("a hundred tasks a request; tasks", run.bulk100),
    ];
    for (name, load) in loads {
        writeln!(
            text,
            "{name:40} {:>12} {:>8.1} {:>8.1} {:>9}",
            grouped(load.tasks_per_s),
            load.took.p50_ms,
            load.took.p99_ms,
            load.put_off
        )?;
    }
    let streams = grouped(run.streams_tasks_per_s);
    writeln!(text, "{:40} {streams:>12}", "gRPC streams; tasks")?;
    let produced = grouped(run.produce_events_per_s);
    writeln!(text, "{:40} {produced:>12}", "bare produce loop; events")?;
    writeln!(
        text,
        "its memory under these loads peaked at {:.0} MiB",
        run.peak_rss_mib
    )
}

/// What callers that wait saw.
///
/// # Errors
/// Never in practice: text grows in memory.
pub fn results(run: &DoorResults, text: &mut String) -> Result {
    let times = |of: Percentiles| {
        format!(
            "p50 {:.1}  p99 {:.1}  max {:.1}",
            of.p50_ms, of.p99_ms, of.max_ms
        )
    };
    writeln!(
        text,
        "at 1,000 tasks a second, ms: to the answer {}; to the result {}",
        times(run.paced.submit),
        times(run.paced.result)
    )?;
    writeln!(
        text,
        "{} callers that wait: {:.0} MiB, {:.0} before; told within {:.2} s, ms after the due time: {}",
        grouped(run.waited.waiters as f64),
        run.waited.rss_mib,
        run.waited.rss_before_mib,
        run.waited.spread_seconds,
        times(run.waited.told)
    )
}
