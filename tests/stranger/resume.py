"""The Python client, whose connection is cut at any byte, against a real gateway: sessions that are resumed, taken
over, lost, kicked and kept.

    python3 resume.py PATH_OF_MOORGATE DIRECTORY_FOR_FILES
"""

import collections
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import client_pb2
import common_pb2 as common
import moorgate_client
import moorgate_service
import service_pb2
from moorgate_frames import key_of_file, pack
from peers import Cable, greet
from programs import WAIT_S, Failed, Program, expect, make_key, outcome, reason_of, report, wait_for

COUNT, HOLD, KICK, LOGIN, LOGOUT, MESSAGE = 0x0101, 0x0102, 0x0103, 0x0104, 0x0105, 0x0180
OK, CANCELLED, PERMISSION_DENIED, FAILED_PRECONDITION, ABORTED, UNAVAILABLE = 0, 1, 7, 9, 10, 14
QUEUED, WAITING = 1, 2
RESULT = client_pb2.ResumeResult.Name
# How often the connection is cut while requests and pushes are under way.
ROUNDS = 60

CONFIGURATION = """
[[listener]]
address = "127.0.0.1:0"

[admin]
address = "127.0.0.1:0"

[auth]
[[auth.key]]
id = "default"
secret_file = "access.secret"

[gateway]
shards = 2

[session]
detached_ttl = "60s"

[presence]
grace = "0s"

[rates]
connection = "off"
user = "off"

[[service]]
name = "desk"
endpoints = ["{desk}"]
key_file = "desk.key"
grants = ["login", "kick", "push", "presence"]

[[route]]
commands = "0x0100-0x01ff"
service = "desk"
anonymous = true
timeout = "1m"
"""


class Desk:
    """A service that counts what it runs, and holds calls until it is told to let them go."""

    def __init__(self, key):
        self.presence = moorgate_service.Presence()
        self.service = moorgate_service.Service("desk", key, presence=self.presence)
        self.service.handle(COUNT)(self.count)
        self.service.handle(HOLD)(self.hold)
        self.service.handle(KICK)(self.kick)
        self.service.handle(LOGIN)(self.login)
        self.service.handle(LOGOUT)(lambda _call: self.directive(logout=service_pb2.Logout()))
        self.service.on_receipt = self.receipt
        self.service.on_link = lambda link: self.linked.set() if link.is_ready() else None
        self.linked = threading.Event()
        self.runs = collections.Counter()
        self.held = threading.Semaphore(0)
        self.gates = {}
        self.cancelled = threading.Semaphore(0)
        self.receipts = []
        self.receipts_wanted = None
        self.all_receipts = threading.Event()

    def count(self, call):
        self.runs[call.payload] += 1
        return call.payload

    def hold(self, call):
        self.runs[call.payload] += 1
        self.held.release()
        while not call.cancelled.is_set():
            if self.gate(call.payload).wait(0.01):
                return call.payload
        self.cancelled.release()
        return moorgate_service.refusal(CANCELLED, common.REASON_CANCELLED)

    def gate(self, payload):
        """What the calls with this payload wait for."""
        return self.gates.setdefault(payload, threading.Event())

    def directive(self, **action):
        return service_pb2.Reply(directives=[service_pb2.Directive(**action)])

    def kick(self, call):
        return self.directive(kick_user=service_pb2.KickUser(user_id=call.payload.decode(), message="by the desk"))

    def login(self, call):
        return self.directive(login=service_pb2.Login(user_id=call.payload.decode()))

    def push(self, user, payload, wanted=None):
        push = service_pb2.ServicePush(command=MESSAGE, want_receipt=True, payload=payload)
        push.users.user_ids.append(user)
        (result,) = self.service.push(push).values()
        expect("a push", result.status, OK)
        if wanted is not None:
            expect("where the push is", list(result.targets), [wanted])

    def receipt(self, receipt):
        self.receipts.append((receipt.acknowledged, reason_of(receipt)))
        if len(self.receipts) == self.receipts_wanted:
            self.all_receipts.set()


