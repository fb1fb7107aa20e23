"""What a run leaves behind: files of JSON lines, written by one process and read by the checker

    DIR/run.json          seed, options, hosts and what they have, clocks
    DIR/history.jsonl     operations (invoke, end), faults (inject, heal), daemons, probes; t is seconds since the machine started
    DIR/statuses.jsonl    lines of meso-events as they came, each with the time it was seen
    DIR/live.jsonl        statuses as they were published, whether stored or not
    DIR/overheard.jsonl   which ids were named in what was said to frameworks, and to one principal by anybody
    DIR/final.jsonl       meso-ps -a at the very end
    DIR/witness/*.jsonl   what tasks themselves wrote
    DIR/ops/ID.*          output, standard error and report of an operation
    DIR/logs/*            what daemons said
"""
import json
import os
import threading
import time

# A report or an output of one operation is read up to here.
READ_BYTES_MAX = 64 << 20


def now():
    """Seconds since the machine started: the clock of /proc/uptime, which tasks can read without a program."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class History:
    """The file that all threads of a run append to."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("witness", "ops", "logs"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        os.chmod(os.path.join(folder, "witness"), 0o777)
        self._file = open(os.path.join(folder, "history.jsonl"), "a", encoding="utf-8")
        self._lock = threading.Lock()

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def add(self, kind, **fields):
        """Appends one line; it is in the file when this returns."""
        with self._lock:
            if self._file.closed:
                return
            line = {"t": round(now(), 3), "kind": kind}
            line.update(fields)
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self):
        with self._lock:
            self._file.close()


class Run:
    """A recorded run, in memory; hand-made ones are how the checker itself is tested."""

    def __init__(self, run, history, statuses=(), final=(), witness=(), outputs=None, errors=None, reports=None, unread=(), overheard=()):
        self.run = run
        self.history = list(history)
        self.statuses = list(statuses)
        self.final = list(final)
        self.witness = list(witness)
        self.outputs = outputs or {}
        self.errors = errors or {}
        self.reports = reports or {}
        self.overheard = list(overheard)
        # Lines that are no JSON: (file, line number)
        self.unread = list(unread)


def _lines(path, unread):
    found = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                try:
                    found.append(json.loads(line))
                except ValueError:
                    unread.append((os.path.basename(path), number))
    except FileNotFoundError:
        pass
    return found


def _text(path):
    with open(path, "rb") as file:
        return file.read(READ_BYTES_MAX).decode("utf-8", "replace")


def load(folder):
    """Reads a run that was recorded."""
    unread = []
    with open(os.path.join(folder, "run.json"), encoding="utf-8") as file:
        run = json.load(file)
    witness, outputs, errors, reports = [], {}, {}, {}
    for name in sorted(os.listdir(os.path.join(folder, "witness"))):
        witness += _lines(os.path.join(folder, "witness", name), unread)
    for name in sorted(os.listdir(os.path.join(folder, "ops"))):
        operation, _, ending = name.rpartition(".")
        path = os.path.join(folder, "ops", name)
        if ending == "out":
            outputs[operation] = _text(path)
        elif ending == "err":
            errors[operation] = _text(path)
        elif ending == "report":
            reports[operation] = _lines(path, unread)
    return Run(
        run,
        _lines(os.path.join(folder, "history.jsonl"), unread),
        _lines(os.path.join(folder, "statuses.jsonl"), unread) + _lines(os.path.join(folder, "live.jsonl"), unread),
        _lines(os.path.join(folder, "final.jsonl"), unread),
        witness, outputs, errors, reports, unread,
        _lines(os.path.join(folder, "overheard.jsonl"), unread),
    )
