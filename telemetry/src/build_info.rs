//! Which build is running: a gauge that is always 1 and carries the versions as labels.

use crate::definition::{Definition, Kind};

const BUILD_INFO: Definition = Definition {
    name: "millrace_build_info",
    kind: Kind::Gauge,
    labels: &["version", "revision", "librdkafka"],
    help: "Always 1; the labels say which build is running.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[&BUILD_INFO];

/// Publishes the running build. `librdkafka` is the version of the linked Kafka client.
///
/// The revision is what `MILLRACE_REVISION` held when the crate was compiled.
pub fn build_info(librdkafka: &str) {
    let revision = option_env!("MILLRACE_REVISION").unwrap_or("unknown");
    BUILD_INFO
        .gauge(&[env!("CARGO_PKG_VERSION"), revision, librdkafka])
        .set(1.0);
}