class Site:
    def __init__(self, moorgate, files):
        self.moorgate, self.files = moorgate, pathlib.Path(files)
        for name in ("access.secret", "desk.key"):
            make_key(self.files / name)
        self.desk = Desk(key_of_file(self.files / "desk.key"))
        file = self.files / "resume.toml"
        file.write_text(CONFIGURATION.format(desk=self.desk.service.listen("127.0.0.1:0")))
        self.gateway = Program("moorgate", moorgate, "serve", "-c", file)
        self.address = self.gateway.expect("clients connect to")
        self.operator = self.gateway.expect("operator's pages on")
        wait_for("the link to the desk", self.desk.linked)

    def token(self, user, *options):
        secret = self.files / "access.secret"
        command = [self.moorgate, "token", "issue", "--secret-file", secret, "--user", user, *options]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def metric(self, sample):
        with urllib.request.urlopen(self.operator + "/metrics", timeout=WAIT_S) as page:
            text = page.read().decode()
        found = re.search(rf"^{re.escape(sample)} (\d+)$", text, re.MULTILINE)
        if found is None:
            raise Failed(f"there is no {sample} in /metrics")
        return int(found[1])

    def until(self, sample, value):
        """Asks until the sample has come up to the value."""
        ends = time.monotonic() + WAIT_S
        while (got := self.metric(sample)) < value:
            if time.monotonic() > ends:
                raise Failed(f"{sample} is {got} instead of {value}")

    def kick(self, user):
        path = "/kick?" + urllib.parse.urlencode({"user": user, "message": "by hand"}, quote_via=urllib.parse.quote)
        request = urllib.request.Request(self.operator + path, method="POST")
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return json.load(answer)["sessions"]

    def client(self, user, **hello):
        """A client of this user, and the cable that it is on."""
        cable = Cable(self.address)
        return moorgate_client.connect(cable.address, access_token=self.token(user), **hello), cable

    def unplug(self, client, cable):
        """The client has no connection, and both it and the gateway know."""
        lost = self.metric("moorgate_sessions_detached_total")
        cable.unplug()
        self.until("moorgate_sessions_detached_total", lost + 1)
        with client._changed:
            if not client._changed.wait_for(lambda: client._connection is None, WAIT_S):
                raise Failed("the client has not seen that its connection is lost")


def check_cuts(site):
    """Requests and pushes while the connection is cut again and again, within frames of either direction."""
    alice, cable = site.client("alice")
    desk = site.desk
    desk.receipts_wanted = 3 * ROUNDS
    taken = []
    for number in range(ROUNDS):
        direction = "up" if number % 2 else "down"
        alice.ping(WAIT_S)
        cable.cut_after(direction, 1 + 7 * number % 293)
        pending = [alice.start(COUNT, b"%d %d" % (number, i), WAIT_S, wait=WAIT_S) for i in range(5)]
        for i in range(3):
            desk.push("alice", b"%d %d" % (number, i))
        for i, request in enumerate(pending):
            response = request.result(WAIT_S)
            expect("an outcome", outcome(response), (OK, "UNSPECIFIED", "EXECUTED"))
            expect("its payload", response.payload, b"%d %d" % (number, i))
        # What is not taken stays over several cuts, and is not acknowledged.
        taken += [alice.next_event(WAIT_S).payload for _ in range((0, 1, 8)[number % 3])]
    while len(taken) < 3 * ROUNDS:
        taken.append(alice.next_event(WAIT_S).payload)
    expect("the pushes", taken, [b"%d %d" % (number, i) for number in range(ROUNDS) for i in range(3)])
    expect("what was run", set(desk.runs.values()), {1})
    expect("how many were run", len(desk.runs), 5 * ROUNDS)
    wait_for("all receipts", desk.all_receipts)
    expect("the receipts", set(desk.receipts), {(True, "UNSPECIFIED")})
    if alice.resumes < ROUNDS // 2:
        raise Failed(f"only {alice.resumes} resumes in {ROUNDS} rounds")
    expect("the end", alice.close().said_bye, True)
    return alice.resumes


