//! The standard `process_*` metrics, read from `/proc/self` at each scrape.
//!
//! Where a value cannot be read (another operating system), its metric is left out.

use crate::definition::{Definition, Kind};
use std::fs;

const CPU_SECONDS: Definition = Definition {
    name: "process_cpu_seconds_total",
    kind: Kind::CounterSeconds,
    labels: &[],
    help: "User and system CPU time spent.",
};
const RESIDENT_BYTES: Definition = Definition {
    name: "process_resident_memory_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Resident memory.",
};
const OPEN_FDS: Definition = Definition {
    name: "process_open_fds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Open file descriptors.",
};
const MAX_FDS: Definition = Definition {
    name: "process_max_fds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Limit of open file descriptors.",
};
const START_TIME: Definition = Definition {
    name: "process_start_time_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the process started, in seconds since 1970.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[
    &CPU_SECONDS,
    &RESIDENT_BYTES,
    &OPEN_FDS,
    &MAX_FDS,
    &START_TIME,
];

/// Linux reports times in units of USER_HZ, which is 100 on every architecture it runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Sets the process's metrics to what they are now.
pub(crate) fn publish() {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(seconds) = cpu_seconds(&stat) {
        CPU_SECONDS.counter(&[]).absolute(seconds as u64);
    }
    let gauges = [
        (&RESIDENT_BYTES, resident_bytes()),
        (&OPEN_FDS, open_fds()),
        (&MAX_FDS, max_fds()),
        (&START_TIME, start_time(&stat)),
    ];
    for (definition, value) in gauges {
        if let Some(value) = value {
            definition.gauge(&[]).set(value);
        }
    }
}

/// Field `number` of proc(5)'s stat line, counted as in the manual (from 1). The second field may
/// hold blanks and brackets, so counting starts after its last bracket.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_time(stat: &str) -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(boot + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

fn open_fds() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 1 0 4200 1 1";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(stat_field(stat, 22), Some(4200.0));
    }
}
