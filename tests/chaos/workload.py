"""What people do with a cluster while it suffers: batches, services, pipelines, each an operation of the history"""
import os
import random
import subprocess
import threading
import time

from cluster import GUEST, OFFER_TIMEOUT_S
from processes import kill_quietly

WITNESS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "witness.sh")
STEADY = 3
# How long the tasks of a framework live on that nobody resumes.
FAILOVER_S = 8
SERVICES = 2
# How many of the people are somebody else to the bus.
GUESTS = 2


class Operation:
    """One call of a tool, or a pipeline of several: it is recorded when it begins and when it ends."""

    def __init__(self, load, what, **facts):
        self.load, self.cluster, self.what, self.facts = load, load.cluster, what, facts
        self.op = load.next_op()
        # One of three reaches the bus by way of the proxy, if there is one.
        self.principal = getattr(load.who, "principal", "default")
        self.member = "client" if int(self.op[1:]) % 3 == 0 else None
        self.by_harness = False
        self.stages = []

    def path(self, ending):
        return self.load.history.path("ops", f"{self.op}.{ending}")

    def body(self, text):
        """A shell string for a task of this operation."""
        return f". {WITNESS}; begin; {text}"

    def env(self):
        return ["-e", f"CHAOS_OP={self.op}", "-e", f"CHAOS_DIR={self.load.history.folder}"]

    def run(self, *stages, feed=None):
        """Runs the stages of a pipeline, each a command line, to the end of the last one: its exit code."""
        self.load.history.add("op", type="invoke", op=self.op, what=self.what, argv=[word for stage in stages for word in stage], **self.facts)
        with open(self.path("out"), "wb") as out, open(self.path("err"), "wb") as err:
            before = subprocess.PIPE if feed is not None else subprocess.DEVNULL
            for at, stage in enumerate(stages):
                last = at == len(stages) - 1
                process = subprocess.Popen(stage, env=self.cluster.env(self.member, self.principal), stdin=before, stdout=out if last else subprocess.PIPE, stderr=err, start_new_session=True)
                if at > 0:
                    before.close()
                before = process.stdout
                self.stages.append(process)
            self.load.begun(self)
            if feed is not None:
                self._feed(feed)
            code = self._finish()
        self.load.ended(self)
        self.load.history.add("op", type="end", op=self.op, code=code, by="harness" if self.by_harness else "itself", **self.result())
        return code

    def _feed(self, text):
        try:
            self.stages[0].stdin.write(text.encode())
            self.stages[0].stdin.close()
        except OSError:
            # It ended before it read all of it: its exit code tells.
            pass

    def _finish(self):
        """Waits for the last stage, then for the others, which have little reason to stay."""
        try:
            code = self.stages[-1].wait(self.load.patience_s)
        except subprocess.TimeoutExpired:
            self.load.history.add("hung", op=self.op, frameworks=self.cluster.rows("frameworks"), agents=self.cluster.rows("agents"), offers=self.cluster.rows("offers"))
            self.by_harness = True
            self.stages[-1].kill()
            code = self.stages[-1].wait()
        for process in self.stages[:-1]:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                self.load.history.add("hung", op=self.op, stage=process.args[-1])
                process.kill()
                process.wait()
        return code

    def result(self):
        if self.what != "detach":
            return {}
        with open(self.path("out"), encoding="utf-8") as file:
            return {"task": file.read().strip()}

    def kill(self, stage):
        """Ends one of its processes as a crash does, on behalf of a fault."""
        self.by_harness = True
        kill_quietly(self.stages[stage].pid)


