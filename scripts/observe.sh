#!/usr/bin/env bash
# The dashboard and the alert rules held against a worker, a producer and a front door at work: every metric and label
# they name is in a live scrape, promtool approves of it, and a real Prometheus answers every query with data.
# Runs inside `devstack run`, which says where Kafka and Postgres are.
set -euo pipefail

binaries=target/debug
events=devstack/data/wikipedia-edits-2015-09-12.ndjson.gz
logs=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$logs"
}
trap finish EXIT

address() { # log file: waits until the process has printed where it listens
    local deadline=$((SECONDS + 60)) found
    until found=$(sed -n 's|^metrics .*http://\(.*\)/metrics$|\1|p' "$1") && [[ -n "$found" ]]; do
        if ((SECONDS > deadline)); then
            echo "observe: no address within a minute:" >&2
            cat "$1" >&2
            return 1
        fi
        sleep 0.2
    done
    echo "$found"
}

"$binaries/consumer" run --metrics-listen 127.0.0.1:0 2>"$logs/worker" &
pids+=($!)
"$binaries/producer" emit --type wiki.edit --once --rate 300 --metrics-listen 127.0.0.1:0 "$events" >/dev/null 2>"$logs/producer" &
pids+=($!)
"$binaries/producer" serve --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 2>"$logs/door" &
pids+=($!)
worker=$(address "$logs/worker")
producer=$(address "$logs/producer")
door=$(address "$logs/door")
url=$(sed -n 's|^front door at ||p' "$logs/door")
curl -fsS "$url/v1/task/submit" -H 'content-type: application/json' -d '{"type":"wiki.edit","payload":{"a":1}}' >/dev/null

# Its series are complete once something has landed and the offset that followed is committed.
deadline=$((SECONDS + 60))
until curl -fsS "http://$worker/metrics" | grep -q '^millrace_committed_offset{'; do
    if ((SECONDS > deadline)); then
        echo "observe: nothing was committed within a minute:" >&2
        cat "$logs/worker" >&2
        exit 1
    fi
    sleep 0.5
done

MILLRACE_SCRAPE_TARGETS="$worker,$producer,$door" cargo test -p millrace-telemetry --test observability -- \
    dashboard rules promtool live_prometheus
