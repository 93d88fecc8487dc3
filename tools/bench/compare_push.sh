#!/usr/bin/env bash
# Compares pushes through the gateway with a bare server that writes each push in a plain loop of write(2) calls: each in
# a process of its own, the same load, rounds interleaved. Prints the CPU time of the process in the middle per delivery,
# and what its memory has grown by, a quiet moment after the last push.
#
#     cargo build --release --workspace && tools/bench/compare_push.sh [ROUNDS] [SECONDS]
#
# LISTEN and ADMIN are the gateway's addresses, LOADS the lines of connections and options.
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=${1:-3}
seconds=${2:-5}
listen=${LISTEN:-127.0.0.1:7000}
admin=${ADMIN:-127.0.0.1:7001}
bench=target/release/moorgate-bench
keys=(--key-file tools/bench/link.secret --token-secret-file tools/bench/access.secret)
pids=()
work=$(mktemp -d)
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

start() {
    "$@" >"$work/log.${#pids[@]}" 2>&1 &
    pids+=($!)
}

start "$bench" bare-push
bare=${pids[-1]}
start target/release/moorgate serve -c tools/bench/push.toml --listen "$listen" --admin-listen "$admin"
gateway=${pids[-1]}

for _ in $(seq 100); do
    curl -s -o /dev/null "$admin/livez" && break
    read -rt 0.1 <> <(:) || true
done
# Another process may hold a port.
{ kill -0 "$bare" && kill -0 "$gateway"; } || { cat "$work"/log.* >&2 && exit 1; }

figure() { # label, watched pid, arguments
    local label=$1 pid=$2
    shift 2
    "$bench" push --watch-pid "$pid" --duration "${seconds}s" --json "$@" |
        jq -r '[.cpu_us_per_delivery, .deliveries_per_s, .latency_us.p50, .latency_us.p99,
            (.rss_bytes.after - .rss_bytes.before) / 1024, .gaps,
            .errors + .wrong + .missing + .lost + .duplicated + .reordered] | @tsv' |
        awk -v load="$load" -v label="$label" -F'\t' \
            '{printf "%-72s %-9s %8.2f %9.0f %8d %8d %8d %6d %6d\n", load, label, $1, $2, $3, $4, $5, $6, $7}'
}

printf '%-72s %-9s %8s %9s %8s %8s %8s %6s %6s\n' load middle cpu_us rate p50_us p99_us grown_k gaps bad
for _ in $(seq "$rounds"); do
    while read -r connections audience; do
        load="c=$connections $audience"
        # shellcheck disable=SC2206 # options
        common=(--connections "$connections" $audience)
        figure bare-push "$bare" --target 127.0.0.1:7201 --raw "${common[@]}"
        figure moorgate "$gateway" --target "$listen" "${keys[@]}" "${common[@]}"
    done <<<"${LOADS:-15000 --to everyone
15000 --to everyone --pushes-in-flight 4
15000 --to group --group-size 10000
15000 --to group --groups 1000 --group-size 10
15000 --to group --groups 1000 --group-size 10 --pushes-in-flight 100
15000 --to users
15000 --to users --pushes-in-flight 100}"
done