class Load:
    """The people: threads that each do one thing after the other until they are told to stop."""

    def __init__(self, cluster, seed, count, patience_s):
        """A client that has not come to its end within the patience is killed, and that is told as it is."""
        self.cluster, self.history, self.seed, self.patience_s = cluster, cluster.history, seed, patience_s
        self.stop = threading.Event()
        self.live = []
        self.lock = threading.Lock()
        # Which principal the thread speaks for.
        self.who = threading.local()
        self.number = 0
        self.threads = [threading.Thread(target=self._person, args=(at,), name=f"person{at}", daemon=True) for at in range(count)]
        self.threads += [threading.Thread(target=self._service, args=(at,), name=f"service{at}", daemon=True) for at in range(SERVICES)]

    def next_op(self):
        with self.lock:
            self.number += 1
            return f"o{self.number}"

    def begun(self, operation):
        with self.lock:
            self.live.append(operation)

    def ended(self, operation):
        with self.lock:
            self.live.remove(operation)

    def killable(self):
        """Operations whose client a fault may kill, and those that are pipelines."""
        with self.lock:
            return [each for each in self.live if each.facts.get("killable")]

    def start(self):
        self._steady()
        for thread in self.threads:
            thread.start()

    def is_over(self):
        return not any(thread.is_alive() for thread in self.threads)

    def abandon(self):
        """Ends the clients that are still there, when it is known that they do not end by themselves."""
        self.stop.set()
        with self.lock:
            left = list(self.live)
        for operation in left:
            operation.by_harness = True
            for process in operation.stages:
                kill_quietly(process.pid)

    def _steady(self):
        """Tasks that are to live through all of it, under a durable name."""
        for _ in range(STEADY):
            each = Operation(self, "detach", tasks=1, survives=True)
            release = self.history.path("release")
            body = each.body(f"until [ -e {release} ]; do live 2; done; finish 0")
            each.run(self.cluster.command("meso-launch", "-q", "-d", "--framework", "steady", "-R", "cpus=0.1,mem=16M", *each.env(), "-c", body))

    def _person(self, at):
        rng = random.Random(f"{self.seed}/person/{at}")
        self.who.principal = GUEST if at < GUESTS else "default"
        deeds = [(self.batch, 8), (self.failing, 3), (self.each, 3), (self.chatty, 3), (self.waited, 3), (self.killed, 2), (self.daemonised, 2),
                 (self.limited, 2), (self.impossible, 1), (self.long, 4), (self.filtered, 2), (self.orphaned, 1), (self.hostile, 1), (self.greedy, 1)]
        while not self.stop.is_set():
            rng.choices([deed for deed, _ in deeds], [weight for _, weight in deeds])[0](rng)
            self.stop.wait(rng.random() * 0.5)

    def launch(self, operation, *words, feed=None):
        return operation.run(self.cluster.command("meso-launch", "-q", "--report", operation.path("report"), *operation.env(), *words), feed=feed)

    @staticmethod
    def needs(rng):
        return ["-R", f"cpus={rng.choice(['0.1', '0.2', '0.5', '1', '1.5'])},mem={rng.choice([16, 32, 64])}M"]

    def batch(self, rng):
        """Many short tasks."""
        count, lines = rng.randint(2, 30), rng.choice([1, 5, 20])
        each = Operation(self, "launch", tasks=count, lines=lines)
        mortal = ["--on-unreachable", "kill"] if rng.random() < 0.3 else []
        self.launch(each, *mortal, *self.needs(rng), "-n", str(count), "-j", str(rng.randint(1, 8)), "-c", each.body(f"lines {lines}; live {rng.randint(0, 3)}; finish 0"))

    def failing(self, rng):
        """Tasks that end with codes of their own, one of them by being run again."""
        count, first = rng.randint(1, 4), rng.randint(1, 90)
        retries = rng.choice([0, 0, 2])
        codes = {str(index): first + index for index in range(1, count + 1)}
        each = Operation(self, "launch", tasks=count, lines=3, codes=codes, retries=retries)
        self.launch(each, *self.needs(rng), "--retries", str(retries), "-n", str(count), "-c", each.body(f"lines 3; live 1; finish $(({first} + MESO_INDEX))"))

    def each(self, rng):
        """One task for each line of standard input."""
        items = [f"item-{rng.randint(0, 999)}" for _ in range(rng.randint(1, 10))]
        each = Operation(self, "launch", tasks=len(items), lines=2)
        self.launch(each, *self.needs(rng), "--each", "-", "-j", "4", "-c", each.body("lines 2; finish 0"), feed="".join(f"{item}\n" for item in items))

    def chatty(self, rng):
        """One task that writes a lot, over a while."""
        count = rng.randint(2000, 20000)
        each = Operation(self, "launch", tasks=1, lines=count)
        self.launch(each, *self.needs(rng), "-c", each.body(f"lines {count}; live 2; finish 0"))

    def _detached(self, rng, text, **facts):
        each = Operation(self, "detach", tasks=1, **facts)
        each.run(self.cluster.command("meso-launch", "-q", "-d", *self.needs(rng), *each.env(), "-c", each.body(text)))
        return each.result()["task"]

    def waited(self, rng):
        """A task that is left to itself and waited for by another tool."""
        task = self._detached(rng, f"live {rng.randint(1, 10)}; finish {rng.choice([0, 0, 7])}")
        if task:
            Operation(self, "wait", task=task).run(self.cluster.command("meso-wait", "-q", task))

    def killed(self, rng):
        """A task that does not want to end, and has to."""
        task = self._detached(rng, "trap '' TERM; live 3000; finish 0")
        if task:
            time.sleep(rng.random() * 2)
            for _ in range(20):
                code = Operation(self, "kill", task=task).run(self.cluster.command("meso-kill", "-q", "-w", "--grace", "1s", task))
                if code == 0:
                    break
                # Nobody was there to be asked: it must not live for ever because of that.
                self.stop.wait(2)
            Operation(self, "wait", task=task).run(self.cluster.command("meso-wait", "-q", task))

    def daemonised(self, rng):
        """A task that leaves a process behind, out of its session."""
        each = Operation(self, "launch", tasks=1)
        self.launch(each, *self.needs(rng), "-c", each.body(f"setsid sh -c '. {WITNESS}; live 3000' & live 2; finish 0"))

    def limited(self, rng):
        """A task that hits its time limit."""
        each = Operation(self, "launch", tasks=1, timeout=True)
        self.launch(each, *self.needs(rng), "--timeout", "1s", "-c", each.body("live 3000; finish 0"))

    def impossible(self, _rng):
        """What no agent has room for, ever."""
        each = Operation(self, "launch", tasks=1, impossible=True)
        self.launch(each, "-R", "cpus=3,mem=16M", "--start-deadline", "2s", "-c", each.body("finish 0"))

    def long(self, rng):
        """A client whose tasks take long enough that somebody kills it; some let their tasks live on."""
        count = rng.randint(1, 3)
        keep = ["--on-disconnect", "keep"] if rng.random() < 0.4 else []
        each = Operation(self, "launch", tasks=count, lines=4, killable=True)
        self.launch(each, *keep, *self.needs(rng), "-n", str(count), "-c", each.body(f"lines 4; live {rng.randint(20, 60)}; finish 0"))

    def orphaned(self, rng):
        """A named framework that dies and never comes back: its tasks live on until its time is over, and no longer."""
        each = Operation(self, "launch", tasks=2, failover_s=FAILOVER_S)
        demand = "cpus=0.1,mem=16M"

        def die():
            if self.cluster.until(lambda: self.is_stopped(each) or self.has_begun(each), 30) is not None:
                self.stop.wait(rng.random() * 3)
            for stage in range(len(each.stages)):
                each.kill(stage)
        killer = threading.Thread(target=die, daemon=True)
        killer.start()
        self.pipeline(each, ["meso-offer", "-q", "--framework", f"orphan-{each.op}", "--failover", f"{FAILOVER_S}s", "-R", demand], ["jq", "-c", "--unbuffered", "."], demand, 2, 3000)
        killer.join()

    def has_begun(self, each):
        """Whether a task of an operation has written that it runs."""
        mark = f'"op":"{each.op}"'
        folder = self.history.path("witness")
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                if any(mark in line for line in file):
                    return True
        return False

    def is_stopped(self, each):
        return bool(each.stages) and each.stages[-1].poll() is not None

    def hostile(self, rng):
        """A task that leaves a sandbox behind that is not nice to clean up, and children that nobody waits for."""
        each = Operation(self, "launch", tasks=1)
        text = "mkfifo f; ln -s / root; ln -s /dev/zero zero; mkdir -p a/b/c; : >a/b/x; chmod 0 a/b; for i in 1 2 3 4 5 6 7 8 9; do true & done; live 1; finish 0"
        self.launch(each, *self.needs(rng), "-c", each.body(text))

    def greedy(self, rng):
        """An offer that is used a second time, after its time, or by somebody else: nobody may launch on it."""
        _, out = self.cluster.tool("meso-offer", "-q", "--principal", self.who.principal, "--once", "--wait", "5s", "--hold", "2s", "-R", "cpus=0.1,mem=16M", "-o", "tsv=id", timeout=30)
        offer = next(iter(out.split()), None)
        why, who = rng.choice([("it was used before", []), ("its time was over", []), ("it was made to somebody else", ["--principal", "stranger"])])
        if offer is None:
            return
        if why == "it was used before":
            first = Operation(self, "launch", tasks=1)
            if self.launch(first, "--offer", offer, "-c", first.body("finish 0")) != 0:
                # It may not have been used after all.
                return
        elif why == "its time was over":
            self.stop.wait(OFFER_TIMEOUT_S)
        again = Operation(self, "launch", tasks=1, refused=why)
        self.launch(again, *who, "--offer", offer, "-c", again.body("finish 0"))

    def filtered(self, rng):
        """A pipeline of an unnamed framework, whose filter may drop offers or die in the middle."""
        each = Operation(self, "launch", tasks=2, killable=True)
        demand = "cpus=0.2,mem=16M"
        kind = rng.choice(["jq -c --unbuffered 'select(.cpus >= 0.2)'", "jq -c --unbuffered 'select(.attrs.rack == \"r1\")'", "{ head -n 1; exit 1; }"])
        self.pipeline(each, ["meso-offer", "-q", "-R", demand], ["sh", "-c", kind], demand, 2, rng.randint(2, 20))

    def pipeline(self, each, head, middle, demand, count, fifths):
        last = self.cluster.command("meso-launch", "-q", "-O", "-n", str(count), "-R", demand, "--report", each.path("report"), *each.env(), "-c", each.body(f"live {fifths}; finish 0"))
        return each.run(self.cluster.command(*head), middle, last)

    def _service(self, at):
        """A framework with a durable name: ended and killed again and again, and resumed each time."""
        rng = random.Random(f"{self.seed}/service/{at}")
        while not self.stop.is_set():
            each = Operation(self, "launch", tasks=2, killable=True)
            demand = "cpus=0.2,mem=16M"
            how = rng.choice([[], ["--standby"], ["--takeover"]])
            self.pipeline(each, ["meso-offer", "-q", "--framework", f"service{at}", "--failover", "60s", *how, "-R", demand], ["jq", "-c", "--unbuffered", "select(.cpus >= 0.2)"], demand, 2, rng.randint(10, 50))
            self.stop.wait(0.5)
