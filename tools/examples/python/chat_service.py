"""A small chat: log in, join a group, say something to the group.

    python3 chat_service.py 127.0.0.1:7102 chat.key

Commands, and what their payload is, as text:

    0x0200 LOGIN   "name password"    for anonymous sessions; the Response carries the access token
    0x0201 JOIN    "group"
    0x0202 SAY     "group text"       pushes MESSAGE to the group; the answer comes once the gateway has taken the push
    0x0203 KICK    "name"             ends the sessions of a user; needs the role admin, as the route in the
                                      gateway's configuration says
    0x0204 LOGOUT
    0x0280 MESSAGE "name: text"       the push

It also checks new sessions, and lets those of mallory not in. README.md has the configuration. SIGTERM drains and ends
it.
"""

import hmac
import logging
import signal
import sys

import moorgate_reasons
import moorgate_service
import service_pb2 as pb
from moorgate_frames import key_of_file
from moorgate_service import Status

LOGIN, JOIN, SAY, KICK, LOGOUT, MESSAGE = 0x0200, 0x0201, 0x0202, 0x0203, 0x0204, 0x0280

USERS = {"alice": ("rabbit", ["admin"]), "bob": ("builder", []), "carol": ("christmas", [])}
BANNED = {"mallory"}


def say(*words):
    # In one piece: several threads say something.
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def login(call):
    name, _, password = call.payload.decode().partition(" ")
    known, roles = USERS.get(name, ("", []))
    if not known or not hmac.compare_digest(known.encode(), password.encode()):
        return pb.Reply(status=Status.UNAUTHENTICATED, message="no such name, or another password")
    return pb.Reply(
        payload=f"hello, {name}".encode(),
        directives=[pb.Directive(login=pb.Login(user_id=name, roles=roles))],
    )


def join(call):
    group = call.payload.decode()
    return pb.Reply(directives=[pb.Directive(join_group=pb.JoinGroup(group=group))])


def kick(call):
    name = call.payload.decode()
    return pb.Reply(directives=[pb.Directive(kick_user=pb.KickUser(user_id=name, message="please behave"))])


def logout(_call):
    return pb.Reply(directives=[pb.Directive(logout=pb.Logout())])


class Chat:
    def __init__(self, service):
        self.service = service
        service.handle(LOGIN)(login)
        service.handle(JOIN)(join)
        service.handle(SAY)(self.say)
        service.handle(KICK)(kick)
        service.handle(LOGOUT)(logout)
        service.on_receipt = self.receipt
        service.on_session_check = self.check
        service.on_link = lambda link: say("linked" if link.is_ready() else "lost", link.gateway_id)

    def say(self, call):
        group, _, text = call.payload.decode().partition(" ")
        push = pb.ServicePush(
            group=group,
            command=MESSAGE,
            want_receipt=True,
            payload=f"{call.caller.user_id}: {text}".encode(),
        )
        for gateway_id, result in self.service.push(push).items():
            if result.status:
                # Another gateway may have taken it, so this was not left undone altogether.
                return pb.Reply(status=result.status, reason=result.reason, message=f"{gateway_id}: {result.message}")
        return b""

    def receipt(self, receipt):
        what = "has taken" if receipt.acknowledged else "has lost"
        say(receipt.user_id, what, "a message", moorgate_reasons.name(receipt.reason) if receipt.reason else "")

    def check(self, caller):
        admitted = caller.user_id not in BANNED
        say("session of", caller.user_id, "admitted" if admitted else "refused")
        return pb.SessionVerdict(admitted=admitted, message="" if admitted else "shut out")


def main(address, key_file=None):
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    service = moorgate_service.Service("chat", key_of_file(key_file) if key_file else None)
    Chat(service)
    # Threads that are started from here on leave these signals to the main thread.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    say("listening on", service.listen(address))
    signal.sigwait(signals)
    if not service.drain():
        raise SystemExit("drained, but not in time")
    say("drained")


main(*sys.argv[1:])
