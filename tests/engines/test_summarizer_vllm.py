"""The OpenAI-compatible summariser against a real vLLM server (fixture ``vllm_server``: its base URL with /v1)."""

import httpx2

from skillsd.config import SummarizerConfig
from skillsd.skills.summarize.openai import OpenAISummarizer
from skillsd.skills.summarize.queue import summarize_now
from skillsd.skills.summarize.store import SummaryStore
from skillsd.types import SummaryRequest, Task, Trajectory, Turn


def test_a_real_server_answers_in_the_schema(vllm_server):
    model = httpx2.get(f"{vllm_server}/models").json()["data"][0]["id"]
    settings = SummarizerConfig(
        base_url=vllm_server, model=model, temperature=0, answer_tokens=400, conversation_chars=1000, timeout=240
    )
    summarizer = OpenAISummarizer(settings, SummaryStore(None))
    turns = [Turn("```up```", "You ran into a wall.", True), Turn("```left```", "The box is on the target.", True)]
    played = Trajectory("t", 1, 0, "Push the box to the target.", [1], turns=turns, success=True, completion=1.0)
    (summary,) = summarize_now(summarizer, [SummaryRequest(played, Task("t"))], workers=2)
    counts, notes = summarizer.drain()
    assert notes == []  # vLLM offers schemas
    assert counts["summarizer_tokens"] > 0
    # A small model may not find an end, or repeat what it was asked; anything else is our fault.
    assert summary.skill is not None or "cut off" in summary.error or "the answer's" in summary.error
