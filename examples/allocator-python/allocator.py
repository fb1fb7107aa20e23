#!/usr/bin/env python3
"""An allocation policy of one's own: fill one agent before the next is touched, so that whole agents stay free."""

import json
import sys

KINDS = ("cpus", "mem", "disk", "gpus")


def tasks_in(free, task, most):
    """How many tasks there is room for. Amounts have three decimals at most: as whole thousandths they are exact."""
    rooms = [round(free.get(kind, 0) * 1000) // round(task[kind] * 1000) for kind in KINDS if task.get(kind)]
    return min([most, *rooms])


def give(framework, agent, tasks):
    print(json.dumps({"meso": "grant/1", "framework": framework["framework"], "agent": agent["agent"], "tasks": tasks}))


def allocate(cluster):
    agents = [agent for agent in cluster["agents"] if agent.get("active", True)]
    # Who has least of the cluster's cpus goes first.
    for framework in sorted(cluster["frameworks"], key=lambda one: one.get("used", {}).get("cpus", 0)):
        refused = {refusal["agent"] for refusal in framework.get("refused", [])}
        demand = framework.get("demand")
        wanted = 0 if framework.get("suppressed") else demand["count"] if demand else 1
        # The fullest agent first.
        for agent in sorted(agents, key=lambda one: (one["free"].get("cpus", 0), one["agent"])):
            if wanted == 0 or agent["agent"] in refused:
                continue
            tasks = tasks_in(agent["free"], demand, wanted) if demand else 0
            if tasks:
                for kind in KINDS:
                    agent["free"][kind] = agent["free"].get(kind, 0) - tasks * demand.get(kind, 0)
            elif not demand and agent["free"].get("cpus"):
                # Whoever says nothing of its tasks is given all that is left of an agent.
                agent["free"], wanted = {}, 0
            else:
                continue
            give(framework, agent, tasks)
            wanted = max(0, wanted - tasks)
    print(json.dumps({"meso": "allocated/1", "policy": "pack"}), flush=True)


for line in sys.stdin:
    allocate(json.loads(line))
