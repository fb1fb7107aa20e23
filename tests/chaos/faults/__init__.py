"""The faults: each knows what it needs, what it does, and how it is healed

A fault is a function `inject(world, rng) -> token` and one `heal(world, token)`; a token of none means that there was
nothing to do it to. `parts` names what of the cluster it takes for itself, so that two that last at the same time do not
fall over each other; rows are those of the fault matrix in README.md.
"""
from . import agents, agents_start, bus, clients, grip, masters, messages, tasks
from .declare import FAULTS

__all__ = ["FAULTS", "agents", "agents_start", "bus", "clients", "grip", "masters", "messages", "tasks"]
