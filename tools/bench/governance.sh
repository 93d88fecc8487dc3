#!/bin/sh
# What balancing and failover are worth: a gateway before several instances of the echo service, each a process of its
# own that answers after a time. Prints a table; fails when a request fails that must not.
#
#     cargo build --release --workspace
#     tools/bench/governance.sh balance [SECONDS]     ten instances, one of them ten times slower: every rule of balance,
#                                                     beside nine without the slow one
#     tools/bench/governance.sh light [SECONDS]       equal instances under little load: how the calls are shared
#     tools/bench/governance.sh failover [SECONDS]    three instances under 20,000 requests a second, one is killed
#
# BIN is the directory of the programs; RATE the requests a second (balance: 4000, failover: 20000); DELAY_MS the time
# that an instance takes (2; failover: 0); RULES the rules of balance.
set -eu
cd "$(dirname "$0")/../.."
. tools/bench/lib.sh

cp tools/bench/access.secret tools/bench/link.secret "$work"

# Starts an instance; its address is appended to `endpoints`.
instance() { # delay in ms
    start "instance.$instances" "$bench" echo-service --listen 127.0.0.1:0 --delay "$1ms" --key-file tools/bench/link.secret
    address 'listens on'
    endpoints="$endpoints${endpoints:+,}\"$address\""
    instances=$((instances + 1))
}

linked() { # links
    curl -sf "$admin/metrics" | $awk -v all="$1" '/^moorgate_service_links\{/ {links += $2} END {exit links < all}'
}

# Starts a gateway before `endpoints`; waits until it has links to all of them.
gateway() { # rule of balance
    sed "s/^endpoints = .*/endpoints = [$endpoints]/; s/^balance = .*/balance = \"$1\"/" tools/bench/governance.toml \
        >"$work/gateway.toml"
    start gateway "$bin/moorgate" serve -c "$work/gateway.toml" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
    address 'clients connect to'
    target=$address
    address 'http://'
    admin=$address
    await linked "$instances"
}

load() { # arguments
    "$bench" requests --target "$target" --token-secret-file "$work/access.secret" --json "$@"
}

# Starts instances that answer after a time, and others ten times slower.
instances() { # delay in ms, number, number of slow ones
    endpoints='' instances=0 count=0
    while [ "$count" -lt "$2" ]; do
        instance "$1"
        count=$((count + 1))
    done
    while [ "$count" -lt "$(($2 + $3))" ]; do
        instance "$(($1 * 10))"
        count=$((count + 1))
    done
}

measure_balance() { # label, rule, instances that are fast, slow ones
    instances "$delay" "$3" "$4"
    gateway "$2"
    load --connections 200 --rate "$rate" --warmup 3s --duration "${seconds}s" >"$work/figures.json" || bad=1
    stop
    jq -r '[.rate_per_s, .latency_us.p50, .latency_us.p90, .latency_us.p99, .latency_us.p999,
        .errors + .wrong + .missing + .not_sent] | @tsv' "$work/figures.json" >"$work/figures"
    [ "$base" != 0 ] || base=$(cut -f4 "$work/figures")
    $awk -F'\t' -v label="$1" -v base="$base" \
        '{printf "%-40s %8.0f %8d %8d %8d %8d %7.2f %6d\n", label, $1, $2, $3, $4, $5, $4 / base, $6}' "$work/figures"
}

balance() {
    seconds=${1:-10} rate=${RATE:-4000} delay=${DELAY_MS:-2} base=0 bad=0
    printf '%-40s %8s %8s %8s %8s %8s %7s %6s\n' balance rate p50_us p90_us p99_us p999_us 'p99 x' bad
    measure_balance "nine alike, peak_ewma" peak_ewma 9 0
    for rule in ${RULES:-peak_ewma least_outstanding round_robin weighted_round_robin random consistent_hash}; do
        measure_balance "one of ten slow, $rule" "$rule" 9 1
    done
    return "$bad"
}

measure_light() { # instances, requests a second
    instances "$delay" "$1" 0
    gateway peak_ewma
    load --connections 16 --rate "$2" --warmup 1s --duration "${seconds}s" >"$work/figures.json" || bad=1
    curl -sf "$admin/metrics" | $awk -v all="$1" -v rate="$2" '
        /^moorgate_endpoint_calls_total\{/ {sum += $2; if ($2 > most) most = $2; if (least == "" || $2 < least) least = $2}
        END {printf "%9d %8d %9d %9d %9.2f\n", all, rate, least, most, most * all / sum}'
    stop
}

light() {
    seconds=${1:-10} delay=${DELAY_MS:-2} bad=0
    printf '%9s %8s %9s %9s %9s\n' instances rate least most 'most x'
    for rate in 100 1000; do
        for count in 2 3 10; do
            measure_light "$count" "$rate"
        done
    done
    return "$bad"
}

measure_failover() { # label, command
    instances "$delay" 1 0
    killed=$pid
    instance "$delay"
    instance "$delay"
    gateway peak_ewma
    load --connections 1000 --rate "$rate" --command "$2" --duration "${seconds}s" >"$work/figures.json" &
    loader=$!
    # In the middle of the window.
    sleep "$((seconds / 2 + 2))"
    kill -9 "$killed"
    wait "$loader" || true
    lost=$(curl -sf "$admin/metrics" | $awk '/^moorgate_calls_lost_total/ {sum += $2} END {printf "%d\n", sum}')
    stop
    failed=$(jq .errors "$work/figures.json")
    wrong=$(jq '.wrong + .missing + .not_sent' "$work/figures.json")
    jq -r '[.completed, .rate_per_s, .latency_us.p50, .latency_us.p99, .latency_us.max] | @tsv' "$work/figures.json" |
        $awk -F'\t' -v label="$1" -v failed="$failed" -v lost="$lost" -v wrong="$wrong" \
            '{printf "%-22s %9d %8.0f %8d %8d %8d %7d %7d %6d\n", label, $1, $2, $3, $4, $5, failed, lost, wrong}'
    jq -r '.error_texts | to_entries[] | "    \(.value) x \(.key)"' "$work/figures.json"
    [ "$wrong" = 0 ] || bad=1
    case $2 in
    0x0001) [ "$failed" = 0 ] || bad=1 ;;
    *)
        [ "$failed" = "$lost" ] || bad=1
        jq -e '.error_texts | keys | all(test("ABORTED"))' "$work/figures.json" >/dev/null || bad=1
        ;;
    esac
}

failover() {
    seconds=${1:-10} rate=${RATE:-20000} delay=${DELAY_MS:-0} bad=0
    printf '%-22s %9s %8s %8s %8s %8s %7s %7s %6s\n' 'one of three killed' completed rate p50_us p99_us max_us failed lost wrong
    measure_failover "idempotent" 0x0001
    measure_failover "not idempotent" 0x0002
    return "$bad"
}

case ${1:-} in
balance | light | failover) "$@" ;;
*)
    sed -n '/^#     tools/s/^#     //p' "$0" >&2
    exit 2
    ;;
esac
