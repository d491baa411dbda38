"""An OpenAI-compatible server: one chat completion at a time, whatever the server does."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx2

from skillsd.errors import SkillSDError, UsageError
from skillsd.skills.summarize.store import SummaryStore

if TYPE_CHECKING:
    from skillsd.config import SummarizerConfig

#: Bytes of an answer that are read; a skill has some thousands.
MAX_BYTES = 4 << 20
#: Seconds that a server may ask us to wait; beyond, the call fails at once.
MAX_WAIT = 120.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0

Message = dict[str, str]


class EndpointError(SkillSDError):
    """A call that brought no answer. ``passing``: worth another try, after ``retry_after`` seconds if that is known."""

    def __init__(self, text: str, status: int = 0, passing: bool = False, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status, self.passing, self.retry_after = status, passing, retry_after


@dataclass(frozen=True)
class Answer:
    """What the model wrote; ``cut``: it ran into the limit of tokens."""

    text: str
    cut: bool


class Endpoint:
    """Calls with time-outs, retries and a budget; threads may share one.

    The key is read from the environment variable that ``api_key_env`` names, and is neither shown nor kept: wherever a
    server repeats it, stars stand in its place. Raises :class:`UsageError` for settings that are missing.
    """

    def __init__(self, settings: SummarizerConfig, store: SummaryStore) -> None:
        for name in ("base_url", "model"):
            if not getattr(settings, name):
                raise UsageError(f"skills.summarizer = openai needs summarizer.{name} (docs/summarisers.md)")
        self.settings, self.store = settings, store
        self.counts: Counter[str] = Counter()
        self._key = read_key(settings.api_key_env)
        self._lock = threading.Lock()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx2.Client(headers=headers, limits=httpx2.Limits(max_connections=None))
        self._url = f"{str(settings.base_url).rstrip('/')}/chat/completions"

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a metric."""
        with self._lock:
            self.counts[name] += amount

    def chat(self, messages: Sequence[Message], end: float, **more: Any) -> Answer:
        """One completion, with retries, before ``end`` (monotonic seconds); ``more`` goes into the request.

        Raises :class:`EndpointError`, or ``BudgetSpent``.
        """
        settings = self.settings
        body: dict[str, Any] = {"model": settings.model, "messages": list(messages), **more, **settings.extra}
        if settings.temperature is not None:
            body.setdefault("temperature", settings.temperature)
        if "max_completion_tokens" not in body:
            body.setdefault("max_tokens", settings.answer_tokens)
        for attempt in range(settings.max_retries + 1):
            self.store.spend_call(settings.max_calls, settings.max_tokens)
            self.count("calls")
            try:
                return self._call(body, min(end, time.monotonic() + settings.timeout))
            except EndpointError as error:
                if not error.passing or attempt == settings.max_retries:
                    raise
                self._wait(error, attempt, end)
            self.count("call_retries")
        raise AssertionError("unreachable")

    def _wait(self, error: EndpointError, attempt: int, end: float) -> None:
        """Sleep before the next try: as long as the server asks, or longer every time; never in step with others."""
        asked = error.retry_after
        seconds = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt) if asked is None else asked
        seconds += random.uniform(0, seconds / 2 if asked is None else 0.5)
        if seconds > MAX_WAIT + 1 or time.monotonic() + seconds >= end:
            raise EndpointError(f"{error}; too long to wait for the next try ({seconds:.0f} s)", error.status)
        time.sleep(seconds)

    def _call(self, body: Mapping[str, Any], end: float) -> Answer:
        limit = self.settings.timeout
        try:
            with self._client.stream("POST", self._url, json=body, timeout=max(0.01, end - time.monotonic())) as reply:
                text = self._text(self._whole(reply.iter_bytes(), end))
                if reply.status_code != 200:
                    raise self._refusal(reply, text)
        except httpx2.TimeoutException:
            raise EndpointError(f"no answer from {self._url} within {limit:g} s", passing=True) from None
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            reason = self._hide(str(error)) or type(error).__name__
            raise EndpointError(f"no answer from {self._url}: {reason}", passing=True) from None
        return self._answer(text, body)

    def _whole(self, chunks: Iterator[bytes], end: float) -> bytes:
        data = bytearray()
        for chunk in chunks:
            data += chunk
            if len(data) > MAX_BYTES:
                raise EndpointError(f"the server's answer is larger than {MAX_BYTES >> 20} MiB")
            if time.monotonic() > end:  # the client's own time-out is for each piece
                raise httpx2.ReadTimeout("too slow")
        return bytes(data)

    def _text(self, data: bytes) -> str:
        try:
            return self._hide(data.decode("utf-8"))
        except UnicodeDecodeError:
            raise EndpointError("the server's answer is not UTF-8") from None

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _refusal(self, reply: httpx2.Response, text: str) -> EndpointError:
        status = reply.status_code
        hint = {
            401: "; summarizer.api_key_env names the environment variable with the key",
            404: "; are summarizer.base_url (often it ends in /v1) and summarizer.model right?",
        }.get(status, "")
        passing = status in (408, 409, 425, 429) or (status >= 500 and status != 501)
        said = " ".join(_complaint(text).split())[:200]
        return EndpointError(f"HTTP {status}: {said}{hint}", status, passing, _retry_after(reply.headers))

    def _answer(self, text: str, body: Mapping[str, Any]) -> Answer:
        try:
            tree = json.loads(text)
            choice = tree["choices"][0]
            content = choice["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise EndpointError(f"the server's answer is no chat completion: {json.dumps(text[:60])}") from None
        usage = tree.get("usage")
        used = usage.get("total_tokens") if isinstance(usage, dict) else None
        if not isinstance(used, int) or used < 0:  # a server that does not count: 4 characters are about a token
            used = (len(json.dumps(body["messages"])) + len(text)) // 4
        self.count("tokens", used)
        self.store.spend_tokens(used)
        if not isinstance(content, str):
            raise EndpointError("the model answered nothing (a refusal, or only reasoning)")
        return Answer(content, choice.get("finish_reason") == "length")


def read_key(name: str | None) -> str | None:
    """The key in the environment variable ``name``. Raises :class:`UsageError` where it is missing or malformed."""
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise UsageError(f"summarizer.api_key_env: the environment variable {name} is not set: export {name}=...")
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"summarizer.api_key_env: the key in {name} holds characters that no header can carry")
    return key


def _complaint(text: str) -> str:
    """What a server says is wrong, in one of the shapes that servers use."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "message", "detail"):
        if isinstance(tree, dict) and name in tree:
            tree = tree[name]
    return tree if isinstance(tree, str) else json.dumps(tree)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number or a date; None where the header is missing or makes no sense."""
    raw = headers.get("retry-after", "")
    try:
        seconds = float(raw)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(raw).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None
