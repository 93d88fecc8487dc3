"""The Python client and service opposite a gateway that is played here, with the frames of proto/vectors: what a real
gateway never sends, and what it sends seldom.

    python3 played.py DIRECTORY_OF_PROTO
"""

import logging
import pathlib
import socket
import sys
import threading

import client_pb2
import common_pb2 as common
import moorgate_client
import moorgate_reasons
import moorgate_service
import service_pb2
from moorgate_frames import pack
from peers import Peer
from programs import WAIT_S, Failed, expect
from vectors import parsed, read


class PlayedGateway:
    """Takes one client, and welcomes it unless told otherwise."""

    def __init__(self, welcome):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_S)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.peer = None
        self._thread = threading.Thread(target=self._welcome, args=(welcome,))
        self._thread.start()

    def _welcome(self, first):
        connection, _ = self._listener.accept()
        self._listener.close()
        self.peer = Peer(connection, client_pb2.ClientFrame)
        self.peer.next("hello")
        self.peer.send(first)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._thread.join()
        self.peer.connection.close()

    def connect(self):
        client = moorgate_client.connect(self.address, patience=0)
        self._thread.join()
        return client


def check_client_refuses(of, entry):
    """A client closes the connection over it, and neither acknowledges nor answers it."""
    name = entry["name"]
    opening = entry["state"] == "opening"
    with PlayedGateway(entry["hex"] if opening else of["welcome-anonymous"]["hex"]) as gateway:
        if opening:
            try:
                gateway.connect()
            except moorgate_client.SessionEnded as ended:
                end = ended.end
            else:
                raise Failed(f"{name} was taken for a welcome")
        else:
            client = gateway.connect()
            gateway.peer.send(entry["hex"])
            expect(f"{name}: events", client.next_event(WAIT_S), None)
            end = client.end
            expect(f"{name}: frames after it", gateway.peer.rest(), [])
        expect(f"{name}: an Error of the gateway", end.error, None)
        expect(f"{name}: whether to come back", end.reconnect_delay() is None, False)


def check_client_settles(of):
    """Above the admitted number nothing was executed; below nobody knows (S-15)."""
    with PlayedGateway(of["welcome-anonymous"]["hex"]) as gateway:
        client = gateway.connect()
        pending = [client.start(1, b"x") for _ in range(4)]
        for up_seq in range(1, 5):
            expect("numbers of requests", gateway.peer.next("request").up_seq, up_seq)
        gateway.peer.send(of["error-shutdown"]["hex"])
        outcomes = [request.result(WAIT_S) for request in pending]
        unknown, never = common.EXECUTION_UNKNOWN, common.EXECUTION_NOT_EXECUTED
        expect("executions", [outcome.execution for outcome in outcomes], [unknown] * 3 + [never])
        expect("the delay", client.end.reconnect_delay(), 3.456)
        advice = [moorgate_reasons.action(outcome.reason, outcome.execution).name for outcome in outcomes]
        expect("advice", advice, ["RESYNC"] * 3 + ["RETRY_AFTER"])
        expect("what follows the Error", gateway.peer.rest(), [])


def check_client_counts(of):
    """A range is taken as come, a push twice under one id once, a member of the future is counted, a Ping answered."""

    def push(down_seq, push_id):
        return pack(client_pb2.GatewayFrame(down_seq=down_seq, push=client_pb2.Push(push_id=push_id)))

    with PlayedGateway(of["welcome-anonymous"]["hex"]) as gateway:
        client = gateway.connect()
        gap = client_pb2.GatewayFrame(down_seq=4, gap=client_pb2.Gap(first=2, last=4))
        unknown = of["gateway-unknown-member-numbered"]["hex"]
        gateway.peer.send(push(1, b"a") + pack(gap) + push(5, b"a") + push(6, b"") + push(7, b""))
        gateway.peer.send(push(7, b"") + of["gateway-ping"]["hex"])
        gateway.peer.next("pong")
        taken = [type(client.next_event(WAIT_S)).__name__ for _ in range(4)]
        expect("events", taken, ["Push", "Gap", "Push", "Push"])
        expect("the acknowledgement", gateway.peer.until_ack(7), 7)
        frame = client_pb2.GatewayFrame.FromString(unknown[4:])
        frame.down_seq = 8
        gateway.peer.send(pack(frame))
        expect("the acknowledgement of what is unknown", gateway.peer.until_ack(8), 8)
        # Who takes nothing acknowledges nothing.
        gateway.peer.send(b"".join(push(number, b"") for number in range(9, 137)))
        for _ in range(128):
            client.next_event(WAIT_S)
        # At once, and not only when it is time.
        expect("half a window", client._acknowledged, 136)
        expect("its acknowledgement", gateway.peer.until_ack(136), 136)
        gateway.peer.send(pack(client_pb2.GatewayFrame(error=client_pb2.Error())))
        expect("the end", client.next_event(WAIT_S), None)


