"""The smallest correct client of Moorgate: section 17 of protocol-spec.md, without protobuf.

`poll` gives what has happened, pairs of a word and a payload, and counts it as taken when it is
called again. It connects, waits and resumes by itself; Ended, with an Error's fields, is final.
"""

import contextlib
import random
import socket
import time

REQUEST, PING, PONG = 9, 11, 12  # members of a ClientFrame
WELCOME, RESPONSE, PUSH, GAP, PINGED, GO_AWAY, ERROR = 8, 9, 10, 11, 12, 14, 16  # of a GatewayFrame
RESUMED, RESUME_STALE, RESUME_INVALID = 1, 46, 47


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    return varint(number << 3 | 2) + varint(len(value)) + value


def read(data, at):
    value = shift = 0
    while data[at] > 127:
        value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
    return value | data[at] << shift, at + 1


def fields(data):
    found, at = {}, 0
    while at < len(data):
        key, at = read(data, at)
        size, at = (8 if key & 7 == 1 else 4, at) if key & 7 in (1, 5) else read(data, at)
        found[key >> 3] = data[at : at + size] if key & 7 else size
        at += size if key & 7 else 0
    return found


class Ended(Exception): ...


class Client:
    def __init__(self, host, port, token=b"", application=b"", device=b""):
        self.address = host, port
        self.identity = field(3, application) + field(7, device) + field(11, token)
        self.sock, self.failures, self.not_before = None, 0, 0.0
        self.waiting, self.events, self.open, self.up_seq, self.received = [], [], {}, 0, 0
        self.forget()

    def forget(self, admitted=2**64):
        for up_seq, body in self.open.items():
            what = "unknown" if up_seq <= admitted else "not executed"
            self.events.append((what, fields(body).get(15, b"")))
        self.events += [("resync", b"")] if self.up_seq or self.received else []
        self.resume, self.open, self.attempt, self.breaches = b"", {}, 0, 0
        self.up_seq = self.received = self.taken = self.acked = 0

    def lose(self, breach=False):
        self.breaches += breach
        if self.breaches > 1:
            self.forget()
        raise OSError("the connection is lost")

    def write(self, data):
        """A failure is left to the reader: what the gateway has sent last may still be there."""
        self.sock.settimeout(5.0)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(len(data).to_bytes(4, "big") + data)

    def send(self, member=b"", up_seq=0):
        self.acked = self.taken
        self.write(field(1, up_seq) + field(2, self.taken) + member)

    def frame(self, wait):
        """The fields of the next frame; None: none has come in time."""
        self.sock.settimeout(max(wait, 0.001))
        while len(self.input) < (end := 4 + int.from_bytes(self.input[:4], "big")):
            if len(self.input) >= 4 and end - 4 > self.frame_max:
                self.lose(breach=True)
            try:
                self.input += self.sock.recv(65536) or self.lose()
            except TimeoutError:
                return None
        frame, self.input, self.heard = self.input[4:end], self.input[end:], time.monotonic()
        return fields(frame)

    def connect(self):
        time.sleep(max(0.0, self.not_before - time.monotonic()))
        self.sock = socket.create_connection(self.address, 5.0)
        self.input, self.frame_max, resume = b"", 4096, b""
        if self.resume:
            self.attempt += 1
            resume = field(1, self.resume) + field(2, self.attempt) + field(3, self.taken)
        hello = field(1, 1) + field(2, 1) + self.identity
        self.write(field(8, hello + (field(12, resume) if resume else b"")))
        frame = self.frame(5.0) or {}
        if ERROR in frame:
            self.error(fields(frame[ERROR]), is_open=False)
        welcome = fields(frame[WELCOME]) if WELCOME in frame else self.lose()
        if welcome.get(3) != RESUMED:
            self.forget()
        limits, self.interval = fields(welcome[5]), welcome[4] / 1000
        self.frame_max, self.in_flight, self.pinged = limits[1], limits[2], self.heard
        self.resume = welcome.get(6, b"") if welcome.get(7) else b""
        self.send()
        for up_seq in (up_seq for up_seq in self.open if up_seq > welcome.get(9, 0)):
            self.send(field(REQUEST, self.open[up_seq]), up_seq)

    def error(self, error, is_open):
        reconnect = fields(error.get(4, b""))
        self.not_before = time.monotonic() + reconnect.get(2, 0) / 1000
        if not reconnect.get(1):
            raise Ended(error)
        if not reconnect.get(4) if is_open else error.get(2) in (RESUME_STALE, RESUME_INVALID):
            self.forget(error.get(5, 0) if is_open else 2**64)
        self.lose()

    def request(self, command, payload):
        self.waiting.append(field(1, command) + field(15, payload))

    def poll(self, wait):
        self.taken, self.events = self.received, []
        try:
            self.turn(wait)
        except OSError:
            backoff = min(30.0, 0.2 * 2**self.failures) * random.uniform(0.5, 1.0)
            self.not_before = max(self.not_before, time.monotonic() + backoff)
            self.failures, self.sock = self.failures + 1, self.sock and self.sock.close()
        return self.events

    def turn(self, wait):
        if self.sock is None:
            self.connect()
        while self.waiting and len(self.open) < self.in_flight:
            self.up_seq += 1
            self.open[self.up_seq] = self.waiting.pop(0)
            self.send(field(REQUEST, self.open[self.up_seq]), self.up_seq)
        now = time.monotonic()
        if now - self.heard >= 2 * self.interval or not (self.in_flight or self.open):
            self.lose()
        if now - self.pinged >= 0.6 * self.interval:
            self.pinged = now
            self.send(field(PING, b""))
        if self.taken > self.acked:
            self.send()
        wait = min(wait, self.interval / 4)
        while (frame := self.frame(wait)) is not None:
            self.take(frame)
            wait = 0.0

    def take(self, frame):
        member = next((number for number in frame if 8 <= number < 64), 0)
        body, self.failures = fields(frame[member]) if RESPONSE <= member <= ERROR else {}, 0
        if down_seq := frame.get(1, 0):
            if down_seq <= self.received:
                return
            first = body.get(1) or down_seq if member == GAP else down_seq
            if first > self.received + 1 or member == RESPONSE and body.get(1) not in self.open:
                self.lose(breach=True)
            self.received = down_seq
        if member == RESPONSE:
            del self.open[body[1]]
            self.events.append((f"status {body.get(2, 0)}", body.get(15, b"")))
        elif member in (PUSH, GAP):
            self.events.append(("push", body.get(15, b"")) if member == PUSH else ("resync", b""))
        elif member == PINGED:
            self.send(field(PONG, field(1, body.get(1, 0))))
        elif member == GO_AWAY:
            self.in_flight, self.not_before = 0, time.monotonic() + body.get(3, 0) / 1000
        elif member == ERROR:
            self.error(body, is_open=True)
