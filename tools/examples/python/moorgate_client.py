"""A client of the Moorgate gateway: blocking calls, two threads of its own, the standard library and protobuf.

    with moorgate_client.connect("127.0.0.1:7000", access_token=token) as client:
        response = client.request(0x0001, b"hello", timeout=2.0)
        for event in client.events():  # Push, Gap, GoAway and Notice, until the session ends
            ...

Every request gets exactly one Response, also when the session ends before the gateway has answered: then the client
makes it, and `execution` says whether repeating is safe. Any thread may call anything.

Who does not take the events also gets no more Responses after a while: the gateway keeps what is not acknowledged,
and an acknowledgement of a number is one of every number before it (W-4).

Names like W-7 are sentences of protocol-spec.md.
"""

import collections
import hashlib
import hmac
import os
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, replace

import client_pb2 as pb
import common_pb2 as common
import moorgate_reasons
from moorgate_frames import (
    FRAME_BYTES_CEILING,
    FRAME_BYTES_OPENING,
    FRAME_OVERHEAD,
    BrokenContract,
    FrameReader,
    pack,
    parts,
)

VERSION = 1
# The features whose fields this client can make sense of; applications see them in the messages themselves.
FEATURES = sum(
    1 << feature
    for feature in (
        common.FEATURE_TRACE,
        common.FEATURE_PRIORITY,
        common.FEATURE_CONTENT_ENCODING,
        common.FEATURE_PUSH_EXPIRY,
    )
)
OPENING_TIMEOUT_S = 10.0
# W-7 allows a second.
ACK_AFTER_S = 0.5
# How many pushes are remembered, so that none is given to the application twice (D-14).
PUSH_IDS_MAX = 1024
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0

UNAVAILABLE = 14  # of google.rpc.Code


@dataclass(frozen=True)
class End:
    """How a session has ended, or why none began. `error` is there when the gateway has said why."""

    message: str
    error: pb.Error | None = None
    # What a GoAway has asked for.
    reconnect_after_ms: int = 0
    said_bye: bool = False

    def reconnect_delay(self, failures=0):
        """Seconds to wait before connecting again, or None: not with the same credentials (X-5, X-6).

        `failures` is how many attempts to connect have failed since. A session that was lost without a word counts as
        one: perhaps all clients have lost theirs, and they should not come back in one moment.
        """
        failures = max(failures, int(self.error is None and not self.said_bye))
        after_ms = self.reconnect_after_ms
        if self.error is not None:
            if not self.error.reconnect.allowed:
                return None
            after_ms = self.error.reconnect.after_ms
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(failures, 10)) if failures else 0.0
        return after_ms / 1000 + random.uniform(0, backoff_s)


class SessionEnded(Exception):
    """There is no session any more, or none came to be: `end` says why."""

    def __init__(self, end):
        super().__init__(end.message)
        self.end = end


class GoingAway(Exception):
    """The gateway, or this client, is going away and makes no new requests on this session (X-11)."""


class Pending:
    """A request that was sent. `result()` waits for its Response."""

    def __init__(self, client, up_seq):
        self.up_seq = up_seq
        self._client = client
        self._response = None
        self._done = threading.Event()

    def result(self, wait=None):
        """The Response. The gateway always answers in time, so no `wait` is needed; TimeoutError when it is over."""
        if not self._done.wait(wait):
            raise TimeoutError(f"request {self.up_seq} has no response yet")
        return self._response

    def cancel(self):
        """Asks for a Response soon, whatever it is; it still comes through `result`."""
        self._client._cancel(self.up_seq)

    def _settle(self, response):
        self._response = response
        self._done.set()


def connect(address, application_key=None, **hello):
    """Opens a session. The other arguments are fields of Hello: `access_token` (without it the session is anonymous),
    `application`, `device_id`, `heartbeat_ms` and so on. Raises SessionEnded when the gateway does not let it in."""
    return Client(address, application_key, pb.Hello(**hello))


