"""What the skill bank takes for a retrieval and for a new skill: ``python benchmarks/bank.py``.

Banks of skills with some 75 words each, all of one task, eight a task, or by Zipf's law; every skill was retrieved
before, so that UCB has to choose. Wall milliseconds of whole transactions, by one thread that asks for the tasks of
random skills. ``full`` is a new skill for a task whose capacity is reached, ``credit`` the least that a change takes
on this disk: the temporary folder's (TMPDIR). docs/PERFORMANCE.md has ``--sizes 100000`` too; filling takes most of
the time.
"""

import argparse
import itertools
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import lab


def texts(rng):
    """Skills without end, of 5,000 words that are as frequent as words are."""
    from skillsd.skills import Skill

    vocabulary = [f"{a}{b}" for a, b in itertools.product(("ba", "lo", "mi", "ra", "su"), range(1000))]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, 5001)))
    while True:
        some = rng.choices(vocabulary, cum_weights=weights, k=75)
        yield Skill(
            success_analysis=" ".join(some[:25]), mistake_analysis=" ".join(some[25:50]),
            golden_workflow=" ".join(some[50:]),
        )  # fmt: skip


def tasks_of(kind, size, rng):
    """The task of each skill."""
    if kind == "one task":
        return ["task 0"] * size
    if kind == "8 a task":
        return [f"task {i // 8}" for i in range(size)]
    return [f"task {int(size ** rng.random())}" for _ in range(size)]  # P(rank) ~ 1 / rank


def fill(bank, tasks, rng):
    """The rows as a long run leaves them; most skills were read a few times, some often."""
    counts = [1 + int(rng.expovariate(0.1)) for _ in tasks]
    made = zip(tasks, texts(rng), counts, strict=False)
    db = bank._db
    db.execute("BEGIN")
    db.executemany("INSERT OR IGNORE INTO tasks (task_id) VALUES (?)", [(task,) for task in sorted(set(tasks))])
    db.executemany(
        "INSERT INTO skills (task_id, skill, reward, chosen, credits, credit_sum) VALUES (?, ?, ?, ?, ?, ?)",
        ((task, skill.model_dump_json(), rng.randrange(9) / 8, n, n, sum(rng.randrange(9) for _ in range(n)) / 8)
         for task, skill, n in made),
    )  # fmt: skip
    db.execute("UPDATE tasks SET retrievals = (SELECT sum(chosen) FROM skills WHERE skills.task_id = tasks.task_id)")
    db.execute("COMMIT")
    if hasattr(bank, "_check_skills"):  # what the first use of each task does
        with bank._transaction():
            for task in sorted(set(tasks)):
                bank._check_skills(task)


def timed(call, arguments):
    spent = []
    for each in arguments:
        started = time.perf_counter()
        call(*each)
        spent.append(1e3 * (time.perf_counter() - started))
    return {"median": statistics.median(spent), "p95": statistics.quantiles(spent, n=20)[-1]}


def measure(kind, size, calls):
    from skillsd.skills import SkillBank

    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        bank = SkillBank(Path(folder) / "b.sqlite", capacity=10 * size)
        tasks = tasks_of(kind, size, rng)
        started = time.perf_counter()
        fill(bank, tasks, rng)
        found = {"fill_s": time.perf_counter() - started}
        asked, new = [(rng.choice(tasks),) for _ in range(calls)], texts(rng)
        found["credit"] = timed(bank.credit, [(rng.randint(1, size), 0.5) for _ in range(calls)])
        found["retrieve"] = timed(bank.retrieve, asked)
        found["add"] = timed(bank.add, [(*task, next(new), 0.5) for task in asked])
        known = {}
        for task, skill in bank._db.execute("SELECT task_id, skill FROM skills ORDER BY id DESC LIMIT ?", (calls,)):
            known.setdefault(task, []).append(skill)
        again = [(task, type(next(new)).parse(skill), 0.5) for task, skills in known.items() for skill in skills]
        found["duplicate"] = timed(bank.add, again)
        (most,) = bank._db.execute("SELECT count(*) FROM skills GROUP BY task_id ORDER BY 1 DESC LIMIT 1").fetchone()
        bank.capacity = most  # of the largest task: others have room
        largest = max(set(tasks), key=tasks.count) if kind != "8 a task" else tasks[0]
        if kind == "8 a task":
            bank.capacity = bank.stats(largest).skills
        found["full"] = timed(bank.add, [(largest, next(new), 0.5) for _ in range(calls)])
        found["mib"] = (Path(folder) / "b.sqlite").stat().st_size / 2**20
        bank.close()
    return found


KINDS = ("one task", "8 a task", "Zipf")
CALLS = ("credit", "retrieve", "add", "duplicate", "full")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000], help="skills of a bank")
    parser.add_argument("--calls", type=int, default=200, help="of each kind that are measured")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        lab.guard()
        print(json.dumps(measure(a.child[0], int(a.child[1]), a.calls)))
        return
    figures = {"settings": vars(a)}
    print(f"{'ms: median (95th percentile)':40}" + "".join(f"{name:>18}" for name in CALLS) + f"{'MiB':>8}{'fill':>8}")
    for size, kind in itertools.product(a.sizes, KINDS):
        found = lab.child(__file__, "--child", kind, size, "--calls", a.calls)
        if found is None:
            continue
        figures[f"{size} {kind}"] = found
        cells = "".join(f"{found[name]['median']:9.2f} ({found[name]['p95']:6.2f})" for name in CALLS)
        print(f"{size:>9} skills, {kind:22}{cells}{found['mib']:8.0f}{found['fill_s']:6.0f} s", flush=True)
    lab.save(a, figures)


if __name__ == "__main__":
    main()
