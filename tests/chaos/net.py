"""Network namespaces, one for each member of a cluster, around a bridge in a namespace of its own; nothing leaves them"""
import os
import subprocess

PREFIX = "meso-chaos-"
BASE = "10.99.7"
FOLDER = "/run/netns"


class CannotNet(Exception):
    """Namespaces cannot be had here."""


def ip(*words, must=True):
    ran = subprocess.run(["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if must and ran.returncode != 0:
        raise CannotNet(f"ip {' '.join(words)}: {ran.stderr.strip()}")
    return ran


class Net:
    """The namespaces of one run: a hub, and members with an address each."""

    def __init__(self, run, members):
        self.run = run
        self.addresses = {name: f"{BASE}.{10 + at}" for at, name in enumerate(members)}
        self.ports = {name: f"p{at}" for at, name in enumerate(members)}

    def namespace(self, name):
        return f"{PREFIX}{self.run}-{name}"

    def make(self):
        hub = self.namespace("hub")
        ip("netns", "add", hub)
        ip("-n", hub, "link", "add", "br0", "type", "bridge")
        ip("-n", hub, "link", "set", "br0", "up")
        for name, address in self.addresses.items():
            own, port = self.namespace(name), self.ports[name]
            ip("netns", "add", own)
            ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", own)
            ip("-n", hub, "link", "set", port, "master", "br0", "up")
            ip("-n", own, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", own, "link", "set", "eth0", "up")
            ip("-n", own, "link", "set", "lo", "up")

    def inside(self, name):
        """What a command line begins with to run in a member's namespace: as `ip netns exec`, but with all mounts as they are."""
        return ["nsenter", f"--net={FOLDER}/{self.namespace(name)}", "--"]

    def cut(self, name):
        """Nothing reaches the member or leaves it, and nobody is told."""
        ip("-n", self.namespace("hub"), "link", "set", self.ports[name], "down")

    def join(self, name):
        ip("-n", self.namespace("hub"), "link", "set", self.ports[name], "up")

    def mute(self, name, others):
        """The member hears the others and cannot speak to them."""
        for other in others:
            ip("-n", self.namespace(name), "route", "add", "blackhole", f"{self.addresses[other]}/32", must=False)

    def unmute(self, name, others):
        for other in others:
            ip("-n", self.namespace(name), "route", "del", "blackhole", f"{self.addresses[other]}/32", must=False)

    def remove(self):
        remove(f"{PREFIX}{self.run}-")


def remove(prefix):
    """Removes the namespaces whose names begin so, and all links with them."""
    if not os.path.isdir(FOLDER):
        return 0
    names = [name for name in os.listdir(FOLDER) if name.startswith(prefix)]
    for name in names:
        ip("netns", "del", name, must=False)
    return len(names)
