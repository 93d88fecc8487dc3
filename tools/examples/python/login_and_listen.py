"""Logs in at the chat service, joins a group, says something there, and shows what is pushed until the session ends.

    python3 login_and_listen.py HOST:PORT NAME PASSWORD GROUP [TEXT]

A lost connection is the client's own business; here a new session is opened when the gateway goes away, as it advises.
Ctrl-C says goodbye.
"""

import sys
import time

import client_pb2 as pb
import moorgate_client
import moorgate_reasons

LOGIN, JOIN, SAY = 0x0200, 0x0201, 0x0202


def ask(client, command, text):
    response = client.request(command, text.encode(), timeout=5.0)
    if response.status:
        reason = moorgate_reasons.name(response.reason)
        raise SystemExit(f"{text!r}: status {response.status}, {reason}: {response.message}")
    return response


def listen(client, group):
    for event in client.events():
        if isinstance(event, pb.Push):
            print(f"{event.group}: {event.payload.decode()}", flush=True)
        elif isinstance(event, pb.Gap):
            print("messages are missing: here an application fetches them from its service", flush=True)
        elif isinstance(event, moorgate_client.FreshSession):
            # Groups belong to a session, and the old one is lost, with what was said meanwhile.
            ask(client, JOIN, group)
            print("a new session: here, too, an application fetches what it has missed", flush=True)
        elif isinstance(event, pb.GoAway):
            print("the gateway goes away", flush=True)
            client.close()


def main(address, name, password, group, *texts):
    access_token, failures = "", 0
    while True:
        try:
            with moorgate_client.connect(address, access_token=access_token, device_id="listener") as client:
                failures = 0
                if not access_token:
                    access_token = ask(client, LOGIN, f"{name} {password}").login.access_token
                ask(client, JOIN, group)
                print(f"{client.user_id} listens to {group}", flush=True)
                for text in texts:
                    ask(client, SAY, f"{group} {text}")
                texts = ()
                listen(client, group)
            end = client.end
        except moorgate_client.GoingAway:
            end = client.end
        except moorgate_client.SessionEnded as error:
            end, failures = error.end, failures + 1
        except OSError as error:
            end, failures = moorgate_client.End(str(error)), failures + 1
        delay = end.reconnect_delay(failures)
        if delay is None:
            raise SystemExit(f"ended: {end.message}; {moorgate_reasons.action(end.error.reason).value}")
        print(f"ended: {end.message}; again in {delay:.1f} s", flush=True)
        time.sleep(delay)


try:
    main(*sys.argv[1:])
except KeyboardInterrupt:
    pass
