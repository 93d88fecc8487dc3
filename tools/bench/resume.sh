#!/usr/bin/env bash
# Starts a gateway with resume.toml and cuts the connections of its clients: does everything come, once and in order? The
# service behind the gateway is the tester itself. Prints the figures as JSON; fails as the tester fails.
#
#     cargo build --release --workspace
#     tools/bench/resume.sh                       500 connections for 10 s, then a storm of them
#     tools/bench/resume.sh 9000 10 120s          9,000 connections, each cut ten times in two minutes
#     tools/bench/resume.sh storm 12000 [--fresh] 12,000 connections cut at once, and back: at a bare echo server, then
#                                                 at the gateway
#
# BIN is the directory of the programs; SHARDS says how many threads of the gateway serve clients (1); PORT, ADMIN_PORT,
# SERVICE_PORT and BARE_PORT are the ports to use.
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=${BIN:-target/release}
port=${PORT:-7000}
admin=127.0.0.1:${ADMIN_PORT:-7001}
service=127.0.0.1:${SERVICE_PORT:-7103}
bare=127.0.0.1:${BARE_PORT:-7200}
targets=127.0.0.1:$port,127.0.0.2:$port,127.0.0.3:$port,127.0.0.4:$port
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null && wait "${pids[@]}" || true; rm -rf "$work"' EXIT

sed "s/^shards = 1/shards = ${SHARDS:-1}/; s/:7000\"/:$port\"/; s/127\.0\.0\.1:7001/$admin/; s/127\.0\.0\.1:7103/$service/" \
    tools/bench/resume.toml >"$work/resume.toml"
cp tools/bench/{access,link}.secret "$work"
"$bin/moorgate" serve -c "$work/resume.toml" >"$work/log" 2>&1 &
gateway=$!
pids+=("$gateway")
for _ in $(seq 100); do
    kill -0 "$gateway" 2>/dev/null && ! curl -s -o /dev/null "$admin/livez" || break
    read -rt 0.1 <> <(:) || true
done
# Another process may hold a port.
kill -0 "$gateway" 2>/dev/null || { cat "$work/log" >&2 && exit 1; }

bench() { # mode, arguments
    "$bin/moorgate-bench" "$@" --target "$targets" --service-listen "$service" --watch-pid "$gateway" --json \
        --key-file tools/bench/link.secret --token-secret-file tools/bench/access.secret
}

if [ "${1:-}" = storm ]; then
    connections=${2:-12000}
    shift $(($# < 2 ? $# : 2))
    "$bin/moorgate-bench" bare-echo --listen "$bare" >"$work/bare" &
    pids+=($!)
    until grep -qs listens "$work/bare"; do
        kill -0 "${pids[-1]}" 2>/dev/null || exit 1
        read -rt 0.1 <> <(:) || true
    done
    # Both have one address, and so one queue of those who wait to be accepted.
    targets=127.0.0.1:$port
    "$bin/moorgate-bench" storm --raw --json --connections "$connections" --target "$bare" --watch-pid "${pids[-1]}"
    bench storm --connections "$connections" "$@"
elif [ $# -gt 0 ]; then
    connections=$1 cuts=${2:-10} duration=${3:-120s}
    shift $(($# < 3 ? $# : 3))
    bench resume --connections "$connections" --cuts "$cuts" --duration "$duration" "$@"
else
    bench resume --connections 500 --cuts 10 --duration 10s
    bench storm --connections 500 --duration 2s
fi
