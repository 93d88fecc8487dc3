#!/bin/sh
# Compares the gateway with a bare echo server and, where it is installed, HAProxy in TCP mode: each in a process of its
# own, the same load, rounds interleaved. Prints the CPU time of the process in the middle per request.
#
#     cargo build --release --workspace && tools/bench/compare.sh [ROUNDS] [SECONDS]
#
# LOADS are the lines of connections, requests in flight, bytes of payload and, for an open loop, requests a second.
set -eu
cd "$(dirname "$0")/../.."
. tools/bench/lib.sh

rounds=${1:-3}
seconds=${2:-4}
cp tools/bench/access.secret tools/bench/link.secret "$work"

start bare "$bench" bare-echo --listen 127.0.0.1:0
bare=$pid
address 'listens on'
bare_target=$address
start service "$bench" echo-service --listen 127.0.0.1:0 --key-file tools/bench/link.secret
service=$pid
address 'listens on'
service_target=$address
haproxy=
if command -v haproxy >/dev/null; then
    haproxy_target=${HAPROXY_LISTEN:-127.0.0.1:7300}
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
    bind $haproxy_target
    server bare $bare_target
END
    start haproxy haproxy -db -f "$work/haproxy.cfg"
    haproxy=$pid
else
    echo "haproxy is not installed: compared with the bare echo server alone" >&2
fi
sed "s/127\.0\.0\.1:7100/$service_target/" tools/bench/bench.toml >"$work/gateway.toml"
start gateway "$bin/moorgate" serve -c "$work/gateway.toml" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
gateway=$pid
address 'clients connect to'
gateway_target=$address
address 'http://'
ready "$address"

figure() { # label, watched pid, arguments
    label=$1 watched=$2
    shift 2
    "$bench" requests --watch-pid "$watched" --watch-pid "service=$service" --duration "${seconds}s" --json "$@" \
        >"$work/figures.json" || true
    jq -r '[.cpu_us_per_request, .processes.service.cpu_us_per_request, .rate_per_s, .latency_us.p50,
        .latency_us.p99, .errors + .wrong + .missing + .not_sent] | @tsv' "$work/figures.json" |
        $awk -v row="$row" -v label="$label" -F'\t' \
            '{printf "%-40s %-9s %8.2f %8.2f %9.0f %8d %8d %6d\n", row, label, $1, $2, $3, $4, $5, $6}'
}

printf '%-40s %-9s %8s %8s %9s %8s %8s %6s\n' load middle cpu_us svc_us rate p50_us p99_us bad
round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    while read -r connections in_flight payload rate; do
        row="c=$connections in-flight=$in_flight payload=$payload${rate:+ rate=$rate}"
        set -- --connections "$connections" --in-flight "$in_flight" --payload "$payload" ${rate:+--rate "$rate"}
        figure bare-echo "$bare" --target "$bare_target" --raw "$@"
        [ -z "$haproxy" ] || figure haproxy "$haproxy" --target "$haproxy_target" --raw "$@"
        figure moorgate "$gateway" --target "$gateway_target" --token-secret-file tools/bench/access.secret "$@"
    done <<END
${LOADS:-1 1 128
64 1 128
1000 1 128
8000 1 128
64 16 128
1000 16 128
1000 16 1024
1000 1 128 20000}
END
done
