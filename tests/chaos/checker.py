"""Judges a recorded run: a pure function over what was recorded, with its own reading of every format

Each rule looks at the whole run and tells what contradicts it, with the evidence. A rule that cannot be judged because
nothing was recorded for it is no success: see R0.
"""
import json
from collections import defaultdict, namedtuple

Finding = namedtuple("Finding", "rule text evidence")

FINAL = {"finished", "failed", "killed", "error", "dropped", "gone"}
# What may follow what of the agent's own words.
AFTER = {
    "staging": {"starting", "running", "killing"} | FINAL,
    "starting": {"running", "killing"} | FINAL,
    "running": {"killing"} | FINAL,
    "killing": set(FINAL),
}
# Codes with which a tool says that meso did not do it: nothing may be concluded from them.
NOT_DONE = {69, 75, 77, 125}
# The clock that tasks read has hundredths of a second, and a status is stamped after what it tells.
SLACK_S = 0.15
# How much earlier than it is an agent may say that it is: its time is for display, and put right every ten seconds.
STAMP_S = 12
# What was stored so shortly before the stores were lost may not have been on the disk.
STORED_S = 30
# Reasons of a task that was lost after it had begun.
BEGAN = {"agent_rebooted", "supervisor_lost"}
# A framework is gone from its last word on, and says one as often as this; none to a leader that has just begun.
WORD_S = 2
# So long after its start a program may end of what it met then.
START_S = 2
# How much of a finding's evidence is told.
EVIDENCE_MAX = 4
# How often a task may be run again: the default of --retries-lost, and the first time.
ATTEMPTS_MAX = 4

RULES = {
    "R0": "something was run, and the run came to its end",
    "H1": "every line that was recorded can be read",
    "S1": "a launch is started at most once, a retry is another attempt",
    "S2": "no two attempts of a task run at the same time, and none follows one that ended well",
    "S3": "what runs on an agent never exceeds what the agent has",
    "S6": "a final state is final, and nothing of the task runs after it",
    "S7": "states arrive in order, without a gap",
    "S9": "exit codes and reports are true",
    "S10": "an offer is for whom it was made, once and in its time, and nobody is told of what is others'",
    "S13": "nothing is left in cgroups and processes",
    "S14": "an agent goes on from what it wrote down, or says that it cannot",
    "S15": "one agent to a work directory, and one that was declared gone stays away",
    "S20": "no program panics or ends by itself",
    "OUT": "what a task wrote is what was printed, all of it and once",
    "LIVE": "no task ends by a fault of masters, agents or the bus",
    "L7": "tasks of a framework that is gone live for as long as it may take to come back",
    "L1": "a master leads, and all agents are in service again",
    "L3": "every operation ends, and every accepted task reaches a final state",
    "L5": "all that agents have is offered again",
}


def check(run):
    """Everything in a run that contradicts a rule: a list of findings, empty if all is well."""
    facts = Facts(run)
    found = []
    for rule in (was_run, readable, started_once, attempts_apart, fits, final_is_final, in_order, true_codes, true_reports, offers_are_own, told_of_own, ends_with_machine, nothing_left, nobody_wrong, nobody_fell, whole_output, survives, orphans_wait, comes_back, all_decided):
        found += rule(facts)
    return found


