"""Faults of agents and of the supervisors of their tasks"""
import os
import resource
import shutil
import signal
import subprocess
import time

from cluster import AGENT_TIMEOUT_S
from history import now

from . import grip
from .declare import AGENTS, MASTERS, excused_no_more, fault, fill, go_on, leading, nothing, rejoin, start_all, start_as_ever, start_otherwise

# An agent that was declared gone must have heard of it and ended within so long of being back.
GONE_S = 120


@fault("agent-kill", [32], [AGENTS], (0, 3), heal=start_all)
def agent_kill(world, rng):
    name = rng.choice(world.agents)
    world.daemons[name].strike(signal.SIGKILL, hold=True)
    return {"names": [name]}


@fault("agent-kill-loop", [32], [AGENTS], (0, 0), heal=nothing)
def agent_kill_loop(world, rng):
    name = rng.choice(world.agents)
    for _ in range(4):
        world.daemons[name].strike(signal.SIGKILL)
        time.sleep(1.2 + rng.random())
    return {"names": [name]}


@fault("agent-term", [32, 105], [AGENTS], (0, 3), heal=start_all)
def agent_term(world, rng):
    """Asked to end, it leaves its tasks running; it comes back saying something else of itself."""
    name = rng.choice(world.agents)
    world.daemons[name].strike(signal.SIGTERM, hold=True)
    world.change_attrs(name)
    return {"names": [name]}


@fault("agent-stop", [50], [AGENTS], (2, 8), heal=go_on)
def agent_stop(world, rng):
    name = rng.choice(world.agents)
    world.daemons[name].signal(signal.SIGSTOP)
    return {"names": [name]}


@fault("agent-stop-long", [50, 45], [AGENTS], (AGENT_TIMEOUT_S + 5, AGENT_TIMEOUT_S + 12), heal=go_on)
def agent_stop_long(world, rng):
    return agent_stop(world, rng)


@fault("agent-cut", [44], [AGENTS], (2, AGENT_TIMEOUT_S - 4), needs=["net"], heal=rejoin)
def agent_cut(world, rng):
    name = rng.choice(world.agents)
    world.net.cut(name)
    return {"names": [name]}


@fault("agent-cut-long", [45], [AGENTS], (AGENT_TIMEOUT_S + 6, AGENT_TIMEOUT_S + 15), needs=["net"], heal=rejoin)
def agent_cut_long(world, rng):
    return agent_cut(world, rng)


@fault("agents-cut-all", [44, 45], [AGENTS], (3, AGENT_TIMEOUT_S + 6), needs=["net"], heal=rejoin)
def agents_cut_all(world, _rng):
    for name in world.agents:
        world.net.cut(name)
    return {"names": world.agents}


def heal_failover(world, token):
    world.daemons[token["master"]].start()
    rejoin(world, token)


@fault("agent-cut-failover", [46], [AGENTS, MASTERS], (AGENT_TIMEOUT_S + 4, AGENT_TIMEOUT_S + 10), needs=["net", "masters"], heal=heal_failover)
def agent_cut_failover(world, rng):
    """The leader goes while the agent is away: who comes back is judged by somebody new."""
    token = agent_cut(world, rng)
    time.sleep(2)
    token["master"] = leading(world, rng)
    world.daemons[token["master"]].strike(signal.SIGKILL, hold=True)
    return token


@fault("agent-mute", [9, 45], [AGENTS], (4, AGENT_TIMEOUT_S + 8), needs=["net"], heal=lambda world, token: world.net.unmute(token["names"][0], world.buses))
def agent_mute(world, rng):
    name = rng.choice(world.agents)
    world.net.mute(name, world.buses)
    return {"names": [name]}


def kill_supervisors(world, rng, count):
    name = rng.choice(world.agents)
    running = world.running(name)
    boxes = sorted(running)
    chosen = rng.sample(boxes, min(count, len(boxes)))
    for box in chosen:
        os.kill(running[box][0], signal.SIGKILL)
    return {"names": [name], "boxes": chosen}


@fault("supervisor-kill", [53], [AGENTS], (0, 0), needs=["root"], heal=nothing)
def supervisor_kill(world, rng):
    token = kill_supervisors(world, rng, 1)
    return token if token["boxes"] else None


@fault("agent-and-supervisors-kill", [54], [AGENTS], (0, 3), needs=["root"], heal=start_all)
def agent_and_supervisors_kill(world, rng):
    token = kill_supervisors(world, rng, 2)
    world.daemons[token["names"][0]].strike(signal.SIGKILL, hold=True)
    return token


def free_disk(world, token):
    os.unlink(token["file"])
    excused_no_more(world, token["names"])


@fault("agent-disk-full", [35], [AGENTS], (3, 10), needs=["root"], heal=free_disk)
def agent_disk_full(world, _rng):
    name = world.agents[-1]
    path = os.path.join(world.agent_dir(name), "chaos-filler")
    # It may end, saying why; what it must not do is lie.
    world.daemons[name].excused = True
    fill(path)
    running = world.running(name)
    # What tasks write themselves may be lost to them with the disk.
    return {"names": [name], "file": path, "fills_disk": True, "boxes": sorted(running)}


