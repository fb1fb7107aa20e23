"""Faults that an agent meets when it starts: another machine, a damaged or copied work directory, somebody else's numbers"""
import os
import shutil
import signal
import subprocess
import time

from processes import carrying, environment, kill_quietly

from . import grip
from .declare import AGENTS, END_S, fault, nothing, start_all

# An agent that is refused or refuses says so within so long.
REFUSED_S = 60
# A copy that is neither refused nor ends has been let in.
COPY_S = 15
# After a start of the machine an agent is in service again after so long, if nothing else is wrong.
BACK_S = 40
LAST_PID = "/proc/sys/kernel/ns_last_pid"
TRIES = 5


def held_back(world, name):
    """Kills an agent and waits for its end; its tasks run on."""
    world.daemons[name].strike(signal.SIGKILL, hold=True)
    world.until(lambda: world.daemons[name].pid is None, END_S, 0.05)


def id_of(world, name):
    return next((row["id"] for row in world.rows("agents") or () if row["host"] == name and row["state"] in ("active", "unreachable")), None)


def heal_reboot(world, token):
    """It comes back as the agent that it was."""
    name = token["names"][0]
    world.daemons[name].start()
    took = world.until(lambda: any(row["host"] == name for row in world.active()), BACK_S)
    if took is not None and token["id"] and id_of(world, name) != token["id"]:
        world.history.add("wrong", rule="S15", text=f"{name} was {token['id']} before its machine started anew, and is {id_of(world, name)}")


@fault("agent-reboot", [39], [AGENTS], (0, 5), needs=["root"], heal=heal_reboot)
def agent_reboot(world, rng):
    """The machine starts anew: nothing runs, nothing is in its memory, and its start has another id."""
    name = rng.choice(world.agents)
    told = id_of(world, name)
    world.daemons[name].strike(signal.SIGKILL, hold=True)
    boxes = set()
    for _ in range(100):
        found = carrying(world.agent_dir(name) + "/")
        # Each is known before it is gone.
        boxes |= {os.path.basename(environment(pid).get("MESO_SANDBOX", "")) for pid, _ in found} - {""}
        for pid, _ in found:
            kill_quietly(pid)
        if not found and world.daemons[name].pid is None:
            break
        time.sleep(0.02)
    world.clean_controls(world.agent_dir(name) + "/")
    world.clean_groups(told)
    world.reboot(name, grip.new_boot(world, name))
    return {"names": [name], "boxes": sorted(boxes), "rebooted": sorted(boxes), "id": told}


def heal_stranger(world, token):
    world.daemons[token["names"][0]].start()
    world.until(lambda: any(row["host"] == token["names"][0] for row in world.active()), BACK_S)
    time.sleep(1)
    if token["stranger"].poll() is not None:
        world.history.add("wrong", rule="S13", text=f"a process that has the number of a supervisor of {token['names'][0]} that is gone was ended with {token['stranger'].returncode}")
    token["stranger"].kill()
    token["stranger"].wait()


@fault("agent-stranger", [40], [AGENTS], (0, 2), needs=["root"], heal=heal_stranger)
def agent_stranger(world, rng):
    """An agent and a supervisor crash, and the supervisor's number goes to a process that has nothing to do with it."""
    name = rng.choice(world.agents)
    running = world.running(name)
    if not running:
        return None
    box = rng.choice(sorted(running))
    supervisor, pids = running[box]
    held_back(world, name)
    for pid in [supervisor, *pids]:
        kill_quietly(pid)
    world.until(lambda: not os.path.exists(f"/proc/{supervisor}"), END_S, 0.02)
    stranger = None
    for _ in range(TRIES):
        with open(LAST_PID, "w", encoding="utf-8") as file:
            file.write(str(supervisor - 1))
        stranger = subprocess.Popen(["sleep", "1000"], env=world.env(), stdin=subprocess.DEVNULL, start_new_session=True)
        if stranger.pid == supervisor:
            return {"names": [name], "boxes": [box], "stranger": stranger}
        # Somebody else was faster.
        stranger.kill()
        stranger.wait()
    world.daemons[name].start()
    return None


def byte_in(rng, path):
    """Other bytes in the first half of a file: no end of it that was torn by a crash."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        at = rng.randrange(max(1, size // 2))
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ (1 << rng.randrange(8))]))


def nought_in(rng, path):
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(rng.randrange(max(1, size // 4)))
        file.write(bytes(min(64, size // 4)))


def linked(_rng, path):
    os.rename(path, path + ".away")
    os.symlink(path + ".away", path)


def owned(_rng, path):
    os.chown(path, 65534, 65534)


def open_to_all(_rng, path):
    os.chmod(os.path.dirname(path), 0o777)


@fault("agent-damaged", [41], [AGENTS], (0, 0), needs=["root"], heal=start_all)
def agent_damaged(world, rng):
    """What an agent remembers is damaged, or may be somebody else's: it refuses to go on until it is put right."""
    name = rng.choice(world.agents)
    held_back(world, name)
    journal = os.path.join(world.agent_dir(name), "journal")
    kept = os.path.join(world.work, f"journal-{name}")
    mode = os.stat(world.agent_dir(name)).st_mode & 0o7777
    shutil.copy2(journal, kept)
    damage = rng.choice([byte_in, nought_in, linked, owned, open_to_all])
    damage(rng, journal)
    daemon = world.daemons[name]
    try:
        ran = subprocess.run(daemon.argv, env=daemon.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=REFUSED_S, check=False)
        code, said = ran.returncode, ran.stderr[-600:]
    except subprocess.TimeoutExpired as error:
        code, said = "nothing", str(error.stderr)[-600:]
    if code != 78:
        world.history.add("wrong", rule="S14", text=f"an agent whose work directory was damaged ({damage.__name__}) ended with {code}", said=said)
    for path in (journal, journal + ".away"):
        if os.path.lexists(path):
            os.unlink(path)
    shutil.copy2(kept, journal)
    os.chmod(world.agent_dir(name), mode)
    return {"names": [name], "damage": damage.__name__}


@fault("agent-copied", [43], [AGENTS], (0, 0), needs=["root", "named"], heal=nothing)
def agent_copied(world, rng):
    """A copy of an agent's work directory is started on another machine while the agent itself serves: it is not let in."""
    name = rng.choice(world.agents[:-1])
    if world.daemons[name].pid is None or id_of(world, name) is None:
        return None
    copy = os.path.join(world.work, f"copy-{name}")
    os.makedirs(copy, mode=0o711)
    for each in ("journal", "lock"):
        shutil.copy2(os.path.join(world.agent_dir(name), each), copy)
    words = [copy if word == world.agent_dir(name) else "copied" if word == name else word for word in world.agent_words(name)]
    try:
        ran = subprocess.run(world.inside(name) + grip.other_machine(world, name) + words, env=world.env(name), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COPY_S, check=False)
        code, said = ran.returncode, ran.stderr[-600:]
    except subprocess.TimeoutExpired as error:
        code, said = "nothing", (error.stderr or b"")[-600:].decode("utf-8", "replace")
    shutil.rmtree(copy)
    world.history.add("copied", name=name, code=code, said=said)
    return {"names": [name], "code": str(code)}
