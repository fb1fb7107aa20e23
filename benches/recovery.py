#!/usr/bin/env python3
"""Measures how long an agent that was killed takes until it has all its tasks again and the master has it, beside the floor.

    benches/recovery.py [TASKS] [ROUNDS]     1000 tasks, killed 10 times, where no numbers are given

Everything is real: nats-server, master, agent, a supervisor and a process for each task. *adopted* is until the agent says that
all tasks run on, *registered* until the master has welcomed the last part of its registration, which an onlooker on the bus
sees; both are counted from the start of the new process. The floor opens each task's process anew and reads its start
time, and reads the agent's log once. A run in which a task is lost is void. The release binaries have to be there; root as well.
"""

import json
import os
import pathlib
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "crash"))
from cluster import Agent, Cluster, Wrong, until  # noqa: E402

TASKS, ROUNDS = 1000, 10


class Onlooker(threading.Thread):
    """Hears registrations and their answers on the bus, and notes when the last part of each was answered"""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.welcomes = []
        self.lines = socket.create_connection(("127.0.0.1", port))
        self.lines.sendall(b'CONNECT {"verbose":false}\r\nSUB meso.default.a2m.*.hello 1\r\nSUB _INBOX.> 2\r\nPING\r\n')
        self.source = self.lines.makefile("rb")
        self.start()

    def run(self):
        waits = set()
        while line := self.source.readline():
            words = line.decode().split()
            if words[:1] == ["PING"]:
                self.lines.sendall(b"PONG\r\n")
            if words[:1] not in (["MSG"], ["HMSG"]):
                continue
            payload = self.source.read(int(words[-1]) + 2)[:-2]
            if words[2] == "1" and not json.loads(payload)["more"]:
                waits.add(words[3])
            elif words[1] in waits and b'"welcome/1"' in payload:
                waits.remove(words[1])
                self.welcomes.append(time.monotonic())


def floor(pids, journal):
    """Opens each process and reads since when it runs, and reads the log"""
    began = time.monotonic()
    journal.read_bytes()
    for pid in pids:
        held = os.pidfd_open(pid)
        with open(f"/proc/{pid}/stat", "rb") as stat:
            stat.read().rsplit(b")", 1)[1].split()[19]
        os.close(held)
    return time.monotonic() - began


def told(name, times):
    times = sorted(times)
    middle = times[len(times) // 2] * 1000
    print(f"{name:<12} median {middle:8.1f} ms   worst {times[-1] * 1000:8.1f} ms")
    return middle


def main():
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else TASKS
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    if os.geteuid() != 0:
        print("left out: it needs root")
        return 0
    adopted, registered, floors = [], [], []
    with Cluster("recovery") as cluster:
        onlooker = Onlooker(cluster.port)
        agent = Agent(cluster, "host0", "-R", f"cpus={tasks},mem={tasks * 16}M,disk=1G")
        agent.start()
        witness = cluster.dir / "witness"
        started = lambda: [int(line) for line in witness.read_text(encoding="utf-8").split()] if witness.exists() else []  # noqa: E731
        began = time.monotonic()
        launched = cluster.tool("meso-launch", "-d", "-n", str(tasks), "-R", "cpus=1,mem=16M", "-c", f"echo $$ >>{witness}; exec sleep 1d")
        if launched.returncode != 0:
            raise Wrong(f"the tasks were not launched: {launched.stderr}")
        until("all tasks run", lambda: len(started()) == tasks)
        print(f"{tasks} tasks run after {time.monotonic() - began:.1f} s", flush=True)
        # The statuses of the last ones are stored, and what the launch left to be written is.
        time.sleep(2)
        pids = started()
        for number in range(rounds):
            floors.append(floor(pids, agent.work_dir / "journal"))
            agent.kill()
            said, before = len(agent.said()), len(onlooker.welcomes)
            start = time.monotonic()
            agent.start()
            until("it found its tasks", lambda: "tasks of before" in agent.said()[said:])
            adopted.append(time.monotonic() - start)
            until("the master has it again", lambda: len(onlooker.welcomes) > before)
            registered.append(onlooker.welcomes[before] - start)
            if f"found {tasks} tasks of before: {tasks} run on" not in agent.said()[said:]:
                raise Wrong(f"after kill {number}: {agent.said()[said:]}")
        if started() != pids or any(not pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
            raise Wrong("tasks were lost, or started again")
    middle = {name: told(name, times) for name, times in (("adopted", adopted), ("registered", registered), ("floor", floors))}
    print(f"adopted is {middle['adopted'] / middle['floor']:.1f} times the floor")
    print(json.dumps({"bench": "recovery", "tasks": tasks, "rounds": rounds, "adopted_s": adopted, "registered_s": registered, "floor_s": floors}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Wrong as error:
        print(f"recovery: {error}", file=sys.stderr)
        sys.exit(1)
