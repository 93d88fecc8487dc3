#!/bin/sh
# Compares pushes through the gateway with a bare server that writes each push in a plain loop of write(2) calls: each in
# a process of its own, the same load, rounds interleaved. Prints the CPU time of the process in the middle per delivery,
# and the growth of its memory, a quiet moment after the last push.
#
#     cargo build --release --workspace && tools/bench/compare_push.sh [ROUNDS] [SECONDS]
#
# SERVICE is the address on which the tester is the service that pushes, LOADS are the lines of connections and options.
set -eu
cd "$(dirname "$0")/../.."
. tools/bench/lib.sh

rounds=${1:-3}
seconds=${2:-5}
service=${SERVICE:-127.0.0.1:7003}
cp tools/bench/access.secret tools/bench/link.secret "$work"

start bare "$bench" bare-push --listen 127.0.0.1:0 --control 127.0.0.1:0
bare=$pid
address 'control on'
control=$address
bare_target=$(sed -n 's/^bare push listens on \([^,]*\),.*/\1/p' "$log")
sed "s/127\.0\.0\.1:7003/$service/" tools/bench/push.toml >"$work/gateway.toml"
start gateway "$bin/moorgate" serve -c "$work/gateway.toml" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
gateway=$pid
address 'clients connect to'
gateway_target=$address

figure() { # label, watched pid, arguments
    label=$1 watched=$2
    shift 2
    "$bench" push --watch-pid "$watched" --duration "${seconds}s" --json "$@" >"$work/figures.json" || true
    jq -r '[.cpu_us_per_delivery, .deliveries_per_s, .latency_us.p50, .latency_us.p99,
        (.rss_bytes.after - .rss_bytes.before) / 1024, .gaps,
        .errors + .wrong + .missing + .lost + .duplicated + .reordered + .not_sent] | @tsv' "$work/figures.json" |
        $awk -v row="$row" -v label="$label" -F'\t' \
            '{printf "%-72s %-9s %8.2f %9.0f %8d %8d %8d %6d %6d\n", row, label, $1, $2, $3, $4, $5, $6, $7}'
}

printf '%-72s %-9s %8s %9s %8s %8s %8s %6s %6s\n' load middle cpu_us rate p50_us p99_us grown_k gaps bad
round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    while read -r connections audience; do
        row="c=$connections $audience"
        # shellcheck disable=SC2086 # options
        set -- --connections "$connections" $audience
        figure bare-push "$bare" --target "$bare_target" --raw --control "$control" "$@"
        figure moorgate "$gateway" --target "$gateway_target" --service-listen "$service" \
            --key-file tools/bench/link.secret --token-secret-file tools/bench/access.secret "$@"
    done <<END
${LOADS:-15000 --to everyone
15000 --to everyone --pushes-in-flight 4
15000 --to group --group-size 10000
15000 --to group --groups 1000 --group-size 10
15000 --to group --groups 1000 --group-size 10 --pushes-in-flight 100
15000 --to users
15000 --to users --pushes-in-flight 100}
END
done
