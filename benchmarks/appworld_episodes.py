"""Episodes of AppWorld in a row on a few servers: are all scores right, how many a second, does memory grow?

    python appworld_episodes.py [--episodes 200] [--servers 2] [--json]

Needs `skillsd appworld setup`. Each episode plays a right solution, a wrong one, or gives up at once; every score is
checked against what the pack promises. Memory is the resident memory of each server process after its last episode,
against that after its tenth; a server is replaced after 100 episodes.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from skillsd.envs import make_taskset


def resident(pid):
    """MiB of a process (Linux)."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def main():
    parser = argparse.ArgumentParser(description="Episodes of AppWorld in a row.")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    taskset = make_taskset("appworld", servers=given.servers, timeout=60.0)
    tasks = [task for split in ("train", "dev", "test") for task in taskset.tasks(split)]
    plans = []
    while len(plans) < given.episodes:
        for task in tasks:
            wrong = taskset._solutions[task.id]["wrong"][0]
            kind = ("right", "wrong", "nothing")[len(plans) % 3]
            messages = {"right": taskset.demonstrate(task), "wrong": [f"```python\n{b}\n```" for b in wrong],
                        "nothing": ["```python\napis.supervisor.complete_task()\n```"]}[kind]  # fmt: skip
            plans.append((task, kind, messages))
    memory, mistakes, done = defaultdict(list), [], 0

    def play(plan):
        nonlocal done
        task, kind, messages = plan
        world = taskset.make()
        try:
            world.reset(task)
            for message in messages:
                world.step(message)
            if world.score().success != (kind == "right"):
                mistakes.append((task.id, kind))
            memory[world.server.process.pid].append(resident(world.server.process.pid))
        finally:
            world.close()
        done += 1
        if done % 20 == 0:
            print(f"{done} of {given.episodes} episodes", file=sys.stderr, flush=True)

    started = time.monotonic()
    with ThreadPoolExecutor(given.servers) as pool:
        list(pool.map(play, islice(plans, given.episodes)))
    seconds = time.monotonic() - started
    found = {
        "episodes": given.episodes,
        "servers": given.servers,
        "wrong_scores": len(mistakes),
        "episodes_per_second": round(given.episodes / seconds, 2),
        "server_mib": [
            {"episodes": len(used), "tenth": round(used[min(9, len(used) - 1)]), "last": round(used[-1])}
            for used in memory.values()
        ],
    }
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:20} {value}")
    sys.exit(bool(mistakes))


if __name__ == "__main__":
    main()
