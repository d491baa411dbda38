"""Summaries from any OpenAI-compatible server: OpenAI, vLLM, llama.cpp, Ollama, LM Studio, or a gateway."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any

from skillsd.errors import SkillSDError
from skillsd.skills.skill import Skill
from skillsd.skills.summarize.base import SummaryRequest
from skillsd.skills.summarize.endpoint import Answer, Endpoint, EndpointError, Message
from skillsd.skills.summarize.prompting import FIELDS, Prompt, read_skill
from skillsd.skills.summarize.store import SummaryStore

if TYPE_CHECKING:
    from skillsd.config import SummarizerConfig

#: Seconds for one summary in all; the queue gives up a little later.
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
#: Statuses with which servers refuse a field of the request.
_NOT_OFFERED = (400, 404, 415, 422, 501)


class OpenAISummarizer:
    """One question a trajectory, at most one more if the answer is no skill; what was answered once is kept.

    Threads may share one. Raises :class:`UsageError` for settings that are missing or a prompt that does not fit.
    """

    name = "openai"

    def __init__(self, settings: SummarizerConfig, store: SummaryStore) -> None:
        self.settings, self.store = settings, store
        self.endpoint, self.prompt = Endpoint(settings, store), Prompt(settings.prompt)
        self._structured = settings.json_schema
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
        if (found := self.store.get(key)) is not None:
            self.endpoint.count("cache_hits")
            return Skill.parse(found)
        skill = self._ask(question, time.monotonic() + SECONDS)
        try:
            self.store.put(key, skill.model_dump_json())
        except SkillSDError as error:  # a full disk: what was paid for is still of use
            self._note(str(error))
        return skill

    def drain(self) -> tuple[dict[str, int], list[str]]:
        """Metrics since the last call, and what somebody should be told."""
        names = ("calls", "call_retries", "second_asks", "tokens", "cache_hits")
        with self._lock:
            notes, self._notes = self._notes, []
        counts, self.endpoint.counts = self.endpoint.counts, type(self.endpoint.counts)()
        return {f"summarizer_{name}": counts[name] for name in names}, notes

    def _cache_key(self, digest: str, question: Message) -> str:
        """A trajectory by its hash, its outcome (in the question), and which model we ask, how; servers may move."""
        s = self.settings
        asked = [digest, question, s.model, s.temperature, s.answer_tokens, s.json_schema, s.extra]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()

    def _ask(self, question: Message, end: float) -> Skill:
        answer = self._structured_chat([question], end)
        try:
            return _read(answer, question)
        except SkillSDError as error:
            self.endpoint.count("second_asks")
            complaint = f"That cannot be used: {error}. Answer again, briefly, with the JSON object alone."
            bad: Message = {"role": "assistant", "content": answer.text[:4000] or "(nothing)"}
            return _read(self._structured_chat([question, bad, {"role": "user", "content": complaint}], end), question)

    def _structured_chat(self, messages: list[Message], end: float) -> Answer:
        if not self._structured:
            return self.endpoint.chat(messages, end)
        try:
            return self.endpoint.chat(messages, end, response_format=SCHEMA)
        except EndpointError as error:
            if error.status not in _NOT_OFFERED:
                raise
            refused = error
        try:
            answer = self.endpoint.chat(messages, end)
        except EndpointError:
            raise refused from None  # it was not the schema
        if self._structured:
            self._structured = False
            self._note(f"the summariser's server offers no JSON-schema output, asking without it ({refused})")
        return answer

    def _note(self, text: str) -> None:
        with self._lock:
            if text not in self._notes:
                self._notes.append(text)


def _read(answer: Answer, question: Message) -> Skill:
    try:
        return read_skill(answer.text, question["content"])
    except SkillSDError as error:
        if answer.cut:
            raise SkillSDError(f"the answer was cut off at summarizer.answer_tokens; {error}") from None
        raise
