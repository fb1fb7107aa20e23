"""Faults of masters"""
import signal
import time

from .declare import MASTERS, fault, go_on, leading, nothing, rejoin, start_all


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
