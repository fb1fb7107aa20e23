"""What a fault is, how it is declared, and what healing often takes"""
import errno
import signal
import time
from collections import namedtuple

Fault = namedtuple("Fault", "name rows parts hold needs inject heal")
FAULTS = {}
MASTERS, BUS, AGENTS, CLIENTS = "masters", "bus", "agents", "clients"
PROXIES = "proxies"
DISK_FULL_MIB = 512
# A daemon that is asked to end has ended within so long, also on a machine that is busy.
END_S = 20
# What a fault does may show so much later.
AFTER_S = 3


def fault(name, rows, parts, hold, needs=(), heal=None):
    """Declares a fault: how long it lasts is drawn between the two seconds of `hold`."""
    def declare(inject):
        FAULTS[name] = Fault(name, rows, parts, hold, tuple(needs), inject, heal)
        return inject
    return declare


def nothing(_world, _token):
    """What heals by itself."""


def start_all(world, token):
    for name in token["names"]:
        world.daemons[name].start()


def start_otherwise(world, name, **how):
    """Ends a daemon and starts it with what `Cluster.dress` says."""
    end(world, name)
    world.dress(name, **how)
    world.daemons[name].start()


def start_as_ever(world, token):
    """Starts again as before the fault what the fault had started otherwise."""
    for name in token["names"]:
        start_otherwise(world, name)


def end(world, name):
    """Asks a daemon to end, and sees to it that it does; it is not started again by itself."""
    world.daemons[name].strike(signal.SIGTERM, hold=True)
    if world.until(lambda: world.daemons[name].pid is None, END_S, 0.05) is None:
        world.daemons[name].strike(signal.SIGKILL, hold=True)
        world.until(lambda: world.daemons[name].pid is None, END_S, 0.05)


def excused_no_more(world, names):
    """A daemon that ended of a fault, or of what was left of it, is not to end from now on."""
    time.sleep(AFTER_S)
    for name in names:
        world.daemons[name].look()
        world.daemons[name].excused = False


def go_on(world, token):
    for name in token["names"]:
        world.daemons[name].signal(signal.SIGCONT)


def rejoin(world, token):
    for name in token["names"]:
        world.net.join(name)


def leading(world, rng):
    return world.leader() or rng.choice(world.masters)


def fill(path):
    """Fills the small disk that a file is on."""
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(DISK_FULL_MIB * 16):
                file.write(bytes(65536))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
