#!/usr/bin/env python3
"""Clients that ask for much and read nothing, against `moorgate serve --dev`: their Responses fill the gateway.

    unread.py ADDRESS CLIENTS REQUESTS PAYLOAD SECONDS

Each of CLIENTS opens an anonymous session, sends as many of its REQUESTS to the echo service (PAYLOAD bytes each) as the
gateway takes, reads nothing for SECONDS, and resets its connection.
"""
import socket
import struct
import sys
import time


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def number(field, value):
    return varint(field << 3) + varint(value)


def part(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def frame(*parts):
    body = b"".join(parts)
    return struct.pack(">I", len(body)) + body


def main():
    (host, port), (clients, requests, payload, seconds) = sys.argv[1].rsplit(":", 1), map(int, sys.argv[2:])
    hello = frame(part(8, number(1, 1) + number(2, 1)))
    waiting = {}
    for _ in range(clients):
        client = socket.create_connection((host, int(port)))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(hello)
        body = part(9, number(1, 1) + part(15, bytes(payload)))
        waiting[client] = memoryview(b"".join(frame(number(1, seq + 1), body) for seq in range(requests)))
        client.setblocking(False)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for client, rest in waiting.items():
            try:
                waiting[client] = rest[client.send(rest):] if rest else rest
            except BlockingIOError:
                pass
            except OSError:
                waiting[client] = rest[:0]
        time.sleep(0.01)
    print(f"{clients} clients, {sum(not rest for rest in waiting.values())} sent all requests")


if __name__ == "__main__":
    main()
