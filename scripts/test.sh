#!/usr/bin/env bash
# Every test of the workspace, with one Postgres and one Apache Kafka for all of them.
# Arguments go to `cargo test`.
set -euo pipefail

# Tests run the binaries and the examples, so they are built first.
cargo build --workspace --bins --examples
# A test that hangs is a failure, said while somebody still waits for the answer.
target/debug/devstack run --kafka "${KAFKA:-apache}" --for-tests -- \
    timeout --verbose --kill-after=1m 60m cargo test --workspace "$@"

# The dashboard and the alerts once more, against a worker and a producer at work.
target/debug/devstack run --kafka embedded -- scripts/observe.sh
