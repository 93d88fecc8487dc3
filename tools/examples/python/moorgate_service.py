"""A backend service of the Moorgate gateway: a thread for each link, a pool for the calls; the standard library and
protobuf.

    service = moorgate_service.Service("echo", key)

    @service.handle(0x0001)
    def echo(call):
        return call.payload             # bytes, or a Reply

    print(service.listen("127.0.0.1:7100"))
    ...
    service.drain()

The gateway connects to the service, not the other way round. Handlers run in the pool, many at a time; a call that its
client has cancelled, or whose time is over, has `cancelled` set, and may be stopped.

Names like L-22 are sentences of protocol-spec.md.
"""

import concurrent.futures
import hashlib
import hmac
import itertools
import logging
import os
import socket
import struct
import threading
import time

import common_pb2 as common
import service_pb2 as pb
from moorgate_frames import FRAME_BYTES_CEILING, BrokenContract, FrameReader, pack, parts

VERSION = 1
OPENING_TIMEOUT_S = 2.0
# The gateway sends a LinkPing when it hears nothing, so silence for this long means that it is gone (L-44).
SILENCE_S = 30.0
LINKS_MAX = 1024
# A larger Reply goes on the bulk link, if there is one (L-23).
FRAME_BYTES_MAIN_LINK = 64 * 1024
# Calls outstanding on one link, when the service's view names no bound.
OUTSTANDING_MAX = 1024
PUSH_TIMEOUT_S = 10.0

log = logging.getLogger("moorgate.service")