def check_client_pings(of):
    """A quiet client pings by itself (P-5), and takes silence for the loss of its gateway (P-6)."""
    frame = client_pb2.GatewayFrame(welcome=parsed(of["welcome-anonymous"]).welcome)
    frame.welcome.heartbeat_ms = 1000
    with PlayedGateway(pack(frame)) as gateway:
        client = gateway.connect()
        for _ in range(2):
            nonce = gateway.peer.next("ping").ping.nonce
            gateway.peer.send(pack(client_pb2.GatewayFrame(pong=client_pb2.Pong(nonce=nonce))))
        expect("the session", client.end, None)
        expect("the end", client.next_event(WAIT_S), None)
        expect("how it ended", "nothing was heard" in client.end.message, True)


def check_client_gives_up_a_broken_session(of):
    """A gateway that breaks the contract twice in a session gets a Hello without resume, and the application a
    FreshSession, also with another loss between the two (F-16)."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(WAIT_S)
    welcome = client_pb2.GatewayFrame(welcome=parsed(of["welcome-anonymous"]).welcome)
    welcome.welcome.resume_token, welcome.welcome.detached_ttl_ms = b"token", 60_000
    breach = of["push"]["hex"]
    hellos = []

    def play():
        for last in (breach, b"", breach, None):
            connection, _ = listener.accept()
            peer = Peer(connection, client_pb2.ClientFrame)
            hellos.append(peer.next("hello").hello)
            is_resume = hellos[-1].HasField("resume")
            welcome.welcome.resume_result = is_resume and client_pb2.RESUME_RESULT_RESUMED
            peer.send(pack(welcome) + (last or b""))
            if last is not None:
                peer.rest() if last else connection.close()
        kept.append(peer)

    kept = []
    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    client = moorgate_client.connect(f"127.0.0.1:{listener.getsockname()[1]}")
    expect("the event", type(client.next_event(WAIT_S)).__name__, "FreshSession")
    thread.join(WAIT_S)
    asked = [hello.HasField("resume") and hello.resume.attempt for hello in hellos]
    expect("the attempts to resume", asked, [False, 1, 2, False])
    expect("the resumes", client.resumes, 2)


def check_client_tries_the_next_address(of):
    """A name with two addresses, of which the first accepts and never answers."""
    silent = socket.create_server(("127.0.0.2", 0))
    port = silent.getsockname()[1]
    answering = socket.create_server(("127.0.0.3", port))
    served = []

    def play():
        while True:
            connection, _ = answering.accept()
            peer = Peer(connection, client_pb2.ClientFrame)
            peer.next("hello")
            peer.send(of["welcome-anonymous"]["hex"])
            served.append(peer)

    threading.Thread(target=play, daemon=True).start()
    real, real_timeout = socket.getaddrinfo, moorgate_client.OPENING_TIMEOUT_S

    def named(host, *arguments, **more):
        if host != "gateway.example":
            return real(host, *arguments, **more)
        return [found for address in ("127.0.0.2", "127.0.0.3") for found in real(address, *arguments, **more)]

    socket.getaddrinfo, moorgate_client.OPENING_TIMEOUT_S = named, 3.0
    try:
        moorgate_client._endpoints._last[f"gateway.example:{port}"] = ("127.0.0.3", port), False
        for is_silent in (True, False, False):
            try:
                moorgate_client.connect(f"gateway.example:{port}", patience=0)
            except moorgate_client.SessionEnded:
                expect("a silent address", is_silent, True)
            else:
                expect("an address that answers", is_silent, False)
    finally:
        socket.getaddrinfo, moorgate_client.OPENING_TIMEOUT_S = real, real_timeout
        silent.close()


def link_to(service, of, key=b""):
    """A link to a service, up to its answer."""
    host, port = service.split(":")
    peer = Peer(socket.create_connection((host, int(port)), WAIT_S), service_pb2.ToGateway)
    hello = service_pb2.ToService(hello=parsed(of["link-hello"]).hello)
    hello.hello.service = "echo"
    peer.send(pack(hello))
    ack = peer.next("hello_ack").hello_ack
    proof = moorgate_service.proof("moorgate link v1 gateway", key, hello.hello, ack) if key else b""
    return peer, proof


def check_service(of, refused):
    calls = []
    service = moorgate_service.Service("echo")
    service.handle(1)(lambda call: calls.append(call) or call.payload)
    address = service.listen("127.0.0.1:0")
    for entry in refused:
        host, port = address.split(":")
        if entry["state"] == "ready":
            peer, proof = link_to(address, of)
            peer.send(pack(service_pb2.ToService(auth=service_pb2.LinkAuth(proof=proof))))
        else:
            peer = Peer(socket.create_connection((host, int(port)), WAIT_S), service_pb2.ToGateway)
        peer.send(entry["hex"])
        error = peer.next("error").error
        expect(entry["name"], common.Reason.Name(error.reason), "REASON_" + entry["fault"])
        expect(f"{entry['name']}: what follows", peer.rest(), [])
    expect("calls that were run", calls, [])
    expect("the drain", service.drain(), True)
    try:
        socket.create_connection((host, int(port)), WAIT_S).close()
        raise Failed("a service that has drained lets gateways connect")
    except ConnectionRefusedError:
        pass


def check_service_proof(of):
    """A gateway whose proof does not hold is told so; one whose proof does is served."""
    key = b"0123456789abcdef"
    service = moorgate_service.Service("echo", key)
    service.handle(1)(lambda call: call.payload)
    address = service.listen("127.0.0.1:0")
    call = pack(service_pb2.ToService(call=service_pb2.Call(call_id=7, command=1, remaining_ms=60000, payload=b"x")))
    peer, proof = link_to(address, of, b"another key, as long")
    peer.send(pack(service_pb2.ToService(auth=service_pb2.LinkAuth(proof=proof))) + call)
    expect("a wrong proof", peer.next("error").error.reason, common.REASON_PROOF_INVALID)
    expect("what follows a wrong proof", peer.rest(), [])
    peer, proof = link_to(address, of, key)
    peer.send(pack(service_pb2.ToService(auth=service_pb2.LinkAuth(proof=proof))) + call)
    reply = peer.next("reply").reply
    expect("the reply", (reply.call_id, reply.payload), (7, b"x"))
    peer.connection.close()
    service.drain()


def main(proto):
    # That a service refuses a link is what is wanted here.
    logging.disable(logging.WARNING)
    good, malformed = read(pathlib.Path(proto))
    to_client = [entry for entry in malformed if entry["direction"] == "gateway to client"]
    for entry in to_client:
        check_client_refuses(good, entry)
    check_client_settles(good)
    check_client_counts(good)
    check_client_pings(good)
    check_client_gives_up_a_broken_session(good)
    check_client_tries_the_next_address(good)
    to_service = [entry for entry in malformed if entry["direction"] == "gateway to service"]
    check_service(good, to_service)
    check_service_proof(good)
    print(f"played: {len(to_client)} frames that a client refuses, {len(to_service)} that a service refuses")


main(*sys.argv[1:])
