#!/usr/bin/env bash
# Format, clippy, licences and vulnerabilities, rustdoc: any warning fails.
set -euo pipefail

step() { echo "lint: $*" >&2; "$@"; }

step cargo fmt --all --check
step cargo clippy --workspace --all-targets -- -D warnings
if command -v cargo-deny >/dev/null 2>&1; then
    step cargo deny check
else
    echo "lint: cargo-deny is not installed, so licences and advisories were not checked" \
        "(cargo install --locked cargo-deny)" >&2
fi
# What scripts/mutations.sh takes away has to be there.
for patch in chaos/mutations/*.patch; do
    step git apply --check "$patch"
done
RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps
