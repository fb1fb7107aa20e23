"""Histories made by hand in which all is as it should be, each with something that is not plain; how the checker is tested"""
import checker
from history import Run

# The wall clock of all of these histories stands this much before the clock of the tasks.
WALL_MS = 1_000_000
HOSTS = {"host1": {"cpus": 2, "mem": 512}, "host2": {"cpus": 2, "mem": 512}}


class Story:
    """A run made by hand: two short tasks of one launch, and an orderly end."""

    def __init__(self):
        self.history, self.statuses, self.final, self.witness = [], [], [], []
        self.outputs, self.errors, self.reports = {}, {}, {}
        self.unread, self.overheard = [], []
        self.wall_ms = WALL_MS

    def run(self):
        return Run({"seed": 0, "hosts": HOSTS, "wall_minus_uptime_ms": self.wall_ms}, self.history, self.statuses, self.final, self.witness, self.outputs, self.errors, self.reports, self.unread, self.overheard)

    # Each of these tells one more thing, at a time in seconds.

    def invoke(self, t, op, what="launch", **facts):
        self.history.append({"t": t, "kind": "op", "type": "invoke", "op": op, "what": what, **facts})

    def end(self, t, op, code=0, by="itself", **facts):
        self.history.append({"t": t, "kind": "op", "type": "end", "op": op, "code": code, "by": by, **facts})

    def fault(self, t, name, **facts):
        self.history.append({"t": t, "kind": "fault", "type": "inject", "fault": name, **facts})

    def probe(self, t, what, ok=True, **facts):
        self.history.append({"t": t, "kind": "probe", "what": what, "ok": ok, "bound_s": 9, **facts})

    def wrote(self, t, ev, op, index, task, host="host1", attempt=1, cpus=1, mem=64, box=None, **facts):
        self.witness.append({"t": t, "ev": ev, "op": op, "index": index, "attempt": attempt, "task": task, "box": box or f"{task}-e1-1", "host": host, "cpus": cpus, "mem": mem, "pid": 7, **facts})

    def status(self, t, task, seq, state, **facts):
        by_leader = state in ("unreachable", "gone", "dropped")
        known = {"meso": "update/1", "task": task, "framework": "fw_a", "principal": "ann", "state": state, "final": state in checker.FINAL, "reason": None, "exit": None, "signal": None, "seq": seq,
                 "host": "" if by_leader else "host1", "agent_seq": 0 if by_leader else seq, "seen": t + 0.01, "ts_ms": round(t * 1000) + self.wall_ms, "started_ms": 1, "launch": {"epoch": 1, "offer": "offer_1", "index": 0}}
        if state == "finished":
            known["exit"] = 0
        self.statuses.append({**known, **facts})

    def report(self, op, index, task, state="finished", code=0, **facts):
        self.reports.setdefault(op, []).append({"meso": "report/1", "index": index, "task": task, "state": state, "exit": 0 if state == "finished" else None, "code": code, **facts})

    def task(self, t, op, index, task, host="host1", lasts=1.0, code=0, **facts):
        """A whole life: both statuses, both lines, three lines of output."""
        attempt = facts.get("attempt", 1)
        self.status(t, task, 1, "running")
        self.wrote(t + 0.01, "start", op, index, task, host, **facts)
        self.wrote(t + lasts, "end", op, index, task, host, code=code, **facts)
        self.status(t + lasts + 0.01, task, 2, *(["finished"] if code == 0 else ["failed"]), exit=code)
        self.outputs[op] = self.outputs.get(op, "") + "".join(f"{op} {index} {attempt} {line} of 3\n" for line in (1, 2, 3))
        self.report(op, index, task, "finished" if code == 0 else "failed", code, exit=code)

    def close(self, t):
        self.history.append({"t": t, "kind": "release"})
        for what in ("leader", "agents", "ended", "idle", "free", "offered"):
            self.probe(t, what)
        self.probe(t, "left", cgroups=[], processes=[], mounts=[])
        self.history.append({"t": t, "kind": "finished"})


def plain():
    """Two tasks of one launch, one after the other."""
    story = Story()
    story.invoke(1, "o1", tasks=2, lines=3)
    story.task(1, "o1", 1, "task_a")
    story.task(2.5, "o1", 2, "task_b")
    story.end(4, "o1", 0)
    story.close(10)
    return story


