#!/usr/bin/env python3
"""The checker's own test: clean histories that it lets pass, and one for each way to be wrong, which it must name"""
import sys

sys.dont_write_bytecode = True

import copy
import traceback

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
        self.unread = []
        self.wall_ms = WALL_MS

    def run(self):
        return Run({"seed": 0, "hosts": HOSTS, "wall_minus_uptime_ms": self.wall_ms}, self.history, self.statuses, self.final, self.witness, self.outputs, self.errors, self.reports, self.unread)

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
        known = {"meso": "update/1", "task": task, "state": state, "final": state in checker.FINAL, "reason": None, "exit": None, "signal": None, "seq": seq,
                 "agent_seq": 0 if by_leader else seq, "seen": t + 0.01, "ts_ms": round(t * 1000) + self.wall_ms, "started_ms": 1, "launch": {"epoch": 1, "offer": "offer_1", "index": 0}}
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
    story.invoke(1, "f1", tasks=1, failover_s=2)
    story.status(1, "task_f", 1, "running")
    story.wrote(1.1, "start", "f1", 1, "task_f", host="host2")
    story.end(3, "f1", -9, by="harness")
    story.status(5.2, "task_f", 2, "killed", reason="framework_gone", signal=15)
    story.close(10)
    return story


CLEAN = [plain, retried, steady, failing, crowded, killed, wiped, given_up]
WRONG = []


def wrong(rule, base):
    """Declares a way to be wrong: a change of a clean history, and the rule that it is against."""
    def declare(change):
        WRONG.append((rule, base, change))
        return change
    return declare


@wrong("S1", plain)
def a_launch_is_started_twice(story):
    story.wrote(1.5, "start", "o1", 1, "task_a")


@wrong("S1", plain)
def a_launch_is_started_again_elsewhere(story):
    story.wrote(3.9, "start", "o1", 1, "task_a", host="host2")


@wrong("S1", plain)
def an_attempt_is_started_under_two_ids(story):
    story.wrote(3.9, "start", "o1", 1, "task_x")
    story.wrote(4.0, "end", "o1", 1, "task_x", code=0)


@wrong("S1", plain)
def two_tasks_share_a_box(story):
    story.wrote(1.5, "tick", "o1", 2, "task_b", box="task_a-e1-1")


@wrong("S1", plain)
def a_task_is_tried_without_end(story):
    for attempt in range(2, 7):
        story.wrote(4 + attempt, "start", "o1", 2, f"task_x{attempt}", attempt=attempt)


@wrong("S2", retried)
def two_attempts_run_at_once(story):
    story.wrote(1.2, "start", "o1", 1, "task_a")
    story.wrote(2.5, "tick", "o1", 1, "task_a")


@wrong("S2", plain)
def what_ended_well_is_run_again(story):
    story.task(5, "o1", 1, "task_c", attempt=2)


@wrong("S3", crowded)
def more_cpus_run_than_there_are(story):
    story.task(1.2, "o2", 1, "task_5", lasts=0.2, cpus=0.1)


@wrong("S3", crowded)
def more_memory_is_used_than_there_is(story):
    for line in story.witness:
        line["mem"] = 300


@wrong("S6", plain)
def a_task_runs_on_after_its_end(story):
    story.wrote(2.6, "tick", "o1", 1, "task_a")


@wrong("S6", plain)
def a_task_ends_in_two_ways(story):
    story.status(2.02, "task_a", 2, "killed", signal=9)


@wrong("S6", plain)
def a_leader_says_otherwise_than_the_agent_did(story):
    story.status(5, "task_a", 1, "dropped", launch=None)


@wrong("S6", plain)
def a_task_lives_again(story):
    story.status(2.5, "task_a", 3, "running")


@wrong("S6", retried)
def what_was_dropped_has_run(story):
    story.wrote(0.9, "start", "o1", 1, "task_a")


@wrong("S7", killed)
def a_status_is_missing(story):
    story.statuses = [line for line in story.statuses if line["state"] != "killing"]


