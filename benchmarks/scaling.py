"""How time grows with length, group, batch and turns, and with processes: ``python benchmarks/scaling.py``.

Score and update of random rows: the operations that a plain pass needs (attention counted) over CPU seconds, which
would be flat on a perfect machine; rollouts of the Sokoban that never ends: tokens a CPU second. ``--full`` adds
lengths to 4,096 tokens, and whole iterations on one process and on two (wall seconds).
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lab


def updates(a):
    """Seconds and operations of score and update, by length and by group."""
    import torch
    from method import operations

    from skillsd.config import ModelConfig
    from skillsd.policy.loading import load_policy
    from skillsd.policy.packing import TokenRow, micro_batches
    from skillsd.policy.scoring import score_tokens

    torch.set_num_threads(a.threads)
    model = load_policy(ModelConfig(path=a.model), train=True).model
    some = torch.Generator().manual_seed(0)

    def ids(count):
        return torch.randint(4, int(model.config.vocab_size), (count,), generator=some).tolist()

    def rows(length, count, group):
        made = []
        for n in range(count):
            prompt = ids(length // 4) if n % group == 0 else made[-1].prompt_ids
            rest = length - len(prompt)
            made.append(TokenRow(prompt, ids(rest), [int(i % 4 == 0) for i in range(rest)]))
        return made

    def measure(length, count, group):
        given = rows(length, count, group)
        spent = []
        for _ in range(a.iterations + 1):
            started = time.process_time()
            for index in micro_batches(given, a.max_tokens):
                part = [given[i] for i in index]
                with torch.no_grad():
                    score_tokens(model, part)
                score_tokens(model, part).logps.sum().backward()
            spent.append(time.process_time() - started)
            model.zero_grad()
        prompts = count // group
        tokens = prompts * (length // 4) + count * (length - length // 4)
        work = operations(model.config, tokens, sum(sum(r.action_mask) for r in given), [length] * count)
        return {"seconds": statistics.median(spent[1:]), "operations": 4 * work, "rows": count}

    lengths = (256, 512, 1024, 2048, 4096) if a.full else (256, 512, 1024)
    return {
        "length": {length: measure(length, max(2, 8192 // length), 2) for length in lengths},
        "group": {group: measure(320, 16, group) for group in (1, 2, 4, 8, 16)},
    }


def rollouts(a):
    """Tokens (prompts, answers, observations) a CPU second, by turns and by episodes at once."""
    found = {"turns": {}, "episodes": {}}
    for kind, values in (("turns", (5, 10, 20, 40)), ("episodes", (8, 32, 128))):
        for value in values:
            args = {"turns": value, "tasks": 4, "group": 8} if kind == "turns" else {"tasks": value // 8, "turns": 20}
            made = lab.iterations(type(a)(**{**vars(a), **args}))["iterations"]
            found[kind][value] = statistics.median(each["tokens"] / each["rollout"] for each in made)
    return found


def processes(a):
    """Wall seconds of an iteration."""
    found = {}
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"] if count > 1 else ["-m"]
            subprocess.run(
                [sys.executable, *launch, "skillsd", "train", "sokoban-smoke", "--out", f"{folder}/run", "--set",
                 "rollout.group_size=16", "--set", "eval.panel_every=0", "--set", "eval.every=0"],
                check=True, capture_output=True,
            )  # fmt: skip
            rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
            found[count] = statistics.median(row["seconds_rollout"] + row["seconds_update"] for row in rows[1:])
    return found


KINDS = {"updates": updates, "rollouts": rollouts, "processes": processes}


def main():
    parser = lab.arguments(__doc__, max_tokens=4096)
    parser.add_argument("--full", action="store_true")
    a = parser.parse_args()
    if a.child:
        lab.guard()
        print(json.dumps(KINDS[a.child](a)))
        return
    figures = {"settings": vars(a)}
    full = ["--full"] if a.full else []
    for kind in KINDS if a.full else ("updates", "rollouts"):
        figures |= {kind: lab.child(__file__, "--child", kind, *lab.passed_on(a), *full) or {}}
    print(f"{a.model}, {a.threads} thread(s), CPU seconds")
    for kind, name in (("length", "tokens a row"), ("group", "rows a prompt")):
        for value, found in figures["updates"].get(kind, {}).items():
            speed = found["operations"] / found["seconds"] / 1e9
            print(f"score + update, {value:>5} {name:14}{1e3 * found['seconds'] / found['rows']:9.1f} ms a row"
                  f"{speed:9.1f} GFLOP/s")  # fmt: skip
    for kind, name in (("turns", "turns"), ("episodes", "episodes")):
        for value, speed in figures["rollouts"].get(kind, {}).items():
            print(f"rollout,        {value:>5} {name:14}{speed:9.0f} tokens a second")
    for count, seconds in figures.get("processes", {}).items():
        print(f"iteration,      {count:>5} {'processes':14}{seconds:9.2f} s (wall)")
    lab.save(a, figures)


if __name__ == "__main__":
    main()
