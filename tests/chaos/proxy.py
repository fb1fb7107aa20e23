#!/usr/bin/env python3
"""Stands between a member and the bus and breaks its promises when told to: proxy.py CONTROL LISTEN=SERVER...

LISTEN and SERVER are HOST:PORT. CONTROL is a file with one JSON object, read again whenever it changes:

    {"mode": "pass"}
    {"mode": "copy", "times": 10}         each message as often
    {"mode": "drop", "share": 0.2}        that share of them never comes
    {"mode": "shuffle", "within_s": 5}    each comes at some time within that
    {"mode": "late", "least_s": 0, "most_s": 4}   as late, in order
    {"mode": "hold"}                      none comes before the next mode
    {"mode": "replay"}                    all that was said on connections before is said again, once

Only what the programs say to each other over the bus is touched. What they ask of the bus itself, such as what it
stores, passes as it is. How many messages each mode has touched is in CONTROL.told, one JSON object a mode.
"""
import asyncio
import json
import os
import random
import sys
from collections import OrderedDict, deque

LOOK_S = 0.05
# The longest line and message that a server takes is shorter.
LIMIT_BYTES = 4 << 20
# Of what was said before so much is remembered, and of questions that may be answered.
KEPT_MAX = 2000
ASKED_MAX = 20_000
UP, DOWN = "up", "down"


class Proxy:
    """What all connections have in common: the mode, and what was said."""

    def __init__(self, control):
        self.control = control
        self.mode = {"mode": "pass"}
        self.stamp = None
        self.touched = 0
        self.rng = random.Random(control)
        self.connections = set()
        self.number = 0
        # Messages of ours as they were sent: (number of the connection, bytes)
        self.said = deque(maxlen=KEPT_MAX)

    async def look(self):
        """Follows the control file for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                stamp = os.stat(self.control).st_mtime_ns
                if stamp == self.stamp:
                    continue
                with open(self.control, encoding="utf-8") as file:
                    mode = json.load(file)
            except (OSError, ValueError):
                # It is being written; the next look finds it whole.
                continue
            self.stamp = stamp
            self.turn(mode)

    def turn(self, mode):
        with open(self.control + ".told", "a", encoding="utf-8") as file:
            file.write(json.dumps({**self.mode, "touched": self.touched}) + "\n")
        self.mode, self.touched = mode, 0
        for connection in list(self.connections):
            connection.let_go()
        if mode["mode"] == "replay":
            for connection in list(self.connections):
                for number, frame in list(self.said):
                    if number < connection.number:
                        self.touched += 1
                        connection.write(UP, frame)

    async def serve(self, listen, server):
        host, _, port = listen.rpartition(":")
        await asyncio.start_server(lambda reader, writer: self.meet(reader, writer, server), host, int(port), limit=LIMIT_BYTES)

    async def meet(self, reader, writer, server):
        host, _, port = server.rpartition(":")
        try:
            there_reader, there_writer = await asyncio.open_connection(host, int(port), limit=LIMIT_BYTES)
        except OSError:
            writer.close()
            return
        self.number += 1
        connection = Connection(self, self.number, {UP: there_writer, DOWN: writer})
        self.connections.add(connection)
        both = [asyncio.ensure_future(connection.carry(UP, reader)), asyncio.ensure_future(connection.carry(DOWN, there_reader))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        self.connections.discard(connection)
        for each in both:
            each.cancel()
        for each in (writer, there_writer):
            each.close()


class Connection:
    """One connection of the member to a server."""

    def __init__(self, proxy, number, writers):
        self.proxy, self.number, self.writers = proxy, number, writers
        # Where answers to questions of ours go, the last of them.
        self.asked = OrderedDict()
        # What waits for its time, in order, by direction; and when the last of it is due.
        self.held = {UP: deque(), DOWN: deque()}
        self.due = {UP: 0.0, DOWN: 0.0}

    async def carry(self, way, reader):
        try:
            while True:
                line = await reader.readline()
                if not line:
                    return
                words = line.split()
                verb = words[0].upper() if words else b""
                if verb in (b"PUB", b"HPUB", b"MSG", b"HMSG"):
                    frame = line + await reader.readexactly(int(words[-1]) + 2)
                    self.take(way, verb, words, frame)
                elif verb == b"INFO":
                    self.write(way, without_others(line))
                else:
                    self.write(way, line)
                await self.writers[way].drain()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            # Either side hung up; so does the other.
            return

    def take(self, way, verb, words, frame):
        if not self.is_ours(way, verb, words):
            self.write(way, frame)
            return
        if way == UP:
            self.proxy.said.append((self.number, frame))
        mode, rng, loop = self.proxy.mode, self.proxy.rng, asyncio.get_running_loop()
        kind = mode["mode"]
        if kind not in ("pass", "replay"):
            self.proxy.touched += 1
        if kind == "copy":
            self.write(way, frame * mode["times"])
        elif kind == "drop":
            if rng.random() >= mode["share"]:
                self.write(way, frame)
        elif kind == "shuffle":
            loop.call_later(rng.random() * mode["within_s"], self.write, way, frame)
        elif kind == "hold":
            self.held[way].append(frame)
        elif kind == "late" or self.due[way] > loop.time():
            # What is late stays ahead of what follows it, also when the mode is over.
            wait_s = rng.uniform(mode["least_s"], mode["most_s"]) if kind == "late" else 0
            self.due[way] = max(self.due[way], loop.time() + wait_s)
            loop.call_at(self.due[way], self.write, way, frame)
        else:
            self.write(way, frame)

    def is_ours(self, way, verb, words):
        """Whether it is a message of one program to another."""
        subject = words[1]
        # Beside the verb, the subject and the size: of what comes down a number, of what has headers their size.
        plain = 3 + (way == DOWN) + verb.startswith(b"H")
        reply = words[2 + (way == DOWN)] if len(words) > plain else b""
        if subject.startswith(b"_INBOX."):
            return way == UP or subject in self.asked
        if not subject.startswith(b"meso.") or reply.startswith(b"$JS."):
            return False
        # The bus itself answers to what it stores.
        if way == UP and reply and b".ev." not in subject:
            self.asked[reply] = True
            if len(self.asked) > ASKED_MAX:
                self.asked.popitem(last=False)
        return True

    def let_go(self):
        for way, frames in self.held.items():
            while frames:
                self.write(way, frames.popleft())

    def write(self, way, data):
        if not self.writers[way].is_closing():
            self.writers[way].write(data)


def without_others(line):
    """What a server says of itself, but for the addresses of others: those would lead around us."""
    about = json.loads(line.split(None, 1)[1])
    about.pop("connect_urls", None)
    return b"INFO " + json.dumps(about).encode() + b"\r\n"


async def main():
    proxy = Proxy(sys.argv[1])
    for pair in sys.argv[2:]:
        listen, _, server = pair.partition("=")
        await proxy.serve(listen, server)
    await proxy.look()


if __name__ == "__main__":
    asyncio.run(main())
