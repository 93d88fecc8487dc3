"""The Python services behind real gateways: the example programs, and a service in this process that holds its calls.

    python3 services.py PATH_OF_MOORGATE DIRECTORY_OF_EXAMPLES DIRECTORY_FOR_FILES
"""

import pathlib
import subprocess
import sys
import threading

import client_pb2
import common_pb2 as common
import moorgate_client
import moorgate_service
import service_pb2
from moorgate_frames import key_of_file
from programs import WAIT_S, Failed, Program, expect, make_key, outcome, python, reason_of, report, wait_for

ECHO, LOGIN, JOIN, SAY, KICK, LOGOUT, MESSAGE = 0x0001, 0x0200, 0x0201, 0x0202, 0x0203, 0x0204, 0x0280
HOLD, FLOOD, STRIKE = 0x0301, 0x0302, 0x0303
OK, CANCELLED, DEADLINE_EXCEEDED, PERMISSION_DENIED, FAILED_PRECONDITION, UNAVAILABLE, UNAUTHENTICATED = (
    0, 1, 4, 7, 9, 14, 16,
)  # fmt: skip
# One client's window, how many pushes may wait behind it, and how many are pushed to one that takes none.
WINDOW, PUSHES, FLOODED = 8, 4, 16

CONFIGURATION = """
[[listener]]
address = "127.0.0.1:0"

[auth]
[[auth.key]]
id = "default"
secret_file = "access.secret"

[session_check]
service = "chat"
timeout = "10s"

[gateway]
id = "gateway-1"
workers = 1

[session]
in_flight = {window}
window = {window}
pushes = {pushes}

[[service]]
name = "echo"
endpoints = ["{echo}"]
key_file = "echo.key"

[[service]]
name = "chat"
endpoints = ["{chat}"]
key_file = "chat.key"
grants = ["login", "kick", "groups"]

[[service]]
name = "lab"
endpoints = ["{lab}"]
key_file = "lab.key"
grants = ["push"]

[[route]]
commands = "0x0001-0x00ff"
service = "echo"

[[route]]
commands = "0x0200"
service = "chat"
anonymous = true

[[route]]
commands = "0x0201-0x0202"
service = "chat"

[[route]]
commands = "0x0203"
service = "chat"
roles = ["admin"]

[[route]]
commands = "0x0204"
service = "chat"

[[route]]
commands = "0x0300-0x03ff"
service = "lab"
timeout = "1m"
"""

PROVEN = """
[[listener]]
address = "127.0.0.1:0"

[[application]]
id = "stranger"
key_file = "application.key"

[gateway]
id = "gateway-2"

[[service]]
name = "echo"
endpoints = ["{echo}"]
key_file = "echo.key"

[[route]]
commands = "0x0001-0x00ff"
service = "echo"
anonymous = true
"""


class Lab:
    """A service whose calls end when the check says so."""

    def __init__(self, key):
        self.service = moorgate_service.Service("lab", key)
        self.service.handle(HOLD)(self.hold)
        self.service.handle(FLOOD)(self.flood)
        self.service.handle(STRIKE)(self.strike)
        self.service.on_receipt = self.receipt
        self.service.on_link = lambda link: self.linked.set() if link.is_ready() else None
        self.linked = threading.Event()
        self.held = threading.Semaphore(0)
        self.holding = None
        self.released = False
        self.receipts = []
        self.all_lost = threading.Event()
        self.all_receipts = threading.Event()
        self.cancelled = threading.Semaphore(0)

    def hold(self, call):
        """Until the gateway cancels it, or the check releases it."""
        self.holding = call
        self.held.release()
        call.cancelled.wait()
        if self.released:
            return b"released"
        self.cancelled.release()
        return moorgate_service.refusal(CANCELLED, common.REASON_CANCELLED)

    def release(self):
        self.released = True
        self.holding.cancelled.set()

    def flood(self, call):
        """Pushes to the caller more than its window and its queue hold. Those that wait longest are given up."""
        for number in range(FLOODED):
            push = service_pb2.ServicePush(command=MESSAGE, want_receipt=True, payload=b"%d" % number)
            push.users.user_ids.append(call.caller.user_id)
            for result in self.service.push(push).values():
                expect("a push of the flood", (result.status, list(result.targets)), (OK, [1]))
        # A Response may overtake pushes (D-10), and would take a place in the window from one of them.
        wait_for("the receipts of what was given up", self.all_lost)
        return b""

    def strike(self, _call):
        """Says that it is down; the view is on its way before the reply."""
        self.service.set_view(service_pb2.ServiceView(state=service_pb2.ServiceView.STATE_DOWN))
        return b"on strike"

    def receipt(self, receipt):
        self.receipts.append((receipt.acknowledged, reason_of(receipt)))
        if sum(not acknowledged for acknowledged, _ in self.receipts) == FLOODED - WINDOW - PUSHES:
            self.all_lost.set()
        if len(self.receipts) == FLOODED:
            self.all_receipts.set()