class Facts:
    """The run, put in the order in which the rules ask for it."""

    def __init__(self, run):
        self.raw = run
        self.ops = {}
        self.ends = {}
        self.probes = [line for line in run.history if line["kind"] == "probe"]
        self.daemons = [line for line in run.history if line["kind"] == "daemon"]
        self.excused = set()
        # Boxes whose machine was started anew, with all that ran on it.
        self.rebooted = set()
        self.released = None
        # Some program had another time than the others: what stamps say is nothing to go by, when they were seen is.
        self.clock_turned = any(line["kind"] == "fault" and line.get("turns_clock") for line in run.history)
        # What the bus had stored may be gone; then what was not heard when it was said may have been said.
        self.store_lost = any(line["kind"] == "fault" and line.get("loses_store") for line in run.history)
        # From when to when the bus knew nobody: who is started then ends, and says so with 77.
        self.refused = []
        for line in run.history:
            if line["kind"] == "fault" and line["fault"] == "bus-refuses" and line["type"] in ("inject", "heal"):
                if line["type"] == "inject":
                    self.refused.append([line["t"], float("inf")])
                elif self.refused:
                    self.refused[-1][1] = line["t"] + START_S
        self.disk_filled = any(line["kind"] == "fault" and line.get("fills_disk") for line in run.history)
        self.finished = any(line["kind"] == "finished" for line in run.history)
        for line in run.history:
            if line["kind"] == "op" and line["type"] == "invoke":
                self.ops[line["op"]] = line
            elif line["kind"] == "op" and line["type"] == "end":
                self.ends[line["op"]] = line
            elif line["kind"] == "fault":
                # Boxes whose processes the harness itself has killed.
                self.excused.update(line.get("boxes", ()))
                self.rebooted.update(line.get("rebooted", ()))
            elif line["kind"] == "release":
                self.released = line["t"]
        self.by_box = defaultdict(list)
        for line in run.witness:
            self.by_box[(line["host"], line["box"])].append(line)
        for lines in self.by_box.values():
            lines.sort(key=lambda line: line["t"])
        # Attempts of an operation's tasks: (op, index) -> attempt -> boxes
        self.attempts = defaultdict(lambda: defaultdict(list))
        for box, lines in self.by_box.items():
            first = lines[0]
            self.attempts[(first["op"], first["index"])][first["attempt"]].append(box)
        # The statuses of a task, each once, as they came. The leader's own words name no launch: a task is launched once.
        self.statuses = defaultdict(list)
        told = set()
        for line in sorted((line for line in run.statuses if line.get("meso") == "update/1"), key=lambda line: line.get("seen", 0)):
            what = (line["task"], line["seq"], line["state"], line.get("exit"), line.get("signal"))
            if what not in told:
                told.add(what)
                self.statuses[line["task"]].append(line)
        self.seen = {}
        for line in run.statuses:
            if line.get("meso") == "update/1" and "seen" in line:
                key = (line["task"], line["seq"], line["state"])
                self.seen[key] = min(line["seen"], self.seen.get(key, line["seen"]))
        # By how much a task began later than its agent says: the agent's clock was behind when it had just started.
        self.lag = {}
        for lines in self.by_box.values():
            told = [line for line in self.statuses.get(lines[0]["task"], ()) if line["state"] == "running" and line.get("started_ms")]
            if told and not self.clock_turned:
                self.lag[lines[0]["task"]] = max(0, lines[0]["t"] - self.at(told[0]))
        self.last = {}
        for task, lines in self.statuses.items():
            final = [line for line in lines if line["state"] in FINAL]
            if final:
                self.last[task] = final[0]
        for line in run.final:
            if line.get("final") and line["task"] not in self.last:
                self.last[line["task"]] = line

    def lost_between(self, since, until):
        """Whether what the bus stored may have been lost in a time."""
        return any(since - STORED_S < line["t"] < until for line in self.raw.history if line["kind"] == "fault" and line.get("loses_store"))

    def at(self, status):
        """When a status was made, on the clock of the history."""
        if self.clock_turned:
            return self.seen.get((status["task"], status["seq"], status["state"]), float("-inf"))
        return (status["ts_ms"] - self.raw.run["wall_minus_uptime_ms"]) / 1000

    def latest(self, status):
        """Until when it must have been made: an agent that has just started may believe that it is somewhat earlier."""
        if self.clock_turned:
            return self.seen.get((status["task"], status["seq"], status["state"]), float("inf"))
        return min(self.at(status) + STAMP_S + self.lag.get(status["task"], 0), self.seen.get((status["task"], status["seq"], status["state"]), float("inf")))

    def run_of(self, box):
        """From when to when a box was seen to run."""
        lines = self.by_box[box]
        return lines[0]["t"], lines[-1]["t"]

    def end_of(self, box):
        """The line in which a task says that it ends, if it got that far."""
        return next((line for line in self.by_box[box] if line["ev"] == "end"), None)

    def boxes_of(self, op):
        return [box for (name, _), attempts in self.attempts.items() if name == op for boxes in attempts.values() for box in boxes]


