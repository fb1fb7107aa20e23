"""How a process is held: by its system calls, by a cgroup, by another clock, on another machine"""
import glob
import os
import shutil
import subprocess
import time
import uuid

GROUPS = "/sys/fs/cgroup"
LET_GO_S = 10


def follow(pid, *options):
    """Has strace do something to the system calls of a process and all its threads, until `let_go`.

    Returns none where the process cannot be followed, as it has just ended.
    """
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", *options, "-p", str(pid)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(50):
        if tracer.poll() is not None:
            return None
        if is_followed(pid, tracer.pid):
            return tracer
        time.sleep(0.1)
    let_go(tracer)
    return None


def is_followed(pid, by):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            return f"TracerPid:\t{by}\n" in file.read()
    except OSError:
        return False


def let_go(tracer):
    """Ends the following of a process; the process goes on."""
    tracer.terminate()
    try:
        tracer.wait(LET_GO_S)
    except subprocess.TimeoutExpired:
        tracer.kill()
        tracer.wait()


def has_groups():
    """Whether there are cgroups of version 1 to put one process in."""
    return all(os.access(os.path.join(GROUPS, kind, "cgroup.procs"), os.W_OK) for kind in ("pids", "memory"))


def enclose(world, kind, pid, **limits):
    """Puts a process into a cgroup of its own: its folder. Limits are files of it with `_` for each dot."""
    folder = os.path.join(GROUPS, kind, f"meso-chaos-{world.run}")
    os.makedirs(folder, exist_ok=True)
    for name, value in limits.items():
        with open(os.path.join(folder, name.replace("_", ".", 1)), "w", encoding="utf-8") as file:
            file.write(str(value))
    try:
        with open(os.path.join(folder, "cgroup.procs"), "w", encoding="utf-8") as file:
            file.write(str(pid))
    except ProcessLookupError:
        # It ended meanwhile; there is nobody to be enclosed.
        pass
    return folder


def release(folder):
    """Puts everybody of a cgroup back where all others are, and removes it."""
    for _ in range(50):
        with open(os.path.join(folder, "cgroup.procs"), encoding="utf-8") as file:
            pids = file.read().split()
        for pid in pids:
            try:
                with open(os.path.join(os.path.dirname(folder), "cgroup.procs"), "w", encoding="utf-8") as file:
                    file.write(pid)
            except ProcessLookupError:
                continue
        try:
            os.rmdir(folder)
            return
        except OSError:
            # Who is just ending is still in it.
            time.sleep(0.1)
    raise RuntimeError(f"{folder} does not get empty")


def other_clock():
    """The library that tells a program another time; none if it is not installed."""
    return next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)


def clock_of(path, monotonic):
    """The environment in which a program has its clocks from a file, as `faketime` writes it."""
    env = {"LD_PRELOAD": other_clock(), "FAKETIME_TIMESTAMP_FILE": path, "FAKETIME_NO_CACHE": "1"}
    return env if monotonic else {**env, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def set_clock(path, offset):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(offset + "\n")
    os.rename(path + ".new", path)


def new_boot(world, name):
    """Words that run a command on a machine that has started anew: with another id of this start."""
    path = os.path.join(world.work, f"boot-{name}-{uuid.uuid4()}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{uuid.uuid4()}\n")
    return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"', path]


def other_machine(world, name):
    """Words that run a command on a machine of its own, as far as that goes: it sees no process and no cgroup of this one."""
    path = new_boot(world, name)[-1]
    script = 'mount -t tmpfs none /sys/fs/cgroup && mount -t tmpfs none /dev/shm && mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave", "sh", "-c", script, path]


def can_follow():
    return os.geteuid() == 0 and shutil.which("strace") is not None
