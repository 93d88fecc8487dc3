"""Sends a few requests to an echo service and shows what comes back.

    python3 echo.py HOST:PORT [ACCESS_TOKEN]
"""

import sys

import moorgate_client

ECHO = 0x0001


def main(address, access_token=""):
    with moorgate_client.connect(address, access_token=access_token) as client:
        print(f"a session of {client.user_id or 'nobody'}; the gateway answers a ping in {client.ping() * 1000:.1f} ms")
        # One after the other, then many at a time.
        response = client.request(ECHO, b"hello", timeout=2.0)
        print(f"status {response.status}: {response.payload.decode()}")
        pending = [client.start(ECHO, b"%d" % number) for number in range(100)]
        same = sum(request.result().payload == b"%d" % number for number, request in enumerate(pending))
        print(f"{same} of 100 came back as they went")
    if response.status or same < 100:
        raise SystemExit(f"no echo: {response}")


main(*sys.argv[1:])