def finding(rule, text, *evidence):
    return Finding(rule, text, [line if isinstance(line, str) else json.dumps(line, default=sorted) for line in evidence[:EVIDENCE_MAX]])


def was_run(facts):
    if not facts.finished:
        yield finding("R0", "the run did not come to its end: nothing can be said of what follows the last fault")
    if not any(line["ev"] == "start" for line in facts.raw.witness):
        yield finding("R0", "no task was started in the whole run")
    if not facts.statuses:
        yield finding("R0", "no status was seen in the whole run")


def readable(facts):
    for name, number in facts.raw.unread[:EVIDENCE_MAX]:
        yield finding("H1", f"line {number} of {name} is torn or no JSON")


def started_once(facts):
    for box, lines in facts.by_box.items():
        starts = [line for line in lines if line["ev"] == "start"]
        if len(starts) > 1:
            yield finding("S1", f"{box[1]} on {box[0]} was started {len(starts)} times", *starts)
        if len({line["task"] for line in lines}) > 1:
            yield finding("S1", f"{box[1]} on {box[0]} is shared by several tasks", *lines)
    for (op, index), attempts in facts.attempts.items():
        for attempt, boxes in attempts.items():
            if len(boxes) > 1:
                yield finding("S1", f"attempt {attempt} of task {index} of {op} was started {len(boxes)} times", *boxes)
        if len(attempts) > ATTEMPTS_MAX + facts.ops.get(op, {}).get("retries", 0):
            yield finding("S1", f"task {index} of {op} was started in {len(attempts)} attempts", *sorted(attempts))
    tasks = defaultdict(set)
    for box, lines in facts.by_box.items():
        tasks[lines[0]["task"]].add(box)
    for task, boxes in tasks.items():
        if len(boxes) > 1:
            yield finding("S1", f"{task} was started in {len(boxes)} places", *boxes)


def attempts_apart(facts):
    for (op, index), attempts in facts.attempts.items():
        ordered = [box for attempt in sorted(attempts) for box in attempts[attempt]]
        for earlier, later in zip(ordered, ordered[1:]):
            if facts.last.get(facts.by_box[earlier][0]["task"], {}).get("state") == "gone":
                # An operator has said that it does not run.
                continue
            if facts.run_of(earlier)[1] > facts.run_of(later)[0] + SLACK_S:
                yield finding("S2", f"two attempts of task {index} of {op} ran at the same time", facts.by_box[earlier][-1], facts.by_box[later][0])
            end = facts.end_of(earlier)
            if end and end["code"] == 0 and facts.last.get(end["task"], {}).get("state") == "finished":
                yield finding("S2", f"task {index} of {op} was run again after it had ended well", end, facts.by_box[later][0])


def fits(facts):
    hosts = facts.raw.run["hosts"]
    for host, has in hosts.items():
        for kind in ("cpus", "mem"):
            changes = []
            for box, lines in facts.by_box.items():
                if box[0] == host:
                    start, end = facts.run_of(box)
                    changes += [(start, 1, lines[0][kind], lines[0]["task"]), (max(start, end), 0, -lines[0][kind], lines[0]["task"])]
            used, running = 0, set()
            # What ends at an instant makes room for what starts at it, but for what starts and ends at it.
            for at, starts, amount, task in sorted(changes, key=lambda change: (change[0], change[1], change[3])):
                used = round(used + amount, 3)
                (running.add if starts else running.discard)(task)
                if used > has[kind] + 0.0005:
                    yield finding("S3", f"{used} {kind} ran on {host}, which has {has[kind]}, at {at:.2f} s", sorted(running))
                    break


def is_past_memory(facts, ended, dropped):
    """Whether what had ended could be taken for never begun: its agent was started again and the stores were lost since.

    What the bus stored and the leader saw is kept by nobody else but its agent, and by that in memory.
    """
    if not ended or not by_leader(dropped) or dropped["state"] != "dropped":
        return False
    since, until = ended[0]["seen"], dropped["seen"]
    return any(line["type"] == "start" and line["name"] == ended[0]["host"] and since < line["t"] < until for line in facts.daemons) and facts.lost_between(since, until)