class Site:
    def __init__(self, moorgate, examples, files):
        self.moorgate, self.files = moorgate, pathlib.Path(files)
        self.examples = pathlib.Path(examples)
        for name in ("access.secret", "echo.key", "chat.key", "lab.key", "application.key"):
            make_key(self.files / name)
        self.lab = Lab(key_of_file(self.files / "lab.key"))
        self.echo = self.service("echo")
        self.chat = self.service("chat")
        self.echo_address = self.echo.expect("listening on")
        self.gateway, self.address = self.serve(
            "gateway.toml",
            CONFIGURATION.format(
                echo=self.echo_address,
                chat=self.chat.expect("listening on"),
                lab=self.lab.service.listen("127.0.0.1:0"),
                window=WINDOW,
                # Those that are sent and not acknowledged count, too.
                pushes=WINDOW + PUSHES,
            ),
        )
        for service in (self.echo, self.chat):
            expect("who is linked", service.expect("linked"), "gateway-1")
        wait_for("the link to the lab", self.lab.linked)

    def service(self, name):
        script = self.examples / f"{name}_service.py"
        return python(f"{name}_service.py", script, "127.0.0.1:0", self.files / f"{name}.key")

    def serve(self, name, configuration):
        (self.files / name).write_text(configuration)
        gateway = Program(name, self.moorgate, "serve", "-c", self.files / name)
        return gateway, gateway.expect("clients connect to")

    def token(self, *options):
        secret = self.files / "access.secret"
        command = [self.moorgate, "token", "issue", "--secret-file", secret, *options]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def check_readme(self):
        """The configuration that README.md shows is a good one."""
        shown = (self.examples / "README.md").read_text().split("```toml\n")[1].split("```")[0]
        file = self.files / "readme.toml"
        file.write_text(shown)
        Program("moorgate check", self.moorgate, "check", file).ended()

    def connect(self, **hello):
        return moorgate_client.connect(self.address, **hello)

    def refused(self, **hello):
        try:
            self.connect(**hello)
        except moorgate_client.SessionEnded as ended:
            return ended.end
        raise Failed(f"a session with {hello} was let in")


def check_echo(site, carol):
    program = python("echo.py", site.examples / "echo.py", site.address, site.token("--user", "dave"))
    program.expect("a session of dave")
    program.expect("100 of 100")
    program.ended()
    expect("the echo", carol.request(ECHO, b"\x00\xff").payload, b"\x00\xff")


