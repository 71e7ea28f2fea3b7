#!/usr/bin/env bash
# A front door at work, asked by clients that are not ours: grpcio, websockets, httpx-sse, standardwebhooks and
# Schemathesis, from a Python environment under target/.
# Runs inside `devstack run`, which says where Kafka and Postgres are.
set -euo pipefail

binaries=${CARGO_TARGET_DIR:-target}/debug
programs=scripts/foreign
venv=target/foreign-venv
logs=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$logs"
}
trap finish EXIT

fail() {
    echo "foreign: $1" >&2
    if [[ -n "${2:-}" ]]; then tail -n 50 "$2" >&2; fi
    exit 1
}

# The programs leave no compiled files among the sources.
export PYTHONDONTWRITEBYTECODE=1

environment() {
    cmp -s "$programs/requirements.txt" "$venv/installed.txt" && return
    scripts/setup.sh foreign
    python3 -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv is missing: install python3-venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$programs/requirements.txt" ||
        fail "the Python packages cannot be installed"
    cp "$programs/requirements.txt" "$venv/installed.txt"
}

address() { # what, log file, words before it: waits until the process has printed where it listens
    local deadline=$((SECONDS + 60)) found
    until found=$(sed -n "s|^$3 http://\([^/]*\).*\$|\1|p" "$2") && [[ -n "$found" ]]; do
        if ((SECONDS > deadline)); then fail "no address of the $1 within a minute:" "$2"; fi
        sleep 0.2
    done
    echo "$found"
}

ready() { # what, log file: waits until the process says so by its metrics listener
    local deadline=$((SECONDS + 60)) listener
    listener=$(address "$1" "$2" "metrics .*")
    until "$venv/bin/python" -c 'import httpx, sys; httpx.get(sys.argv[1]).raise_for_status()' \
        "http://$listener/readyz" 2>/dev/null; do
        if ((SECONDS > deadline)); then fail "the $1 is not ready within a minute:" "$2"; fi
        sleep 0.5
    done
}

secret() { # name
    "$binaries/consumer" callbacks secret create --tenant default --id "$1"
}

environment

# A thousandth of the waits between attempts at a callback, so that the third comes within seconds.
"$binaries/consumer" run --callbacks-allow-private --callbacks-scale 0.001 --metrics-listen 127.0.0.1:0 \
    2>"$logs/worker" &
pids+=($!)
"$binaries/producer" serve --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 2>"$logs/door" &
pids+=($!)
FIRST_SECRET=$(secret first)
SECOND_SECRET=$(secret second)
export FIRST_SECRET SECOND_SECRET
ready worker "$logs/worker"
ready "front door" "$logs/door"
door=$(address "front door" "$logs/door" "front door at")

failed=()
check() { # name, command
    echo "foreign: $1"
    "${@:2}" || failed+=("$1")
}

check "callbacks, by standardwebhooks" "$venv/bin/python" "$programs/webhook_receiver.py" "$door"
check "streams, by websockets and httpx-sse" "$venv/bin/python" "$programs/streams.py" "$door"
check "gRPC, by grpcio" "$venv/bin/python" "$programs/grpc_client.py" "$door" schemas/proto

# Reproducible: a seed, and a number of examples that takes about two minutes. It leaves its own files where it runs.
schemathesis() {
    cp "$programs/schemathesis.toml" "$logs/"
    "$venv/bin/python" "$programs/ids.py" "$door" "$logs" || return
    local home=$PWD
    (
        cd "$logs"
        MILLRACE_FOREIGN=$home/$programs timeout --verbose 10m \
            "$home/$venv/bin/schemathesis" --no-color --config-file schemathesis.toml run "http://$door/openapi.json" \
            --checks all --exclude-checks positive_data_acceptance --continue-on-failure --max-examples 250
    )
}
check "the description, by Schemathesis" schemathesis

for pid in "${pids[@]}"; do
    kill -0 "$pid" 2>/dev/null || fail "the worker or the front door ended by itself:" "$logs/door"
done
# What fails in the inside stands in the front door's log, whatever was answered.
if grep -E ' (ERROR|panicked) ' "$logs/door" >&2 || grep -F 'panicked at' "$logs/door" "$logs/worker" >&2; then
    failed+=("the logs")
fi

if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'foreign: FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "foreign: all of it holds"