def check_away(site):
    """What is held, asked, cancelled and pushed while the client has no connection."""
    bob, cable = site.client("bob")
    session_id, desk = bob.welcome.session_id, site.desk
    held = bob.start(HOLD, b"held")
    unwanted = bob.start(HOLD, b"unwanted")
    for _ in range(2):
        wait_for("a held call", desk.held)
    for number in range(3):
        desk.push("bob", b"%d" % number, QUEUED)
    # They are here, and the application has not taken them: they are replayed, and not given to it twice.
    while bob._received < 3:
        bob.ping(WAIT_S)
    site.unplug(bob, cable)
    for number in range(3, 6):
        desk.push("bob", b"%d" % number, WAITING)
    unwanted.cancel()
    meanwhile = bob.start(COUNT, b"meanwhile", WAIT_S)
    never = bob.start(COUNT, b"never")
    never.cancel()
    after = bob.start(COUNT, b"after", WAIT_S)
    expect("the first push", bob.next_event(WAIT_S).payload, b"0")
    cable.plug()
    expect("a request from meanwhile", meanwhile.result(WAIT_S).payload, b"meanwhile")
    cancelled = (CANCELLED, "CANCELLED", "NOT_EXECUTED")
    expect("one that was cancelled before it was sent", outcome(never.result(WAIT_S)), cancelled)
    expect("one behind it", after.result(WAIT_S).payload, b"after")
    expect("a cancelled one", outcome(unwanted.result(WAIT_S)), cancelled)
    wait_for("the CancelCall", desk.cancelled)
    # Answered while nobody is there.
    site.unplug(bob, cable)
    orphaned = site.metric("moorgate_replies_orphaned_total")
    replies = site.metric("moorgate_replies_received_total")
    desk.gate(b"held").set()
    site.until("moorgate_replies_received_total", replies + 1)
    cable.plug()
    expect("the held one", held.result(WAIT_S).payload, b"held")
    expect("replies that found nobody", site.metric("moorgate_replies_orphaned_total"), orphaned)
    expect("the pushes", [bob.next_event(WAIT_S).payload for _ in range(5)], [b"%d" % number for number in range(1, 6)])
    runs = [desk.runs[name] for name in (b"held", b"unwanted", b"meanwhile", b"never", b"after")]
    expect("the runs", runs, [1, 1, 1, 0, 1])
    expect("the session", (bob.welcome.session_id, bob.resumes), (session_id, 2))
    bob.close()


def check_take_over(site):
    """The client comes back before the gateway has seen that it was gone."""
    carol, cable = site.client("carol")
    held = carol.start(HOLD, b"carol's")
    wait_for("the held call", site.desk.held)
    taken_over = site.metric("moorgate_take_overs_total")
    old = cable.hang()
    error = old.next("error").error
    expect("the old connection's end", (error.status, reason_of(error)), (ABORTED, "SUPERSEDED"))
    expect("what it advises", (error.reconnect.allowed, error.reconnect.resumable), (False, False))
    expect("what was admitted", error.admitted, 1)
    expect("what follows", old.rest(), [])
    old.close()
    carol.ping(WAIT_S)
    site.desk.gate(b"carol's").set()
    expect("the request", held.result(WAIT_S).payload, b"carol's")
    expect("take-overs", site.metric("moorgate_take_overs_total"), taken_over + 1)
    expect("resumes", carol.resumes, 1)
    carol.close()


def welcomed(what, answer, result):
    peer, welcome = answer
    if not isinstance(welcome, client_pb2.Welcome):
        raise Failed(f"{what}: {reason_of(welcome)} instead of {result}: {welcome.message}")
    expect(what, RESULT(welcome.resume_result).removeprefix("RESUME_RESULT_"), result)
    return peer, welcome


def refused(what, answer, status, reason, allowed):
    peer, error = answer
    if not isinstance(error, client_pb2.Error):
        raise Failed(f"{what}: {RESULT(error.resume_result)} instead of {reason}")
    expect(what, (error.status, reason_of(error), error.admitted), (status, reason, 0))
    expect(f"{what}: whether to come back", error.reconnect.allowed, allowed)
    expect(f"{what}: what follows", peer.rest(), [])
    peer.close()