@wrong("S7", killed)
def states_go_backwards(story):
    for line in story.statuses:
        if line["task"] == "task_d" and line["state"] in ("running", "killing"):
            line["state"] = {"running": "killing", "killing": "running"}[line["state"]]


@wrong("S7", plain)
def one_status_is_told_in_two_ways(story):
    story.status(1.02, "task_a", 1, "killing")


@wrong("S9", plain)
def nought_though_a_task_never_ran(story):
    story.witness = [line for line in story.witness if line["index"] != 2]


@wrong("S9", plain)
def nought_though_a_task_failed(story):
    next(line for line in story.witness if line["ev"] == "end")["code"] = 3


@wrong("S9", plain)
def nought_though_a_task_never_ended(story):
    story.witness = [line for line in story.witness if (line["index"], line["ev"]) != (2, "end")]


@wrong("S9", failing)
def a_code_that_no_task_had(story):
    story.history[1]["code"] = 13


@wrong("S9", failing)
def a_code_that_no_task_said(story):
    story.history[0]["codes"]["3"] = 13
    story.history[1]["code"] = 13


@wrong("S9", plain)
def a_time_limit_that_nobody_set(story):
    story.history[1]["code"] = 124


@wrong("S9", killed)
def not_now_but_it_ran(story):
    story.status(8.6, "task_i", 1, "running")
    story.wrote(8.6, "start", "i1", 1, "task_i")
    story.status(8.8, "task_i", 2, "finished")


@wrong("S9", killed)
def a_wait_that_ends_with_another_code(story):
    next(line for line in story.history if line.get("op") == "w1" and line["type"] == "end")["code"] = 0


@wrong("S9", killed)
def a_kill_that_was_not_waited_for(story):
    next(line for line in story.history if line.get("op") == "k1" and line["type"] == "end")["t"] = 2.0


@wrong("S9", killed)
def accepted_and_never_heard_of(story):
    story.invoke(6, "d2", "detach", tasks=1)
    story.end(6.1, "d2", 0, task="task_never")


@wrong("S9", plain)
def a_report_that_is_not_true(story):
    story.history[0]["tasks"], story.history[1]["code"] = 0, 125
    story.witness = [line for line in story.witness if (line["index"], line["ev"]) != (2, "end")]


@wrong("S9", failing)
def a_report_with_another_code(story):
    story.reports["o1"][0]["exit"] = 9


@wrong("S9", plain)
def a_report_that_differs_from_the_statuses(story):
    story.reports["o1"][1].update(state="killed", exit=None)


@wrong("S9", plain)
def a_report_that_tells_twice(story):
    story.reports["o1"].append(dict(story.reports["o1"][0]))


@wrong("S13", plain)
def a_cgroup_is_left(story):
    next(line for line in story.history if line.get("what") == "left")["cgroups"].append("/sys/fs/cgroup/pids/meso/agent_x/e1-1")


@wrong("S13", plain)
def a_process_is_left(story):
    next(line for line in story.history if line.get("what") == "left")["processes"].append("77 sleep 1000")


@wrong("S15", plain)
def a_second_agent_is_let_in(story):
    story.history.append({"t": 5, "kind": "wrong", "rule": "S15", "text": "a second agent on the work directory of host1 ended with 0"})


@wrong("L7", given_up)
def a_framework_is_given_up_too_early(story):
    story.statuses[-1]["ts_ms"] -= 1000
    story.statuses[-1]["seen"] -= 1


@wrong("S20", plain)
def a_daemon_falls(story):
    story.history.append({"t": 5, "kind": "daemon", "type": "exit", "name": "master1", "code": 1, "excused": False, "said": "oh"})


@wrong("S20", plain)
def a_daemon_panics_while_its_disk_is_full(story):
    story.history.append({"t": 5, "kind": "daemon", "type": "exit", "name": "host1", "code": 101, "excused": True, "said": "oh"})


