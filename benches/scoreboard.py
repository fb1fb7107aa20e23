#!/usr/bin/env python3
"""Measures what meso costs beside its floors and peers, in one run on one machine, and prints a table of ratios.

    benches/scoreboard.py [--quick] [--floors DIR] [--peers DIR] [--python PATH] [--server PATH] [--rows 1,2,3]

Release binaries are taken from target/release. Without --floors the floors are those that this script measures itself
(posix_spawn, xargs, a pipe). With it, DIR holds built programs: floor/target/release/floor and
natsfloor/target/release/composite; the first runs again at the end. --peers DIR holds local.py, slurm_bench.py and hq_bench.py,
which print one JSON line each; --python is the interpreter that has their packages. Every number is a median; a run with one task
that failed is void. An agent's log is on the disk before a task is spawned and before its end is told, so row 5 is row 3.
"""
import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
# A cluster that does not come up, or a task that does not end, must not hang the run.
LIMIT_S = 600


def median(values):
    values = sorted(values)
    return values[(len(values) - 1) // 2]


def percentile(values, share):
    values = sorted(values)
    return values[round((len(values) - 1) * share)]


def timed(command, count, env, warm=5):
    """Wall times of a whole process, in ms; each must end with 0."""
    times = []
    for number in range(count + warm):
        began = time.perf_counter()
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, timeout=LIMIT_S)
        if number >= warm:
            times.append((time.perf_counter() - began) * 1e3)
    return times


