"""Faults of tasks: what they do to themselves, to each other and to their agent"""
import signal
import subprocess

from processes import kill_quietly

from .declare import AGENTS, excused_no_more, fault


@fault("task-stop", [64], [], (1, 5), needs=["root"], heal=lambda _world, token: [kill_quietly(pid, signal.SIGCONT) for pid in token["pids"]])
def task_stop(world, rng):
    name = rng.choice(world.agents)
    running = world.running(name)
    if not running:
        return None
    box = rng.choice(sorted(running))
    pids = running[box][1]
    for pid in pids:
        kill_quietly(pid, signal.SIGSTOP)
    return {"names": [name], "stopped": box, "pids": pids}


def hog(name, rows, words, body, on_small_disk=False):
    """A task that takes more than it may: a load of its own beside the others', ended by the clock."""
    def inject(world, _rng):
        # The last agent has a small disk of its own, which may be full for a while: it may end, saying why.
        daemon = world.daemons[world.agents[-1]]
        daemon.excused = on_small_disk
        command = world.command("meso-launch", "-q", "--timeout", "6s", *(["--on", daemon.name] if on_small_disk else []), *words, "-c", body)
        process = subprocess.Popen(command, env=world.env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        return {"names": [], "pid": process.pid, "fills_disk": on_small_disk, "process": process}

    def heal(world, token):
        try:
            code = token["process"].wait(90)
        except subprocess.TimeoutExpired:
            token["process"].kill()
            code = token["process"].wait()
        world.history.add("hog", name=name, code=code)
        if on_small_disk:
            excused_no_more(world, [world.agents[-1]])
    fault(name, rows, [AGENTS] if on_small_disk else [], (0, 0), needs=["root"] if on_small_disk else [], heal=heal)(inject)


hog("task-forks", [57], ["-R", "cpus=0.2,mem=64M"], "i=0; while [ $i -lt 300 ]; do sleep 60 & i=$((i+1)); done; wait")
hog("task-floods", [59], ["-R", "cpus=0.2,mem=32M"], "exec timeout 3 head -c 60000000 /dev/zero")
hog("task-eats-memory", [58], ["-R", "cpus=0.2,mem=32M"], "exec tail -c 400000000 /dev/zero")
# What is written to a disk in memory counts as the task's memory.
hog("task-fills-disk", [60], ["--start-deadline", "15s", "-R", "cpus=0.1,mem=440M,disk=32M"], "head -c 500000000 /dev/zero >large; sleep 2; rm large", on_small_disk=True)
hog("task-makes-files", [61], ["-R", "cpus=0.2,mem=64M,disk=32M"], "i=0; while [ $i -lt 200000 ] && { : >f$i; } 2>/dev/null; do i=$((i+1)); done; sleep 2; rm -rf f*", on_small_disk=True)
