"""What each method costs more than GRPO, by phase, and how close to the machine's matrix products an iteration comes:
``python benchmarks/method.py``.

Every row has a teacher (its skills are those of the iterations before). Gradient norms of the two losses apart cost a
pass of their own every ``trainer.grad_norms_every`` iterations; that share is added. The limit is a product of the
model's own shapes, a micro-batch at a time, timed in this process before and after; counted are the operations that a
plain pass needs for the different tokens of a group (a shared prompt once), attention included.
"""

import json
import statistics
import time

import lab

METHODS = {
    "GRPO": ["method=grpo"],
    "Skill-SD": ["method=skill_sd", "loss.distill_weight=0.1"],
    "frozen teacher": ["method=skill_sd_frozen", "loss.distill_weight=0.1"],
    "frozen, top-k": ["method=skill_sd_frozen", "loss.distill_weight=1", "loss.estimator=top_k"],
}
NORMS_EVERY = 10


def rate(model, rows):
    """Operations a second of the model's own products, forward: the limit."""
    import torch

    shapes = [tuple(m.weight.shape) for m in model.modules() if isinstance(m, torch.nn.Linear)]
    given = {width: torch.randn(rows, width) for _, width in shapes}
    weights = [torch.randn(*shape) for shape in shapes]
    best = 0.0
    for _ in range(5):
        started = time.process_time()
        for weight in weights:
            given[weight.shape[1]] @ weight.t()
        best = max(best, 2 * rows * sum(w.numel() for w in weights) / (time.process_time() - started))
    return best


def operations(config, tokens, actions, lengths):
    """Of one forward pass: products of the layers, attention (what is ahead left out), the head at action tokens."""
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries, keys = config.num_attention_heads * head_size, config.num_key_value_heads * head_size
    layer = config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size)
    attention = sum(2 * length**2 * queries for length in lengths)
    return (
        config.num_hidden_layers * (2 * layer * tokens + attention)
        + 2 * config.hidden_size * config.vocab_size * actions
    )


def measure(a):
    from skillsd.config import ModelConfig
    from skillsd.policy.loading import load_policy

    policy = load_policy(ModelConfig(path=a.model))
    before = rate(policy.model, a.max_tokens)
    found = lab.iterations(a)
    limit = max(before, rate(policy.model, a.max_tokens))
    for each in found["iterations"]:
        length = each["tokens"] // (a.tasks * a.group)
        prompt = len(policy.chat.prompt(lab.endless(1).make().reset(lab.endless(1).tasks("train")[0])))
        distinct = each["tokens"] - a.tasks * (a.group - 1) * prompt
        once = operations(policy.model.config, distinct, each["actions"], [length] * (a.tasks * a.group))
        each["share"] = {"rollout": once / limit / each["rollout"], "update": 3 * once / limit / each["update"]}
    return {**found, "limit_gflops": limit / 1e9}


def main():
    a = lab.arguments(__doc__).parse_args()
    if a.child:
        lab.guard()
        print(json.dumps(measure(a)))
        return
    runs = {(name, every): [] for name in METHODS for every in (0, 1) if name != "GRPO" or not every}
    for _ in range(a.rounds):
        for (name, every), made in runs.items():
            settings = [*METHODS[name], f"trainer.grad_norms_every={every}"]
            sets = [part for setting in settings for part in ("--set", setting)]
            one = lab.child(__file__, "--child", "ours", *lab.passed_on(a), *sets)
            made += [one] if one else []
    figures = {"settings": vars(a), "methods": {}}
    print(f"{a.model}, {a.tasks} x {a.group} episodes of {a.turns} turns, {a.threads} thread(s), CPU seconds")
    print(f"{'':16}{'rollout':>9}{'teacher':>9}{'update':>9}{'norms':>9}{'total':>9}{'/ GRPO':>9}")
    for name in METHODS:

        def phase(key, every=0, name=name):
            values = [i.get(key, 0.0) for run in runs[name, every] for i in run["iterations"]]
            return statistics.median(values)

        norms = 0.0 if name == "GRPO" else (phase("update", 1) - phase("update")) / NORMS_EVERY
        row = {"rollout": phase("rollout"), "teacher": phase("score"), "update": phase("update"), "norms": norms}
        row["total"] = sum(row.values())
        figures["methods"][name] = row
        row["ratio"] = row["total"] / figures["methods"]["GRPO"]["total"]
        print(f"{name:16}" + "".join(f"{value:>9.2f}" for value in row.values()))
    every = [i["share"] for run in runs["GRPO", 0] for i in run["iterations"]]
    shares = {phase: statistics.median(each[phase] for each in every) for phase in ("rollout", "update")}
    limit = statistics.median(run["limit_gflops"] for run in runs["GRPO", 0])
    print(f"limit {limit:.0f} GFLOP/s; of it rollout {shares['rollout']:.0%}, update {shares['update']:.0%}")
    lab.save(a, {**figures, "shares": shares, "limit_gflops": limit})


if __name__ == "__main__":
    main()
