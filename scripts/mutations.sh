#!/usr/bin/env bash
# Proves that the checker of `make chaos` finds what it is there to find: for each patch that takes one
# safeguard out of the product, the product is built with it and played, and a round in which every law
# held is a failure.
#
#   scripts/mutations.sh                    every patch in chaos/mutations
#   scripts/mutations.sh no-fence.patch     these
#
# ROUNDS (5) rounds from SEED (7) each, until one finds it. The tree itself is not touched: each patch is
# applied to a copy of it, and all copies share one folder of builds.
set -euo pipefail

tree=$(git rev-parse --show-toplevel)
cd "$tree"
scripts/setup.sh build postgres kafka
builds=${MUTATIONS_TARGET:-$tree/target/mutations}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

patches=()
if [[ $# -eq 0 ]]; then
    patches=(chaos/mutations/*.patch)
else
    for name in "$@"; do
        [[ -e "$name" ]] || name=chaos/mutations/$name
        patches+=("$name")
    done
fi

survived=()
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    copy=$work/$name
    mkdir "$copy"
    # What is in the tree now, committed or not, without what is ignored.
    git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -T - -cf - | tar -xf - -C "$copy"
    # Outside of a repository `git apply` takes a patch as it is.
    (cd "$copy" && GIT_CEILING_DIRECTORIES=$work git apply "$tree/$patch")
    echo "mutations: building $name" >&2
    (cd "$copy" && CARGO_TARGET_DIR=$builds cargo build --quiet --workspace --bins)
    echo "mutations: playing $name" >&2
    found=no
    for ((round = 0; round < ${ROUNDS:-5}; round++)); do
        seed=$((${SEED:-7} + round))
        status=0
        "$builds/debug/chaos" --rounds 1 --seed "$seed" --brokers 1 --keep "$builds/chaos" || status=$?
        case $status in
            0) ;;
            1) found=yes; break ;;
            *) echo "mutations: $name: the harness itself failed" >&2; exit 2 ;;
        esac
    done
    if [[ $found == yes ]]; then
        echo "mutations: $name was found (seed $seed)"
    else
        echo "mutations: $name WAS NOT FOUND"
        survived+=("$name")
    fi
done
[[ ${#survived[@]} -eq 0 ]]
