"""The Python client against `moorgate serve --dev`: requests, limits, tokens, the end.

    python3 session.py HOST:PORT TOKEN_OF_ALICE ANOTHER_TOKEN_OF_ALICE TOKEN_OF_BOB
"""

import sys

import common_pb2 as common
import moorgate_client
import moorgate_reasons
from programs import WAIT_S, Failed, expect, reason_of

ECHO, NOBODYS = 0x0001, 0xFFFF
OK, PERMISSION_DENIED, UNIMPLEMENTED, UNAUTHENTICATED = 0, 7, 12, 16


def refused(address, **hello):
    """The end of a session that is not let in."""
    try:
        moorgate_client.connect(address, **hello)
    except moorgate_client.SessionEnded as ended:
        return ended.end
    raise Failed(f"a session with {hello} was let in")


def requests(client):
    """More than may be in flight at once, so that the client has to wait and to acknowledge (W-1, W-7)."""
    count = 3 * client.welcome.limits.in_flight_max
    pending = [client.start(ECHO, b"%d" % number, wait=WAIT_S) for number in range(count)]
    for number, request in enumerate(pending):
        response = request.result(WAIT_S)
        expect("the outcome", (response.status, response.source), (OK, common.SOURCE_SERVICE))
        expect("the execution", response.execution, common.EXECUTION_EXECUTED)
        expect("the payload", (response.up_seq, response.payload), (number + 1, b"%d" % number))
    return count


def main(address, token, another, token_of_bob):
    answers = 0
    for access_token in ("", token):
        client = moorgate_client.connect(address, application="stranger", access_token=access_token, device_id="d")
        expect("the version", client.welcome.version, 1)
        expect("bytes of the session id", len(client.welcome.session_id), 16)
        expect("the user", client.user_id, "alice" if access_token else "")
        expect("the expiry", bool(client.access_expires_ms), bool(access_token))
        answers += requests(client)
        client.ping(WAIT_S)
        response = client.request(NOBODYS)
        expect("the refusal", (response.status, reason_of(response)), (UNIMPLEMENTED, "NO_ROUTE"))
        expect("its execution", response.execution, common.EXECUTION_NOT_EXECUTED)
        expect("what to do", moorgate_reasons.action(response.reason, response.execution).name, "GIVE_UP")
        too_much = bytes(client.welcome.limits.frame_bytes_max)
        try:
            client.start(ECHO, too_much)
            raise Failed("a payload that fits into no frame was sent")
        except ValueError:
            pass
        answered = client.authenticate(another)
        expect("Authenticate", answered.status, OK if access_token else PERMISSION_DENIED)
        answered = client.authenticate(token_of_bob)
        expect("another's token", (answered.status, reason_of(answered)), (PERMISSION_DENIED, "IDENTITY_MISMATCH"))
        answered = client.authenticate("nonsense")
        expect("no token", (answered.status, reason_of(answered)), (UNAUTHENTICATED, "TOKEN_INVALID"))
        expect("the token that is kept", client.access_token, another if access_token else "")
        expect("the end", client.close().said_bye, True)

    end = refused(address, access_token="nonsense")
    expect("a bad token", (end.error.status, reason_of(end.error)), (UNAUTHENTICATED, "TOKEN_INVALID"))
    expect("when to come back", end.reconnect_delay(), None)
    expect("what to do", moorgate_reasons.action(end.error.reason).name, "REAUTHENTICATE")
    print(f"session: {answers} answers, to nobody and to alice")


main(*sys.argv[1:])
