#!/bin/sh
# The latency of small requests beside large ones that share their service and worker: 10,000 small requests a second alone,
# then next to 1 MiB requests and Replies at 50/s, rounds interleaved. Prints each round and the medians; fails when
# something is lost, or when the small ones' p99 beside large ones is more than twice that without.
#
#     cargo build --release --workspace && tools/bench/bulk.sh [ROUNDS] [SECONDS]
#
# SMALL and LARGE are the rates, BYTES is the payload of a large one, FACTOR the bound of the two p99.
set -eu
cd "$(dirname "$0")/../.."
. tools/bench/lib.sh

rounds=${1:-3}
seconds=${2:-5}
small=${SMALL:-10000}
large=${LARGE:-50}
bytes=${BYTES:-1048576}
factor=${FACTOR:-2}
cp tools/bench/access.secret tools/bench/link.secret "$work"

start service "$bench" echo-service --listen 127.0.0.1:0 --key-file tools/bench/link.secret
address 'service echo listens'
service=$address
{
    sed "s/127\.0\.0\.1:7100/$service/" tools/bench/bench.toml
    printf '[session]\nframe = "4 MiB"\n[links]\nframe = "4 MiB"\n'
} >"$work/gateway.toml"
start gateway "$bin/moorgate" serve -c "$work/gateway.toml" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
address 'clients connect to'
target=$address

# Sets `p99`; adds what is wrong to the file of failures.
figures() { # file
    p99=$(jq -r '.latency_us.p99' "$1")
    jq -r '.errors + .wrong + .missing + .not_sent' "$1" >>"$work/bad"
}

load() { # file, arguments
    file=$1
    shift
    "$bench" requests --target "$target" --token-secret-file tools/bench/access.secret --json "$@" >"$file"
}

median() { # file
    sort -n "$1" | $awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'
}

: >"$work/bad"
: >"$work/alone"
: >"$work/beside"
round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    load "$work/small.json" --connections 64 --rate "$small" --duration "${seconds}s"
    figures "$work/small.json"
    alone=$p99
    load "$work/large.json" --connections 4 --rate "$large" --payload "$bytes" --duration "$((seconds + 1))s" &
    beside=$!
    load "$work/small.json" --connections 64 --rate "$small" --duration "${seconds}s"
    wait "$beside"
    figures "$work/large.json"
    figures "$work/small.json"
    printf 'round %d: small p99 %s us alone, %s us beside large ones\n' "$round" "$alone" "$p99"
    echo "$alone" >>"$work/alone"
    echo "$p99" >>"$work/beside"
done
alone=$(median "$work/alone")
beside=$(median "$work/beside")
bad=$($awk '{ sum += $1 } END { print sum + 0 }' "$work/bad")
printf 'median: small p99 %s us alone, %s us beside large ones; %s lost or wrong\n' "$alone" "$beside" "$bad"
[ "$bad" -eq 0 ] && [ "$beside" -le $((factor * alone)) ]