class Client:
    def __init__(self, address, application_key, hello):
        hello.version_min = hello.version_max = VERSION
        hello.features = hello.features or FEATURES
        if application_key is not None:
            _prove(hello, application_key)
        if 0 < hello.frame_bytes_max < FRAME_BYTES_OPENING:
            raise ValueError(f"frame_bytes_max is 0 or at least {FRAME_BYTES_OPENING}")

        self.welcome = None
        self.user_id = ""
        self.access_token = hello.access_token
        self.access_expires_ms = 0
        # None as long as the session lives.
        self.end = None

        # Everything below is guarded by it; who waits for any change of it waits for this.
        self._changed = threading.Condition()
        self._open = {}
        self._last_up_seq = 0
        self._received = 0
        self._acknowledged = 0
        self._ack_due = None
        self._unacknowledged_responses = collections.deque()
        # What the application has not taken yet, each with the number that is taken as long as it is not.
        self._events = collections.deque()
        self._push_ids = collections.OrderedDict()
        self._authenticated = None
        self._authenticating = threading.Lock()
        self._going_away = None
        self._bye_sent = False
        self._nonce = 0
        self._last_pong = 0

        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host.strip("[]"), int(port)), timeout=OPENING_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = FrameReader(pb.GatewayFrame)
        self._incoming = self._frames()
        self._last_sent = self._last_received = self._last_ping = time.monotonic()
        try:
            self._open_session(hello)
        except BaseException:
            self._socket.close()
            raise
        for work in (self._read, self._keep):
            threading.Thread(target=work, name=f"moorgate-client{work.__name__}", daemon=True).start()

    # ---- what applications call ----

    def request(self, command, payload=b"", timeout=0.0, **fields):
        """Sends a request and waits for its Response. `timeout`, in seconds, is for the gateway to keep; 0: the
        route's own. `fields` are other fields of Request, like `idempotency_key`."""
        return self.start(command, payload, timeout, **fields).result()

    def start(self, command, payload=b"", timeout=0.0, wait=None, **fields):
        """Sends a request and comes back at once, or, when too many are in flight, as soon as there is a place;
        TimeoutError after `wait` seconds."""
        if len(payload) + FRAME_OVERHEAD > self.welcome.limits.frame_bytes_max:
            raise ValueError(f"a payload of {len(payload)} bytes does not fit into a frame")
        timeout_ms = max(1, round(timeout * 1000)) if timeout > 0 else 0
        request = pb.Request(command=command, timeout_ms=timeout_ms, payload=payload, **fields)
        with self._changed:
            if not self._changed.wait_for(self._may_send, wait):
                raise TimeoutError("too many requests are in flight, or events wait to be taken")
            if self.end is not None:
                raise SessionEnded(self.end)
            if self._going_away is not None or self._bye_sent:
                raise GoingAway("this session takes no new requests")
            self._last_up_seq += 1
            pending = self._open[self._last_up_seq] = Pending(self, self._last_up_seq)
            self._send(up_seq=pending.up_seq, request=request)
            return pending

    def next_event(self, wait=None):
        """The next Push, Gap, GoAway or Notice; None when the session has ended and nothing is left to take.
        TimeoutError after `wait` seconds. After a Gap the application fetches anew what it shows (D-13)."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._events or self.end is not None, wait):
                raise TimeoutError("no event")
            if not self._events:
                return None
            _, event = self._events.popleft()
            self._acknowledge_when_due()
            return event

    def events(self):
        while (event := self.next_event()) is not None:
            yield event

    def authenticate(self, access_token, wait=OPENING_TIMEOUT_S):
        """Gives the session a new access token and returns the gateway's Authenticated."""
        with self._authenticating, self._changed:
            self._authenticated = None
            self._send(authenticate=pb.Authenticate(access_token=access_token))
            # Towards a client that does not read the answer may be left out (D-7), so the wait has an end.
            if not self._changed.wait_for(lambda: self._authenticated or self.end is not None, wait):
                raise TimeoutError("no answer to Authenticate")
            if self._authenticated is None:
                raise SessionEnded(self.end)
            if self._authenticated.status == 0:
                self.access_token = access_token
                self.access_expires_ms = self._authenticated.access_expires_ms
            return self._authenticated

    def ping(self, wait=OPENING_TIMEOUT_S):
        """Seconds until the gateway's Pong."""
        with self._changed:
            began = time.monotonic()
            nonce = self._ping()
            if not self._changed.wait_for(lambda: self._last_pong >= nonce or self.end is not None, wait):
                raise TimeoutError("no answer to Ping")
            if self.end is not None:
                raise SessionEnded(self.end)
            return time.monotonic() - began

    def close(self, wait=OPENING_TIMEOUT_S):
        """Says Bye, waits for the end and returns it. Requests without a Response get one that says UNKNOWN."""
        with self._changed:
            if self.end is None:
                self._bye_sent = True
                self._send(bye=pb.Bye())
            if not self._changed.wait_for(lambda: self.end is not None, wait):
                self._finish(End("the gateway has not answered Bye"))
            return self.end

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _cancel(self, up_seq):
        with self._changed:
            if up_seq in self._open and self.end is None:
                self._send(cancel=pb.Cancel(up_seq=up_seq))

    # ---- opening ----

    def _open_session(self, hello):
        try:
            self._socket.sendall(pack(pb.ClientFrame(hello=hello)))
            frame = next(self._incoming, None)
        except (OSError, BrokenContract) as error:
            raise SessionEnded(End(f"opening: {error}")) from error
        member = frame and frame.WhichOneof("member")
        if member == "error":
            raise SessionEnded(End(_told(frame.error), frame.error))
        if member != "welcome":
            raise SessionEnded(End(f"opening: {member} came in place of Welcome" if frame else "opening: closed"))
        self.welcome = frame.welcome
        if self.welcome.version != VERSION:
            raise SessionEnded(End(f"the gateway chose version {self.welcome.version}, which was not offered"))
        self.user_id = self.welcome.user_id
        self.access_expires_ms = self.welcome.access_expires_ms
        self._interval_s = max(1, self.welcome.heartbeat_ms) / 1000
        self._reader.frame_bytes_max = min(self.welcome.limits.frame_bytes_max, FRAME_BYTES_CEILING)
        # Who hears nothing for twice the interval, or cannot write for as long, has lost the gateway (P-6).
        self._socket.settimeout(2 * self._interval_s)

    # ---- writing; the lock is held ----

    def _send(self, **fields):
        if self.end is not None:
            raise SessionEnded(self.end)
        ack = max(self._taken(), self._acknowledged)
        self._last_sent, self._ack_due = time.monotonic(), None
        try:
            self._socket.sendall(pack(pb.ClientFrame(ack=ack, **fields)))
        except TimeoutError:
            self._finish(End("the gateway takes nothing any more"))
            return
        except OSError:
            # What the gateway said last may still be there to read, so it is the reader that ends the session.
            return
        self._acknowledged = ack
        while self._unacknowledged_responses and self._unacknowledged_responses[0] <= ack:
            self._unacknowledged_responses.popleft()

    def _taken(self):
        """The highest number up to which the application has taken everything."""
        for taken, _ in self._events:
            if taken is not None:
                return taken
        return self._received

    def _acknowledge_when_due(self):
        """Called when something was taken. The keeper sends what is not sent at once."""
        owed = self._taken() - self._acknowledged
        if owed <= 0 or self.end is not None:
            return
        if 2 * owed >= self.welcome.limits.window_max:
            self._send()
        elif self._ack_due is None:
            self._ack_due = time.monotonic() + ACK_AFTER_S
        self._changed.notify_all()

    def _may_send(self):
        """Whether a request may be sent, or never can be. Makes place by an acknowledgement where that helps."""
        if self.end is not None or self._going_away is not None or self._bye_sent:
            return True
        if self._in_flight() >= self.welcome.limits.in_flight_max and self._taken() > self._acknowledged:
            self._send()
        return self._in_flight() < self.welcome.limits.in_flight_max

    def _in_flight(self):
        return len(self._open) + len(self._unacknowledged_responses)

    def _ping(self):
        self._nonce += 1
        self._last_ping = time.monotonic()
        self._send(ping=pb.Ping(nonce=self._nonce))
        return self._nonce

    # ---- the thread that keeps times ----

    def _keep(self):
        with self._changed:
            while self.end is None:
                now = time.monotonic()
                if self._ack_due is not None and now >= self._ack_due:
                    self._send()
                # A frame in every interval (P-5), and a Ping when nothing was heard for one (P-6).
                quiet = max(self._last_received, self._last_ping)
                ping_due = min(self._last_sent, quiet) + 0.7 * self._interval_s
                if now >= ping_due:
                    self._ping()
                    continue
                self._changed.wait(min(ping_due, self._ack_due or ping_due) - now)

    # ---- the thread that reads ----

    def _frames(self):
        while data := self._socket.recv(65536):
            yield from self._reader.feed(data)

    def _read(self):
        end = End("a bug of this client: its reader has failed")
        try:
            for frame in self._incoming:
                with self._changed:
                    self._last_received = time.monotonic()
                    self._take_frame(frame)
                    self._changed.notify_all()
                    if self.end is not None:
                        break
            end = End("the gateway has closed the connection")
        except TimeoutError:
            end = End("nothing was heard from the gateway for twice the interval")
        except (OSError, BrokenContract) as error:
            end = End(str(error))
        finally:
            with self._changed:
                self._finish(end)
            self._socket.close()

    def _take_frame(self, frame):
        member = frame.WhichOneof("member")
        # None is a member of a newer version, or none at all; both may have a number (E-16).
        if member is not None and bool(frame.down_seq) != (member in ("response", "push", "gap")):
            raise BrokenContract(f"a {member} with {frame.down_seq or 'no number'}")
        if frame.down_seq:
            self._take_numbered(frame, member)
        elif member == "ping":
            self._send(pong=pb.Pong(nonce=frame.ping.nonce))
        elif member == "pong":
            self._last_pong = max(self._last_pong, frame.pong.nonce)
        elif member == "authenticated":
            self._authenticated = frame.authenticated
        elif member == "go_away":
            self._going_away = frame.go_away
            self._events.append((None, frame.go_away))
        elif member == "notice":
            self._events.append((None, frame.notice))
        elif member == "error":
            self._finish(End(_told(frame.error), frame.error))
        elif member == "bye_ack" and self._bye_sent:
            self._finish(End("both sides have said goodbye", said_bye=True))
        elif member in ("welcome", "bye_ack"):
            raise BrokenContract(f"a {member} that nothing asked for")

    def _take_numbered(self, frame, member):
        if frame.down_seq <= self._received:
            return
        # A Gap with a range stands for all numbers from its first to its own (D-11, D-13).
        first = frame.gap.first if member == "gap" and frame.gap.last else frame.down_seq
        if first > self._received + 1:
            raise BrokenContract(f"number {first} came after {self._received}")
        before, self._received = self._received, frame.down_seq
        if member == "response":
            self._take_response(frame)
        elif member == "push" and self._is_new(frame.push):
            self._events.append((before, frame.push))
        elif member == "gap":
            self._events.append((before, frame.gap))
        self._acknowledge_when_due()

    def _take_response(self, frame):
        response = frame.response
        pending = self._open.pop(response.up_seq, None)
        if pending is None:
            raise BrokenContract(f"a response to request {response.up_seq}, which is not open")
        self._unacknowledged_responses.append(frame.down_seq)
        if response.HasField("login"):
            self.user_id = response.login.user_id
            self.access_token = response.login.access_token
            self.access_expires_ms = response.login.access_expires_ms
        pending._settle(response)

    def _is_new(self, push):
        if not push.push_id:
            return True
        if push.push_id in self._push_ids:
            return False
        self._push_ids[push.push_id] = None
        if len(self._push_ids) > PUSH_IDS_MAX:
            self._push_ids.popitem(last=False)
        return True

    def _finish(self, end):
        """The one way in which a session ends. Settles what is open, as S-15 has it."""
        if self.end is not None:
            return
        if end.error is None and self._going_away is not None:
            end = replace(end, reconnect_after_ms=self._going_away.reconnect_after_ms)
        self.end = end
        for up_seq, pending in self._open.items():
            never = end.error is not None and up_seq > end.error.admitted
            pending._settle(
                pb.Response(
                    up_seq=up_seq,
                    status=UNAVAILABLE,
                    reason=end.error.reason if end.error is not None else common.REASON_UNSPECIFIED,
                    execution=common.EXECUTION_NOT_EXECUTED if never else common.EXECUTION_UNKNOWN,
                    message=end.message,
                )
            )
        self._open.clear()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the gateway was faster
        self._changed.notify_all()


def _told(error):
    return f"{moorgate_reasons.name(error.reason)}: {error.message}"


def _prove(hello, key):
    proof = hello.application_proof
    proof.time_ms = time.time_ns() // 1_000_000
    proof.nonce = os.urandom(16)
    proof.mac = application_mac(key, hello)


def application_mac(key, hello):
    """The application's proof, end of section 3."""
    proof = hello.application_proof
    data = parts(
        "moorgate application v1",
        hello.application,
        hello.device_id,
        struct.pack(">Q", proof.time_ms),
        proof.nonce,
    )
    return hmac.digest(key, data, hashlib.sha256)
