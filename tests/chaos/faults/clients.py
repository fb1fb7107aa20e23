"""Faults of clients and of the stages of their pipelines"""
import os
import select
import signal
import subprocess

from cluster import OFFER_TIMEOUT_S
from processes import kill_quietly

from .declare import CLIENTS, fault, nothing

# So many small frameworks have come and gone after so long, whatever else happens.
STORM_S = 120


@fault("client-kill", [66], [CLIENTS], (0, 0), heal=nothing)
def client_kill(world, rng):
    live = world.load.killable()
    if not live:
        return None
    operation = rng.choice(live)
    operation.kill(len(operation.stages) - 1)
    return {"names": [], "op": operation.op}


@fault("stage-kill", [66], [CLIENTS], (0, 0), heal=nothing)
def stage_kill(world, rng):
    live = [operation for operation in world.load.killable() if len(operation.stages) > 1]
    if not live:
        return None
    operation, stage = rng.choice(live), rng.randint(0, 1)
    operation.kill(stage)
    return {"names": [], "op": operation.op, "stage": stage}


@fault("stage-stop", [30, 65], [CLIENTS], (3, 12), heal=lambda _world, token: [kill_quietly(pid, signal.SIGCONT) for pid in token["pids"]])
def stage_stop(world, rng):
    """A reader that stands still: its framework waits, nobody else does."""
    live = [operation for operation in world.load.killable() if len(operation.stages) > 1]
    if not live:
        return None
    operation = rng.choice(live)
    process = operation.stages[rng.randint(0, 2)]
    kill_quietly(process.pid, signal.SIGSTOP)
    return {"names": [], "op": operation.op, "pids": [process.pid]}


def storm(world, rng):
    """Many frameworks that come, are offered something, and go: the processes of it."""
    script = 'i=0; while [ $i -lt "$0" ]; do meso-offer -q --once --wait 3s --hold 0.2s -R cpus=0.1,mem=8M >/dev/null 2>&1 & i=$((i+1)); [ $((i % 25)) -gt 0 ] || sleep 0.3; done; wait'
    command = world.inside("client") + ["sh", "-c", script, str(rng.randint(50, 150))]
    return subprocess.Popen(command, env=world.env(), stdin=subprocess.DEVNULL, start_new_session=True)


def end_storm(world, token):
    if not has_ended(token["process"]):
        world.history.add("wrong", rule="L3", text=f"of many small frameworks some do not end within {STORM_S} s")


def has_ended(process):
    try:
        process.wait(STORM_S)
        return True
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


@fault("frameworks-storm", [70], [CLIENTS], (0, 0), heal=end_storm)
def frameworks_storm(world, rng):
    return {"names": [], "process": storm(world, rng)}


def end_hoard(world, token):
    """Its offers were taken back long ago; nobody waits for it to read that."""
    token["process"].kill()
    token["process"].wait()
    token["process"].stdout.close()


@fault("framework-hoards", [69], [], (OFFER_TIMEOUT_S + 2, OFFER_TIMEOUT_S + 12), heal=end_hoard)
def framework_hoards(world, _rng):
    """It is offered all there is and never answers: it stands still, and its connection with it."""
    process = subprocess.Popen(world.command("meso-offer", "-q"), env=world.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    world.until(lambda: select.select([process.stdout], [], [], 0)[0], 5)
    process.send_signal(signal.SIGSTOP)
    return {"names": [], "process": process}
