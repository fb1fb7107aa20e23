"""Faults of masters"""
import os
import signal
import subprocess
import time

from . import grip
from .clients import storm
from .declare import END_S, MASTERS, end, excused_no_more, fault, fill, go_on, leading, nothing, rejoin, start_all, start_as_ever, start_otherwise

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# What a leader may add to its memory while many frameworks come and go.
MEMORY_BYTES = 8 << 20
# A master that was started stands by after so long, and somebody leads again after a crash.
STANDS_BY_S = 2
LEADS_S = 20


@fault("master-kill", [1], [MASTERS], (1, 4), heal=start_all)
def master_kill(world, rng):
    name = leading(world, rng)
    world.daemons[name].strike(signal.SIGKILL, hold=True)
    return {"names": [name]}


@fault("master-term", [2], [MASTERS], (0, 3), heal=start_all)
def master_term(world, rng):
    name = leading(world, rng)
    world.daemons[name].strike(signal.SIGTERM, hold=True)
    return {"names": [name]}


def stops_master(seconds):
    def inject(world, rng):
        name = leading(world, rng)
        world.daemons[name].signal(signal.SIGSTOP)
        return {"names": [name]}
    fault(f"master-stop-{seconds}", [3], [MASTERS], (seconds, seconds), heal=go_on)(inject)


for each in (3, 9, 30):
    stops_master(each)


@fault("masters-kill-all", [5], [MASTERS], (2, 15), heal=start_all)
def masters_kill_all(world, _rng):
    for name in world.masters:
        world.daemons[name].strike(signal.SIGKILL, hold=True)
    return {"names": world.masters}


@fault("standby-crash-loop", [6], [MASTERS], (0, 0), needs=["masters"], heal=nothing)
def standby_crash_loop(world, _rng):
    leader = world.leader()
    names = [name for name in world.masters if name != leader]
    for _ in range(6):
        world.daemons[names[0]].strike(signal.SIGKILL)
        time.sleep(1.3)
    return {"names": names[:1]}


@fault("master-cut", [8], [MASTERS], (4, 20), needs=["net"], heal=rejoin)
def master_cut(world, rng):
    name = leading(world, rng)
    world.net.cut(name)
    return {"names": [name]}


@fault("master-mute", [9], [MASTERS], (4, 15), needs=["net"], heal=lambda world, token: world.net.unmute(token["names"][0], world.buses))
def master_mute(world, rng):
    name = leading(world, rng)
    world.net.mute(name, world.buses)
    return {"names": [name]}


def undeafen(world, token):
    for bus in world.buses:
        world.net.unmute(bus, token["names"])


@fault("master-deaf", [9], [MASTERS], (4, 15), needs=["net"], heal=undeafen)
def master_deaf(world, rng):
    name = leading(world, rng)
    for bus in world.buses:
        world.net.mute(bus, [name])
    return {"names": [name]}


def let_go_all(_world, token):
    grip.let_go(token["tracer"])


@fault("master-slow-to-send", [4], [MASTERS], (20, 25), needs=["strace"], heal=let_go_all)
def master_slow_to_send(world, rng):
    """The leader stands still for longer than its lease just when it sends: what it sends then is too late."""
    name = leading(world, rng)
    pid = world.daemons[name].pid
    tracer = pid and grip.follow(pid, "-e", "trace=writev,sendto", "-e", f"inject=writev,sendto:delay_enter=15000000:when={rng.randint(1, 12)}")
    return {"names": [name], "tracer": tracer} if tracer else None


def end_twin(world, token):
    twin = token["twin"]
    twin.terminate()
    try:
        code = twin.wait(END_S)
    except subprocess.TimeoutExpired:
        twin.kill()
        code = twin.wait()
    if code != 0:
        world.history.add("wrong", rule="S20", text=f"a second master under the name {token['names'][0]} ended with {code}")


@fault("master-twin", [7], [MASTERS], (5, 20), heal=end_twin)
def master_twin(world, rng):
    """A second master under the same name; then the first is killed, so that the second may come to lead."""
    name = rng.choice(world.masters)
    with open(world.history.path("logs", f"{name}-twin"), "ab") as log:
        twin = subprocess.Popen(world.daemons[name].argv, env=world.daemons[name].env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    time.sleep(rng.random() * 3)
    world.daemons[leading(world, rng)].strike(signal.SIGKILL)
    return {"names": [name], "twin": twin}


def make_lead(world, name):
    """Has a master that was just started lead, as far as that can be had: whoever leads else is killed."""
    time.sleep(STANDS_BY_S)
    other = world.leader()
    if other not in (None, name):
        world.daemons[other].strike(signal.SIGKILL)
    world.until(lambda: world.leader() is not None, LEADS_S)


def turn_clock(name, rows, needs, offset, monotonic=False):
    """The leader's clock is set while it leads; the time of day is for people, so nothing else may change."""
    def inject(world, rng):
        master = rng.choice(world.masters)
        path = os.path.join(world.work, f"clock-{master}")
        grip.set_clock(path, "+0")
        start_otherwise(world, master, env=grip.clock_of(path, monotonic))
        make_lead(world, master)
        grip.set_clock(path, offset)
        return {"names": [master], "leads": world.leader() == master, "turns_clock": True}
    fault(name, rows, [MASTERS], (8, 20), needs=needs, heal=start_as_ever)(inject)


for each, text in (("ahead", "+3600"), ("behind", "-3600"), ("years-ahead", "+315360000"), ("racing", "+0 x10")):
    turn_clock(f"master-clock-{each}", [10], ["faketime"], text)
turn_clock("master-rate", [11], ["faketime"], "+0 x1.05", monotonic=True)


def more_memory(world, token):
    grip.release(token["group"])
    excused_no_more(world, token["names"])


@fault("master-little-memory", [12, 70], [MASTERS], (1, 3), needs=["groups"], heal=more_memory)
def master_little_memory(world, rng):
    """The leader may take little more memory than it has, and many come to it: it serves on, or is killed as by a crash."""
    name = leading(world, rng)
    pid = world.daemons[name].pid
    if pid is None:
        return None
    world.daemons[name].excused = True
    group = grip.enclose(world, "memory", pid, memory_limit_in_bytes=MEMORY_BYTES)
    storm(world, rng)
    return {"names": [name], "group": group}


def heal_log(world, token):
    name = token["names"][0]
    daemon = world.daemons[name]
    end(world, name)
    daemon.log = world.history.path("logs", name)
    subprocess.run(["umount", "-l", token["disk"]], check=True)
    daemon.start()


@fault("master-log-full", [13], [MASTERS], (8, 20), needs=["root"], heal=heal_log)
def master_log_full(world, rng):
    """The disk that a leader's words go to is full from its start on."""
    name = rng.choice(world.masters)
    daemon = world.daemons[name]
    disk = os.path.join(world.work, f"log-{name}")
    os.makedirs(disk, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "meso-chaos", disk], check=True)
    end(world, name)
    daemon.log = os.path.join(disk, "log")
    with open(daemon.log, "wb"):
        fill(os.path.join(disk, "filler"))
    daemon.start()
    make_lead(world, name)
    return {"names": [name], "leads": world.leader() == name, "disk": disk}


@fault("allocator-broken", [72], [MASTERS], (15, 25), heal=start_as_ever)
def allocator_broken(world, _rng):
    """The policy is a program that crashes, hangs, prints junk or grants what there is not, each time it is started by lot."""
    for name in world.masters:
        start_otherwise(world, name, words=["--allocate", os.path.join(HERE, "allocator.sh")])
    return {"names": world.masters}
