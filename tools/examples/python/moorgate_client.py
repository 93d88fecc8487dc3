"""A client of the Moorgate gateway: blocking calls, two threads of its own, the standard library and protobuf.

    with moorgate_client.connect("127.0.0.1:7000", access_token=token) as client:
        response = client.request(0x0001, b"hello", timeout=2.0)
        for event in client.events():  # Push, Gap, GoAway, Notice and FreshSession, until the session ends
            ...

A connection that is lost is the client's business alone: it connects again and resumes the session, and requests that
are under way, or made meanwhile, get their Response then. Only when the gateway has the session no more does the
application get a FreshSession among its events, and fetches anew what it shows.

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
# For a connection, and for its Welcome.
OPENING_TIMEOUT_S = 5.0
# W-7 allows a second.
ACK_AFTER_S = 0.5
# How many pushes are remembered, so that none is given to the application twice (D-14).
PUSH_IDS_MAX = 1024
# Half of each wait is random: perhaps all clients have lost their connections together.
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.2, 30.0
# How long a client tries to come back.
PATIENCE_S = 120.0

UNAVAILABLE = 14  # of google.rpc.Code


@dataclass(frozen=True)
class End:
    """How a session has ended, or why none began. `error` is there when the gateway has said why."""

    message: str
    error: pb.Error | None = None
    # What a GoAway has asked for.
    reconnect_after_ms: int = 0
    said_bye: bool = False
    # The gateway has sent what it must not send.
    is_breach: bool = False

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
        return after_ms / 1000 + (_backoff_s(failures) if failures else 0.0)


@dataclass(frozen=True)
class FreshSession:
    """An event that the client makes: the old session is lost, here is a new one. Whatever belonged to the old one, as
    its groups and what was pushed to it, is gone, so the application fetches anew what it shows (R-4, S-16)."""

    resume_result: int
    welcome: pb.Welcome


class SessionEnded(Exception):
    """There is no session any more, or none came to be: `end` says why."""

    def __init__(self, end):
        super().__init__(end.message)
        self.end = end


class GoingAway(Exception):
    """The gateway, or this client, is going away and makes no new requests on this session (X-11)."""


class Pending:
    """A request without a Response yet. `result()` waits for it."""

    def __init__(self, client, up_seq, request):
        self.up_seq = up_seq
        self._client = client
        # What a resume needs: the request itself, whether any gateway may have seen it, when its time is over.
        self._request = request
        self._sent = self._cancelled = False
        self._ends = time.monotonic() + request.timeout_ms / 1000 if request.timeout_ms else None
        self._response = None
        self._done = threading.Event()

    def result(self, wait=None):
        """The Response. The gateway always answers in time, unless the connection is lost for longer, so no `wait` is
        needed; TimeoutError when it is over."""
        if not self._done.wait(wait):
            raise TimeoutError(f"request {self.up_seq} has no response yet")
        return self._response

    def cancel(self):
        """Asks for a Response soon, whatever it is; it still comes through `result`."""
        self._client._cancel(self)

    def _left(self):
        """The request with what is left of its time (R-16). Never 0, which means the route's own."""
        if self._ends is not None:
            self._request.timeout_ms = max(1, round((self._ends - time.monotonic()) * 1000))
        return self._request

    def _settle(self, response):
        self._response = response
        self._done.set()


def connect(address, application_key=None, patience=PATIENCE_S, **hello):
    """Opens a session. `patience` is for how many seconds the client tries to come back after a loss; 0: the session
    ends with its connection. The other arguments are fields of Hello: `access_token` (without it the session is
    anonymous), `application`, `device_id`, `heartbeat_ms` and so on. Raises SessionEnded when the gateway does not let
    it in."""
    return Client(address, application_key, patience, pb.Hello(**hello))


