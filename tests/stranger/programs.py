"""What the checks share: other programs, started, listened to and ended, and an end for everything that is awaited."""

import base64
import os
import queue
import signal
import subprocess
import sys
import threading

import common_pb2 as common
import moorgate_reasons

# Long enough for a busy machine; only a check that fails ever takes so long.
WAIT_S = 60.0
# For a whole check, which may also wait where nobody has named a time.
CHECK_S = 280

_running = []


class Failed(Exception):
    """What was wanted has not come."""


def _too_long(_signal, _frame):
    raise Failed(f"the check is not over after {CHECK_S} s")


signal.signal(signal.SIGALRM, _too_long)
signal.alarm(CHECK_S)


class Program:
    """A running program. Its lines, of both outputs, are kept for the report of a failure."""

    def __init__(self, name, *command):
        self.name = name
        self.said = []
        self._lines = queue.Queue()
        self._process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._listen, daemon=True).start()
        _running.append(self)

    def _listen(self):
        for line in self._process.stdout:
            self.said.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def expect(self, text):
        """Reads on to the next line that has this text, and returns what follows in it."""
        return self.line(text).split(text, 1)[1].strip()

    def line(self, text):
        """The same, and returns all of the line."""
        while True:
            try:
                line = self._lines.get(timeout=WAIT_S)
            except queue.Empty:
                line = None
            if line is None:
                raise Failed(f"{self.name} has not said {text!r}")
            if text in line:
                return line

    def rest(self):
        """All lines to the end of the program, each within a time."""
        while True:
            try:
                line = self._lines.get(timeout=WAIT_S)
            except queue.Empty:
                raise Failed(f"{self.name} goes on and says nothing") from None
            if line is None:
                return
            yield line

    def end(self, code=0):
        """SIGTERM, and the exit code that is wanted."""
        self.signal()
        self.ended(code)

    def signal(self):
        self._process.send_signal(signal.SIGTERM)

    def ended(self, code=0):
        try:
            got = self._process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} does not end") from None
        if got != code:
            raise Failed(f"{self.name} has ended with {got} instead of {code}")

    def kill(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def python(name, script, *arguments):
    return Program(name, sys.executable, script, *arguments)


def report(main):
    """Runs a check. When it fails, shows what each of its programs has said; none is left behind."""
    try:
        main()
    except BaseException:
        for program in _running:
            sys.stderr.write(f"---- {program.name}\n" + "".join(program.said[-40:]))
        sys.stderr.write("---- what failed\n")
        raise
    finally:
        for program in _running:
            program.kill()


def expect(what, got, wanted):
    if got != wanted:
        raise Failed(f"{what}: {got!r} instead of {wanted!r}")


def reason_of(message):
    return moorgate_reasons.name(message.reason)


def outcome(response):
    return response.status, reason_of(response), common.Execution.Name(response.execution).removeprefix("EXECUTION_")


def wait_for(what, event):
    if not (event.acquire(timeout=WAIT_S) if isinstance(event, threading.Semaphore) else event.wait(WAIT_S)):
        raise Failed(f"{what}: it has not come")


def make_key(file):
    file.write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
