"""An echo service: every command from 0x0001 to 0x00ff is answered with its own payload.

    python3 echo_service.py 127.0.0.1:7100 echo.key

Without a key file the gateway's configuration has to say `without_proofs = true`. SIGTERM drains and ends it.
"""

import logging
import signal
import sys

import moorgate_service
from moorgate_frames import key_of_file


def main(address, key_file=None):
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    service = moorgate_service.Service("echo", key_of_file(key_file) if key_file else None)

    @service.handle(*range(0x0001, 0x0100))
    def echo(call):
        return call.payload

    service.on_link = lambda link: print("linked" if link.is_ready() else "lost", link.gateway_id, flush=True)
    # Threads that are started from here on leave these signals to the main thread.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    print("listening on", service.listen(address), flush=True)
    signal.sigwait(signals)
    if not service.drain():
        raise SystemExit("drained, but not in time")
    print("drained", flush=True)


main(*sys.argv[1:])