def final_is_final(facts):
    for task, lines in facts.statuses.items():
        ended = [line for line in lines if line["state"] in FINAL and not by_leader(line)]
        lines = [line for line in lines if not is_past_memory(facts, ended, line)]
        finals = [line for line in lines if line["state"] in FINAL]
        if any(line["state"] == "gone" for line in finals):
            # The word of an operator, who does not wait for that of the agent.
            continue
        if len({(line["state"], line.get("exit"), line.get("signal")) for line in finals}) > 1:
            yield finding("S6", f"{task} was told to have ended in different ways", *finals)
        if finals:
            after = [line for line in lines if line["seq"] > finals[0]["seq"]]
            if after:
                yield finding("S6", f"{task} was {finals[0]['state']}, and then {after[0]['state']}", finals[0], *after)
    for box, lines in facts.by_box.items():
        final = facts.last.get(lines[0]["task"])
        if final is None or final["state"] == "gone":
            continue
        late = [line for line in lines if line["t"] > facts.latest(final) + SLACK_S]
        if late:
            yield finding("S6", f"{lines[0]['task']} was {final['state']} at {facts.latest(final):.2f} s and ran on until {late[-1]['t']:.2f} s", final, late[-1])
        # An agent whose machine started anew says what it wrote down, and that began before it was told to have begun.
        if final["state"] == "dropped" and not final.get("started_ms") and not (box[1] in facts.rebooted and final.get("reason") == "agent_rebooted"):
            yield finding("S6", f"{lines[0]['task']} was dropped as if it had never run, but it ran", final, lines[0])


def by_leader(status):
    """Whether it is the leader's word of what an agent does not tell: that has no number of its own."""
    return status.get("agent_seq") == 0


def in_order(facts):
    for task, lines in facts.statuses.items():
        states = {}
        for line in sorted((line for line in lines if not by_leader(line)), key=lambda line: line["seq"]):
            other = states.setdefault(line["seq"], line)
            if other["state"] != line["state"]:
                yield finding("S7", f"status {line['seq']} of {task} was told as {other['state']} and as {line['state']}", other, line)
        ordered = sorted(states)
        # What the stores lose with the bus is told again only as far as it matters: the last word.
        if ordered and not facts.store_lost and ordered != list(range(ordered[0], ordered[0] + len(ordered))):
            yield finding("S7", f"statuses {ordered} of {task} have a gap", *lines)
        for earlier, later in zip(ordered, ordered[1:]):
            if states[later]["state"] not in AFTER.get(states[earlier]["state"], ()) and states[earlier]["state"] not in FINAL:
                yield finding("S7", f"{task} went from {states[earlier]['state']} to {states[later]['state']}", states[earlier], states[later])


def ended_well(facts, op, index):
    """Whether the last attempt of a task says itself that it ended with the code that was asked of it."""
    attempts = facts.attempts.get((op, index))
    if not attempts:
        return False
    return any((facts.end_of(box) or {}).get("code") == 0 for box in attempts[max(attempts)])


def true_codes(facts):
    for op, end in facts.ends.items():
        begun, code = facts.ops.get(op, {}), end["code"]
        what = begun.get("what")
        if end.get("by") == "harness":
            continue
        if what == "launch":
            yield from true_launch(facts, op, begun, code)
        elif what == "wait" and code not in NOT_DONE:
            status = facts.last.get(begun["task"])
            if status is None and not facts.store_lost:
                yield finding("S9", f"{op}: meso-wait ended with {code} for {begun['task']}, of which no final status was ever seen")
            elif status and status.get("code", expected_code(status)) != code:
                yield finding("S9", f"{op}: meso-wait ended with {code} for {begun['task']}, which was {status['state']}", status)
        elif what == "detach" and code == 0:
            if begun_task(end) is None:
                yield finding("S9", f"{op}: meso-launch -d ended with 0 and named no task", end)
            elif begun_task(end) not in facts.last and not facts.store_lost:
                yield finding("S9", f"{op}: {begun_task(end)} was accepted, and no final status ever came", end)
        elif what == "detach" and facts.boxes_of(op) and code == 75:
            yield finding("S9", f"{op}: meso-launch -d ended with 75, not now, but its task ran", *facts.boxes_of(op))
        elif what == "kill" and code == 0:
            status = facts.last.get(begun["task"])
            if (status is None and not facts.store_lost) or (status and facts.at(status) > end["t"] + SLACK_S):
                yield finding("S9", f"{op}: meso-kill -w ended with 0 before {begun['task']} was final", status)