def check_tokens(site):
    """Which tokens and attempts are good, by hand."""
    access = site.token("dora")
    peer, first = welcomed("a new session", greet(site.address, access_token=access), "NONE")
    expect("the time to live", first.detached_ttl_ms, 60_000)
    peer.speak()
    peer.close()
    # Without a frame after Welcome nothing is proven: both tokens are good.
    peer, second = welcomed("a resume", greet(site.address, first.resume_token, 1), "RESUMED")
    expect("the session", (second.session_id, second.user_id), (first.session_id, "dora"))
    peer.close()
    peer, third = welcomed("the first token again", greet(site.address, first.resume_token, 2), "RESUMED")
    peer.speak()
    # Of an open session and of a detached one.
    for open_still in (True, False):
        answer = greet(site.address, third.resume_token, 2)
        refused("the same attempt", answer, FAILED_PRECONDITION, "RESUME_STALE", True)
        answer = greet(site.address, third.resume_token, 1)
        refused("an earlier attempt", answer, FAILED_PRECONDITION, "RESUME_STALE", True)
        answer = greet(site.address, third.resume_token, 0)
        refused("an attempt without a number", answer, FAILED_PRECONDITION, "RESUME_STALE", False)
        for name, token in (("the first", first.resume_token), ("the second", second.resume_token)):
            answer = greet(site.address, token, 9, access_token=access)
            refused(f"{name} token, after a word", answer, FAILED_PRECONDITION, "RESUME_STALE", True)
        if open_still:
            peer.speak()
            peer.close()
    answer = greet(site.address, third.resume_token, 3, access_token=site.token("eve"))
    refused("another user", answer, PERMISSION_DENIED, "IDENTITY_MISMATCH", False)
    answer = greet(site.address, third.resume_token, 4, 5)
    refused("more than was sent", answer, FAILED_PRECONDITION, "RESUME_STALE", True)
    for what, hello in (("another application", {"application": "x"}), ("another device", {"device_id": "x"})):
        answer = greet(site.address, third.resume_token, 5, access_token=access, **hello)
        refused(what, answer, FAILED_PRECONDITION, "RESUME_INVALID", True)
    broken = bytes([third.resume_token[0] ^ 1]) + third.resume_token[1:]
    for token in (broken, third.resume_token[:-1] + bytes([third.resume_token[-1] ^ 1]), b"nonsense"):
        answer = greet(site.address, token, 6, access_token=access)
        refused("a token of nobody", answer, FAILED_PRECONDITION, "RESUME_INVALID", True)
    peer, last = welcomed("the session, left alone", greet(site.address, third.resume_token, 7), "RESUMED")
    expect("the same still", last.session_id, first.session_id)
    peer.close()


def check_kicks(site):
    """A session that is kicked while its client is away."""

    def by_the_desk(user):
        with moorgate_client.connect(site.address, access_token=site.token("henry")) as henry:
            expect("the kick", henry.request(KICK, user.encode()).status, OK)
        return 1

    for user, kick, words in (("frank", site.kick, "by hand"), ("grace", by_the_desk, "by the desk")):
        client, cable = site.client(user)
        held = client.start(HOLD, user.encode(), idempotency_key=b"k")
        wait_for("the held call", site.desk.held)
        site.unplug(client, cable)
        unsent = client.start(COUNT, b"unsent of " + user.encode())
        expect("sessions that were kicked", kick(user), 1)
        cable.plug()
        expect("no event", client.next_event(WAIT_S), None)
        error = client.end.error
        expect("the end", (error.status, reason_of(error)), (PERMISSION_DENIED, "KICKED"))
        expect("whether to come back", error.reconnect.allowed, False)
        expect("what it says", error.message, words)
        expect("what was sent", outcome(held.result(WAIT_S)), (UNAVAILABLE, "KICKED", "UNKNOWN"))
        expect("what was not", outcome(unsent.result(WAIT_S)), (UNAVAILABLE, "KICKED", "NOT_EXECUTED"))
        expect("when to come back", client.end.reconnect_delay(), None)
        site.desk.gate(user.encode()).set()


def check_pause(site):
    """Bye with a time to keep the session, within it and beyond."""
    ida, cable = site.client("ida")
    session_id, desk = ida.welcome.session_id, site.desk
    held = ida.start(HOLD, b"ida's")
    wait_for("the held call", desk.held)
    ida.pause(30)
    desk.push("ida", b"while away", WAITING)
    ida.come_back()
    expect("the session", (ida.welcome.session_id, ida.resumes), (session_id, 1))
    expect("the push", ida.next_event(WAIT_S).payload, b"while away")
    desk.gate(b"ida's").set()
    expect("the request", held.result(WAIT_S).payload, b"ida's")

    # Now it comes too late: what may be repeated is, under new numbers, and nothing else (S-15, S-16).
    plain, keyed = ida.start(HOLD, b"plain"), ida.start(HOLD, b"keyed", idempotency_key=b"keyed")
    for _ in range(2):
        wait_for("a held call", desk.held)
    ended = site.metric('moorgate_detached_ended_total{why="time"}')
    ida.pause(0.001)
    late = ida.start(COUNT, b"late")
    site.until('moorgate_detached_ended_total{why="time"}', ended + 1)
    ida.come_back()
    event = ida.next_event(WAIT_S)
    expect("the event", type(event).__name__, "FreshSession")
    expect("why", RESULT(event.resume_result), "RESUME_RESULT_UNKNOWN_SESSION")
    expect("another session", (ida.welcome.session_id == session_id, ida.user_id), (False, "ida"))
    expect("what may have been run", outcome(plain.result(WAIT_S)), (UNAVAILABLE, "RESUME_UNKNOWN_SESSION", "UNKNOWN"))
    expect("what was never sent", late.result(WAIT_S).payload, b"late")
    wait_for("the call again", desk.held)
    desk.gate(b"keyed").set()
    expect("what has a key", keyed.result(WAIT_S).payload, b"keyed")
    expect("the runs", [desk.runs[name] for name in (b"plain", b"keyed", b"late")], [1, 2, 1])
    desk.push("ida", b"afresh", QUEUED)
    expect("a push", ida.next_event(WAIT_S).payload, b"afresh")
    expect("the end", ida.close().said_bye, True)


