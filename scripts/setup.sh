#!/usr/bin/env bash
# Makes sure that what a make target needs is on this machine.
#
#   scripts/setup.sh build            compile the workspace
#   scripts/setup.sh build postgres   … and start a private Postgres
#   scripts/setup.sh build postgres kafka observe
#                                     … and Apache Kafka, and run promtool's and Prometheus' checks
#   scripts/setup.sh foreign          ask the front door with clients of others, in Python
#
# Missing Debian packages are installed: after a question when a person is at the terminal, at
# once when there is none. Without root, or on another system, it says what to install and fails.
# Needs that only some suites have (kafka, observe, foreign) do not fail: those suites then say so.
set -euo pipefail

missing=()    # Debian packages without which nothing goes
wanted=()     # Debian packages without which some suites do not run
because=()    # what they are for

lacks() { ! command -v "$1" >/dev/null 2>&1; }

need() { # package, reason
    missing+=("$1")
    because+=("$1 ($2)")
}

want() { # package, reason
    wanted+=("$1")
    because+=("$1 ($2)")
}

java_major() {
    local java=java
    [[ -n "${JAVA_HOME:-}" && -x "$JAVA_HOME/bin/java" ]] && java=$JAVA_HOME/bin/java
    "$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1
}

# The oldest Java that Apache Kafka runs on, among those this Debian has.
java_package() {
    local package
    for package in openjdk-17-jre-headless openjdk-21-jre-headless openjdk-25-jre-headless; do
        if [[ -n "$(apt-cache policy "$package" 2>/dev/null | grep 'Candidate: [0-9]')" ]]; then
            echo "$package"
            return
        fi
    done
    echo default-jre-headless
}

check_build() {
    if lacks cargo && [[ -x "$HOME/.cargo/bin/cargo" ]]; then
        echo "setup: cargo is in ~/.cargo/bin, which is not on the PATH: run . ~/.cargo/env" >&2
        exit 1
    fi
    if lacks cargo; then
        cat >&2 <<'EOF'
setup: Rust is missing. Install it with rustup, then run this again:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
    . ~/.cargo/env
EOF
        exit 1
    fi
    lacks gcc && need gcc "compiles librdkafka"
    lacks g++ && need g++ "compiles librdkafka"
    lacks make && need make "compiles librdkafka"
    lacks pkg-config && need pkg-config "finds OpenSSL"
    header openssl/ssl.h || need libssl-dev "TLS to Kafka"
    header zlib.h || need zlib1g-dev "compression"
    header stdio.h || need libc6-dev "C headers"
    return 0
}

header() {
    local dir
    for dir in /usr/include /usr/include/*-linux-gnu /usr/local/include; do
        [[ -e "$dir/$1" ]] && return 0
    done
    return 1
}

check_postgres() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
    lacks initdb && need postgresql "a private Postgres"
    return 0
}

check_kafka() {
    local major
    major=$(java_major || true)
    [[ "${major:-0}" -ge 17 ]] || want "$(java_package)" "runs Apache Kafka"
    lacks mvn && want maven "fetches Apache Kafka's jars"
    return 0
}

check_observe() {
    lacks promtool && want prometheus "checks metrics, alerts and the dashboard"
    lacks curl && want curl "scrapes metrics"
    return 0
}

check_foreign() {
    lacks python3 && want python3 "asks the front door with clients of others"
    python3 -c 'import venv, ensurepip' 2>/dev/null || want python3-venv "keeps those clients in a folder of their own"
    return 0
}

install() {
    local packages=("${missing[@]}" "${wanted[@]}")
    [[ ${#packages[@]} -eq 0 ]] && return 0

    echo "setup: missing: ${because[*]}" >&2
    if lacks apt-get; then
        echo "setup: this is not a Debian-like system; install these by its own means" \
            "(names as in Debian): ${packages[*]}" >&2
        give_up_or_go_on
        return
    fi
    if [[ $(id -u) -ne 0 ]]; then
        echo "setup: without root, please run: sudo apt-get install ${packages[*]}" >&2
        give_up_or_go_on
        return
    fi
    if [[ -t 0 ]]; then
        local answer
        read -r -p "setup: install with apt-get: ${packages[*]}? [Y/n] " answer
        if [[ -n "$answer" && ! "$answer" =~ ^[Yy] ]]; then
            give_up_or_go_on
            return
        fi
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
    echo "setup: installed ${packages[*]}" >&2
}

give_up_or_go_on() {
    if [[ ${#missing[@]} -gt 0 ]]; then
        exit 1
    fi
    echo "setup: going on without; what needs them will say so" >&2
}

for part in "$@"; do
    case "$part" in
        build) check_build ;;
        postgres) check_postgres ;;
        kafka) check_kafka ;;
        observe) check_observe ;;
        foreign) check_foreign ;;
        *)
            echo "setup: unknown part: $part" >&2
            exit 2
            ;;
    esac
done
install
