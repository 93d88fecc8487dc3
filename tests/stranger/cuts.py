"""The smallest clients, of tools/examples/minimal, whose connections are cut at any byte: no response and no push is lost,
doubled or out of order, and each request is run once.

    python3 cuts.py PATH_OF_MOORGATE DIRECTORY_FOR_FILES PATH_OF_COUNT_IN_C COUNT CUTS
"""

import pathlib
import random
import signal
import sys
import threading

import moorgate_service
from peers import Cable
from programs import WAIT_S, Failed, Program, expect, report
from resume import MESSAGE, Site

ASK = 0x0107
# For each cut, at the most.
CUT_S = 2.0


class Asked:
    """The desk's answer to each request, and the push before it."""

    def __init__(self, desk):
        self.desk, self.lock = desk, threading.Lock()
        self.pushed, self.runs = {}, {}
        desk.service.handle(ASK)(self.ask)

    def ask(self, call):
        user = call.caller.user_id
        with self.lock:
            number = self.pushed[user] = self.pushed.get(user, -1) + 1
            self.runs.setdefault(user, []).append(call.payload)
            self.desk.push(user, b"%d" % number)
        return call.payload


class Cuts:
    """Where the next connection is cut: sometimes within the opening, mostly some requests later, in either direction."""

    def __init__(self, cable, cuts, seed):
        self.cable, self.cuts, self.random = cable, cuts, random.Random(seed)

    def __call__(self):
        if self.cable.cuts >= self.cuts:
            return {}
        up, down = (self.cable.opening.get(direction, 300) for direction in ("up", "down"))
        if self.random.random() < 0.2:
            return self.random.choice(({"up": self.random.randint(1, up)}, {"down": self.random.randint(1, down)}))
        return {"up": up + self.random.randint(1, 130), "down": down + self.random.randint(1, 350)}


def check(site, asked, name, command, count, cuts):
    cable = Cable(site.address)
    cable.plan = Cuts(cable, cuts, seed=len(name))
    host, port = cable.address.split(":")
    program = Program(name, *command, host, port, site.token(name), hex(ASK), count)
    seen = {}
    for line in program.rest():
        what, _, payload = line.rstrip("\n").rpartition(" ")
        seen.setdefault(what, []).append(payload)
    program.ended()
    all_of_them = [str(number) for number in range(count)]
    expect(f"{name}: what was printed", sorted(seen), ["push", "status 0"])
    expect(f"{name}: the pushes, in order", seen["push"], all_of_them)
    expect(f"{name}: the responses", sorted(seen["status 0"], key=int), all_of_them)
    expect(f"{name}: the runs", sorted(map(int, asked.runs[name])), list(range(count)))
    if cable.cuts < cuts:
        raise Failed(f"{name}: only {cable.cuts} of {cuts} cuts in {count} requests")
    return cable.cuts


def main(moorgate, files, in_c, count, cuts):
    count, cuts = int(count), int(cuts)
    signal.alarm(int(60 + 2 * CUT_S * cuts))
    site = Site(moorgate, files)
    asked = Asked(site.desk)
    in_python = [sys.executable, pathlib.Path(__file__).with_name("count.py")]
    done = [check(site, asked, *client, count, cuts) for client in (("in-python", in_python), ("in-c", [in_c]))]
    site.gateway.end()
    expect("the drain of the desk", site.desk.service.drain(), True)
    print(f"cuts: {count} requests and pushes through {done[0]} cuts in Python and {done[1]} in C, none lost")


report(lambda: main(*sys.argv[1:]))
