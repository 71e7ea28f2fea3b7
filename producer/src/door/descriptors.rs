//! File descriptors for connections: as many as the system allows this process, and no more connections than that.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors for everything that is not a caller's connection: Kafka, Postgres, the metrics listener.
const OTHERS: u64 = 500;

/// Raises the limit of descriptors as far as so many connections need and the system lets us, and returns how many
/// connections fit.
pub(crate) fn connections(wanted: usize) -> usize {
    let needed = u64::try_from(wanted)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHERS);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted;
    };
    if soft >= needed {
        return wanted;
    }
    let raised = needed.min(hard);
    let soft = match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        Ok(()) => raised,
        Err(_) => soft,
    };
    if soft >= needed {
        return wanted;
    }
    let fit = usize::try_from(soft.saturating_sub(OTHERS))
        .unwrap_or(wanted)
        .max(1);
    tracing::info!(
        "{soft} open files are allowed, so {fit} connections are taken at a time instead of {wanted}: \
         raise the limit (`ulimit -n`), or lower --max-connections"
    );
    fit
}