@wrong("S20", plain)
def a_tool_panics(story):
    story.errors["o1"] = "thread 'main' panicked at bins/x.rs:1"


@wrong("OUT", plain)
def a_line_is_missing(story):
    story.outputs["o1"] = story.outputs["o1"].replace("o1 1 1 2 of 3\n", "")


@wrong("OUT", plain)
def the_last_line_is_missing(story):
    story.outputs["o1"] = story.outputs["o1"].replace("o1 2 1 3 of 3\n", "")


@wrong("OUT", plain)
def a_line_is_printed_twice(story):
    story.outputs["o1"] = story.outputs["o1"].replace("o1 1 1 2 of 3\n", "o1 1 1 2 of 3\no1 1 1 2 of 3\n")


@wrong("OUT", plain)
def a_line_is_torn(story):
    story.outputs["o1"] = story.outputs["o1"].replace("o1 1 1 2 of 3\n", "o1 1 1 2 \n")


@wrong("OUT", failing)
def output_of_a_task_that_failed_is_missing(story):
    story.outputs["o1"] = story.outputs["o1"].replace("o1 2 1 3 of 3\n", "")


@wrong("LIVE", steady)
def a_task_dies_of_a_fault(story):
    story.statuses = [line for line in story.statuses if line["seq"] != 2]
    story.status(7, "task_s", 2, "killed", reason="framework_gone", signal=15)
    story.witness.pop()


@wrong("LIVE", steady)
def a_task_dies_of_being_let_go(story):
    story.statuses.pop()
    story.status(10.3, "task_s", 2, "failed", signal=9)


@wrong("L1", plain)
def nobody_leads_again(story):
    next(line for line in story.history if line.get("what") == "leader")["ok"] = False


@wrong("L1", plain)
def an_agent_stays_away(story):
    next(line for line in story.history if line.get("what") == "agents")["ok"] = False


@wrong("L3", plain)
def an_operation_never_ends(story):
    story.invoke(5, "o9", tasks=1)


@wrong("L3", plain)
def an_operation_hangs_until_it_is_killed(story):
    story.history.append({"t": 5, "kind": "hung", "op": "o1"})


@wrong("L3", plain)
def a_task_never_ends(story):
    story.status(5, "task_z", 1, "running")


@wrong("L3", plain)
def a_task_runs_that_nobody_ever_heard_of(story):
    story.wrote(5, "start", "o1", 3, "task_y")


@wrong("L5", plain)
def resources_are_not_offered_again(story):
    next(line for line in story.history if line.get("what") == "offered")["ok"] = False


@wrong("L5", plain)
def nobody_looked_whether_they_are(story):
    story.history = [line for line in story.history if line.get("what") != "offered"]


@wrong("R0", plain)
def nothing_was_run(story):
    story.witness, story.history, story.reports, story.outputs = [], story.history[2:], {}, {}


@wrong("R0", plain)
def the_run_was_cut_short(story):
    story.history.pop()


@wrong("H1", plain)
def a_witness_is_torn(story):
    story.unread.append(("host1.jsonl", 3))


def tell(name, problem):
    print(f"test chaos: {name} ... {'FAILED' if problem else 'ok'}")
    if problem:
        print(f"  {problem}")
    return bool(problem)


def main():
    failed = 0
    for base in CLEAN:
        found = list(checker.check(base().run()))
        failed += tell(f"clean, {base.__name__}", "; ".join(f"{each.rule}: {each.text}" for each in found))
    for rule, base, change in WRONG:
        story = copy.deepcopy(base())
        try:
            change(story)
            found = list(checker.check(story.run()))
            problem = "" if any(each.rule == rule for each in found) else f"{rule} was not found in it, only {[each.rule for each in found]}"
        except Exception:
            problem = traceback.format_exc()
        failed += tell(f"{rule}, {change.__name__.replace('_', ' ')}", problem)
    untested = set(checker.RULES) - {rule for rule, _, _ in WRONG}
    failed += tell("every rule has a history against it", ", ".join(sorted(untested)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
