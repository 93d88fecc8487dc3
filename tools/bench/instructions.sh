#!/bin/sh
# User-space instructions per request of the gateway, by callgrind: in all, by module, and by source file. The load is
# 64 connections with 16 requests in flight each and payloads of 128 bytes; one shard, one worker (bench.toml). Echo
# service and load tester are processes of their own, outside callgrind.
#
#     cargo build --release --workspace && tools/bench/instructions.sh [ROUNDS]
#
# Each round runs the load twice, for SHORT (1) and LONG (5) seconds: the figure is the difference of their instructions
# by the difference of their requests, so that start, handshakes and end do not count. Of ROUNDS (3) the median is
# printed. CONNECTIONS, IN_FLIGHT and PAYLOAD are another load; with MAX set it fails when the median is above it.
set -eu
cd "$(dirname "$0")/../.."
. tools/bench/lib.sh

rounds=${1:-3}
connections=${CONNECTIONS:-64}
in_flight=${IN_FLIGHT:-16}
payload=${PAYLOAD:-128}
top=$(pwd -P)
cp tools/bench/access.secret tools/bench/link.secret "$work"

# Loads a gateway under callgrind for a time; its profile becomes $work/NAME.profile, its requests $work/NAME.requests.
profile() { # name, seconds
    start service "$bench" echo-service --listen 127.0.0.1:0 --key-file tools/bench/link.secret
    address 'listens on'
    service=$address
    sed "s/127\.0\.0\.1:7100/$service/" tools/bench/bench.toml >"$work/gateway.toml"
    start gateway valgrind --tool=callgrind --callgrind-out-file="$work/$1.profile" \
        "$bin/moorgate" serve -c "$work/gateway.toml" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
    gateway=$pid
    address 'clients connect to'
    target=$address
    address 'http://'
    admin=$address
    ready "$admin"
    "$bench" requests --target "$target" --token-secret-file tools/bench/access.secret --connections "$connections" \
        --in-flight "$in_flight" --payload "$payload" --duration "$2s" --json >"$work/figures.json" || {
        cat "$work/figures.json" >&2
        return 1
    }
    curl -sf "$admin/metrics" | $awk '/^moorgate_requests_total[{ ]/ {sum += $2} END {printf "%d\n", sum}' >"$work/$1.requests"
    kill "$gateway"
    wait "$gateway" || true
    stop
}

round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    profile short "${SHORT:-1}"
    profile long "${LONG:-5}"
    requests=$(($(cat "$work/long.requests") - $(cat "$work/short.requests")))
    $awk -v requests="$requests" -v top="$top" -f tools/bench/modules.awk "$work/short.profile" "$work/long.profile" \
        >"$work/round.$round"
    $awk -v round="$round" -v requests="$requests" \
        '/^instructions / {printf "round %d: %d instructions per request, of %d requests\n", round, $2, requests}' \
        "$work/round.$round"
done

# The round with the median.
median=$(for one in "$work"/round.*; do
    echo "$($awk '/^instructions / {print $2}' "$one") $one"
done | sort -n | $awk '{files[NR] = $2} END {print files[int((NR + 1) / 2)]}')
figure=$($awk '/^instructions / {print $2}' "$median")
echo
echo "by module:"
$awk '/^module / {printf "%8d  %s\n", $2, $3}' "$median" | sort -rn
echo
echo "by source file of the repository ($(grep -c '^file ' "$median") files):"
$awk '/^file / {printf "%8d  %s\n", $2, $3}' "$median" | sort -rn
echo
echo "instructions per request: $figure"
[ -z "${MAX:-}" ] || [ "$figure" -le "$MAX" ] || {
    echo "above the bound of $MAX" >&2
    exit 1
}
