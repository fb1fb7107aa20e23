#!/usr/bin/env python3
"""The checker's own test: clean histories that it lets pass, and one for each way to be wrong, which it must name"""
import sys

sys.dont_write_bytecode = True

import copy
import traceback

import checker
from stories import CLEAN, crowded, failing, forgotten, full_disk, given_up, greedy, killed, late_clock, plain, rebooted, refused, retried, steady, turned_clock

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


@wrong("S6", forgotten)
def what_had_ended_is_dropped_though_its_agent_was_there(story):
    story.history = [line for line in story.history if line["kind"] != "daemon"]


@wrong("S6", forgotten)
def what_had_ended_is_dropped_though_the_bus_was_there(story):
    story.history = [line for line in story.history if line["kind"] != "fault"]


@wrong("S6", rebooted)
def a_task_outlives_its_machine(story):
    story.wrote(2.7, "tick", "o1", 1, "task_a", host="host2")


@wrong("S6", late_clock)
def a_task_of_a_late_agent_runs_on(story):
    story.wrote(27.5, "tick", "o2", 1, "task_c")


@wrong("S6", turned_clock)
def a_task_runs_on_and_a_clock_was_turned(story):
    story.wrote(2.8, "tick", "d1", 1, "task_d")


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


@wrong("S9", rebooted)
def a_report_that_says_that_it_never_ran(story):
    story.report("o1", 3, "task_a", "dropped", reason="agent_restarted")


@wrong("S9", plain)
def a_report_that_tells_twice(story):
    story.reports["o1"].append(dict(story.reports["o1"][0]))


@wrong("S13", plain)
def a_cgroup_is_left(story):
    next(line for line in story.history if line.get("what") == "left")["cgroups"].append("/sys/fs/cgroup/pids/meso/agent_x/e1-1")


@wrong("S13", plain)
def a_process_is_left(story):
    next(line for line in story.history if line.get("what") == "left")["processes"].append("77 sleep 1000")


@wrong("S10", greedy)
def an_offer_is_used_twice(story):
    story.history[-1]["code"] = 0


@wrong("S10", greedy)
def an_offer_is_used_twice_and_nobody_says_so(story):
    story.wrote(5.1, "start", "g1", 1, "task_g")


@wrong("S10", greedy)
def an_offer_is_made_to_two(story):
    story.overheard.append({"subject": "meso.default.m2f.ann.fw_b", "ids": ["offer_a"]})


@wrong("S10", greedy)
def a_framework_is_told_of_another(story):
    story.overheard.append({"subject": "meso.default.m2f.ann.fw_b", "ids": ["fw_a"]})


@wrong("S10", greedy)
def a_principal_is_told_of_a_task_of_another(story):
    story.overheard.append({"subject": "_INBOX.bob.y.1", "ids": ["task_b"]})


@wrong("S14", rebooted)
def what_a_machine_took_with_it_has_finished(story):
    story.witness = [line for line in story.witness if (line["task"], line["ev"]) != ("task_b", "end")]


@wrong("S14", plain)
def an_agent_goes_on_with_a_damaged_record(story):
    story.history.append({"t": 5, "kind": "wrong", "rule": "S14", "text": "an agent whose work directory was damaged ended with nothing"})


@wrong("S15", plain)
def who_was_declared_gone_stays(story):
    story.history.append({"t": 200, "kind": "wrong", "rule": "S15", "text": "host1 was declared gone and did not end", "said_at": 80})


@wrong("S15", plain)
def a_second_agent_is_let_in(story):
    story.history.append({"t": 5, "kind": "wrong", "rule": "S15", "text": "a second agent on the work directory of host1 ended with 0"})


@wrong("L7", given_up)
def a_framework_is_given_up_too_early(story):
    story.statuses[-1]["ts_ms"] -= 3000
    story.statuses[-1]["seen"] -= 3


@wrong("S20", plain)
def a_daemon_falls(story):
    story.history.append({"t": 5, "kind": "daemon", "type": "exit", "name": "master1", "code": 1, "excused": False, "said": "oh"})


@wrong("S20", plain)
def a_daemon_panics_while_its_disk_is_full(story):
    story.history.append({"t": 5, "kind": "daemon", "type": "exit", "name": "host1", "code": 101, "excused": True, "said": "oh"})


@wrong("S20", refused)
def a_daemon_ends_as_if_it_were_refused(story):
    story.history[-1]["t"] = 12


@wrong("S20", refused)
def a_daemon_that_is_refused_ends_otherwise(story):
    story.history[-1]["code"] = 1


@wrong("S20", plain)
def a_tool_panics(story):
    story.errors["o1"] = "thread 'main' panicked at bins/x.rs:1"


def prints(name, line, instead, base=plain):
    """Declares an output that is wrong: where a line was to be, something else was printed."""
    def change(story):
        story.outputs["o1"] = story.outputs["o1"].replace(line, instead)
    change.__name__ = name
    wrong("OUT", base)(change)


prints("a line is missing", "o1 1 1 2 of 3\n", "")
prints("the last line is missing", "o1 2 1 3 of 3\n", "")
prints("a line is printed twice", "o1 1 1 2 of 3\n", "o1 1 1 2 of 3\no1 1 1 2 of 3\n")
prints("a line is torn", "o1 1 1 2 of 3\n", "o1 1 1 2 \n")
prints("another line is missing where a disk was full", "o1 2 1 1 of 3\n", "", full_disk)
prints("output of a task that failed is missing", "o1 2 1 3 of 3\n", "", failing)


@wrong("OUT", full_disk)
def nobody_says_that_output_is_missing(story):
    story.errors = {}


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
