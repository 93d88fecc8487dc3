# Functions of the scripts in this directory: the processes of a trial and their addresses. To be sourced by a POSIX
# shell at the top of the repository. BIN is the directory of the programs, AWK the awk to use.

bin=${BIN:-target/release}
bench=$bin/moorgate-bench
awk=${AWK:-awk}
work=$(mktemp -d)
pids=

# Ends all processes that `start` has started, and waits for their end.
stop() {
    for one in $pids; do kill "$one" 2>/dev/null || true; done
    for one in $pids; do wait "$one" 2>/dev/null || true; done
    pids=
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Starts a program in the background: `pid` is its process id, `log` the file of its output.
start() { # name, program, arguments
    log=$work/$1.log
    shift
    # Truncated here: the next step may read it before the program runs.
    : >"$log"
    "$@" >"$log" 2>&1 &
    pid=$!
    pids="$pids $pid"
}

# Waits until a command succeeds; fails with the output of the started program when that has ended.
await() { # command, arguments
    until "$@" >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null || {
            cat "$log" >&2
            return 1
        }
        sleep 0.05
    done
}

# Sets `address` to the address at the end of the started program's first line with these words, once it is there. Not in
# a subshell: only the parent of a program that has ended learns of its end.
address() { # words
    await grep -q "$1" "$log"
    address=$(grep -m 1 "$1" "$log" | grep -o '[0-9.]*:[0-9]*$')
}

# Waits until the gateway on this admin address is ready.
ready() { # address
    await curl -sf -o /dev/null "$1/readyz"
}