def begun_task(end):
    return end.get("task") or None


def expected_code(status):
    """The code that a status stands for."""
    if status["state"] == "finished":
        return 0
    if status.get("reason") == "timeout":
        return 124
    if status.get("signal"):
        return 128 + status["signal"]
    return status["exit"] if status.get("exit") is not None else 125


def true_launch(facts, op, begun, code):
    wanted = begun.get("codes", {})
    if code == 0:
        for index in range(1, begun["tasks"] + 1):
            if not ended_well(facts, op, index):
                yield finding("S9", f"{op}: exit code 0, but task {index} did not say that it ended with 0", *facts.attempts.get((op, index), {"it was": "never started"}).items())
    elif code == 75 and begun.get("impossible"):
        pass
    elif code == 124 and not begun.get("timeout"):
        yield finding("S9", f"{op}: exit code 124 without a time limit")
    elif code not in NOT_DONE and code < 124 and str(code) not in {str(value) for value in wanted.values()}:
        yield finding("S9", f"{op}: exit code {code}, which no task of it was to end with", wanted)
    elif code not in NOT_DONE and code < 124:
        said = [facts.end_of(box) for box in facts.boxes_of(op)]
        if code not in [line["code"] for line in said if line]:
            yield finding("S9", f"{op}: exit code {code}, but no task said that it ended with {code}")
    if begun.get("impossible") and (facts.boxes_of(op) or code == 0):
        yield finding("S9", f"{op}: exit code {code}; it asks for what no agent has, but ran", *facts.boxes_of(op))


def true_reports(facts):
    for op, lines in facts.raw.reports.items():
        indexes = [line["index"] for line in lines]
        if len(set(indexes)) != len(indexes):
            yield finding("S9", f"{op}: its report tells of a task twice", sorted(indexes))
        for line in lines:
            # The box is of the task that the report names: the last attempt.
            boxes = [box for box in facts.boxes_of(op) if facts.by_box[box][0]["task"] == line["task"]]
            said = next((facts.end_of(box) for box in boxes if facts.end_of(box)), None)
            if line["state"] == "finished" and (said is None or said["code"] != 0):
                yield finding("S9", f"{op}: reported as finished, but the task {line['task']} did not say so", line, said)
            if line["state"] == "failed" and line.get("exit") is not None and line["exit"] < 124 and (said is None or said["code"] != line["exit"]):
                yield finding("S9", f"{op}: reported as failed with {line['exit']}, but the task {line['task']} said otherwise", line, said)
            if line["state"] == "dropped" and boxes and line.get("reason") not in BEGAN:
                yield finding("S9", f"{op}: reported as dropped, but the task {line['task']} ran", line, boxes)
            status = facts.last.get(line["task"])
            # Who gives an agent up does not wait for its word; the task's own word was looked at above.
            if status and status["state"] not in ("gone", line["state"]) and line["state"] in FINAL:
                yield finding("S9", f"{op}: reported as {line['state']}, but {line['task']} was {status['state']}", line, status)


def offers_are_own(facts):
    for op, begun in facts.ops.items():
        end = facts.ends.get(op)
        if begun.get("refused") and end is not None and end["code"] == 0:
            yield finding("S10", f"{op}: {begun['refused']}, and it was let launch on it", end)
        if begun.get("refused") and facts.boxes_of(op):
            yield finding("S10", f"{op}: {begun['refused']}, and its task ran", *facts.boxes_of(op))


