"""A client that shares no code with the gateway: written from protocol-spec.md and the .proto files alone.

    python3 echo.py HOST:PORT DIRECTORY_OF_GENERATED_PB2 [ACCESS_TOKEN]
"""

import socket
import struct
import sys

sys.path.insert(0, sys.argv[2])
import client_pb2 as client  # noqa: E402
import common_pb2 as common  # noqa: E402


class Connection:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)

    def send(self, frame):
        data = frame.SerializeToString()
        self.socket.sendall(struct.pack(">I", len(data)) + data)

    def receive_exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise SystemExit("the gateway has closed the connection")
            data += part
        return data

    def receive(self):
        (length,) = struct.unpack(">I", self.receive_exactly(4))
        frame = client.GatewayFrame()
        frame.ParseFromString(self.receive_exactly(length))
        return frame


def expect(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"{what}: {got!r} instead of {wanted!r}")


def main():
    token = sys.argv[3] if len(sys.argv) > 3 else ""
    connection = Connection(sys.argv[1])
    hello = client.Hello(version_min=1, version_max=7, application="stranger", access_token=token)
    connection.send(client.ClientFrame(hello=hello))
    welcome = connection.receive().welcome
    expect("the version", welcome.version, 1)
    expect("bytes of the session id", len(welcome.session_id), 16)
    expect("the user", welcome.user_id, "alice" if token else "")

    taken = 0
    in_flight = welcome.limits.in_flight_max
    for first in range(1, 3 * in_flight, in_flight):
        numbers = range(first, first + in_flight)
        for up_seq in numbers:
            request = client.Request(command=1, payload=b"%d" % up_seq)
            connection.send(client.ClientFrame(up_seq=up_seq, ack=taken, request=request))
        answered = set()
        for _ in numbers:
            frame = connection.receive()
            expect("the number", frame.down_seq, taken + 1)
            taken = frame.down_seq
            response = frame.response
            expect("the status", (response.status, response.execution), (0, common.EXECUTION_EXECUTED))
            expect("the payload", response.payload, b"%d" % response.up_seq)
            answered.add(response.up_seq)
        expect("the answers", answered, set(numbers))

    connection.send(client.ClientFrame(ack=taken, ping=client.Ping(nonce=42)))
    expect("the pong", connection.receive().pong.nonce, 42)
    unknown = client.Request(command=0xFFFF)
    connection.send(client.ClientFrame(up_seq=first + in_flight, request=unknown))
    response = connection.receive().response
    expect("the refusal", (response.status, response.reason), (12, common.REASON_NO_ROUTE))
    connection.send(client.ClientFrame(ack=taken + 1, bye=client.Bye()))
    expect("the end", connection.receive().WhichOneof("member"), "bye_ack")
    print(f"stranger: {taken + 1} answers, as {welcome.user_id or 'nobody'}")


main()