def check_chat(site):
    """Login, a group, a push, receipts, a kick."""
    alice = site.connect(device_id="alice's")
    response = alice.request(SAY, b"friends hello")
    expect("before the login", outcome(response), (UNAUTHENTICATED, "LOGIN_REQUIRED", "NOT_EXECUTED"))
    response = alice.request(LOGIN, b"alice carrot")
    expect("a wrong password", (response.status, response.source), (UNAUTHENTICATED, common.SOURCE_SERVICE))
    expect("who she is then", alice.user_id, "")
    response = alice.request(LOGIN, b"alice rabbit")
    expect("the login", (response.status, response.login.user_id), (OK, "alice"))
    expect("who she is now", (alice.user_id, alice.access_token), ("alice", response.login.access_token))
    response = alice.request(LOGIN, b"alice rabbit")
    expect("another login", (response.status, reason_of(response)), (FAILED_PRECONDITION, "ALREADY_AUTHENTICATED"))

    script = site.examples / "login_and_listen.py"
    bob = python("login_and_listen.py", script, site.address, "bob", "builder", "friends", "hello")
    bob.expect("bob listens to friends")
    bob.expect("friends: bob: hello")
    expect("a receipt", site.chat.expect("bob has taken"), "a message")
    expect("the join", alice.request(JOIN, b"friends").status, OK)
    expect("saying", alice.request(SAY, b"friends it is late").status, OK)
    bob.expect("friends: alice: it is late")
    push = alice.next_event(WAIT_S)
    expect("the push", (push.command, push.group, push.payload), (MESSAGE, "friends", b"alice: it is late"))
    takers = sorted(site.chat.line("has taken").split()[0] for _ in range(2))
    expect("receipts", takers, ["alice", "bob"])

    expect("the kick", alice.request(KICK, b"bob").status, OK)
    bob.expect("KICKED: please behave; do not repeat")
    bob.ended(1)
    return alice


def check_logout(site, alice):
    """The access token is no good any more, and the service is not even asked."""
    token = alice.access_token
    expect("the logout", alice.request(LOGOUT).status, OK)
    expect("what follows it", alice.next_event(WAIT_S), None)
    expect("the end", reason_of(alice.end.error), "LOGGED_OUT")
    end = site.refused(access_token=token, device_id="alice's")
    expect("the token after the logout", (end.error.status, reason_of(end.error)), (UNAUTHENTICATED, "TOKEN_REVOKED"))


def check_session_checks(site):
    end = site.refused(access_token=site.token("--user", "mallory"))
    expect("mallory", (end.error.status, reason_of(end.error)), (PERMISSION_DENIED, "SESSION_REFUSED"))
    expect("when mallory may come back", end.reconnect_delay(), None)
    site.chat.expect("session of mallory refused")
    carol = site.connect(access_token=site.token("--user", "carol", "--device", "hers"), device_id="another's")
    site.chat.expect("session of carol admitted")
    expect("who is admitted", carol.user_id, "carol")
    response = carol.request(KICK, b"alice")
    expect("without the role", outcome(response), (PERMISSION_DENIED, "ROLE_REQUIRED", "NOT_EXECUTED"))
    return carol


def check_calls_that_end_early(site, carol):
    held = carol.start(HOLD)
    wait_for("the held call", site.lab.held)
    held.cancel()
    expect("a cancelled request", outcome(held.result(WAIT_S)), (CANCELLED, "CANCELLED", "NOT_EXECUTED"))
    wait_for("the CancelCall", site.lab.cancelled)
    late = carol.request(HOLD, timeout=0.05)
    expect("a late request", (late.status, reason_of(late)), (DEADLINE_EXCEEDED, "TIMEOUT"))
    # A busy machine may be over the time before the call was sent.
    if late.execution == common.EXECUTION_UNKNOWN:
        wait_for("the held call", site.lab.held)
        wait_for("its CancelCall", site.lab.cancelled)


