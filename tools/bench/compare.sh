#!/usr/bin/env bash
# Compares the gateway with a bare echo server and, where it is installed, HAProxy in TCP mode: each in a process of its
# own, the same load, rounds interleaved. Prints the CPU time of the process in the middle per request.
#
#     cargo build --release --workspace && tools/bench/compare.sh [ROUNDS] [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=${1:-3}
seconds=${2:-4}
bench=target/release/moorgate-bench
pids=()
work=$(mktemp -d)
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

start() {
    "$@" >"$work/log.${#pids[@]}" 2>&1 &
    pids+=($!)
}

start "$bench" bare-echo --listen 127.0.0.1:7200
bare=${pids[-1]}
start "$bench" echo-service --listen 127.0.0.1:7100 --key-file tools/bench/link.secret
service=${pids[-1]}
start target/release/moorgate serve -c tools/bench/bench.toml
gateway=${pids[-1]}
haproxy=
if command -v haproxy >/dev/null; then
    cat >"$work/haproxy.cfg" <<END
global
    maxconn 9000
    nbthread 1
    stats socket $work/haproxy.sock level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen echo
    bind 127.0.0.1:7300
    server bare 127.0.0.1:7200
END
    start haproxy -db -f "$work/haproxy.cfg"
    haproxy=${pids[-1]}
else
    echo "haproxy is not installed: compared with the bare echo server alone" >&2
fi

for _ in $(seq 100); do
    grep -q '"ready"' <(curl -s 127.0.0.1:7001/readyz || true) && break
    curl -sf -o /dev/null 127.0.0.1:7001/readyz && break
    read -rt 0.1 <> <(:) || true
done

figure() { # label, watched pid, arguments
    local label=$1 pid=$2
    shift 2
    "$bench" requests --watch-pid "$pid" --watch-pid "service=$service" --duration "${seconds}s" --json "$@" |
        jq -r '[.cpu_us_per_request, .processes.service.cpu_us_per_request, .rate_per_s, .latency_us.p50,
            .latency_us.p99, .errors + .wrong + .missing] | @tsv' |
        awk -v load="$load" -v label="$label" -F'\t' \
            '{printf "%-40s %-9s %8.2f %8.2f %9.0f %8d %8d %6d\n", load, label, $1, $2, $3, $4, $5, $6}'
}

printf '%-40s %-9s %8s %8s %9s %8s %8s %6s\n' load middle cpu_us svc_us rate p50_us p99_us bad
for _ in $(seq "$rounds"); do
    while read -r connections in_flight payload rate; do
        load="c=$connections in-flight=$in_flight payload=$payload${rate:+ rate=$rate}"
        common=(--connections "$connections" --in-flight "$in_flight" --payload "$payload" ${rate:+--rate "$rate"})
        figure bare-echo "$bare" --target 127.0.0.1:7200 --raw "${common[@]}"
        [ -z "$haproxy" ] || figure haproxy "$haproxy" --target 127.0.0.1:7300 --raw "${common[@]}"
        figure moorgate "$gateway" --target 127.0.0.1:7000 --token-secret-file tools/bench/access.secret "${common[@]}"
    done <<<"${LOADS:-1 1 128
64 1 128
1000 1 128
8000 1 128
64 16 128
1000 16 128
1000 16 1024
1000 1 128 20000}"
done
