"""A program over tools/examples/minimal/minimal.py: COUNT requests, and as many pushes, each printed.

    python3 count.py HOST PORT TOKEN COMMAND COUNT
"""

import collections
import sys

import minimal


def main(host, port, token, command, count):
    client = minimal.Client(host, int(port), token.encode(), b"minimal", b"in-python")
    for number in range(int(count)):
        client.request(int(command, 0), b"%d" % number)
    seen = collections.Counter()
    while min(seen["status 0"], seen["push"]) < int(count):
        for what, payload in client.poll(1.0):
            print(what, payload.decode(), flush=True)
            seen[what] += 1


main(*sys.argv[1:])
