"""One Skill-SD iteration by phases: ``python benchmarks/iteration.py --model smollm2 --tokens 8192 [--json]``.

Real iterations of the trainer in an environment that talks a lot, so that trajectories have about ``--tokens`` tokens.
Models: ``smollm2`` (SmolLM2-135M), ``qwen3-0.6b`` (that shape, random weights), ``embedded``. Reported are, for the
last iteration, seconds by phase, tokens a second of rollout and update, peak memory, and the update's model FLOP
utilisation: 6 x parameters x tokens of forward and backward, against the rate of a large matrix product in the same
run. On a GPU: ``--set model.dtype=bfloat16 --set model.gradient_checkpointing=true``.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from skillsd import load_config, train
from skillsd.config import ModelConfig
from skillsd.envs import register
from skillsd.policy.loading import load_policy
from skillsd.policy.packaged import packaged
from skillsd.runs.folder import RunDir
from skillsd.skills import Skill
from skillsd.types import Score, Step, Task

WORDS = ["box", "wall", "target", "left", "right", "above", "below", "two", "steps", "walk", "around", "push"]


class Talker:
    """Each turn answers with as many words as make a trajectory of the wanted length, whatever the policy says."""

    def __init__(self, words):
        self.words = words

    def reset(self, task):
        self.turns, self.seed = 0, int(task.id)
        return "Say anything."

    def step(self, action):
        self.turns += 1
        text = " ".join(WORDS[(self.seed + i * self.turns) % len(WORDS)] for i in range(self.words))
        return Step(text, False)

    def score(self):
        lucky = self.seed % 2 == 0 or self.turns % 2 == 0
        return Score(float(lucky), lucky, float(lucky))

    def close(self):
        pass


class Talk:
    name = "talk"

    def __init__(self, words, turns):
        self.words, self.max_turns = words, turns

    def tasks(self, split):
        return [Task(str(i)) for i in range(8)]

    def make(self):
        return Talker(self.words)


class Advice:
    """The same skill for every trajectory: what it says does not matter here."""

    name = "advice"

    def summarize(self, request):
        return Skill(
            success_analysis="Talk less.", mistake_analysis="Too many words.", golden_workflow="One word a turn."
        )


def model_folder(name, folder):
    if name != "qwen3-0.6b":
        return name
    config = Qwen3Config(
        hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8,
        head_dim=128, vocab_size=151_936, tie_word_embeddings=True, max_position_embeddings=40_960, eos_token_id=2,
    )  # fmt: skip
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(packaged("smollm2")).save_pretrained(folder)
    return str(folder)


def peak_flops(dtype):
    """Of a square matrix product on the device that will train, best of five."""
    cuda = torch.cuda.is_available()
    size = 8192 if cuda else 1024
    a = torch.randn(size, size, dtype=dtype, device="cuda" if cuda else "cpu")
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(3):
            a @ a
        if cuda:
            torch.cuda.synchronize()
        best = max(best, 3 * 2 * size**3 / (time.perf_counter() - started))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["smollm2", "qwen3-0.6b", "embedded"], default="smollm2")
    parser.add_argument("--tokens", type=int, default=8192, help="of a trajectory, about")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--answer", type=int, default=64, help="tokens the policy writes a turn")
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="a setting of the run")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    words = max(1, int((a.tokens / a.turns - a.answer) / 1.1))
    register("talk", lambda: Talk(words, a.turns))
    with tempfile.TemporaryDirectory() as folder:
        path = model_folder(a.model, Path(folder) / "model")
        preset = Path(folder) / "talk.toml"
        preset.write_text('method = "skill_sd"\nenv.name = "talk"\nskills.summarizer = "iteration:Advice"\n')
        config = load_config(preset, [
            f"model.path={path}", f"env.train_tasks={a.tasks}", f"rollout.tasks_per_iteration={a.tasks}",
            f"rollout.group_size={a.group}", f"rollout.max_new_tokens={a.answer}", f"rollout.max_tokens={2 * a.tokens}",
            f"trainer.iterations={a.iterations}", f"trainer.checkpoint_every={a.iterations}",
            "trainer.grad_norms_every=0", f"optim.max_tokens_per_device={2 * a.tokens}", *a.set,
        ])  # fmt: skip
        out = Path(folder) / "run"
        train(config, out, evaluate=False)
        last = RunDir(out).read_metrics()[-1]
        rows = RunDir(out).read_trajectories(a.iterations)
        checkpoint = next(RunDir(out).checkpoints.glob("step-*"))
        parameters = sum(p.numel() for p in load_policy(ModelConfig(path=str(checkpoint))).model.parameters())
    flops = peak_flops(torch.bfloat16 if config.model.dtype == "bfloat16" else torch.float32)
    tokens = sum(len(t.ids) for t in rows)
    result = {
        "model": a.model, "parameters": parameters, "episodes": len(rows), "tokens_of_a_trajectory": tokens / len(rows),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", "dtype": config.model.dtype,
        **{f"seconds_{k}": last[f"seconds_{k}"] for k in ("rollout", "score", "update")},
        "rollout_tokens_per_second": sum(t.action_tokens for t in rows) / last["seconds_rollout"],
        "update_tokens_per_second": tokens / last["seconds_update"],
        "update_mfu": 6 * parameters * tokens / last["seconds_update"] / flops,
        "peak_memory_mib": last.get("peak_gpu_memory_mib", last["peak_memory_mib"]),
    }  # fmt: skip
    if a.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:28} {value:,.3f}" if isinstance(value, float) else f"{key:28} {value}")


if __name__ == "__main__":
    main()
