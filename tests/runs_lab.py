"""Small real runs on the embedded model, and what is compared of them."""

from safetensors.torch import load_file

from skillsd import load_config
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.skills import SkillBank

TINY = [
    "env.train_tasks=3", "rollout.tasks_per_iteration=3", "rollout.group_size=3", "rollout.max_turns=6",
    "eval.tasks=8", "eval.panel_every=0", "trainer.iterations=3",
]  # fmt: skip


def config(*overrides):
    return load_config("sokoban-smoke", [*TINY, *overrides])


def numbers(run):
    """Metrics without what a clock or the memory decides."""
    return [
        {k: v for k, v in row.items() if "second" not in k and "memory" not in k} for row in RunDir(run).read_metrics()
    ]


def weights(run):
    return load_file(latest(RunDir(run)) / "model.safetensors")


def bank_rows(path):
    bank = SkillBank(path)
    try:
        return bank.skills(), bank.stats()
    finally:
        bank.close()