def spawn_floor(count):
    """posix_spawn and wait of /bin/true, in ms."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        pid = os.posix_spawn("/bin/true", ["true"], os.environ)
        assert os.waitpid(pid, 0)[1] == 0
        times.append((time.perf_counter() - began) * 1e3)
    return times


class Cluster:
    """One agent of 16 slots under meso-up, in a process group of its own."""

    def __init__(self, server, cgroups=True):
        self.state = tempfile.mkdtemp(prefix="meso-bench-")
        env = dict(os.environ)
        if server:
            env["MESO_NATS_SERVER"] = server
        if not cgroups:
            env["MESO_CGROUPS"] = "off"
        # A shell that waits keeps the cluster up and tells its address.
        script = 'echo "$MESO_NATS_URL"; exec cat'
        command = [BIN / "meso-up", "-q", "--agents", "1", "-R", "cpus=16,mem=8G", "--", "sh", "-c", script]
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        url = self.process.stdout.readline().decode().strip()
        if not url:
            raise SystemExit("scoreboard: meso-up did not come up; run it by hand to see why")
        self.env = dict(os.environ, MESO_NATS_URL=url)
        self.children = descendants(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        shutil.rmtree(self.state, ignore_errors=True)

    def pids(self, name):
        return [pid for pid in self.children if Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text().strip() == name]


def descendants(pid):
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
            except OSError:
                pass
    found, todo = [], [pid]
    while todo:
        for child in parents.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


def memory_kib(pid, what):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1])
    return 0


def cpu_s(pids):
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def launch(cluster):
    return [BIN / "meso-launch", "-q"]


def connected(cluster, count):
    """From a line into a running meso-launch to the task's output out of it, in ms."""
    command = [*launch(cluster), "-R", "cpus=1,mem=32M", "--each", "-", "--", "echo", "{}"]
    process = subprocess.Popen(command, env=cluster.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    times = []
    for number in range(count + 5):
        began = time.perf_counter()
        process.stdin.write(b"%d\n" % number)
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([process.stdout], [], [], 60)[0]:
                raise SystemExit("scoreboard: a task of the pipeline did not end within 60 s")
            line += os.read(process.stdout.fileno(), 4096)
        assert line == b"%d\n" % number, line
        if number >= 5:
            times.append((time.perf_counter() - began) * 1e3)
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    return times


OFFERED_S = 5


def offers_through_jq(cluster):
    """Offers a second out of meso-offer, through jq, and back as calls of meso-launch -O, each answered; and jq alone on such lines."""
    pipe = """meso-offer | jq -c --unbuffered '{meso: "decline/1", offers: [.id], refuse: "0s"}' | meso-launch -O"""
    env = dict(cluster.env, PATH=f"{BIN}:{os.environ['PATH']}")
    process = subprocess.Popen(["bash", "-c", pipe], env=env, stdout=subprocess.PIPE, start_new_session=True)
    count, began = 0, None
    while began is None or time.perf_counter() - began < OFFERED_S:
        result = json.loads(process.stdout.readline())
        if not result["ok"]:
            raise SystemExit(f"scoreboard: a decline was refused: {result}")
        began = began or time.perf_counter()
        count += 1
    rate = count / (time.perf_counter() - began)
    os.killpg(process.pid, 15)
    process.wait(timeout=60)
    line = subprocess.run(["bash", "-c", "meso-offer | head -n 1"], env=env, stdout=subprocess.PIPE, check=True, timeout=LIMIT_S).stdout
    began = time.perf_counter()
    subprocess.run(["jq", "-c", "--unbuffered", "{id}"], input=line * 20_000, stdout=subprocess.DEVNULL, check=True, timeout=LIMIT_S)
    return rate, 20_000 / (time.perf_counter() - began)


def many(cluster, count):
    """Tasks a second."""
    began = time.perf_counter()
    subprocess.run([*launch(cluster), "-R", "cpus=1,mem=32M", "-n", str(count), "--", "/bin/true"], env=cluster.env, check=True, timeout=LIMIT_S)
    return count / (time.perf_counter() - began)


def xargs(count):
    began = time.perf_counter()
    subprocess.run(f"seq {count} | xargs -P16 -n1 /bin/true", shell=True, check=True, timeout=LIMIT_S)
    return count / (time.perf_counter() - began)


def stream(command, env, size):
    """GiB/s of a command's output, all of it counted."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, bufsize=0, shell=isinstance(command, str))
    got = 0
    while data := os.read(process.stdout.fileno(), 1 << 16):
        got += len(data)
    assert process.wait(timeout=60) == 0 and got == size, (process.returncode, got)
    return size / (1 << 30) / (time.perf_counter() - began)


def outside(program, *args, env=None):
    """The JSON of somebody else's program, or nothing."""
    if not program.exists():
        return {}
    out = subprocess.run([program, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=LIMIT_S, env=dict(os.environ, **(env or {})))
    lines = [line for line in out.stdout.splitlines() if line.startswith(b"{")]
    return json.loads(lines[-1]) if lines else {}


def floors(args, server):
    """What the machine and the bus allow: of the container alone, and of this architecture with nothing in it."""
    found = {}
    if args.floors:
        found["floor"] = outside(args.floors / "floor/target/release/floor", "500", "2000")
        if server:
            program = args.floors / "natsfloor/target/release/composite"
            found["composite"] = outside(program, "bench", server)
            found["composite, fsync"] = outside(program, "bench", server, env={"SYNC": "always"})
    for name, values in found.items():
        print(f"{name}: {json.dumps(values)}", flush=True)
    return found


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--quick", action="store_true", help="a tenth of everything")
    args.add_argument("--floors", type=Path, help="folder of built floors")
    args.add_argument("--peers", type=Path, help="folder of the peers' scripts")
    args.add_argument("--python", default=sys.executable, help="interpreter for the peers' scripts")
    args.add_argument("--server", help="nats-server to use")
    args.add_argument("--rows", default="1,2,3,4,6,7,8")
    args = args.parse_args()
    rows = {int(row) for row in args.rows.split(",")}
    scale = 10 if args.quick else 1
    tasks = 10_000 // scale
    table = []

    def say(row, what, ours, unit, beside, theirs):
        ratio = ours / theirs if theirs else float("nan")
        table.append((row, what, f"{ours:.3g} {unit}", beside, f"{theirs:.3g} {unit}", f"{ratio:.2f}"))
        print(f"row {row}: {what}: {ours:.3g} {unit}; {beside}: {theirs:.3g} {unit}; ratio {ratio:.2f}", flush=True)

    server = args.server or os.environ.get("MESO_NATS_SERVER")
    found = floors(args, server)
    floor, composite, synced = (found.get(name, {}) for name in ("floor", "composite", "composite, fsync"))

    def beside(row, what, ours, unit, name, values, key):
        """The same figure beside a floor's, in its own unit."""
        value = values.get(key)
        if value:
            say(row, what, ours, unit, name, value["p50"] / 1e3 if isinstance(value, dict) else value)

    spawn = median(spawn_floor(500 // scale + 20))
    with Cluster(server) as cluster:
        if 7 in rows:
            daemons = cluster.pids("meso-master") + cluster.pids("meso-agent")
            bus = cluster.pids("nats-server")
            time.sleep(5)
            before = cpu_s(daemons + bus)
            time.sleep(10)
            cpu = (cpu_s(daemons + bus) - before) * 10
            rss = sum(memory_kib(pid, "Rss") for pid in daemons) / 1024
            with_bus = rss + sum(memory_kib(pid, "Rss") for pid in bus) / 1024
            say(7, "idle master and agent, RSS", rss, "MiB", "goal", 20)
            say(7, "idle with nats-server, RSS", with_bus, "MiB", "goal", 35)
            say(7, "idle CPU of all", cpu, "%", "goal", 0.3)
        if 1 in rows:
            times = connected(cluster, 300 // scale)
            say(1, "connected pipeline, p50", median(times), "ms", "posix_spawn", spawn)
            beside(1, "connected pipeline, p50", median(times), "ms", "bare container", floor, "cg_ns_vf_us")
            beside(1, "connected pipeline, p50", median(times), "ms", "composite", composite, "connected_full_us")
            say(1, "connected pipeline, p99 to own p50", percentile(times, 0.99), "ms", "own p50", median(times))
        if 1 in rows and shutil.which("jq"):
            through, alone = offers_through_jq(cluster)
            say(1, "offers through jq and back as calls", through, "/s", "jq alone, one line after the other", alone)
        if 2 in rows:
            times = timed([*launch(cluster), "--", "/bin/true"], 200 // scale, cluster.env)
            say(2, "fresh meso-launch, p50", median(times), "ms", "posix_spawn", spawn)
            beside(2, "fresh meso-launch, p50", median(times), "ms", "composite", composite, "fresh_cli_full_us")
            tool = timed([*launch(cluster)[:1], "--version"], 200 // scale, cluster.env)
            say(2, "meso-launch --version, p50", median(tool), "ms", "goal", 5)
            alone = timed(["/bin/true"], 200 // scale, cluster.env)
            say(2, "meso-launch --version, p50", median(tool), "ms", "/bin/true", median(alone))
        if 3 in rows:
            rate = many(cluster, tasks)
            say(3, f"{tasks} contained tasks", rate, "/s", "xargs -P16, not contained", xargs(tasks))
            beside(3, f"{tasks} contained tasks", rate, "/s", "bare containers x16", floor, "cg_ns_vf_x16_per_s")
            beside(3, f"{tasks} contained tasks", rate, "/s", "composite", composite, "full_n10000_per_s")
            beside(5, f"{tasks} contained tasks, fsynced", rate, "/s", "composite with fsync", synced, "full_n10000_per_s")
        if 6 in rows:
            size = (1 << 30) // scale
            ours = stream([*launch(cluster), "--", "head", "-c", str(size), "/dev/zero"], cluster.env, size)
            say(6, "stdout of one task", ours, "GiB/s", "a pipe", stream(f"head -c {size} /dev/zero | cat", os.environ, size))
        if 8 in rows:
            held = 100 // scale
            subprocess.run([BIN / "meso-launch", "-d", "-R", "cpus=0.1,mem=32M", "-n", str(held), "--", "sleep", "600"], env=cluster.env, check=True, stdout=subprocess.DEVNULL)
            time.sleep(3)
            cluster.children = descendants(cluster.process.pid)
            supervisors = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and (entry / "comm").exists() and (entry / "comm").read_text().strip() == "meso-supervisor"]
            sleeps = [child for pid in supervisors for child in descendants(pid)]
            pss = sum(memory_kib(pid, "Pss") for pid in supervisors + sleeps) / max(len(supervisors), 1)
            alone = subprocess.Popen(["sleep", "60"])
            time.sleep(0.2)
            say(8, "memory of a running task, PSS", pss, "KiB", "sleep alone", memory_kib(alone.pid, "Pss"))
            alone.kill()
            alone.wait()
    if 4 in rows:
        with Cluster(server, cgroups=False) as cluster:
            rate = many(cluster, tasks)
            say(4, f"{tasks} tasks, containment off", rate, "/s", "xargs -P16", xargs(tasks))
            beside(4, f"{tasks} tasks, containment off", rate, "/s", "posix_spawn x16", floor, "spawn_x16_per_s")
            beside(4, f"{tasks} tasks, containment off", rate, "/s", "composite", composite, "kv_n10000_per_s")
    if args.peers:
        sizes = {"SIZES": str(2_000 // scale), "LAT": str(100 // scale)}
        for name in ("local.py", "slurm_bench.py", "hq_bench.py"):
            try:
                print(f"{name}: {json.dumps(outside(Path(args.python), str(args.peers / name), env=sizes))}", flush=True)
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                print(f"{name}: not measured: {error}", flush=True)
    floors(args, None)
    print()
    print("| row | what | meso | beside | | ratio |\n| --- | --- | --- | --- | --- | --- |")
    for row in table:
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    sys.exit(main())
