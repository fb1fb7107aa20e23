"""When which fault happens: drawn from the seed, a deck at a time that the lanes share, so that every fault has its turn"""
import itertools
import random
import threading
import traceback
from collections import Counter

from faults import FAULTS, grip

# How long a lane waits between two faults, and for the part of the cluster that another holds.
GAP_S = (0.5, 4)
PART_WAIT_S = 60
PARTS = ("masters", "bus", "agents", "clients", "proxies")


def wanted(need, only, without):
    """Whether any of the faults that are to be done needs something."""
    return any(need in each.needs for each in FAULTS.values() if (not only or each.name in only) and each.name not in without)


class Nemesis:
    """Lanes that inject and heal one fault after the other, two at the same time."""

    def __init__(self, world, seed, only=None, without=(), lanes=3):
        self.world, self.seed = world, seed
        self.stop = threading.Event()
        self.counts, self.in_vain, self.broken = Counter(), Counter(), []
        self.lock = threading.Lock()
        self.parts = {name: threading.Lock() for name in PARTS}
        able = {"named": bool(only), "root": world.is_root, "net": world.net is not None, "masters": len(world.masters) > 1, "bus1": len(world.buses) == 1, "bus3": len(world.buses) == 3,
                "proxy": bool(world.proxies), "strace": grip.can_follow(), "groups": world.is_root and grip.has_groups(), "faketime": grip.other_clock() is not None}
        unknown = (set(only or ()) | set(without)) - set(FAULTS)
        if unknown:
            raise SystemExit(f"chaos: no such fault: {', '.join(sorted(unknown))}\n  try: chaos faults, which lists them")
        self.faults = [each for each in FAULTS.values() if all(able[need] for need in each.needs) and (not only or each.name in only) and each.name not in without]
        if not self.faults:
            raise SystemExit("chaos: none of these faults can be had here\n  try: it as root, with more masters or servers")
        lanes = min(lanes, len(self.faults))
        self.threads = [threading.Thread(target=self._lane, args=(lane, lanes), name=f"lane{lane}", daemon=True) for lane in range(lanes)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def end(self):
        """Heals what there is, and waits for that."""
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _lane(self, lane, lanes):
        rng = random.Random(f"{self.seed}/lane/{lane}")
        for turn in itertools.count():
            deck = sorted(self.faults, key=lambda each: each.name)
            random.Random(f"{self.seed}/deck/{turn}").shuffle(deck)
            for each in deck[lane::lanes]:
                # Each fault has a generator of its own, so that what one does changes nothing of the next.
                self.do(each, random.Random(f"{self.seed}/fault/{rng.random()}"))
                if self.stop.wait(rng.uniform(*GAP_S)):
                    return

    def do(self, each, rng):
        """One fault from its injection to its healing."""
        held = []
        hold_s = rng.uniform(*each.hold)
        try:
            for part in sorted(each.parts):
                if not self.parts[part].acquire(timeout=PART_WAIT_S):
                    return
                held.append(part)
            if not self.stop.is_set():
                self._strike(each, rng, hold_s)
        except Exception:
            # A fault that breaks is the harness's own failure, and must not pass for a quiet run.
            with self.lock:
                self.broken.append(f"{each.name}: {traceback.format_exc()}")
            self.world.history.add("broken", fault=each.name, text=traceback.format_exc())
        finally:
            for part in held:
                self.parts[part].release()

    def _strike(self, each, rng, hold_s):
        # The exact moment is told before and after, as what it does takes time.
        self.world.history.add("fault", type="begin", fault=each.name)
        token = each.inject(self.world, rng)
        told = {key: value for key, value in (token or {}).items() if isinstance(value, (str, int, list, bool))}
        with self.lock:
            (self.counts if token else self.in_vain)[each.name] += 1
        self.world.history.add("fault", type="inject" if token else "vain", fault=each.name, hold_s=round(hold_s, 2), **told)
        if token:
            self.stop.wait(hold_s)
            each.heal(self.world, token)
            self.world.history.add("fault", type="heal", fault=each.name)
