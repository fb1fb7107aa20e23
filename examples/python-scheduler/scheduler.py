#!/usr/bin/env python3
"""Runs COMMAND as COUNT tasks, each again until it works, three times at most: scheduler.py COUNT COMMAND

Started by meso-offer --exec: lines come on standard input, calls go to standard output. The task finds its NUMBER and its
TRY in its environment. Ends with 0 once all have worked, with 1 if one failed for good.
"""

import json
import sys

CPUS, MEM, TRIES = 0.1, 32, 3


class Scheduler:
    def __init__(self, count, command):
        self.command = command
        self.waiting = [(number, 1) for number in range(1, count + 1)]
        self.calls = 0
        self.asked = {}  # number of the call -> what it is to launch
        self.running = {}  # name of the task -> (number, try)
        self.failed = 0

    def call(self, meso, **keys):
        self.calls += 1
        print(json.dumps({"meso": meso, **keys}), flush=True)

    def offer(self, line):
        room = int(min(line["cpus"] / CPUS, line["mem"] / MEM))
        take, self.waiting = self.waiting[:room], self.waiting[room:]
        if not take:
            return self.call("decline/1", offers=[line["id"]])
        tasks = [
            {
                "name": f"part-{number}-try-{attempt}",
                "env": {"NUMBER": str(number), "TRY": str(attempt)},
                "cmd": self.command,
                "cpus": CPUS,
                "mem": MEM,
            }
            for number, attempt in take
        ]
        self.call("accept/1", offers=[line["id"]], ops=[{"launch": tasks}])
        self.asked[self.calls] = take
        self.running.update((task["name"], item) for task, item in zip(tasks, take))
        if not self.waiting:
            self.call("suppress/1")

    def result(self, line):
        take = self.asked.pop(line["line"], [])
        if not line["ok"]:
            # The offer was gone, say; nothing of it was done.
            self.again(take)

    def update(self, line):
        # A status may come twice: the second time its task is not here any more.
        if not line["final"] or line["name"] not in self.running:
            return
        number, attempt = self.running.pop(line["name"])
        if line["state"] in ("dropped", "gone"):
            self.again([(number, attempt)])
        elif line["state"] != "finished" and attempt < TRIES:
            print(f"part {number}: try {attempt} {line['state']}, {line['reason']}", file=sys.stderr)
            self.again([(number, attempt + 1)])
        elif line["state"] != "finished":
            print(f"part {number}: given up: {line['message']}", file=sys.stderr)
            self.failed += 1

    def again(self, items):
        for number, attempt in items:
            self.running.pop(f"part-{number}-try-{attempt}", None)
        if items and not self.waiting:
            self.call("revive/1")
        self.waiting += items

    def run(self):
        for text in sys.stdin:
            line = json.loads(text)
            # Lines of any other kind are passed over, also those that do not exist yet.
            react = {"offer/1": self.offer, "result/1": self.result, "update/1": self.update}.get(line["meso"])
            if react:
                react(line)
            if not self.waiting and not self.running:
                break
        return 1 if self.failed or self.waiting or self.running else 0


sys.exit(Scheduler(int(sys.argv[1]), sys.argv[2]).run())
