"""Faults of clients and of the stages of their pipelines"""
import signal

from processes import kill_quietly

from .declare import CLIENTS, fault, nothing


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
