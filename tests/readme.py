#!/usr/bin/env python3
"""Runs the console blocks of README.md, in order, on one cluster, and compares what they print

A line that begins with "$ " is a command, those below it are what it prints, with standard error. What differs from run to
run is alike: ids, ages, times, sizes and amounts of this machine. A line of nothing but "..." stands for any lines.
"""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT_S = 120
# What is unlike in each run, and what it is compared as.
VARIABLE = [
    (r"\b(task|agent|fw|offer|master|s)_[0-9a-z]{10}\b", r"\1_ID"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r'"([a-z_]*_ms|[a-z_]*_bytes|stream_seq)":\d+', r'"\1":N'),
    (r"\b\d+(\.\d+)?[KMGT]\b", "SIZE"),
    (r"\b\d+(ms|s|m|h)\b", "AGE"),
    (r"\blocal-\d\b", "HOST"),
    (r"[ \t]+", " "),
]


def blocks(text):
    """The transcripts: lists of (line number, command, what it prints)."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
            continue
        if inside and line.startswith("$ "):
            yield [number, line[2:], []]
        elif inside:
            yield [number, None, line]


def transcripts(text):
    steps = []
    for number, command, printed in blocks(text):
        if command is not None:
            steps.append((number, command, []))
        else:
            steps[-1][2].append(printed)
    return steps


def alike(line):
    for pattern, stand_in in VARIABLE:
        line = re.sub(pattern, stand_in, line)
    return line.strip()


def matches(expected, printed):
    """Whether the lines are alike; "..." stands for any number of them."""
    if not expected:
        return not printed
    if expected[0] == "...":
        return any(matches(expected[1:], printed[skip:]) for skip in range(len(printed) + 1))
    return bool(printed) and alike(expected[0]) == alike(printed[0]) and matches(expected[1:], printed[1:])


def main():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
        steps = transcripts(readme.read())
    mark = "-- step "
    # A command sees the exit code of the one before it.
    script = f"mark() {{ local code=$?; echo \"{mark}$1\"; return $code; }}\n"
    script += "".join(f"mark {number}\n{command}\n" for number, command, _ in steps)
    with tempfile.TemporaryDirectory(prefix="meso-readme.") as folder:
        path = os.path.join(folder, "script")
        with open(path, "w", encoding="utf-8") as out:
            out.write(script)
        ran = subprocess.run(
            ["meso-up", "-q", "--agents", "2", "-R", "cpus=2,mem=2G", "--", "bash", path],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False,
        )
    printed = {}
    current = []
    for line in ran.stdout.decode(errors="replace").splitlines():
        if line.startswith(mark):
            current = printed.setdefault(int(line[len(mark):]), [])
        else:
            current.append(line)
    bad = 0
    for count, (number, command, expected) in enumerate(steps, 1):
        got = printed.get(number)
        if got is not None and matches(expected, got):
            print(f"page README example {count} ... ok")
            continue
        bad += 1
        print(f"page README example {count} ... FAILED")
        print(f"    line {number}: {command}")
        for line in ["it was not run"] if got is None else got:
            print(f"    {line}")
    return 1 if bad or not steps else 0


if __name__ == "__main__":
    sys.exit(main())