@fault("agent-twice", [42], [AGENTS], (0, 0), heal=nothing)
def agent_twice(world, rng):
    """A second process on a work directory ends at once, and says why."""
    name = rng.choice(world.agents)
    daemon = world.daemons[name]
    if daemon.pid is None:
        return None
    ran = subprocess.run(daemon.argv, env=daemon.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    if ran.returncode != 78:
        world.history.add("wrong", rule="S15", text=f"a second agent on the work directory of {name} ended with {ran.returncode}", said=ran.stderr[-300:])
    return {"names": [name]}


def few_again(world, token):
    try:
        resource.prlimit(token["pid"], resource.RLIMIT_NOFILE, (token["soft"], token["hard"]))
    except ProcessLookupError:
        # Another fault has ended it; the next process has its own limits.
        pass


@fault("agent-few-files", [48], [AGENTS], (3, 10), heal=few_again)
def agent_few_files(world, rng):
    """It may open no more files than it has open. One that just starts may end of that, as it says then."""
    name = rng.choice(world.agents)
    pid = world.daemons[name].pid
    if pid is None or not world.daemons[name].has_settled():
        return None
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 1, hard))
    return {"names": [name], "pid": pid, "soft": soft, "hard": hard}


def heal_gone(world, token):
    """It comes back, hears that it is gone, ends what it runs and itself; then it is a new agent."""
    name = token["names"][0]
    daemon = world.daemons[name]
    daemon.start()
    daemon.wanted = False
    if token["is_gone"]:
        if world.until(lambda: daemon.pid is None, GONE_S) is None:
            world.history.add("wrong", rule="S15", text=f"{name} was declared gone and did not end within {GONE_S} s of being back", said=daemon.said(), said_at=token["said_at"])
        else:
            daemon.look()
            shutil.rmtree(world.agent_dir(name))
            os.makedirs(world.agent_dir(name))
    daemon.start()
    daemon.excused = False


@fault("agent-gone", [45], [AGENTS], (1, 5), heal=heal_gone)
def agent_gone(world, rng):
    """It is lost for so long that an operator gives it up, while its tasks run on."""
    name = rng.choice(world.agents[:-1])
    daemon = world.daemons[name]
    daemon.strike(signal.SIGKILL, hold=True)
    daemon.excused = True
    code = None
    for _ in range(3):
        # Refused as long as it may come back.
        world.until(lambda: any(row["host"] == name and row["state"] == "unreachable" for row in world.rows("agents") or ()), AGENT_TIMEOUT_S * 2)
        boxes = sorted(world.running(name))
        code, _ = world.tool("meso-kill", "-q", "--gone", name, timeout=20)
        if code == 0:
            break
        time.sleep(2)
    return {"names": [name], "boxes": boxes, "is_gone": code == 0, "said_at": round(now(), 3)}


def let_go_agent(world, token):
    grip.let_go(token["tracer"])
    excused_no_more(world, token["names"])


def follows_agent(name, rows, hold, *options, excused=False):
    def inject(world, rng):
        agent = rng.choice(world.agents)
        daemon = world.daemons[agent]
        daemon.excused = excused
        tracer = daemon.pid and grip.follow(daemon.pid, *options)
        if not tracer:
            # It was not there, or ended in the moment in which it was taken hold of.
            excused_no_more(world, [agent])
            return None
        return {"names": [agent], "tracer": tracer}
    fault(name, rows, [AGENTS], hold, needs=["strace"], heal=let_go_agent)(inject)


SYNC = "fsync,fdatasync"
follows_agent("agent-disk-fails", [36], (3, 10), "-e", f"trace={SYNC}", "-e", f"inject={SYNC}:error=EIO", excused=True)
follows_agent("agent-disk-fails-once", [36], (3, 10), "-e", f"trace={SYNC}", "-e", f"inject={SYNC}:error=EIO:when=1", excused=True)
follows_agent("agent-disk-slow", [47], (5, 15), "-e", f"trace={SYNC}", "-e", f"inject={SYNC}:delay_exit=300000")
follows_agent("agent-disk-stands", [47], (8, 15), "-e", f"trace={SYNC}", "-e", f"inject={SYNC}:delay_exit=5000000")


def heal_read_only(world, token):
    subprocess.run(["umount", "-l", world.agent_dir(token["names"][0])], check=True)
    excused_no_more(world, token["names"])


@fault("agent-read-only", [37], [AGENTS], (3, 10), needs=["root"], heal=heal_read_only)
def agent_read_only(world, rng):
    """Nothing new can be written below its work directory, while what is open is written on."""
    name = rng.choice(world.agents)
    place = world.agent_dir(name)
    boxes = sorted(world.running(name))
    world.daemons[name].excused = True
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    if rng.random() < 0.3:
        world.daemons[name].strike(signal.SIGKILL)
    return {"names": [name], "boxes": boxes}


@fault("agent-cannot-fork", [49], [AGENTS], (3, 10), needs=["groups"], heal=lambda _world, token: grip.release(token["group"]))
def agent_cannot_fork(world, rng):
    """It may have no process and no thread more than it has; what its tasks may is another matter."""
    name = rng.choice(world.agents)
    pid = world.daemons[name].pid
    if pid is None or not world.daemons[name].has_settled():
        return None
    return {"names": [name], "group": grip.enclose(world, "pids", pid, pids_max=len(os.listdir(f"/proc/{pid}/task")))}


def turn_agent_clock(name, offset, rows, monotonic=False):
    """An agent has another time than the others: its statuses say so, and nothing else does."""
    def inject(world, rng):
        agent = rng.choice(world.agents)
        path = os.path.join(world.work, f"clock-{agent}")
        grip.set_clock(path, "+0")
        start_otherwise(world, agent, env=grip.clock_of(path, monotonic))
        world.until(lambda: any(row["host"] == agent for row in world.active()), AGENT_TIMEOUT_S)
        grip.set_clock(path, offset)
        return {"names": [agent], "turns_clock": True}
    fault(name, rows, [AGENTS], (5, 15), needs=["faketime"], heal=start_as_ever)(inject)


turn_agent_clock("agent-clock-ahead", "+3600", [10])
turn_agent_clock("agent-clock-behind", "-3600", [10])
turn_agent_clock("agent-clock-years-ahead", "+315360000", [10])
turn_agent_clock("agent-rate", "+0 x1.05", [11], monotonic=True)
