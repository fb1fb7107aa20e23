"""Faults of the servers of the bus"""
import os
import shutil
import signal
import time

from .declare import BUS, end, fault, fill, go_on, nothing, rejoin, start_all


@fault("bus-kill", [15], [BUS], (0, 6), heal=start_all)
def bus_kill(world, rng):
    name = rng.choice(world.buses)
    world.daemons[name].strike(signal.SIGKILL, hold=True)
    return {"names": [name]}


@fault("bus-restart", [15, 23], [BUS], (0, 1), heal=start_all)
def bus_restart(world, rng):
    name = rng.choice(world.buses)
    world.daemons[name].strike(signal.SIGTERM, hold=True)
    return {"names": [name]}


@fault("bus-stop", [20], [BUS], (3, 12), heal=go_on)
def bus_stop(world, rng):
    name = rng.choice(world.buses)
    world.daemons[name].signal(signal.SIGSTOP)
    return {"names": [name]}


@fault("bus-wipe", [16], [BUS], (0, 3), heal=start_all)
def bus_wipe(world, rng):
    """All of them come back with nothing; of three at once, as one alone would be filled by the others."""
    for name in world.buses:
        world.daemons[name].strike(signal.SIGKILL, hold=True)
    for name in world.buses:
        world.until(lambda name=name: world.daemons[name].pid is None, 10, 0.05)
        for each in os.listdir(world.store_dir(name)):
            shutil.rmtree(os.path.join(world.store_dir(name), each), ignore_errors=True)
    return {"names": world.buses, "loses_store": True}


@fault("bus-damage", [18], [BUS], (0, 1), needs=["bus1"], heal=start_all)
def bus_damage(world, rng):
    """Bytes of what it stored are others when it comes back."""
    name = world.buses[0]
    world.daemons[name].strike(signal.SIGKILL, hold=True)
    world.until(lambda: world.daemons[name].pid is None, 10, 0.05)
    blocks = sorted(os.path.join(folder, each) for folder, _, names in os.walk(world.store_dir(name)) for each in names if each.endswith(".blk"))
    hit = rng.sample(blocks, min(2, len(blocks)))
    for path in hit:
        size = os.path.getsize(path)
        if size:
            with open(path, "r+b") as file:
                file.seek(rng.randrange(size))
                file.write(bytes(rng.randrange(256) for _ in range(8)))
    return {"names": [name], "files": [os.path.relpath(path, world.work) for path in hit], "loses_store": True}


def free_store(world, token):
    """A server that could not write goes on as it should only once it is started again; old ones do not even end."""
    os.unlink(token["file"])
    for name in token["names"]:
        end(world, name)
        world.daemons[name].start()


@fault("bus-disk-full", [24], [BUS], (3, 12), needs=["root"], heal=free_store)
def bus_disk_full(world, _rng):
    name = world.buses[0]
    path = os.path.join(world.store_dir(name), "chaos-filler")
    fill(path)
    return {"names": [name], "file": path, "loses_store": True}


@fault("bus-rolling", [23], [BUS], (0, 0), needs=["bus3"], heal=nothing)
def bus_rolling(world, _rng):
    for name in world.buses:
        world.daemons[name].strike(signal.SIGTERM)
        time.sleep(12)
    return {"names": world.buses}


@fault("bus-minority", [21], [BUS], (5, 20), needs=["bus3", "net"], heal=rejoin)
def bus_minority(world, rng):
    name = rng.choice(world.buses)
    world.net.cut(name)
    return {"names": [name]}


@fault("bus-majority-kill", [22], [BUS], (5, 25), needs=["bus3"], heal=start_all)
def bus_majority_kill(world, rng):
    names = rng.sample(world.buses, 2)
    for name in names:
        world.daemons[name].strike(signal.SIGKILL, hold=True)
    return {"names": names}


@fault("bus-majority-cut", [22], [BUS], (5, 25), needs=["bus3", "net"], heal=rejoin)
def bus_majority_cut(world, rng):
    names = rng.sample(world.buses, 2)
    for name in names:
        world.net.cut(name)
    return {"names": names}


def reload_bus(world, lines):
    """Has all servers read their configuration again, with these lines in it as well."""
    for name in world.buses:
        path = world.bus_config(name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(world.bus_lines(name) + "".join(f"{line}\n" for line in lines))
        world.daemons[name].signal(signal.SIGHUP)


def as_configured(world, _token):
    reload_bus(world, [])


@fault("bus-refuses", [31], [BUS], (3, 12), heal=as_configured)
def bus_refuses(world, _rng):
    """Whoever is connected is no longer known, from one moment to the next."""
    reload_bus(world, ["authorization { user: somebody, password: else }"])
    return {"names": world.buses}


@fault("bus-crowded", [31], [BUS], (3, 12), heal=as_configured)
def bus_crowded(world, rng):
    """It takes fewer connections than there are."""
    count = rng.randint(1, 8)
    reload_bus(world, [f"max_connections: {count}"])
    return {"names": world.buses, "connections": count}
