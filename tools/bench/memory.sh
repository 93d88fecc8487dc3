#!/bin/sh
# Memory of the gateway (RSS in kB) before a load, at its peak, and a minute after its end, for each allocator: with a
# storm, a broadcast, unread Responses, and password logins, each with a gateway of its own. Before the load as
# many connections are opened, or requests made, and closed, so that the tables have their size. Sessions without a
# connection end after 2 seconds, so that none is left.
#
#     cargo build --release --workspace && tools/bench/memory.sh [ALLOCATOR...]
#
# An ALLOCATOR is `built-in` (the default), or a library for LD_PRELOAD, which needs a build without one of its own:
# `cargo build --release --workspace --no-default-features --features moorgate/dev`.
# SECONDS_AFTER (60) is when memory is read again, CASES (storm broadcast unread login) what is loaded. With MAX set it
# fails when memory afterwards is more than MAX times that before.
set -eu
cd "$(dirname "$0")/../.."
. tools/bench/lib.sh

after=${SECONDS_AFTER:-60}
failed=0
cp tools/bench/access.secret tools/bench/link.secret "$work"
for one in push bench; do
    cp "tools/bench/$one.toml" "$work"
    printf '\n[session]\ndetached_ttl = "2s"\n' >>"$work/$one.toml"
done

rss() { $awk '/^VmRSS/ {print $2}' "/proc/$gateway/status"; }
peak() { $awk '/^VmHWM/ {print $2}' "/proc/$gateway/status"; }

# Starts a gateway with this allocator: $target, $admin, $gateway.
gateway() { # allocator, arguments
    preload=
    [ "$1" = built-in ] || preload=$1
    shift
    start gateway env ${preload:+LD_PRELOAD="$preload"} "$bin/moorgate" serve "$@"
    gateway=$pid
    address 'clients connect to'
    target=$address
}

configured() { # allocator, configuration, the address of the service there, its address now, a mode for the start
    sed "s/$3/$4/" "$work/$2.toml" >"$work/gateway.toml"
    gateway "$1" -c "$work/gateway.toml" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
    shift 4
    warm_up "$@" --token-secret-file tools/bench/access.secret
}

with_service() { # allocator, then a mode of the load tester and its arguments
    # A free port for the service, which is the load tester itself.
    start probe "$bench" bare-echo --listen 127.0.0.1:0
    address 'listens on'
    service=$address
    stop
    configured "$1" push '127\.0\.0\.1:7003' "$service" idle
    shift
    "$bench" "$@" --connections "$connections" --target "$target" --token-secret-file tools/bench/access.secret \
        --key-file tools/bench/link.secret --service-listen "$service" >"$work/load.log" 2>&1 || true
}

unread() { # allocator
    start service "$bench" echo-service --listen 127.0.0.1:0 --key-file tools/bench/link.secret
    address 'listens on'
    configured "$1" bench '127\.0\.0\.1:7100' "$address" requests --in-flight 16 --payload 16
    python3 tools/bench/unread.py "$target" "$connections" 16 60000 10 >"$work/load.log"
}

login() { # allocator
    gateway "$1" --dev --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
    warm_up idle --anonymous
    "$bench" login --target "$target" --connections "$connections" --duration 5s >"$work/load.log"
}

warm_up() { # a mode of the load tester and its arguments
    "$bench" "$@" --target "$target" --connections "$connections" --duration 1s >/dev/null
    sleep "${SECONDS_BEFORE:-20}"
    before=$(rss)
}

printf '%-10s %-40s %10s %10s %10s %10s\n' case allocator before peak after 'after/before'
for allocator in "${@:-built-in}"; do
    for case in ${CASES:-storm broadcast unread login}; do
        case $case in
        storm) connections=8000 && with_service "$allocator" storm ;;
        broadcast)
            connections=8000
            with_service "$allocator" push --to everyone --payload 16384 --pushes-in-flight 4 --duration 5s
            ;;
        unread) connections=400 && unread "$allocator" ;;
        login) connections=8 && login "$allocator" ;;
        esac
        sleep "$after"
        now=$(rss)
        printf '%-10s %-40s %10d %10d %10d %10.2f\n' "$case" "$allocator" "$before" "$(peak)" "$now" \
            "$($awk -v now="$now" -v before="$before" 'BEGIN {print now / before}')"
        $awk -v now="$now" -v before="$before" -v max="${MAX:-0}" \
            'BEGIN {exit max > 0 && now > before * max}' || failed=1
        stop
    done
done
[ "$failed" = 0 ] || {
    echo "above $MAX times the memory of before" >&2
    exit 1
}
