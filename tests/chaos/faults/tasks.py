"""Faults of tasks: what they do to themselves, to each other and to their agent"""
import signal
import subprocess

from processes import kill_quietly

from .declare import fault


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


def hog(name, rows, words, body):
    """A task that takes more than it may: a load of its own beside the others', ended by the clock."""
    def inject(world, _rng):
        command = world.command("meso-launch", "-q", "--timeout", "6s", *words, "-c", body)
        process = subprocess.Popen(command, env=world.env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        return {"names": [], "pid": process.pid, "process": process}

    def heal(world, token):
        try:
            code = token["process"].wait(90)
        except subprocess.TimeoutExpired:
            token["process"].kill()
            code = token["process"].wait()
        world.history.add("hog", name=name, code=code)
    fault(name, rows, [], (0, 0), heal=heal)(inject)


hog("task-forks", [57], ["-R", "cpus=0.2,mem=64M"], "i=0; while [ $i -lt 300 ]; do sleep 60 & i=$((i+1)); done; wait")
hog("task-floods", [59], ["-R", "cpus=0.2,mem=32M"], "exec timeout 3 head -c 60000000 /dev/zero")
hog("task-eats-memory", [58], ["-R", "cpus=0.2,mem=32M"], "exec tail -c 400000000 /dev/zero")
