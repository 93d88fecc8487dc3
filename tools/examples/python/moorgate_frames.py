"""Frames, as sections 1 and 2 of protocol-spec.md have them: what a client and a service share.

Nothing here reads or writes a socket. `pack` makes the bytes of a frame; a `FrameReader` is fed with whatever bytes
come and gives back whole frames, or raises `BrokenContract`, after which the connection is of no use.
"""

import struct

import common_pb2 as common

FRAME_BYTES_OPENING = 4096
FRAME_BYTES_CEILING = 16 * 1024 * 1024
FRAME_OVERHEAD = 1024
MEMBERS = range(8, 64)

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5


class BrokenContract(Exception):
    """The peer has sent what it must not send. Who may say so to it says it with this reason."""

    def __init__(self, message, reason=common.REASON_PROTOCOL_VIOLATION):
        super().__init__(message)
        self.reason = reason


def pack(frame):
    """The bytes of a frame. The library writes fields in the order of their numbers, so that E-6 holds by itself."""
    data = frame.SerializeToString()
    return struct.pack(">I", len(data)) + data


class FrameReader:
    """Cuts a stream into frames of the message type `frame_type`. One of no bytes is a bare acknowledgement (F-6)."""

    def __init__(self, frame_type):
        self._frame_type = frame_type
        self._buffer = bytearray()
        # Whoever opens the connection raises it, once both sides have agreed.
        self.frame_bytes_max = FRAME_BYTES_OPENING

    def feed(self, data):
        """Yields each frame that is complete with these bytes."""
        self._buffer += data
        while len(self._buffer) >= 4:
            (length,) = struct.unpack_from(">I", self._buffer)
            if length > self.frame_bytes_max:
                message = f"a frame of {length} bytes, where {self.frame_bytes_max} is the most"
                raise BrokenContract(message, common.REASON_FRAME_TOO_LARGE)
            if len(self._buffer) < 4 + length:
                return
            body = bytes(self._buffer[4 : 4 + length])
            del self._buffer[: 4 + length]
            yield self._parse(body)

    def _parse(self, body):
        # A protobuf library takes the last of two members, and passes over one that is not length-delimited; both
        # are not frames here (E-2, E-3). So the frame's own fields are looked at first.
        members = 0
        for number, kind in fields(body):
            if number in MEMBERS:
                members += 1
                if members > 1 or kind != DELIMITED:
                    raise _malformed("two members, or one that is no message")
        frame = self._frame_type()
        try:
            frame.ParseFromString(body)
        except Exception as error:  # the library's DecodeError; which class depends on how it was built
            raise _malformed(error) from error
        return frame


def fields(body):
    """Number and wire type of each field of an encoded message."""
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _, at = _varint(body, at)
        elif kind == FIXED64:
            at += 8
        elif kind == FIXED32:
            at += 4
        elif kind == DELIMITED:
            length, at = _varint(body, at)
            at += length
        else:
            raise _malformed(f"a field of wire type {kind}")
        if number == 0 or at > len(body):
            raise _malformed("a field without a number, or that ends behind its frame")
        yield number, kind


def _varint(body, at):
    value = 0
    for place in range(10):
        if at + place >= len(body):
            break
        byte = body[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise _malformed("a number that does not end")


def _malformed(what):
    return BrokenContract(f"bytes that are not a frame: {what}", common.REASON_FRAME_MALFORMED)


def parts(*values):
    """What the proofs are made over: each part as its length, four bytes, and its bytes. A text counts as UTF-8."""
    encoded = (value.encode() if isinstance(value, str) else value for value in values)
    return b"".join(struct.pack(">I", len(value)) + value for value in encoded)


def key_of_file(path):
    """A key is the bytes of its file without the white space at its end; base64 is not decoded."""
    with open(path, "rb") as file:
        return file.read().rstrip()
