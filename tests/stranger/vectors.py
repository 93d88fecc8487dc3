"""The frames of proto/vectors, as the Python client and service read and write them.

    python3 vectors.py DIRECTORY_OF_PROTO

Whole frames are read and written again; those that must not be are refused for the reason that is named.
"""

import pathlib
import sys

import client_pb2
import common_pb2 as common
import moorgate_client
import moorgate_reasons
import moorgate_service
import service_pb2
from google.protobuf import text_format
from moorgate_frames import FRAME_BYTES_CEILING, BrokenContract, FrameReader, pack, parts
from programs import Failed, expect

FRAMES = {
    "client to gateway": client_pb2.ClientFrame,
    "gateway to client": client_pb2.GatewayFrame,
    "gateway to service": service_pb2.ToService,
    "service to gateway": service_pb2.ToGateway,
}
FRAME_REASONS = ("FRAME_TOO_LARGE", "FRAME_MALFORMED")
# A field with another wire type than its own: the gateway refuses it, protobuf's own libraries pass over it.
PASSED_OVER = ("request-undecodable", "link-reply-undecodable")


def entries(path):
    for block in path.read_text().split("\n\n"):
        entry, key = {}, None
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line.startswith("  "):
                entry[key] += line[2:] + "\n"
            else:
                key, _, value = line.partition(":")
                entry[key] = value.strip()
        if "hex" in entry:
            entry["hex"] = bytes.fromhex(entry["hex"])
            yield entry


def parsed(entry):
    """What an entry's text says, without the fields that the .proto files do not have."""
    frame = FRAMES[entry["direction"]]()
    text_format.Parse(entry["text"], frame, allow_unknown_field=True, allow_field_number=True)
    return frame


def check_good(entry):
    name, wanted = entry["name"], parsed(entry)
    reader = FrameReader(type(wanted))
    reader.frame_bytes_max = FRAME_BYTES_CEILING
    # Byte by byte: it makes no difference (F-9).
    got = [frame for at in range(len(entry["hex"])) for frame in reader.feed(entry["hex"][at : at + 1])]
    expect(f"{name}: frames", len(got), 1)
    got[0].DiscardUnknownFields()
    expect(name, got[0], wanted)
    if "unknown" not in name and "any-order" not in name:
        expect(f"{name}, written", pack(wanted), entry["hex"])


def check_malformed(entry):
    reader = FrameReader(FRAMES[entry["direction"]])
    reader.frame_bytes_max = 4096 if entry["state"] == "opening" else 65536
    try:
        list(reader.feed(entry["hex"]))
    except BrokenContract as error:
        expect(entry["name"], common.Reason.Name(error.reason), "REASON_" + entry["fault"])
    else:
        raise Failed(f"{entry['name']} was taken")


def check_proofs(of):
    """The proofs in the vectors are those that this client and this service make."""
    hello, ack, auth = (parsed(of[name]) for name in ("link-hello", "link-hello-ack", "link-auth"))
    key = bytes.fromhex(of["link-auth"]["key"])
    for text, wanted in (("service", ack.hello_ack.proof), ("gateway", auth.auth.proof)):
        got = moorgate_service.proof(f"moorgate link v1 {text}", key, hello.hello, ack.hello_ack)
        expect(f"the {text}'s proof", got, wanted)
    entry = of["hello-application-proof"]
    hello = parsed(entry).hello
    got = moorgate_client.application_mac(bytes.fromhex(entry["key"]), hello)
    expect("the application's proof", got, hello.application_proof.mac)
    expect("parts", parts("ab", b"\x00"), b"\x00\x00\x00\x02ab\x00\x00\x00\x01\x00")


def check_reasons(specification):
    """The advice for every reason is that of the specification's table."""
    rows = 0
    for line in specification.read_text().split("## 12. Reasons")[1].split("## 13.")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 5 or not cells[0].isdigit():
            continue
        number, name, _, not_executed, otherwise = cells
        expect(f"the number of {name}", common.Reason.Value(f"REASON_{name}"), int(number))
        for execution, wanted in (
            (common.EXECUTION_UNSPECIFIED, not_executed),
            (common.EXECUTION_NOT_EXECUTED, not_executed),
            (common.EXECUTION_UNKNOWN, otherwise),
            (common.EXECUTION_EXECUTED, otherwise),
        ):
            expect(f"what to do about {name}", moorgate_reasons.action(int(number), execution).name, wanted)
        rows += 1
    expect("reasons", rows, len(common.Reason.keys()))
    return rows


def check_actions(good):
    """The action beside a reason is followed, also of a reason that is not known, and the table where there is none."""
    for name, wanted in (
        ("response-ok", None),
        ("response-error", "RETRY_AFTER"),
        ("response-unknown-reason", "RETRY_AFTER"),
        ("error-version", "UPDATE"),
        ("error-resume-stale", "RESYNC"),
        ("notice-token-expired", "REAUTHENTICATE"),
        ("authenticated-mismatch", "GIVE_UP"),
    ):
        frame = parsed(good[name])
        message = getattr(frame, frame.WhichOneof("member"))
        for action in (message.action, 0, 99):
            message.action = action
            got = moorgate_reasons.action_of(message)
            is_told = action not in (0, 99) or name != "response-unknown-reason"
            expect(f"what to do about {name}", got and got.name, wanted if is_told else "GIVE_UP")


def read(proto):
    """The good ones by their names, and the others."""
    good = [entry for name in ("client", "gateway", "links") for entry in entries(proto / f"vectors/{name}.txt")]
    return {entry["name"]: entry for entry in good}, list(entries(proto / "vectors/malformed.txt"))


def main(proto):
    proto = pathlib.Path(proto)
    good, malformed = read(proto)
    for entry in good.values():
        check_good(entry)
    malformed = [entry for entry in malformed if entry["fault"] in FRAME_REASONS and entry["name"] not in PASSED_OVER]
    for entry in malformed:
        check_malformed(entry)
    check_proofs(good)
    check_actions(good)
    reasons = check_reasons(proto.parent / "protocol-spec.md")
    print(f"vectors: {len(good)} frames, {len(malformed)} that are none, {reasons} reasons")


if __name__ == "__main__":
    main(*sys.argv[1:])