def told_of_own(facts):
    owner, offered = {}, {}
    for line in facts.raw.statuses:
        if line.get("meso") == "update/1" and line.get("framework"):
            owner[line["framework"]] = owner[line["task"]] = line["principal"]
    for line in facts.raw.overheard:
        words = line["subject"].split(".")
        if words[2] == "ev":
            # What the bus has stored may be read by everybody, and is asked for.
            continue
        to_framework = words[0] == "meso"
        principal = words[3] if to_framework else words[1]
        for each in line["ids"]:
            if owner.get(each, principal) != principal:
                yield finding("S10", f"{principal} was told of {each}, which is of {owner[each]}", line)
            if to_framework and each.startswith("fw_") and each != words[4]:
                yield finding("S10", f"{words[4]} was told of {each}", line)
            if to_framework and each.startswith("offer_") and offered.setdefault(each, words[4]) != words[4]:
                yield finding("S10", f"{words[4]} was told of {each}, which was made to {offered[each]}", line)


def ends_with_machine(facts):
    for box, lines in facts.by_box.items():
        final = facts.last.get(lines[0]["task"])
        if box[1] in facts.rebooted and final and final["state"] == "finished" and not facts.end_of(box):
            yield finding("S14", f"{final['task']} ended with its machine, and is told to have finished", lines[-1], final)


def nothing_left(facts):
    probe = next((line for line in facts.probes if line["what"] == "left"), None)
    if probe is None:
        yield finding("S13", "nobody has looked for what is left")
        return
    for kind in ("cgroups", "processes", "mounts"):
        if probe.get(kind):
            yield finding("S13", f"{len(probe[kind])} {kind} are left after the end of all tasks", *probe[kind])


def nobody_wrong(facts):
    """What a fault saw at once, being there."""
    for line in facts.raw.history:
        # An operator's word is kept by the leader and the stores of the bus alone.
        if line["kind"] == "wrong" and not ("said_at" in line and facts.lost_between(line["said_at"], line["t"])):
            yield finding(line["rule"], line["text"], line.get("said"))


def nobody_fell(facts):
    for line in facts.daemons:
        if line["type"] == "exit" and line["code"] == 77 and any(since < line["t"] < until for since, until in facts.refused):
            continue
        if line["type"] == "exit" and not line.get("excused"):
            yield finding("S20", f"{line['name']} ended by itself with {line['code']}", line.get("said"))
        elif line["type"] == "exit" and line["code"] in (101, -6, 134):
            yield finding("S20", f"{line['name']} panicked", line.get("said"))
    for op, text in facts.raw.errors.items():
        if "panicked at" in text:
            yield finding("S20", f"{op}: a tool panicked", text[-300:])


def whole_output(facts):
    for op, begun in facts.ops.items():
        end = facts.ends.get(op)
        if not begun.get("lines") or end is None or end.get("by") == "harness" or op not in facts.raw.outputs:
            continue
        text = facts.raw.outputs[op]
        printed = defaultdict(list)
        strange = []
        # Where a disk was full, outputs that were not read yet may be gone; whoever reads is told of which task.
        gone = {words[3].rstrip(":") for words in (line.split() for line in facts.raw.errors.get(op, "").splitlines() if "are missing here" in line)} if facts.disk_filled else set()
        short = {(index, facts.by_box[box][0]["attempt"]) for (name, index), attempts in facts.attempts.items() if name == op for boxes in attempts.values() for box in boxes
                 if gone and facts.by_box[box][0]["task"] in gone}
        for line in text.splitlines():
            word = line.split(" ")
            if len(word) == 6 and word[0] == op and all(number.isdigit() for number in (word[1], word[2], word[3])) and word[5] == str(begun["lines"]):
                printed[(int(word[1]), int(word[2]))].append(int(word[3]))
            else:
                strange.append(line[:200])
        if strange:
            yield finding("OUT", f"{op}: {len(strange)} lines were printed that no task wrote", *strange)
        if text and not text.endswith("\n") and end["code"] == 0:
            yield finding("OUT", f"{op}: the last line was printed in part", text[-200:])
        for (index, attempt), numbers in printed.items():
            if numbers != list(range(1, len(numbers) + 1)) and (index, attempt) not in short:
                yield finding("OUT", f"{op}: lines of task {index}, attempt {attempt}, are missing, doubled or out of order", compact(numbers))
        # A launch that ends as meso's own failure has said that something of it is missing.
        ended = ("finished", "failed") if end["code"] not in NOT_DONE else ()
        whole = {line["index"] for line in facts.raw.reports.get(op, ()) if line["state"] in ended and line.get("exit") is not None}
        if end["code"] == 0:
            whole.update(range(1, begun["tasks"] + 1))
        for index in sorted(whole):
            last = max(facts.attempts.get((op, index), {0: []}))
            if len(printed.get((index, last), ())) != begun["lines"] and (index, last) not in short:
                yield finding("OUT", f"{op}: task {index} wrote {begun['lines']} lines and ended, {len(printed.get((index, last), ()))} were printed; exit code {end['code']}")