class Status:
    """Of google.rpc.Code, those that services use most."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


def refusal(status, reason=common.REASON_UNSPECIFIED, message=""):
    """A Reply that says: this call was not run."""
    return pb.Reply(status=status, reason=reason, message=message, execution=common.EXECUTION_NOT_EXECUTED)


class LinkLost(Exception):
    """The link went before an answer came."""


class Call:
    """What a handler gets. `frame` is the message Call with all its fields."""

    def __init__(self, link, frame):
        self.link = link
        self.frame = frame
        self.caller = frame.caller
        self.payload = frame.payload
        self.deadline = time.monotonic() + frame.remaining_ms / 1000
        self.cancelled = threading.Event()

    def remaining_s(self):
        return max(0.0, self.deadline - time.monotonic())


class Presence:
    """Who is online, as the gateways say it (L-60 to L-71). A Service that is given one subscribes by itself."""

    def __init__(self):
        # How many whole snapshots have come.
        self.snapshots = 0
        self._changed = threading.Condition()
        self._boots = {}

    def users(self):
        """The users that are online at one gateway or more."""
        with self._changed:
            return self._users()

    def wait_for(self, predicate, wait=None):
        """Until this is true of the users that are online; the users, or None when it has not become true in time."""
        with self._changed:
            return self._users() if self._changed.wait_for(lambda: predicate(self._users()), wait) else None

    def _users(self):
        now = time.monotonic()
        return {user for boot in self._boots.values() if now < boot.heard + boot.lease_s for user in boot.users}

    def _take(self, link, frame):
        """Every frame of a gateway prolongs its lease (L-62); those of presence say more."""
        with self._changed:
            boot = self._boots.get((link.gateway_id, link.boot_id))
            if boot is None:
                boot = self._boots[link.gateway_id, link.boot_id] = _Boot()
            boot.heard = time.monotonic()
            member = frame.WhichOneof("member")
            if member not in ("presence_event", "presence_snapshot"):
                return
            message = getattr(frame, member)
            # Of two links the later one may bring the earlier word (L-61).
            if message.version <= boot.version:
                return
            boot.version = message.version
            if member == "presence_event":
                boot.lease_s = message.lease_ms / 1000
                if boot.named is not None:
                    boot.named.add(message.user_id)
                if message.online:
                    boot.users.add(message.user_id)
                else:
                    boot.users.discard(message.user_id)
            elif not message.end:
                boot.named = set()
            elif boot.named is not None:
                # Who was not named is offline (L-69), and what an earlier boot has said is over (L-70).
                boot.users &= boot.named
                boot.named = None
                self.snapshots += 1
                for gateway_id, boot_id in list(self._boots):
                    if gateway_id == link.gateway_id and boot_id != link.boot_id:
                        del self._boots[gateway_id, boot_id]
            self._changed.notify_all()


class _Boot:
    """What one start of one gateway has said."""

    def __init__(self):
        self.version = 0
        self.users = set()
        # Whom the snapshot that is under way has named; None when there is none.
        self.named = None
        self.heard = 0.0
        self.lease_s = 0.0


class Service:
    """`key` is the one that the gateway has for this service; None where the deployment has none (`without_proofs`).
    `presence` is a Presence to keep, where the service wants to know who is online and has the grant for it."""

    def __init__(self, name, key=None, instance_id="", view=None, threads=16, presence=None):
        self.name = name
        self.key = key
        self.instance_id = instance_id or f"{name}-{os.getpid()}"
        self.view = view or pb.ServiceView()
        self.presence = presence
        # Functions that may be replaced: what to do with a PushReceipt, a LinkNotice, a SessionCheck's Caller (it returns
        # a SessionVerdict), and a link that has become ready or has ended.
        self.on_receipt = lambda receipt: None
        self.on_notice = lambda notice: None
        self.on_session_check = lambda caller: pb.SessionVerdict(admitted=True)
        self.on_link = lambda link: None
        self._handlers = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="moorgate-call")
        self._listener = None
        # Guards the links; who waits for one to come or go waits for this.
        self._changed = threading.Condition()
        self._links = []
        self._draining = False

    def handle(self, *commands):
        """Makes a function the handler of these commands. It gets a Call and returns the payload, or a Reply."""

        def register(function):
            for command in commands:
                self._handlers[command] = function
            return function

        return register

    def listen(self, address):
        """Lets gateways connect, and returns "host:port" as it came to be."""
        host, port = address.rsplit(":", 1)
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, int(port)), family=family)
        threading.Thread(target=self._accept, name="moorgate-accept", daemon=True).start()
        host, port = self._listener.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def push(self, push, timeout=PUSH_TIMEOUT_S):
        """Sends a ServicePush to every gateway that is connected, and returns each one's PushResult by its id.

        Each gateway has its own sessions only. All pushes for one gateway go on the same link as long as that is ready,
        because only those of one link are delivered in their order (L-81). A push whose link is lost before the result
        came is repeated on another, under the same `push_id` (L-50)."""
        push.push_id = push.push_id or os.urandom(16)
        ends = time.monotonic() + timeout
        results = {}
        for gateway_id in {link.gateway_id for link in self.links()}:
            while (link := self._link_to(gateway_id)) is not None:
                try:
                    results[gateway_id] = link.push(push, ends - time.monotonic())
                    break
                except LinkLost:
                    continue
        return results

    def set_view(self, view):
        """Tells every gateway how the service sees itself from now on."""
        self.view = view
        for link in self.links():
            link.ping()

    def links(self):
        """The links that are ready or draining, bulk links aside."""
        with self._changed:
            return [link for link in self._links if link.is_ready() and link.main_nonce is None]

    def _pair(self, bulk):
        """The main link of a bulk link (L-84); None: it is of another instance, or lost."""
        with self._changed:
            for link in self._links:
                same_boot = (link.gateway_id, link.boot_id) == (bulk.gateway_id, bulk.boot_id)
                if same_boot and link.main_nonce is None and link.nonce == bulk.main_nonce and link.is_ready():
                    return link
        return None

    def drain(self, deadline_s=20.0):
        """Takes no new links and no new calls, runs those that it has, and comes back when the gateways have closed
        the links or the deadline is over. True: they have all closed."""
        # Closing alone would leave `accept` waiting, and the port open.
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not every system does it with a listener
        self._listener.close()
        with self._changed:
            self._draining = True
            links = list(self._links)
        for link in links:
            link.drain(deadline_s)
        with self._changed:
            gone = self._changed.wait_for(lambda: not self._links, deadline_s)
            links = list(self._links)
        for link in links:
            link.close()
        self._pool.shutdown(wait=gone, cancel_futures=True)
        return gone

    def _link_to(self, gateway_id):
        links = [link for link in self.links() if link.gateway_id == gateway_id]
        return links[0] if links else None

    def _accept(self):
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return  # drain has closed the listener
            link = Link(self, connection, peer)
            with self._changed:
                refused = self._draining or len(self._links) >= LINKS_MAX
                if not refused:
                    self._links.append(link)
            if refused:
                connection.close()
            else:
                threading.Thread(target=link.run, name=f"moorgate-link-{peer[1]}", daemon=True).start()

    def _gone(self, link):
        with self._changed:
            self._links.remove(link)
            self._changed.notify_all()

    def _submit(self, function, *arguments):
        """Runs it in the pool, so that a link never waits for it (L-47)."""

        def run():
            try:
                function(*arguments)
            except Exception:
                log.exception("%s has failed", function)

        try:
            self._pool.submit(run)
        except RuntimeError:
            pass  # the service has drained

    def _run(self, call):
        """Runs a call in the pool and makes sure that there is exactly one Reply (L-22)."""
        handler = self._handlers.get(call.frame.command)
        if handler is None:
            reply = refusal(Status.UNIMPLEMENTED, common.REASON_NO_ROUTE, "this service has no such command")
        elif call.cancelled.is_set():
            reply = refusal(Status.CANCELLED, common.REASON_CANCELLED)
        elif not call.remaining_s():
            reply = refusal(Status.DEADLINE_EXCEEDED, common.REASON_TIMEOUT)
        else:
            try:
                reply = handler(call)
            except Exception:
                log.exception("the handler of command %#06x has failed", call.frame.command)
                reply = pb.Reply(
                    status=Status.INTERNAL, reason=common.REASON_INTERNAL, execution=common.EXECUTION_UNKNOWN
                )
            if not isinstance(reply, pb.Reply):
                reply = pb.Reply(payload=reply or b"")
        call.link.reply(call, reply)


class Link:
    """A connection of a gateway. Its own thread reads; anybody may write."""

    def __init__(self, service, connection, peer):
        self.gateway_id = ""
        self.boot_id = 0
        self.pushes_max = 0
        # Of its LinkHello; a bulk link has that of its main link too.
        self.nonce = b""
        self.main_nonce = None
        # The bulk link of a main link, once it is ready.
        self.bulk = None
        self._asked_for_bulk = False
        self._service = service
        self._socket = connection
        self._peer = peer
        self._reader = FrameReader(pb.ToService)
        self._reply_bytes_max = 0
        self._writing = threading.Lock()
        # Guards everything below.
        self._lock = threading.Lock()
        self._state = "opening"
        self._calls = {}
        self._push_places = None
        self._pushes = {}
        self._nonces = itertools.count(1)

    def __str__(self):
        return f"link from {self.gateway_id or 'a gateway'} at {self._peer[0]}:{self._peer[1]}"

    def is_ready(self):
        return self._state in ("ready", "draining")

    # ---- what the gateway is told ----

    def reply(self, call, reply):
        with self._lock:
            if self._calls.pop(call.frame.call_id, None) is not call:
                return
        frame = pb.ToGateway(reply=reply)
        frame.reply.call_id = call.frame.call_id
        if frame.ByteSize() > self._reply_bytes_max:
            frame = pb.ToGateway(
                reply=pb.Reply(
                    call_id=call.frame.call_id,
                    status=Status.RESOURCE_EXHAUSTED,
                    reason=common.REASON_REPLY_TOO_LARGE,
                    execution=reply.execution or common.EXECUTION_EXECUTED,
                )
            )
        if self.main_nonce is None and frame.ByteSize() > FRAME_BYTES_MAIN_LINK:
            bulk = self.bulk
            if bulk is not None and bulk.is_ready() and bulk._send(frame):
                return
            if not self._asked_for_bulk:
                # From the next one on there is a bulk link, so that large Replies delay nothing (L-85).
                self._asked_for_bulk = True
                self._send(pb.ToGateway(notice=pb.LinkNotice(kind=pb.LinkNotice.KIND_BULK_WANTED)))
        self._send(frame)

    def push(self, push, timeout):
        """Sends it and waits for the PushResult; LinkLost when the link is lost before."""
        if self._push_places is None:
            raise PermissionError(f"the gateway {self.gateway_id} has not granted this service any pushes")
        if not self._push_places.acquire(timeout=max(0.0, timeout)):
            raise TimeoutError("too many pushes have no result yet")
        try:
            answer = concurrent.futures.Future()
            with self._lock:
                if not self.is_ready():
                    raise LinkLost()
                self._pushes[push.push_id] = answer
            self._send(pb.ToGateway(push=push))
            return answer.result(timeout)
        finally:
            with self._lock:
                self._pushes.pop(push.push_id, None)
            self._push_places.release()

    def ping(self):
        self._send(pb.ToGateway(ping=pb.LinkPing(nonce=next(self._nonces), view=self._service.view)))

    def drain(self, deadline_s):
        if self.main_nonce is not None:
            return  # it ends with its main link
        with self._lock:
            ready, self._state = self._state == "ready", "draining" if self._state == "ready" else "gone"
        if ready:
            self._send(pb.ToGateway(drain=pb.LinkDrain(deadline_ms=round(deadline_s * 1000))))
        else:
            self.close()

    def close(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the gateway was faster

    def _send(self, frame):
        """False: the link is lost."""
        try:
            with self._writing:
                self._socket.sendall(pack(frame))
            return True
        except OSError:
            self.close()  # the thread that reads sees the end
            return False

    # ---- the thread that reads ----

    def run(self):
        why = "the gateway has closed it"
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.settimeout(OPENING_TIMEOUT_S)
            frames = self._frames()
            if self._open(frames) and self._join():
                if self._service.presence is not None and self.main_nonce is None:
                    # On each link; the gateway chooses one (L-68).
                    self._send(pb.ToGateway(presence_subscribe=pb.PresenceSubscribe()))
                self._service.on_link(self)
                self._socket.settimeout(SILENCE_S)
                for frame in frames:
                    if not self._take(frame):
                        break
        except TimeoutError:
            why = "nothing was heard in time"
        except BrokenContract as error:
            why = str(error)
            self._refuse(Status.INVALID_ARGUMENT, error.reason, why)
        except OSError as error:
            why = str(error)
        finally:
            self._end(why)

    def _frames(self):
        while data := self._socket.recv(65536):
            yield from self._reader.feed(data)

    def _join(self):
        """A bulk link joins its main link; false when there is none."""
        if self.main_nonce is None:
            return True
        main = self._service._pair(self)
        if main is None:
            return self._refuse(
                Status.FAILED_PRECONDITION, common.REASON_IDENTITY_MISMATCH, "a bulk link of no link of this instance"
            )
        main.bulk = self
        main._asked_for_bulk = False
        return True

    def _open(self, frames):
        """LinkHello, LinkHelloAck, LinkAuth; false when the link has ended (L-1 to L-13)."""
        frame = next(frames, None)
        if frame is None:
            return False
        if frame.WhichOneof("member") != "hello":
            raise BrokenContract("the first frame is no LinkHello")
        hello = frame.hello
        self.gateway_id, self.boot_id, self.nonce = hello.gateway_id, hello.boot_id, hello.nonce
        if hello.purpose == pb.LINK_PURPOSE_BULK:
            self.main_nonce = hello.main_nonce
        if not hello.version_min <= VERSION <= hello.version_max:
            return self._refuse(
                Status.FAILED_PRECONDITION,
                common.REASON_VERSION_UNSUPPORTED,
                f"this service speaks version {VERSION}",
            )
        if hello.service != self._service.name:
            return self._refuse(
                Status.FAILED_PRECONDITION, common.REASON_IDENTITY_MISMATCH, f"this is {self._service.name}"
            )
        ack = pb.LinkHelloAck(
            version=VERSION,
            service=self._service.name,
            instance_id=self._service.instance_id,
            nonce=os.urandom(32),
            frame_bytes_max=FRAME_BYTES_CEILING,
            view=self._service.view,
        )
        key = self._service.key
        if key is not None:
            ack.proof = proof("moorgate link v1 service", key, hello, ack)
        self._send(pb.ToGateway(hello_ack=ack))
        frame = next(frames, None)
        if frame is None:
            return False
        if frame.WhichOneof("member") != "auth":
            raise BrokenContract("LinkAuth was awaited")
        if key is not None:
            wanted = proof("moorgate link v1 gateway", key, hello, ack)
            if not hmac.compare_digest(frame.auth.proof, wanted):
                return self._refuse(
                    Status.UNAUTHENTICATED,
                    common.REASON_PROOF_INVALID,
                    "the gateway's proof does not hold: are the keys the same?",
                )
        self._reader.frame_bytes_max = FRAME_BYTES_CEILING
        self._reply_bytes_max = min(hello.frame_bytes_max or FRAME_BYTES_CEILING, FRAME_BYTES_CEILING)
        self.pushes_max = hello.pushes_max
        with self._lock:
            if self._state != "opening":
                return False  # the service drains
            if hello.pushes_max:
                self._push_places = threading.BoundedSemaphore(hello.pushes_max)
            self._state = "ready"
        return True

    def _take(self, frame):
        """False: it was the last frame."""
        member = frame.WhichOneof("member")
        if self._service.presence is not None:
            self._service.presence._take(self, frame)
        if member == "call":
            self._take_call(frame.call)
        elif member == "cancel":
            with self._lock:
                call = self._calls.get(frame.cancel.call_id)
            if call is not None:
                call.cancelled.set()
        elif member == "ping":
            self._send(pb.ToGateway(pong=pb.LinkPong(nonce=frame.ping.nonce, view=self._service.view)))
        elif member == "push_result":
            with self._lock:
                answer = self._pushes.get(frame.push_result.push_id)
            if answer is not None and not answer.done():
                answer.set_result(frame.push_result)
        elif member == "push_receipt":
            self._service._submit(self._service.on_receipt, frame.push_receipt)
        elif member == "notice":
            # What this service did wrong, and what was left out because of it (L-82). Never answered (L-83).
            log.warning("%s: %s (%d times)", self, frame.notice.message, max(1, frame.notice.count))
            self._service._submit(self._service.on_notice, frame.notice)
        elif member == "session_check":
            self._service._submit(self._check, frame.session_check)
        elif member == "error":
            log.warning("%s: the gateway says %s", self, frame.error.message)
            return False
        elif member in ("hello", "auth"):
            raise BrokenContract(f"a second {member}")
        # Otherwise a LinkPong, presence, or what a newer version has (L-18).
        return True

    def _check(self, check):
        verdict = self._service.on_session_check(check.caller)
        verdict.check_id = check.check_id
        self._send(pb.ToGateway(session_verdict=verdict))

    def _take_call(self, frame):
        call = Call(self, frame)
        with self._lock:
            full = len(self._calls) >= (self._service.view.outstanding_max or OUTSTANDING_MAX)
            self._calls[frame.call_id] = call
        if full:
            self.reply(call, refusal(Status.RESOURCE_EXHAUSTED, common.REASON_SERVICE_OVERLOADED))
        else:
            self._service._submit(self._service._run, call)

    def _refuse(self, status, reason, message):
        log.warning("%s: refused: %s", self, message)
        self._send(pb.ToGateway(error=pb.LinkError(status=status, reason=reason, message=message)))
        return False

    def _end(self, why):
        """The one way in which a link ends. Nobody is left to reply to, so its calls are cancelled."""
        with self._lock:
            was_ready, self._state = self.is_ready(), "gone"
            calls, self._calls = list(self._calls.values()), {}
            pushes, self._pushes = list(self._pushes.values()), {}
        log.info("%s has gone: %s", self, why)
        for call in calls:
            call.cancelled.set()
        for answer in pushes:
            answer.set_exception(LinkLost())
        with self._writing:
            # A Reply that was begun when the gateway ended the stream is written first (L-87).
            self._socket.close()
        self._service._gone(self)
        if was_ready:
            self._service.on_link(self)


def proof(text, key, hello, ack):
    """Both proofs of a link, the table after L-15."""
    data = parts(
        text,
        struct.pack(">I", ack.version),
        hello.gateway_id,
        struct.pack(">Q", hello.boot_id),
        hello.service,
        ack.instance_id,
        hello.nonce,
        ack.nonce,
        struct.pack(">I", hello.purpose),
    )
    return hmac.digest(key, data, hashlib.sha256)
