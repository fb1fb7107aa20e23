"""Faults of messages: a proxy between a member and the bus doubles, drops, delays, mixes up or repeats what is said

One of the leader, an agent and a third of the clients, by lot. The bus promises more than what is left here; what the
programs make of it must be right all the same.
"""
from .declare import PROXIES, fault


def proxied(name, rows, hold, **mode):
    def inject(world, rng):
        who = rng.choice([world.leader() or world.masters[0], world.proxied_agent(), "client"])
        world.tell_proxy(who, **mode)
        return {"names": [who]}

    def heal(world, token):
        for who in token["names"]:
            world.history.add("proxied", fault=name, who=who, touched=world.proxy_told(who))
    fault(name, rows, [PROXIES], hold, needs=["proxy"], heal=heal)(inject)


proxied("messages-twice", [25], (5, 15), mode="copy", times=2)
proxied("messages-tenfold", [25], (5, 10), mode="copy", times=10)
proxied("messages-mixed", [26], (5, 15), mode="shuffle", within_s=5)
proxied("messages-lost", [27], (5, 20), mode="drop", share=0.2)
proxied("messages-late", [28], (5, 20), mode="late", least_s=0, most_s=4)
proxied("messages-held", [28], (10, 30), mode="hold")
proxied("messages-again", [29], (1, 1), mode="replay")