class _Endpoints:
    """Which of the addresses of a name is tried next. One that has brought no session is followed by the next; one that
    has keeps its turn, because the session is there."""

    def __init__(self):
        # By name: the address that was tried last, and whether it has brought a session.
        self._last = {}

    def connect(self, address):
        host, port = address.rsplit(":", 1)
        if len(self._last) > 128:
            self._last.clear()
        found = {info[4][:2] for info in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)}
        order, (last, was_good) = sorted(found), self._last.get(address, (None, False))
        if last is None:
            start = random.randrange(len(order))
        else:
            start = sum(endpoint < last or (endpoint == last and not was_good) for endpoint in order)
        why = OSError(f"{address} has no address")
        for endpoint in order[start:] + order[:start]:
            self._last[address] = endpoint, False
            try:
                return socket.create_connection(endpoint, timeout=OPENING_TIMEOUT_S / len(order))
            except OSError as error:
                why = error
        raise why

    def was_good(self, address):
        self._last[address] = self._last[address][0], True


# Of all clients: an application that connects anew begins with the next address, too.
_endpoints = _Endpoints()


class _Connection:
    """A socket and what belongs to it alone: a session may have several, one after the other."""

    def __init__(self, connected):
        self._socket = connected
        self._socket.settimeout(OPENING_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = FrameReader(pb.GatewayFrame)
        self.last_sent = self.last_received = self.last_ping = time.monotonic()
        # Why it is of no use any more, when that was seen while writing.
        self.lost = None
        self.frames = self._frames()

    def _frames(self):
        while data := self._socket.recv(65536):
            yield from self._reader.feed(data)

    def open(self, hello):
        """Hello and what answers it: a Welcome; SessionEnded when it is something else."""
        try:
            self.send(pb.ClientFrame(hello=hello))
            frame = next(self.frames, None)
        except (OSError, BrokenContract) as error:
            raise SessionEnded(End(f"opening: {error}")) from error
        member = frame and frame.WhichOneof("member")
        if member == "error":
            raise SessionEnded(End(_told(frame.error), frame.error))
        if member != "welcome":
            raise SessionEnded(End(f"opening: {member} came in place of Welcome" if frame else "opening: closed"))
        welcome = frame.welcome
        if welcome.version != VERSION:
            raise SessionEnded(End(f"the gateway chose version {welcome.version}, which was not offered"))
        self.interval_s = max(1, welcome.heartbeat_ms) / 1000
        self._reader.frame_bytes_max = min(welcome.limits.frame_bytes_max, FRAME_BYTES_CEILING)
        # Who hears nothing for twice the interval, or cannot write for as long, has lost the gateway (P-6).
        self._socket.settimeout(2 * self.interval_s)
        return welcome

    def send(self, frame):
        self.last_sent = time.monotonic()
        self._socket.sendall(pack(frame))

    def end(self):
        """Wakes whoever reads it. What has come is still there to read, on most systems."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the gateway was faster

    def close(self):
        self._socket.close()


class Client:
    def __init__(self, address, application_key, patience, hello):
        hello.version_min = hello.version_max = VERSION
        hello.features = hello.features or FEATURES
        if 0 < hello.frame_bytes_max < FRAME_BYTES_OPENING:
            raise ValueError(f"frame_bytes_max is 0 or at least {FRAME_BYTES_OPENING}")
        self._address = address
        self._application_key = application_key
        self._patience_s = patience
        self._hello = hello

        self.welcome = None
        self.user_id = ""
        self.access_token = hello.access_token
        self.access_expires_ms = 0
        # How often this client came back to its session.
        self.resumes = 0
        # None as long as the session lives.
        self.end = None

        # Everything below is guarded by it; who waits for any change of it waits for this.
        self._changed = threading.Condition()
        # None while the client has to come back.
        self._connection = None
        self._resume_token = b""
        # The first attempt to resume a session is 1.
        self._attempt = 0
        # How often the gateway has broken the contract in this session (F-16).
        self._breaches = 0
        # Connections that failed, or brought nothing, since the last that was of use.
        self._failures = 0
        self._paused = False
        # In the order of their numbers.
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

        self._attach(*self._connect(address))
        for work in (self._live, self._keep):
            threading.Thread(target=work, name=f"moorgate-client{work.__name__}", daemon=True).start()

    # ---- what applications call ----

    def request(self, command, payload=b"", timeout=0.0, **fields):
        """Sends a request and waits for its Response. `timeout`, in seconds, is for the gateway to keep; 0: the
        route's own. `fields` are other fields of Request, like `idempotency_key`."""
        return self.start(command, payload, timeout, **fields).result()

    def start(self, command, payload=b"", timeout=0.0, wait=None, **fields):
        """Sends a request and comes back at once, or, when too many are in flight, as soon as there is a place;
        TimeoutError after `wait` seconds. A request that is made while the connection is lost goes out on the next."""
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
            pending = self._open[self._last_up_seq] = Pending(self, self._last_up_seq, request)
            # Without a connection it waits for the next one.
            self._send_request(pending)
            return pending

    def next_event(self, wait=None):
        """The next Push, Gap, GoAway, Notice or FreshSession; None when the session has ended and nothing is left.
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
            self._await_connection(wait)
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
        """Seconds until the gateway's Pong; of one connection, another Ping goes out on the next."""
        gives_up = time.monotonic() + wait
        with self._changed:
            while True:
                self._await_connection(gives_up - time.monotonic())
                connection, began = self._connection, time.monotonic()
                nonce = self._ping()

                def over():
                    return self._last_pong >= nonce or self._connection is not connection or self.end is not None

                if not self._changed.wait_for(over, gives_up - time.monotonic()):
                    raise TimeoutError("no answer to Ping")
                if self._last_pong >= nonce:
                    return time.monotonic() - began

    def pause(self, keep_for, wait=OPENING_TIMEOUT_S):
        """Leaves, but has the gateway keep the session for `keep_for` seconds, at most `welcome.detached_ttl_ms`, and
        what comes for it meanwhile. `come_back` goes on with it (X-15)."""
        with self._changed:
            if self.end is not None:
                raise SessionEnded(self.end)
            self._paused = True
            self._send(bye=pb.Bye(keep_for_ms=max(1, round(keep_for * 1000))))
            if not self._changed.wait_for(lambda: self._connection is None or self.end is not None, wait):
                self._connection.end()

    def come_back(self, wait=OPENING_TIMEOUT_S):
        """Ends a pause. Whether the session was still there, the events tell: if not, there is a FreshSession."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()
            self._await_connection(wait)

    def close(self, wait=OPENING_TIMEOUT_S):
        """Says Bye, waits for the end and returns it. Requests without a Response get one that says UNKNOWN."""
        with self._changed:
            if self.end is None:
                self._bye_sent = True
                if self._connection is None:
                    self._finish(End("closed while the connection was lost"))
                else:
                    self._send(bye=pb.Bye())
            if not self._changed.wait_for(lambda: self.end is not None, wait):
                self._finish(End("the gateway has not answered Bye"))
            return self.end

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _cancel(self, pending):
        with self._changed:
            if pending.up_seq in self._open and self._open[pending.up_seq] is pending and self.end is None:
                pending._cancelled = True
                self._send(cancel=pb.Cancel(up_seq=pending.up_seq))

    def _await_connection(self, wait):
        if not self._changed.wait_for(lambda: self._connection is not None or self.end is not None, wait):
            raise TimeoutError("the connection is lost")
        if self.end is not None:
            raise SessionEnded(self.end)

    # ---- opening and coming back ----

    def _connect(self, address):
        """A connection and the Welcome on it; for the session that there is, if there is one."""
        hello = pb.Hello()
        with self._changed:
            hello.CopyFrom(self._hello)
            hello.access_token = self.access_token
            if self._resume_token:
                # One number for each Hello, whatever becomes of it.
                self._attempt += 1
                hello.resume.resume_token = self._resume_token
                hello.resume.attempt = self._attempt
                # What the application has not taken is replayed, and passed over where it is here already (D-2).
                hello.resume.down_seq = self._taken()
        if self._application_key is not None:
            _prove(hello, self._application_key)
        connection = _Connection(_endpoints.connect(address))
        try:
            welcome = connection.open(hello)
            _endpoints.was_good(address)
            return connection, welcome, hello.resume.down_seq
        except BaseException:
            connection.close()
            raise

    def _attach(self, connection, welcome, down_seq):
        """Begins a session with this Welcome, or goes on with it."""
        with self._changed:
            if self.end is not None:
                connection.close()
                return
            before, self.welcome = self.welcome, welcome
            self._connection = connection
            self._going_away = None
            self._resume_token = welcome.resume_token
            self.user_id = welcome.user_id
            self.access_expires_ms = welcome.access_expires_ms
            if before is not None:
                if welcome.resume_result == pb.RESUME_RESULT_RESUMED:
                    self._resumed(down_seq)
                else:
                    self._begin_afresh()
            self._changed.notify_all()

    def _resumed(self, down_seq):
        self.resumes += 1
        self._acknowledged_up_to(down_seq)
        # At once (W-10), so that the gateway forgets older tokens; perhaps by a frame of no bytes (F-2).
        self._send()
        for pending in list(self._open.values()):
            admitted = pending.up_seq <= self.welcome.admitted
            if pending._cancelled:
                # Of a request that was not admitted it takes the place (C-1); otherwise it is repeated (C-8).
                self._send(cancel=pb.Cancel(up_seq=pending.up_seq))
                pending._sent = True
            elif not admitted:
                self._send_request(pending)

    def _begin_afresh(self):
        """The old session is lost. What has surely not been run, or may be run twice, is sent again (S-15, S-16)."""
        lost, self._open = list(self._open.values()), {}
        self._last_up_seq = self._received = self._acknowledged = self._attempt = self._breaches = 0
        self._unacknowledged_responses.clear()
        self._ack_due = None
        # Their numbers were of the old session; there is nothing to acknowledge any more.
        self._events = collections.deque((None, event) for _, event in self._events)
        self._events.append((None, FreshSession(self.welcome.resume_result, self.welcome)))
        end = End("the session was lost")
        for pending in lost:
            again = not pending._cancelled and (not pending._sent or pending._request.idempotency_key)
            if again and self._in_flight() < self.welcome.limits.in_flight_max:
                self._last_up_seq += 1
                pending.up_seq = self._last_up_seq
                self._open[pending.up_seq] = pending
                self._send_request(pending)
            else:
                _settle_by_end(pending, end, None, common.REASON_RESUME_UNKNOWN_SESSION)

    # ---- writing; the lock is held ----

    def _send_request(self, pending):
        pending._sent = pending._sent or self._connection is not None
        self._send(up_seq=pending.up_seq, request=pending._left())

    def _send(self, **fields):
        if self.end is not None:
            raise SessionEnded(self.end)
        connection = self._connection
        if connection is None or connection.lost is not None:
            return
        ack = max(self._taken(), self._acknowledged)
        self._ack_due = None
        try:
            connection.send(pb.ClientFrame(ack=ack, **fields))
        except TimeoutError:
            connection.lost = "the gateway takes nothing any more"
            connection.end()
            return
        except OSError as error:
            # What the gateway said last may still be there to read, so it is the reader that sees to it.
            connection.lost = str(error)
            return
        self._acknowledged_up_to(ack)

    def _acknowledged_up_to(self, ack):
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
        self._connection.last_ping = time.monotonic()
        self._send(ping=pb.Ping(nonce=self._nonce))
        return self._nonce

    # ---- the thread that keeps times ----

    def _keep(self):
        with self._changed:
            while self.end is None:
                connection = self._connection
                if connection is None or connection.lost is not None:
                    self._changed.wait()
                    continue
                now = time.monotonic()
                if self._ack_due is not None and now >= self._ack_due:
                    self._send()
                # A frame in every interval (P-5), and a Ping when nothing was heard for one (P-6).
                quiet = max(connection.last_received, connection.last_ping)
                ping_due = min(connection.last_sent, quiet) + 0.7 * connection.interval_s
                if now >= ping_due:
                    self._ping()
                    continue
                self._changed.wait(max(0.0, min(ping_due, self._ack_due or ping_due) - now))

    # ---- the thread that reads, and comes back ----

    def _live(self):
        try:
            while self.end is None:
                why = self._read(self._connection)
                with self._changed:
                    self._lose(why)
                self._come_back(why)
        finally:
            with self._changed:
                self._finish(End("a bug of this client: its reader has failed"))

    def _read(self, connection):
        """Until the connection is over; how it ended, as far as that is known."""
        try:
            for frame in connection.frames:
                with self._changed:
                    connection.last_received = time.monotonic()
                    end = self._take_frame(frame)
                    self._failures = 0
                    self._changed.notify_all()
                    if end is not None:
                        return end
            return End(connection.lost or "the gateway has closed the connection")
        except TimeoutError:
            return End("nothing was heard from the gateway for twice the interval")
        except BrokenContract as error:
            return End(str(error), is_breach=True)
        except OSError as error:
            return End(connection.lost or str(error))
        finally:
            connection.close()

    def _lose(self, why):
        """The connection is over. So is the session, unless it may be resumed."""
        self._connection = None
        self._changed.notify_all()
        self._breaches += why.is_breach
        if self._breaches > 1 and self._patience_s and not self._bye_sent:
            # It would be replayed for ever: a fresh session begins (F-16).
            self._resume_token = b""
            return
        kept = bool(self._resume_token and self.welcome.detached_ttl_ms and self._patience_s)
        if why.error is not None:
            kept = kept and why.error.reconnect.resumable and why.error.reconnect.allowed
        elif self._going_away is not None:
            kept = kept and self._going_away.resumable
        if not kept or self._bye_sent:
            self._finish(why, why.error.admitted if why.error is not None else None)

    def _come_back(self, why):
        """Connects until there is a session again, or an end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._paused or self.end is not None)
        gives_up = time.monotonic() + self._patience_s
        while True:
            reconnect = why.error.reconnect if why.error is not None else pb.Reconnect()
            after_s = max(reconnect.after_ms, why.reconnect_after_ms) / 1000
            delay = max(after_s, _backoff_s(self._failures) if self._failures or not after_s else 0.0)
            with self._changed:
                if self.end is not None or self._changed.wait_for(lambda: self.end is not None, delay):
                    return
                self._failures += 1
            for address in (*reconnect.addresses, self._address):
                try:
                    self._attach(*self._connect(address))
                    return
                except OSError as error:
                    why = End(str(error))
                except SessionEnded as ended:
                    why = ended.end
                    break
            error = why.error
            if error is not None and error.reason == common.REASON_RESUME_INVALID and error.reconnect.allowed:
                # The session is lost; the next Hello does not ask for it.
                self._resume_token = b""
            # To begin afresh after RESUME_STALE would end the session that somebody has resumed since.
            final = error is not None and (not error.reconnect.allowed or error.reason == common.REASON_RESUME_STALE)
            if final or time.monotonic() >= gives_up:
                with self._changed:
                    # An Error before Welcome says nothing of what was admitted.
                    self._finish(why)
                return

    def _take_frame(self, frame):
        """How the connection ends, when this was its last frame."""
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
            return End(_told(frame.error), frame.error)
        elif member == "bye_ack" and (self._bye_sent or self._paused):
            return End("both sides have said goodbye", said_bye=True)
        elif member in ("welcome", "bye_ack"):
            raise BrokenContract(f"a {member} that nothing asked for")
        return None

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
            self._resume_token = response.login.resume_token or self._resume_token
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

    def _finish(self, end, admitted=None):
        """The one way in which a session ends. Settles what is open; `admitted` is what the gateway has said of it."""
        if self.end is not None:
            return
        if end.error is None and self._going_away is not None:
            end = replace(end, reconnect_after_ms=self._going_away.reconnect_after_ms)
        self.end = end
        reason = end.error.reason if end.error is not None else common.REASON_UNSPECIFIED
        for pending in self._open.values():
            _settle_by_end(pending, end, admitted, reason)
        self._open.clear()
        if self._connection is not None:
            self._connection.end()
        self._changed.notify_all()


def _settle_by_end(pending, end, admitted, reason):
    """The Response to a request that gets none from the gateway any more (S-15)."""
    never = not pending._sent or (admitted is not None and pending.up_seq > admitted)
    pending._settle(
        pb.Response(
            up_seq=pending.up_seq,
            status=UNAVAILABLE,
            reason=reason,
            execution=common.EXECUTION_NOT_EXECUTED if never else common.EXECUTION_UNKNOWN,
            message=end.message,
        )
    )


def _backoff_s(failures):
    longest = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(max(failures - 1, 0), 10))
    return random.uniform(longest / 2, longest)


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
