#!/bin/sh
# Starts a gateway with resume.toml and cuts the connections of its clients: does everything arrive, once and in order?
# The service behind the gateway is the tester itself. Prints the figures as JSON; fails as the tester fails.
#
#     cargo build --release --workspace
#     tools/bench/resume.sh                       500 connections for 10 s, then a storm of them
#     tools/bench/resume.sh 9000 10 120s          9,000 connections, each cut ten times in two minutes
#     tools/bench/resume.sh storm 12000 [--fresh] 12,000 connections cut at once, and resumed: at a bare echo server,
#                                                 then at the gateway
#
# BIN is the directory of the programs, SHARDS the number of threads that serve clients (1), SERVICE the address on which
# the tester is the service.
set -eu
cd "$(dirname "$0")/../.."
. tools/bench/lib.sh

service=${SERVICE:-127.0.0.1:7003}
cp tools/bench/access.secret tools/bench/link.secret "$work"

sed "s/^shards = 1/shards = ${SHARDS:-1}/; s/:700[01]\"/:0\"/; s/127\.0\.0\.1:7003/$service/" tools/bench/resume.toml \
    >"$work/gateway.toml"
start gateway "$bin/moorgate" serve -c "$work/gateway.toml"
gateway=$pid
await grep -q 'http://' "$log"
targets=$(sed -n 's/.*clients connect to //p' "$log" | tr '\n' ',')
targets=${targets%,}

tester() { # mode, arguments
    "$bench" "$@" --target "$targets" --service-listen "$service" --watch-pid "$gateway" --json \
        --key-file tools/bench/link.secret --token-secret-file tools/bench/access.secret
}

if [ "${1:-}" = storm ]; then
    connections=${2:-12000}
    shift $(($# < 2 ? $# : 2))
    start bare "$bench" bare-echo --listen 127.0.0.1:0
    address 'listens on'
    bare_target=$address
    # Both have one address, and so one accept queue.
    targets=${targets%%,*}
    "$bench" storm --raw --json --connections "$connections" --target "$bare_target" --watch-pid "$pid"
    tester storm --connections "$connections" "$@"
elif [ $# -gt 0 ]; then
    connections=$1 cuts=${2:-10} duration=${3:-120s}
    shift $(($# < 3 ? $# : 3))
    tester resume --connections "$connections" --cuts "$cuts" --duration "$duration" "$@"
else
    tester resume --connections 500 --cuts 10 --duration 10s
    tester storm --connections 500 --duration 2s
fi
