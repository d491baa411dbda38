"""Peak memory of one scored batch with gradient, ours against the plain way: ``python benchmarks/scoring_memory.py``.

A small random Llama with SmolLM2's vocabulary (49,152), so that logits are what counts. "Plain" makes the logits of the
whole batch and takes log_softmax of them; ours makes them for action tokens alone, some positions at a time, and again
in the backward pass. Each way runs in a process of its own; counted is what its peak adds to a forward and backward
pass through the body alone. The gradients are compared too.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import lab
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from skillsd.policy.packing import TokenRow
from skillsd.policy.scoring import score_tokens

VOCABULARY = 49_152


def batch(rows, tokens, share):
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(rows):
        ids = torch.randint(VOCABULARY, (tokens,), generator=generator).tolist()
        mask = (torch.rand(tokens - 1, generator=generator) < share).int().tolist()
        made.append(TokenRow(ids[:1], ids[1:], mask))
    return made


def plain(model, rows):
    ids = torch.tensor([row.prompt_ids + row.completion_ids for row in rows])
    mask = torch.tensor([row.action_mask for row in rows])
    logps = model(input_ids=ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    return (logps.gather(2, ids[:, 1:, None]).squeeze(2) * mask).sum()


def body(model, rows):
    ids = torch.tensor([row.prompt_ids + row.completion_ids for row in rows])
    return model.model(input_ids=ids, use_cache=False).last_hidden_state.sum()


WAYS = {"body": body, "plain": plain, "ours": lambda model, rows: score_tokens(model, rows).logps.sum()}


def measure(way, rows, tokens, share):
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                    num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True)
    ).eval()  # fmt: skip
    data = batch(rows, tokens, share)
    cuda = torch.cuda.is_available()
    if cuda:
        model.cuda()
        torch.set_default_device("cuda")
    started = time.perf_counter()
    WAYS[way](model, data).backward()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    norm = float(torch.stack([p.grad.float().norm() for p in model.parameters() if p.grad is not None]).norm())
    print(json.dumps({"mib": peak / 2**20, "seconds": seconds, "gradient_norm": norm}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--share", type=float, default=0.25, help="of tokens that are actions")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.way:
        lab.guard()
        return measure(a.way, a.rows, a.tokens, a.share)
    size = ["--rows", str(a.rows), "--tokens", str(a.tokens), "--share", str(a.share)]
    found = {
        way: json.loads(subprocess.run([sys.executable, __file__, "--way", way, *size], check=True, text=True,
                                       stdout=subprocess.PIPE).stdout)
        for way in WAYS
    }  # fmt: skip
    extra = {way: found[way]["mib"] - found["body"]["mib"] for way in ("plain", "ours")}
    print(f"{a.rows} x {a.tokens} tokens, {a.share:.0%} of them actions, vocabulary {VOCABULARY:,}")
    for way, mib in extra.items():
        print(f"{way:6} {mib:8.0f} MiB above the body, {found[way]['seconds']:5.1f} s, "
              f"gradient norm {found[way]['gradient_norm']:.6f}")  # fmt: skip
    print(f"ours / plain: {extra['ours'] / extra['plain']:.2f}")
    lab.save(a, {**found, "extra_mib": extra})
    return None


if __name__ == "__main__":
    main()
