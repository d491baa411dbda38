"""One GRPO iteration, ours and TRL's, on the same multi-turn tasks: ``python benchmarks/against_trl.py``.

Both play a Sokoban that never ends (every episode has all its turns, every row has an advantage) with the same model,
chat pieces, tasks, group and sampling, and then update once with the token-mean GRPO loss. TRL plays through its
``rollout_func`` with the library's ``generate``, a turn for all episodes at a time, as its documentation has it; its
micro-batch is ``--trl-batch``. The two run in processes of their own, in turn. Needs the extra ``trl``.
"""

import json
import statistics
import tempfile

import lab


def trl(a):
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from skillsd.config import ModelConfig
    from skillsd.policy.loading import load_policy

    torch.set_num_threads(a.threads)
    policy, taskset = load_policy(ModelConfig(path=a.model), train=True), lab.endless(a.turns)
    tasks = list(taskset.tasks("train"))[: a.tasks]
    found, rewards = [], []

    def play(prompts, trainer):
        found.append({})
        with lab.clocks(found[-1], "rollout"), torch.no_grad():
            return episodes([tasks[int(p)] for p in prompts], trainer)

    def episodes(of, trainer):
        worlds = [taskset.make() for _ in of]
        starts = [policy.chat.prompt(world.reset(task)) for world, task in zip(worlds, of, strict=True)]
        completions, masks = [[] for _ in of], [[] for _ in of]
        model, stop = trainer.model.eval(), sorted(policy.chat.stop_ids)
        for turn in range(a.turns):
            histories = [start + completion for start, completion in zip(starts, completions, strict=True)]
            width = max(map(len, histories))
            ids = torch.tensor([[0] * (width - len(h)) + h for h in histories])
            seen = torch.tensor([[0] * (width - len(h)) + [1] * len(h) for h in histories])
            made = model.generate(
                input_ids=ids, attention_mask=seen, max_new_tokens=6, do_sample=True, temperature=1.0, top_k=0,
                top_p=1.0, eos_token_id=stop, pad_token_id=0,
            )[:, width:].tolist()  # fmt: skip
            for i, (world, said) in enumerate(zip(worlds, made, strict=True)):
                end = next((n + 1 for n, token in enumerate(said) if token in stop), len(said))
                said, ended = said[:end], said[end - 1] in stop
                completions[i] += said
                masks[i] += [1] * len(said)
                step = world.step(policy.chat.decode(said))
                if turn + 1 < a.turns:
                    more = policy.chat.followup(step.observation, ended)
                    completions[i] += more
                    masks[i] += [0] * len(more)
        model.train()
        rewards[:] = [world.score().reward for world in worlds]
        found[-1]["tokens"] = sum(map(len, starts)) + sum(map(len, completions))
        found[-1]["actions"] = sum(map(sum, masks))
        return {"prompt_ids": starts, "completion_ids": completions, "logprobs": [[0.0] * len(c) for c in completions],
                "env_mask": masks}  # fmt: skip

    class Timed(GRPOTrainer):
        def training_step(self, *args, **kwargs):
            spent = {}
            with lab.clocks(spent, "step"):
                loss = super().training_step(*args, **kwargs)
            for name in ("step", "step_wall"):
                found[-1][name] = found[-1].get(name, 0.0) + spent[name]
            return loss

    count = a.tasks * a.group
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            folder, per_device_train_batch_size=a.trl_batch, gradient_accumulation_steps=count // a.trl_batch,
            num_generations=a.group, max_completion_length=8192, loss_type="dapo", epsilon=0.2, epsilon_high=0.28,
            beta=0.0, learning_rate=1e-9, max_steps=a.iterations + 1, report_to="none", save_strategy="no", bf16=False,
            use_cpu=True, disable_tqdm=True, gradient_checkpointing=False, logging_strategy="no", shuffle_dataset=False,
        )  # fmt: skip
        trainer = Timed(
            model=policy.model, processing_class=policy.tokenizer, args=settings, rollout_func=play,
            reward_funcs=lambda completions, **_: list(rewards),
            train_dataset=Dataset.from_list([{"prompt": str(i)} for i in range(a.tasks)] * (a.iterations + 2)),
        )  # fmt: skip
        trainer.train()
    for each in found:
        each["total"], each["update"] = each["step"], each["step"] - each["rollout"]
    return {"iterations": found[1 : a.iterations + 1], "peak_mib": lab.peak_mib()}


def main():
    parser = lab.arguments(__doc__)
    parser.add_argument("--trl-batch", type=int, default=8, help="TRL's micro-batch, in rows")
    a = parser.parse_args()
    if a.child:
        lab.guard()
        print(json.dumps(trl(a) if a.child == "trl" else lab.iterations(a)))
        return
    found = {"ours": [], "trl": []}
    for _ in range(a.rounds):
        for name, runs in found.items():
            made = lab.child(__file__, "--child", name, *lab.passed_on(a), "--trl-batch", a.trl_batch)
            runs += [made] if made else []
    if not all(found.values()):
        raise SystemExit("one of the two did not run (TRL is an extra: pip install 'skillsd[trl]')")
    print(f"{a.model}, {a.tasks} x {a.group} episodes of {a.turns} turns, {a.threads} thread(s), CPU seconds")
    figures = {"settings": vars(a), "runs": found, "ratio": {}}
    print(f"{'':9}{'ours':>22}{'TRL':>24}   TRL / ours")
    for name in ("rollout", "update", "total"):
        ours, theirs = ([i[name] for run in runs for i in run["iterations"]] for runs in found.values())
        ratio = figures["ratio"][name] = statistics.median(theirs) / statistics.median(ours)
        print(f"{name:9}{lab.middle(ours):>22}{lab.middle(theirs):>24}   {ratio:.2f}")
    ours, theirs = ([run["peak_mib"] for run in runs] for runs in found.values())
    figures["ratio"]["peak_mib"] = statistics.median(theirs) / statistics.median(ours)
    print(f"{'MiB':9}{statistics.median(ours):>22.0f}{statistics.median(theirs):>24.0f}   "
          f"ours / TRL {1 / figures['ratio']['peak_mib']:.2f}")  # fmt: skip
    lab.save(a, figures)


if __name__ == "__main__":
    main()