def compact(numbers):
    """Where a list of numbers jumps."""
    jumps = [f"{one}->{other}" for one, other in zip(numbers, numbers[1:]) if other != one + 1]
    return f"{len(numbers)} lines from {numbers[0]} to {numbers[-1]}, jumps: {' '.join(jumps[:10])}"


def survives(facts):
    for op, begun in facts.ops.items():
        if not begun.get("survives"):
            continue
        for box in facts.boxes_of(op):
            task = facts.by_box[box][0]["task"]
            final = facts.last.get(task)
            if final is None or box[1] in facts.excused:
                continue
            if facts.released is None or facts.latest(final) < facts.released - SLACK_S:
                yield finding("LIVE", f"{task} of {op} was to live, and was {final['state']} ({final.get('reason')}) at {facts.at(final):.2f} s", final)
            elif final["state"] != "finished":
                yield finding("LIVE", f"{task} of {op} was let go and was {final['state']} ({final.get('reason')}) in place of finished", final)


def orphans_wait(facts):
    for op, begun in facts.ops.items():
        if begun.get("failover_s") is None or facts.ends.get(op, {}).get("by") != "harness":
            continue
        for box in facts.boxes_of(op):
            final = facts.last.get(facts.by_box[box][0]["task"])
            if final and final.get("reason") == "framework_gone" and facts.latest(final) < facts.ends[op]["t"] + begun["failover_s"] - WORD_S - SLACK_S:
                yield finding("L7", f"{final['task']} of {op} was {final['state']} {facts.at(final) - facts.ends[op]['t']:.1f} s after its framework went, which had {begun['failover_s']} s to come back", final)


def comes_back(facts):
    for what, rule in (("leader", "L1"), ("agents", "L1"), ("ended", "L3"), ("idle", "L3"), ("free", "L5"), ("offered", "L5")):
        probe = next((line for line in reversed(facts.probes) if line["what"] == what), None)
        if probe is None:
            yield finding(rule, f"nobody has looked at this: {what}")
        elif not probe["ok"]:
            yield finding(rule, f"not within {probe['bound_s']} s after the last fault: {what}", probe.get("saw"))


def all_decided(facts):
    for op, begun in facts.ops.items():
        if op not in facts.ends:
            yield finding("L3", f"{op} never ended: {' '.join(begun.get('argv', ()))[:200]}")
    for line in facts.raw.history:
        if line["kind"] == "hung":
            yield finding("L3", f"{line['op']} hung: no fault lasts so long", " ".join(facts.ops.get(line["op"], {}).get("argv", ()))[-300:])
    known = {}
    for lines in facts.statuses.values():
        for line in lines:
            known[line["task"]] = line
    for task, line in known.items():
        if task not in facts.last and not facts.store_lost:
            yield finding("L3", f"{task} never reached a final state", line)
    for box, lines in facts.by_box.items():
        if lines[0]["task"] not in facts.last and not facts.store_lost:
            yield finding("L3", f"{lines[0]['task']} ran and no final state of it was ever seen", lines[0])
    for line in facts.raw.final:
        # A record that was lost in part says of some tasks how they were before.
        if not line.get("final") and not (facts.store_lost and line["task"] in facts.last):
            yield finding("L3", f"{line['task']} is {line['state']} at the very end", line)
