#!/usr/bin/env bash
# What balancing and failover are worth: a gateway before several instances of the echo service, each a process of its
# own that answers after a time. Prints a table; fails when a request fails that must not.
#
#     cargo build --release --workspace
#     tools/bench/governance.sh balance [SECONDS]     ten instances, one of them ten times slower: every rule of balance,
#                                                     beside nine without the slow one
#     tools/bench/governance.sh failover [SECONDS]    three instances under 20,000 requests a second, one is killed
#
# BIN is the directory of the programs; RATE the requests a second (balance: 4000, failover: 20000); DELAY_MS the time
# that an instance takes (2; failover: 0).
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=${BIN:-target/release}
work=$(mktemp -d)
pids=()
stop() {
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
    pids=()
}
trap 'stop; rm -rf "$work"' EXIT
cp tools/bench/{access,link}.secret "$work"

# Starts an instance; its address is appended to `endpoints`.
instance() { # delay in ms
    local log="$work/instance.${#pids[@]}"
    rm -f "$log"
    "$bin/moorgate-bench" echo-service --listen 127.0.0.1:0 --delay "$1ms" --key-file tools/bench/link.secret >"$log" &
    pids+=($!)
    until grep -qs listens "$log"; do
        kill -0 "${pids[-1]}" 2>/dev/null || { echo "an instance does not start" >&2 && exit 1; }
        read -rt 0.02 <> <(:) || true
    done
    endpoints+=("\"$(sed 's/.* on //' "$log")\"")
}

# Starts a gateway before `endpoints`; waits until it has links to all of them.
gateway() { # rule of balance
    local list
    list=$(IFS=,; echo "${endpoints[*]}")
    sed "s/^endpoints = .*/endpoints = [$list]/; s/^balance = .*/balance = \"$1\"/" tools/bench/governance.toml \
        >"$work/gateway.toml"
    "$bin/moorgate" serve -c "$work/gateway.toml" >"$work/gateway.log" 2>&1 &
    pids+=($!)
    until curl -sf 127.0.0.1:7001/metrics 2>/dev/null |
        awk -v all="${#endpoints[@]}" '/^moorgate_service_links\{/ {links += $2} END {exit links < all}'; do
        kill -0 "${pids[-1]}" 2>/dev/null || { cat "$work/gateway.log" >&2 && exit 1; }
        read -rt 0.05 <> <(:) || true
    done
}

load() { # arguments
    "$bin/moorgate-bench" requests --target 127.0.0.1:7000 --token-secret-file "$work/access.secret" --json "$@"
}

balance() {
    local seconds=${1:-10} rate=${RATE:-4000} delay=${DELAY_MS:-2} base=0
    measure() { # label, rule, instances that are fast, slow ones
        endpoints=()
        local at figures
        for at in $(seq "$3"); do instance "$delay"; done
        for at in $(seq "$4"); do instance "$((delay * 10))"; done
        gateway "$2"
        figures=$(load --connections 200 --rate "$rate" --warmup 3s --duration "${seconds}s")
        stop
        jq -r '[.rate_per_s, .latency_us.p50, .latency_us.p90, .latency_us.p99, .latency_us.p999,
            .errors + .wrong + .missing] | @tsv' <<<"$figures" >"$work/figures"
        [ "$base" != 0 ] || base=$(cut -f4 "$work/figures")
        awk -F'\t' -v label="$1" -v base="$base" \
            '{printf "%-40s %8.0f %8d %8d %8d %8d %7.2f %6d\n", label, $1, $2, $3, $4, $5, $4 / base, $6}' "$work/figures"
    }
    printf '%-40s %8s %8s %8s %8s %8s %7s %6s\n' balance rate p50_us p90_us p99_us p999_us 'p99 x' bad
    measure "nine alike, peak_ewma" peak_ewma 9 0
    local rule
    for rule in peak_ewma least_outstanding round_robin weighted_round_robin random consistent_hash; do
        measure "one of ten slow, $rule" "$rule" 9 1
    done
}

failover() {
    local seconds=${1:-10} rate=${RATE:-20000} delay=${DELAY_MS:-0} bad=0
    measure() { # label, command
        endpoints=()
        local killed figures failed lost wrong
        for _ in 1 2 3; do instance "$delay"; done
        killed=${pids[0]}
        gateway peak_ewma
        load --connections 1000 --rate "$rate" --command "$2" --duration "${seconds}s" >"$work/figures.json" &
        local loader=$!
        # In the middle of the window.
        read -rt "$((seconds / 2 + 2))" <> <(:) || true
        disown "$killed" && kill -9 "$killed"
        wait "$loader" || true
        lost=$(curl -sf 127.0.0.1:7001/metrics | awk '/^moorgate_calls_lost_total/ {sum += $2} END {print sum + 0}')
        stop
        figures=$(cat "$work/figures.json")
        failed=$(jq .errors <<<"$figures")
        wrong=$(jq '.wrong + .missing' <<<"$figures")
        jq -r '[.completed, .rate_per_s, .latency_us.p50, .latency_us.p99, .latency_us.max] | @tsv' <<<"$figures" |
            awk -F'\t' -v label="$1" -v failed="$failed" -v lost="$lost" -v wrong="$wrong" \
                '{printf "%-22s %9d %8.0f %8d %8d %8d %7d %7d %6d\n", label, $1, $2, $3, $4, $5, failed, lost, wrong}'
        jq -r '.error_texts | to_entries[] | "    \(.value) x \(.key)"' <<<"$figures"
        [ "$wrong" = 0 ] && case $2 in
        0x0001) [ "$failed" = 0 ] ;;
        *) [ "$failed" = "$lost" ] && jq -e '.error_texts | keys | all(test("ABORTED"))' <<<"$figures" >/dev/null ;;
        esac || bad=1
    }
    printf '%-22s %9s %8s %8s %8s %8s %7s %7s %6s\n' 'one of three killed' completed rate p50_us p99_us max_us failed lost wrong
    measure "idempotent" 0x0001
    measure "not idempotent" 0x0002
    return "$bad"
}

case ${1:-} in
balance | failover) "$@" ;;
*) sed -n '/^#     tools/s/^#     //p' "$0" >&2 && exit 2 ;;
esac