def check_gap(site):
    """A client that takes nothing gets a Gap in place of what was too much, and its order is kept."""
    dora = site.connect(access_token=site.token("--user", "dora"))
    flood = dora.start(FLOOD)
    wait_for("the receipts of what was given up", site.lab.all_lost)
    numbers, missing = [], 0
    while len(numbers) + missing < FLOODED:
        event = dora.next_event(WAIT_S)
        if isinstance(event, client_pb2.Gap):
            expect("the gap", (event.first, event.last, reason_of(event)), (0, 0, "PUSH_OVERFLOW"))
            missing += event.count
        else:
            numbers.append(int(event.payload))
    lost = FLOODED - WINDOW - PUSHES
    expect("how many are missing", missing, lost)
    # The oldest of those that waited were given up.
    expect("the order", numbers, [*range(WINDOW), *range(WINDOW + lost, FLOODED)])
    expect("the flood", flood.result(WAIT_S).status, OK)
    wait_for("all receipts", site.lab.all_receipts)
    receipts = [(False, "PUSH_OVERFLOW")] * lost + [(True, "UNSPECIFIED")] * len(numbers)
    expect("receipts", sorted(site.lab.receipts), receipts)
    expect("the end", dora.close().said_bye, True)


def check_proofs(site):
    """Another gateway, to which applications prove themselves, before one of the services."""
    gateway, address = site.serve("proven.toml", PROVEN.format(echo=site.echo_address))
    expect("who is linked, too", site.echo.expect("linked"), "gateway-2")
    key = key_of_file(site.files / "application.key")
    client = moorgate_client.connect(address, application_key=key, application="stranger", device_id="d")
    expect("the echo by another gateway", client.request(ECHO, b"x").payload, b"x")
    expect("who is welcome", (client.user_id, client.close().said_bye), ("", True))
    for application, wrong in (("stranger", b"not the key of anyone"), ("unknown", key)):
        try:
            moorgate_client.connect(address, application_key=wrong, application=application)
            raise Failed("a proof that does not hold was taken")
        except moorgate_client.SessionEnded as ended:
            expect("a wrong proof", reason_of(ended.end.error), "APPLICATION_REFUSED")
    gateway.end()
    expect("who is lost", site.echo.expect("lost"), "gateway-2")


def check_services_that_go(site, carol):
    site.echo.end()
    expect("what it said last", site.echo.expect("drained"), "")
    response = carol.request(ECHO)
    expect("a request for who is gone", outcome(response), (UNAVAILABLE, "NO_ENDPOINT", "NOT_EXECUTED"))


def check_drain(site, carol):
    """The gateway goes away: clients are told, what is open is finished, and everybody ends in peace."""
    script = site.examples / "login_and_listen.py"
    listener = python("login_and_listen.py", script, site.address, "carol", "christmas", "friends")
    listener.expect("carol listens to friends")
    held = carol.start(HOLD)
    wait_for("the held call", site.lab.held)
    expect("the view", carol.request(STRIKE).payload, b"on strike")
    response = carol.request(STRIKE)
    expect("a service that is down", outcome(response), (UNAVAILABLE, "NO_ENDPOINT", "NOT_EXECUTED"))
    site.gateway.signal()
    event = carol.next_event(WAIT_S)
    expect("the event", (type(event).__name__, reason_of(event)), ("GoAway", "SHUTDOWN"))
    try:
        carol.start(ECHO)
        raise Failed("a new request was made while the gateway goes away")
    except moorgate_client.GoingAway:
        pass
    listener.expect("the gateway goes away")
    listener.expect("both sides have said goodbye; again in")
    site.lab.release()
    expect("what was open", held.result(WAIT_S).payload, b"released")
    end = carol.close()
    expect("the end", (end.said_bye, end.error), (True, None))
    expect("when to come back", end.reconnect_delay(), event.reconnect_after_ms / 1000)
    site.gateway.ended()
    expect("who is lost", site.chat.expect("lost"), "gateway-1")
    site.chat.end()
    expect("the drain of the lab", site.lab.service.drain(), True)


def main():
    site = Site(*sys.argv[1:])
    site.check_readme()
    check_proofs(site)
    alice = check_chat(site)
    check_logout(site, alice)
    carol = check_session_checks(site)
    check_echo(site, carol)
    check_calls_that_end_early(site, carol)
    check_gap(site)
    check_services_that_go(site, carol)
    check_drain(site, carol)
    print("services: login, group, pushes, a gap, receipts, kick, logout, checks, proofs and drains")


report(main)
