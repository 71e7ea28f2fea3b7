//! Who used the processors while a measurement ran: user and system seconds from `/proc`.
//!
//! Postgres counts with all its processes, also those that ended meanwhile; its writers, the backends
//! that serve the worker's flushes, are told apart by the name of their connection. What the machine
//! was busy with beyond the processes named here shows a run that was disturbed.

use std::collections::HashSet;
use std::fs;
use std::time::Instant;

use serde::Serialize;

use crate::servers::Servers;

/// `USER_HZ`, see time(7): 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds up to a moment.
#[derive(Debug, Clone)]
pub struct Reading {
    at: Instant,
    kafka: f64,
    postgres: f64,
    worker: f64,
    bench: f64,
    busy: f64,
    stolen: f64,
}

/// Processor seconds between two readings.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Use {
    /// The worker.
    pub worker: f64,
    /// Postgres' backends that serve the worker's flushes.
    pub postgres_writers: f64,
    /// Postgres' other processes.
    pub postgres_others: f64,
    /// Apache Kafka.
    pub kafka: f64,
    /// This program, which looks on.
    pub bench: f64,
    /// Everything else on the machine: near zero unless the run was disturbed.
    pub other_processes: f64,
    /// What the machine under this one took away.
    pub stolen: f64,
    /// Processors times elapsed seconds.
    pub available: f64,
}

impl Reading {
    /// Reads now.
    pub fn take(servers: &Servers, worker: u32) -> Self {
        let kafka = servers.kafka().ok().and_then(|kafka| kafka.mark());
        let (busy, stolen) = machine();
        Self {
            at: Instant::now(),
            kafka: kafka.map_or(0.0, |mark| own(mark.pid)),
            postgres: postgres(servers),
            worker: own(worker),
            bench: own(std::process::id()),
            busy,
            stolen,
        }
    }

    /// What was used since `earlier`. `writers` are the backends of the worker's flushes, all of them
    /// started since.
    pub fn since(&self, earlier: &Self, writers: &HashSet<u32>) -> Use {
        let postgres = self.postgres - earlier.postgres;
        let postgres_writers: f64 = writers.iter().map(|pid| own(*pid)).sum();
        let (worker, kafka) = (self.worker - earlier.worker, self.kafka - earlier.kafka);
        let bench = self.bench - earlier.bench;
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        Use {
            worker,
            postgres_writers,
            postgres_others: (postgres - postgres_writers).max(0.0),
            kafka,
            bench,
            other_processes: (self.busy - earlier.busy - postgres - worker - kafka - bench)
                .max(0.0),
            stolen: self.stolen - earlier.stolen,
            available: processors * (self.at - earlier.at).as_secs_f64(),
        }
    }
}

fn postgres(servers: &Servers) -> f64 {
    let Some(mark) = servers.postgres.mark() else {
        return 0.0;
    };
    let living: f64 = mark.children().iter().map(|child| own(child.pid)).sum();
    own(mark.pid) + of_ended_children(mark.pid) + living
}

fn own(pid: u32) -> f64 {
    field(pid, 14) + field(pid, 15)
}

fn of_ended_children(pid: u32) -> f64 {
    field(pid, 16) + field(pid, 17)
}

/// A field of `/proc/PID/stat` by its number in proc(5), as seconds; zero once the process is gone.
fn field(pid: u32, number: usize) -> f64 {
    // The name in parentheses, field 2, may itself hold spaces.
    const FIRST_AFTER_NAME: usize = 3;
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let value = text.rsplit_once(')').and_then(|(_, rest)| {
        let mut fields = rest.split_ascii_whitespace();
        fields.nth(number - FIRST_AFTER_NAME)?.parse::<f64>().ok()
    });
    value.unwrap_or(0.0) / TICKS_PER_SECOND
}

/// Busy and stolen seconds of all processors, from the first line of `/proc/stat`.
fn machine() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let mut columns = line
        .split_ascii_whitespace()
        .skip(1)
        .map(|column| column.parse::<f64>().unwrap_or(0.0) / TICKS_PER_SECOND);
    let mut next = || columns.next().unwrap_or(0.0);
    let (user, nice, system, _idle, _waiting) = (next(), next(), next(), next(), next());
    let (interrupts, soft_interrupts, stolen) = (next(), next(), next());
    (user + nice + system + interrupts + soft_interrupts, stolen)
}
