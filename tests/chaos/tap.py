#!/usr/bin/env python3
"""Listens to what is said on the bus, apart from what any server stores: tap.py [--ids] URL,URL SUBJECT...

Speaks as much of the bus's protocol as that takes. Prints one JSON object for each message, with the time it came:
messages that are JSON themselves as they are, or, with --ids, the ids that are named in each message of any form.
"""
import json
import re
import socket
import sys
import time

AGAIN_S = 0.2
# A server that says nothing for so long has gone or stands still: it is asked, and left if it does not answer.
SILENCE_S = 2
IDS = re.compile(rb"\b(?:fw|task|offer)_[0-9a-z]{10}\b")


def listen(address, subjects, tell):
    """Prints what comes from one server until it fails."""
    token, _, place = address.rsplit("//", 1)[-1].rpartition("@")
    host, port = place.rsplit(":", 1)
    about = {"verbose": False, "pedantic": False, "lang": "python", "version": "0", "name": "chaos tap", "protocol": 1}
    if token:
        about["auth_token"] = token
    with socket.create_connection((host, int(port)), timeout=SILENCE_S) as connection:
        file = connection.makefile("rb")
        wanted = "".join(f"SUB {subject} {number}\r\n" for number, subject in enumerate(subjects, 1))
        connection.sendall(f"CONNECT {json.dumps(about)}\r\n{wanted}PING\r\n".encode())
        is_asked = True
        while True:
            try:
                line = file.readline()
            except TimeoutError:
                if is_asked:
                    return
                # A file that has timed out cannot be read again.
                file, is_asked = connection.makefile("rb"), True
                connection.sendall(b"PING\r\n")
                continue
            is_asked = False
            if not line:
                return
            words = line.split()
            if words[:1] == [b"PING"]:
                connection.sendall(b"PONG\r\n")
            elif words[:1] in ([b"MSG"], [b"HMSG"]):
                payload = file.read(int(words[-1]) + 2)[:-2]
                if words[0] == b"HMSG":
                    payload = payload[int(words[-2]):]
                tell(words[1].decode(), payload)


def show(subject, payload):
    try:
        line = json.loads(payload)
    except ValueError:
        return
    line["subject"] = subject
    line["seen"] = round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)
    print(json.dumps(line), flush=True)


def show_ids(subject, payload):
    ids = sorted({each.decode() for each in IDS.findall(payload)})
    if ids:
        print(json.dumps({"subject": subject, "ids": ids, "seen": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)}), flush=True)


def main():
    words = [word for word in sys.argv[1:] if word != "--ids"]
    addresses, subjects, tell = words[0].split(","), words[1:], show_ids if "--ids" in sys.argv else show
    at = 0
    while True:
        try:
            listen(addresses[at % len(addresses)], subjects, tell)
        except OSError:
            # Whoever is away is tried again.
            pass
        at += 1
        time.sleep(AGAIN_S)


if __name__ == "__main__":
    main()