def retried():
    """A task that was dropped before it ran, or lost with its supervisor, is run again as another attempt."""
    story = Story()
    story.invoke(1, "o1", tasks=1, lines=3)
    story.status(1, "task_a", 1, "dropped", reason="agent_restarted", started_ms=None)
    story.task(2, "o1", 1, "task_b", attempt=2, host="host2")
    story.end(4, "o1", 0)
    story.close(10)
    return story


def steady():
    """A task that was to live through all of it, and did; its agent was away for a while."""
    story = Story()
    story.invoke(1, "s1", "detach", tasks=1, survives=True)
    story.end(1.2, "s1", 0, task="task_s")
    story.status(1, "task_s", 1, "running")
    story.wrote(1.1, "start", "s1", 1, "task_s")
    story.status(4, "task_s", 1, "unreachable")
    story.status(6, "task_s", 1, "running", ts_ms=1000 + WALL_MS)
    story.wrote(10.2, "end", "s1", 1, "task_s", code=0)
    story.status(10.3, "task_s", 2, "finished")
    story.close(10)
    return story


def failing():
    """Tasks with codes of their own, and the highest of them as that of the launch."""
    story = Story()
    story.invoke(1, "o1", tasks=2, lines=3, codes={"1": 11, "2": 12})
    story.task(1, "o1", 1, "task_a", code=11)
    story.task(2.5, "o1", 2, "task_b", code=12)
    story.end(4, "o1", 12)
    story.close(10)
    return story


def crowded():
    """Tasks that together have exactly what their agent has, the next in the moment in which the one before ends."""
    story = Story()
    story.invoke(1, "o1", tasks=4, lines=3)
    for index, t in enumerate((1, 1, 2, 2), 1):
        story.task(t, "o1", index, f"task_{index}", lasts=0.99 if t == 1 else 1)
    story.end(4, "o1", 0)
    story.close(10)
    return story


def killed():
    """A task that does not want to end is killed, and is waited for; another hits its time limit; a client is killed."""
    story = Story()
    story.invoke(1, "d1", "detach", tasks=1)
    story.end(1.1, "d1", 0, task="task_d")
    story.status(1, "task_d", 1, "running")
    story.wrote(1.05, "start", "d1", 1, "task_d")
    story.invoke(1.5, "k1", "kill", task="task_d")
    story.status(1.5, "task_d", 2, "killing")
    story.wrote(2.45, "tick", "d1", 1, "task_d")
    story.status(2.5, "task_d", 3, "killed", signal=9)
    story.end(2.6, "k1", 0)
    story.invoke(2.7, "w1", "wait", task="task_d")
    story.end(2.8, "w1", 137)
    story.invoke(3, "t1", tasks=1, timeout=True)
    story.status(3, "task_t", 1, "running")
    story.wrote(3.1, "start", "t1", 1, "task_t")
    story.status(4, "task_t", 2, "failed", reason="timeout", signal=15)
    story.end(4.1, "t1", 124)
    story.invoke(5, "c1", tasks=1, lines=3, killable=True)
    story.status(5, "task_c", 1, "running")
    story.wrote(5.1, "start", "c1", 1, "task_c")
    story.outputs["c1"] = "c1 1 1 1 of 3\nc1 1 1 2 of"
    story.end(6, "c1", -9, by="harness")
    story.status(8, "task_c", 2, "killed", reason="framework_gone", signal=15)
    story.invoke(8.5, "i1", tasks=1, impossible=True)
    story.end(9, "i1", 75)
    story.close(10)
    return story


def wiped():
    """The bus loses what it stored: statuses of then are gone, those that matter are told again."""
    story = plain()
    story.fault(3, "bus-wipe", loses_store=True)
    story.statuses = [line for line in story.statuses if (line["task"], line["seq"]) != ("task_b", 1)]
    story.status(2.5, "task_c", 2, "killing")
    story.status(2.6, "task_c", 3, "killed", signal=15)
    return story


