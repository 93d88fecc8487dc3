"""Connections by hand: one end of one, and a cable that a check may cut at any byte."""

import socket
import threading

import client_pb2
from moorgate_frames import FRAME_BYTES_CEILING, FrameReader, pack
from programs import WAIT_S, Failed


class Peer:
    """The other end of a connection, by hand."""

    def __init__(self, connection, frame_type):
        connection.settimeout(WAIT_S)
        self.connection = connection
        self._reader = FrameReader(frame_type)
        self._reader.frame_bytes_max = FRAME_BYTES_CEILING
        self._frames = self._read()

    def _read(self):
        while data := self.connection.recv(65536):
            yield from self._reader.feed(data)

    def next(self, *members):
        """The next frame with one of these; bare acknowledgements and Pings of a client are passed over."""
        wanted = " or ".join(members)
        for frame in self._frames:
            got = frame.WhichOneof("member")
            if got in members:
                return frame
            if got not in (None, "ping"):
                raise Failed(f"{got} came, {wanted} was awaited")
        raise Failed(f"the end came, {wanted} was awaited")

    def until_ack(self, number):
        for frame in self._frames:
            if frame.ack >= number:
                return frame.ack
        raise Failed(f"the end came, an acknowledgement of {number} was awaited")

    def rest(self):
        """All frames until the end of the stream."""
        return list(self._frames)

    def send(self, data):
        self.connection.sendall(data)

    def request(self, up_seq, command, **fields):
        self.send(pack(client_pb2.ClientFrame(up_seq=up_seq, request=client_pb2.Request(command=command, **fields))))

    def speak(self):
        """A frame that needs nothing, and proof that it has come."""
        self.send(pack(client_pb2.ClientFrame(ping=client_pb2.Ping(nonce=7))))
        return self.next("pong")

    def close(self):
        self.connection.close()


def dial(address):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), WAIT_S)


def greet(address, token=b"", attempt=0, down_seq=0, **hello):
    """A client's connection by hand, and what answers its Hello: a Welcome or an Error."""
    peer = Peer(dial(address), client_pb2.GatewayFrame)
    hello = client_pb2.Hello(version_min=1, version_max=1, **hello)
    if token:
        hello.resume.resume_token, hello.resume.attempt, hello.resume.down_seq = token, attempt, down_seq
    peer.send(pack(client_pb2.ClientFrame(hello=hello)))
    frame = peer.next("welcome", "error")
    return peer, frame.welcome if frame.HasField("welcome") else frame.error


class Cable:
    """Between a client and a gateway. Its ends are one connection at a time; a new one waits while it is unplugged."""

    def __init__(self, address):
        self._gateway = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._plugged = threading.Event()
        self._plugged.set()
        self._lock = threading.Lock()
        self._ends = None
        # What `_left` is at the beginning of a connection, and how often one was cut for it.
        self.plan = dict
        self.cuts = 0
        # How many bytes came first in each direction, the last time: Hello, and Welcome.
        self.opening = {}
        # How many bytes still pass towards the gateway, and towards the client; None: all.
        self._left = {}
        # Where the bytes of a gateway go whose client has been taken off.
        self._diverted = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self._listener.accept()
            self._plugged.wait()
            gateway = dial(self._gateway)
            with self._lock:
                self._ends, self._left = (client, gateway), self.plan()
            for direction, source, sink in (("up", client, gateway), ("down", gateway, client)):
                threading.Thread(target=self._carry, args=(direction, source, sink), daemon=True).start()

    def _carry(self, direction, source, sink):
        source.settimeout(None)
        left, is_first = None, True
        while True:
            try:
                data = source.recv(65536)
                if is_first and data:
                    # The first frame, with its length.
                    self.opening[direction] = 4 + int.from_bytes(data[:4], "big")
                is_first = False
                with self._lock:
                    sink = self._diverted.get(source, sink)
                    mine = self._ends is not None and source in self._ends
                    left = self._left.get(direction) if mine else None
                    if left is not None:
                        self._left[direction] = left - len(data)
                if not mine and source not in self._diverted:
                    return
                sink.sendall(data if left is None else data[:left])
            except OSError:
                data = b""
            if not data or (left is not None and left <= len(data)):
                with self._lock:
                    self.cuts += bool(data)
                self._part((source, sink))
                return

    def _part(self, ends):
        with self._lock:
            if self._ends is not None and set(ends) == set(self._ends):
                self._ends = None
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has gone already

    def cut(self):
        with self._lock:
            ends = self._ends
        if ends is not None:
            self._part(ends)

    def cut_after(self, direction, count):
        """Once so many more bytes have come, which may be within a frame."""
        with self._lock:
            self._left[direction] = count

    def hang(self):
        """The client loses its connection and the gateway does not. What the gateway says comes back as of a Peer."""
        near, far = socket.socketpair()
        with self._lock:
            (client, gateway), self._ends = self._ends, None
            self._diverted[gateway] = far
        client.shutdown(socket.SHUT_RDWR)
        return Peer(near, client_pb2.GatewayFrame)

    def unplug(self):
        self._plugged.clear()
        self.cut()

    def plug(self):
        self._plugged.set()