def check_ends(site):
    """What the token of a session that has ended is answered with."""
    access = site.token("judy")
    results = {}
    for how in ("bye", "logout"):
        peer, welcome = welcomed("a session", greet(site.address, access_token=access), "NONE")
        if how == "bye":
            peer.send(pack(client_pb2.ClientFrame(bye=client_pb2.Bye())))
            peer.next("bye_ack")
        else:
            peer.request(1, LOGOUT)
            peer.next("response")
            expect("the logout", reason_of(peer.next("error").error), "LOGGED_OUT")
        peer.close()
        peer, fresh = greet(site.address, welcome.resume_token, 1)
        results[how] = RESULT(fresh.resume_result).removeprefix("RESUME_RESULT_")
        peer.close()
    expect("after a Bye, after a logout", results, {"bye": "UNKNOWN_SESSION", "logout": "ENDED"})


def check_login(site):
    """A session that has logged in is resumed with the token of its Welcome or of its login (R-28)."""
    peer, welcome = welcomed("nobody's session", greet(site.address), "NONE")
    peer.request(1, LOGIN, payload=b"kate")
    login = peer.next("response").response.login
    expect("the login", login.user_id, "kate")
    expect("a token of its own", bool(login.resume_token) and login.resume_token != welcome.resume_token, True)
    peer.close()
    for attempt, token in ((1, login.resume_token), (2, welcome.resume_token)):
        peer, resumed = welcomed("after the login", greet(site.address, token, attempt), "RESUMED")
        expect("who is back", (resumed.user_id, resumed.admitted), ("kate", 1))
        again = peer.next("response")
        expect("the Response again", (again.down_seq, again.response.login.user_id), (1, "kate"))
        peer.close()
    # The client that sees none of this, by itself.
    cable = Cable(site.address)
    with moorgate_client.connect(cable.address) as client:
        expect("the login", client.request(LOGIN, b"liz").status, OK)
        cable.cut()
        expect("a request after it", client.request(COUNT, b"liz's").payload, b"liz's")
        expect("who is back", (client.user_id, client.resumes), ("liz", 1))


def check_presence(site):
    """The desk is told who is online, from a snapshot first when its link is a new one."""
    presence = site.desk.presence
    mona, cable = site.client("mona")

    def told(what, predicate):
        if presence.wait_for(predicate, WAIT_S) is None:
            raise Failed(f"{what}: {presence.users()} are online")

    told("mona is there", lambda users: "mona" in users)
    # The gateway loses its link, dials again, and begins with a snapshot.
    snapshots = presence.snapshots
    site.desk.linked.clear()
    for link in site.desk.service.links():
        link.close()
    wait_for("another link", site.desk.linked)
    told("a snapshot with mona", lambda users: presence.snapshots > snapshots and "mona" in users)
    site.unplug(mona, cable)
    told("mona is away", lambda users: "mona" not in users)
    cable.plug()
    told("mona is back", lambda users: "mona" in users)
    mona.close()
    told("mona has left", lambda users: "mona" not in users)


def main():
    site = Site(*sys.argv[1:])
    check_tokens(site)
    check_ends(site)
    check_login(site)
    check_away(site)
    check_take_over(site)
    check_kicks(site)
    check_pause(site)
    site.desk.runs.clear()
    site.desk.receipts.clear()
    resumes = check_cuts(site)
    check_presence(site)
    site.gateway.end()
    expect("the drain of the desk", site.desk.service.drain(), True)
    print(f"resume: {resumes} in the midst of {ROUNDS} rounds, tokens, take-over, kicks, pauses, logins, presence")


if __name__ == "__main__":
    report(main)