def given_up():
    """An agent was declared gone while its task ran, and the task was run again elsewhere; another's framework never came back."""
    story = Story()
    story.invoke(1, "o1", tasks=1, lines=3)
    story.status(1, "task_a", 1, "running")
    story.wrote(1.1, "start", "o1", 1, "task_a")
    story.fault(2, "agent-gone", boxes=["task_a-e1-1"])
    story.status(2, "task_a", 1, "gone", reason="agent_gone")
    story.task(2.5, "o1", 1, "task_b", attempt=2, host="host2")
    story.wrote(3, "tick", "o1", 1, "task_a")
    story.end(4, "o1", 0)
    story.invoke(1, "f1", tasks=1, failover_s=4)
    story.status(1, "task_f", 1, "running")
    story.wrote(1.1, "start", "f1", 1, "task_f", host="host2")
    story.end(3, "f1", -9, by="harness")
    story.status(7.2, "task_f", 2, "killed", reason="framework_gone", signal=15)
    story.close(10)
    return story


def forgotten():
    """Bus, leader and agent are all lost in a moment: what had ended is taken for never begun."""
    story = plain()
    story.fault(3.5, "bus-wipe", loses_store=True)
    story.history.append({"t": 3.7, "kind": "daemon", "type": "start", "name": "host1", "pid": 9})
    story.status(5, "task_a", 3, "dropped", reason="unknown_to_agent", launch=None)
    return story


def rebooted():
    """A machine starts anew: its agent says so of a task, and the task is run again; another had ended just before."""
    story = Story()
    story.invoke(1, "o1", tasks=2, lines=3)
    story.task(1, "o1", 2, "task_b", lasts=0.9)
    story.wrote(1.5, "start", "o1", 1, "task_a", host="host2")
    story.fault(2, "agent-reboot", boxes=["task_a-e1-1", "task_b-e1-1"], rebooted=["task_a-e1-1", "task_b-e1-1"])
    story.status(2.5, "task_a", 1, "dropped", reason="agent_rebooted", started_ms=None)
    story.task(3, "o1", 1, "task_c", attempt=2)
    story.end(5, "o1", 0)
    story.close(10)
    return story


def late_clock():
    """An agent's clock is far behind when it has just started, and so is what it says of a task; the task says when it was."""
    story = plain()
    story.invoke(5, "o2", tasks=1, lines=3)
    story.task(25, "o2", 1, "task_c", lasts=2)
    for line in story.statuses[-2:]:
        line["ts_ms"] -= 20_000
    story.end(28, "o2", 0)
    return story


def full_disk():
    """A disk is full, and an output is removed before it was read; whoever reads is told."""
    story = plain()
    story.fault(3, "agent-disk-full", fills_disk=True)
    story.outputs["o1"] = story.outputs["o1"].replace("o1 1 1 1 of 3\no1 1 1 2 of 3\no1 1 1 3 of 3\n", "")
    story.errors["o1"] = "meso-launch: stdout of task_a: 48 bytes before offset 48 were rotated away and are missing here\n"
    return story


def refused():
    """The bus knows nobody for a while, and a master that is started then ends at once."""
    story = plain()
    for t, kind in ((5, "inject"), (8, "heal")):
        story.history.append({"t": t, "kind": "fault", "type": kind, "fault": "bus-refuses"})
    story.history.append({"t": 6, "kind": "daemon", "type": "exit", "name": "master1", "code": 77, "excused": False, "said": "the bus refuses our credentials"})
    return story


def turned_clock():
    """A leader believes that it is another year, and says so."""
    story = killed()
    story.fault(0.5, "master-clock-years-ahead", turns_clock=True)
    for line in story.statuses:
        line["ts_ms"] += 315_360_000_000
    return story


def greedy():
    """A framework uses an offer twice, and is refused the second time."""
    story = plain()
    story.invoke(5, "g1", tasks=1, refused="the offer was used before")
    story.end(5.2, "g1", 75)
    story.overheard.append({"subject": "meso.default.m2f.ann.fw_a", "ids": ["fw_a", "offer_a", "task_a"]})
    story.overheard.append({"subject": "_INBOX.ann.x.1", "ids": ["task_b"]})
    story.overheard.append({"subject": "meso.default.ev.agent_1.fw_b.task_z", "ids": ["fw_b", "task_z"]})
    return story


CLEAN = [plain, retried, steady, failing, crowded, killed, wiped, given_up, forgotten, rebooted, late_clock, full_disk, refused, turned_clock, greedy]
