"""Summaries from any OpenAI-compatible server: OpenAI, vLLM, llama.cpp, Ollama, LM Studio, or a gateway."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any

from skillsd.errors import SkillSDError
from skillsd.skills.summarize.endpoint import Answer, Endpoint, EndpointError, Message
from skillsd.skills.summarize.prompting import FIELDS, Prompt, read_skill
from skillsd.skills.summarize.store import SummaryStore
from skillsd.types import Skill, SummaryRequest

if TYPE_CHECKING:
    from skillsd.config import SummarizerConfig

#: Seconds for one summary in all, or what two calls may take; the queue gives up a little later.
SECONDS = 570.0
#: What strict structured output understands everywhere (no lengths: not every server knows them).
SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "skill",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in FIELDS},
            "required": list(FIELDS),
            "additionalProperties": False,
        },
    },
}


class OpenAISummarizer:
    """One question a trajectory, at most one more if the answer is no skill; what was answered once is kept.

    Threads may share one. Raises :class:`UsageError` for settings that are missing or a prompt that does not fit.
    """

    name = "openai"

    def __init__(self, settings: SummarizerConfig, store: SummaryStore) -> None:
        self.settings, self.store, self.seconds_each = settings, store, max(SECONDS, 2 * settings.timeout)
        self.endpoint, self.prompt = Endpoint(settings, store), Prompt(settings.prompt)
        self._structured, self._failed = settings.json_schema, 0
        self._notes: list[str] = []
        self._lock = threading.Lock()

    def summarize(self, request: SummaryRequest) -> Skill:
        """The skill, from the cache or the server. Raises :class:`SkillSDError` where neither has one."""
        trajectory = request.trajectory
        question: Message = {
            "role": "user",
            "content": self.prompt.render(trajectory, self.settings.conversation_chars),
        }
        key = self._cache_key(trajectory.digest(), question)
        if (found := self._kept(key)) is not None:
            self.endpoint.count("cache_hits")
            return found
        skill = self._ask(question, time.monotonic() + self.seconds_each)
        try:
            self.store.put(key, skill.model_dump_json())
        except SkillSDError as error:  # a full disk: what was paid for is still of use
            self._note(str(error))
        return skill

    def drain(self) -> tuple[dict[str, int], list[str]]:
        """Metrics since the last call, and what somebody should be told."""
        names = ("calls", "call_retries", "second_asks", "tokens", "cache_hits")
        with self._lock:
            notes, self._notes = [*self._notes, *self.endpoint.notes], []
            self.endpoint.notes.clear()
        counts, self.endpoint.counts = self.endpoint.counts, type(self.endpoint.counts)()
        return {f"summarizer_{name}": counts[name] for name in names}, notes

    def _kept(self, key: str) -> Skill | None:
        """What the cache has; an entry that came to harm is dropped, and told."""
        if (found := self.store.get(key)) is None:
            return None
        try:
            return Skill.parse(found)
        except SkillSDError as error:
            self._note(f"summarizer.cache: {self.store.path}: a damaged entry is asked for again ({error})")
            self.store.forget(key)
            return None

    def _cache_key(self, digest: str, question: Message) -> str:
        """A trajectory by its hash, its outcome (in the question), and which model we ask, how; servers may move."""
        s = self.settings
        asked = [digest, question, s.model, s.temperature, s.answer_tokens, s.json_schema, s.extra]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()

    def _ask(self, question: Message, end: float) -> Skill:
        answer = self._chat([question], end)
        try:
            return self._read(answer, question)
        except SkillSDError as error:
            self.endpoint.count("second_asks")
            complaint = f"That cannot be used: {error}. Answer again, briefly, with the JSON object alone."
            bad: Message = {"role": "assistant", "content": answer.text[:4000] or "(nothing)"}
            second = self._chat([question, bad, {"role": "user", "content": complaint}], end)
            return self._read(second, question, trusting=True)

    def _chat(self, messages: list[Message], end: float) -> Answer:
        """With structured output, until it is clear that the server has none: it says so, or fails twice in a row."""
        if not self._structured:
            return self.endpoint.chat(messages, end)
        answer = self.endpoint.chat(messages, end, response_format=SCHEMA)
        refusal = answer.refusal
        with self._lock:
            self._failed = self._failed + 1 if refusal else 0
            off = isinstance(refusal, EndpointError) and (not refusal.passing or self._failed >= 2)
            told = off and self._structured
            self._structured = self._structured and not off
        if told:
            self._note(f"the summariser's server offers no JSON-schema output, asking without it ({refusal})")
        return answer

    def _read(self, answer: Answer, question: Message, trusting: bool = False) -> Skill:
        try:
            skill = read_skill(answer.text, question["content"], answer.cut, trusting)
        except SkillSDError as error:
            if answer.cut:
                raise SkillSDError(f"the answer was cut off at summarizer.answer_tokens; {error}") from None
            raise
        # Decoding JSON once more may have put together what was in pieces.
        return Skill.parse({name: self.endpoint.hide(text) for name, text in skill.model_dump().items()})

    def _note(self, text: str) -> None:
        with self._lock:
            if text not in self._notes:
                self._notes.append(text)
