"""An OpenAI-compatible server: one chat completion at a time, whatever the server does."""

from __future__ import annotations

import json
import os
import random
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx2

from skillsd.errors import SkillSDError, UsageError
from skillsd.skills.summarize import completion
from skillsd.skills.summarize.completion import Answer, NoCompletion
from skillsd.skills.summarize.store import SummaryStore
from skillsd.system.redact import Redactor
from skillsd.system.terminal import printable
from skillsd.system.web import client, wait_for

if TYPE_CHECKING:
    from skillsd.config import SummarizerConfig

__all__ = ["Answer", "Endpoint", "EndpointError", "Message"]

#: Bytes of an answer that are read; a skill has some thousands.
MAX_BYTES = 4 << 20
#: Seconds that a server may ask us to wait; beyond, the call fails at once.
MAX_WAIT = 120.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
#: Characters of what a server complains about.
_LONGEST = 200
#: Statuses that cannot come of a field of the request: no key or money, too much of it, too often.
_NOT_OF_A_FIELD = {401, 402, 403, 407, 409, 413, 425, 429}
#: What goes by another name at newer servers.
_RENAMED = {"max_tokens": "max_completion_tokens"}

Message = dict[str, str]


class EndpointError(SkillSDError):
    """A call that brought no answer. ``passing``: worth another try, after ``retry_after`` seconds if that is known.

    ``field``: the server may have refused a field of the request, or choked on it; ``about``: what may name it.
    ``lasting``: the server said no (no key, no money, no such model or address), and may say so to every call.
    """

    def __init__(
        self,
        text: str,
        status: int = 0,
        passing: bool = False,
        retry_after: float | None = None,
        field: bool = False,
        about: str = "",
    ) -> None:
        super().__init__(text)
        self.status, self.passing, self.retry_after = status, passing, retry_after
        self.field, self.about = field, about
        self.lasting = (300 <= status < 500 or status == 501) and not completion.may_pass(status)


class Endpoint:
    """Calls with time-outs, retries and a budget; threads may share one.

    The key is read from the environment variable that ``api_key_env`` names, and is neither shown nor kept: wherever a
    server repeats it, stars stand in its place (``hide``). Raises :class:`UsageError` for settings that are missing or
    that no request can hold, and for a proxy or certificates that cannot be used.
    """

    def __init__(self, settings: SummarizerConfig, store: SummaryStore) -> None:
        for name in ("base_url", "model"):
            if not getattr(settings, name):
                raise UsageError(f"skills.summarizer = openai needs summarizer.{name} (docs/summarisers.md)")
        self.settings, self.store = settings, store
        self.counts: Counter[str] = Counter()
        #: Settings that the server has refused by name, and what somebody should be told of that.
        self.refused: set[str] = set()
        self.notes: list[str] = []
        self._key = read_key(settings.api_key_env)
        self.hide = Redactor(self._key)
        self._lock = threading.Lock()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._url = f"{str(settings.base_url).rstrip('/')}/chat/completions"
        try:
            httpx2.URL(self._url)
        except httpx2.InvalidURL as error:
            raise UsageError(f"summarizer.base_url: {error}") from None
        self._client = client(self._url, headers=headers, limits=httpx2.Limits(max_connections=None), timeout=None)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a metric."""
        with self._lock:
            self.counts[name] += amount

    def chat(self, messages: Sequence[Message], end: float, **more: Any) -> Answer:
        """One completion, with retries, before ``end`` (monotonic seconds). ``more`` goes into the request, and is left
        out as soon as the server seems to refuse it or to choke on it: the answer's ``refusal`` tells.

        Raises :class:`EndpointError`, or ``BudgetSpent``.
        """
        settings, left_out = self.settings, set(self.refused)
        refusal, retries = None, 0
        while True:
            plain = self._body(messages, left_out)
            body = {**more, **plain}
            self.store.spend_call(settings.max_calls, settings.max_tokens)
            self.count("calls")
            try:
                answer = self._call(body, min(end, time.monotonic() + settings.timeout))
                self._remember(left_out)
                return replace(answer, refusal=refusal)
            except EndpointError as error:
                again = error.passing and retries < settings.max_retries
                if named := self._named(error, plain) - left_out:
                    left_out |= named
                elif error.field and more:
                    more, refusal = {}, error
                elif not again:
                    raise
                if again:
                    self._wait(error, retries, end)
                    self.count("call_retries")
                    retries += 1

    def _named(self, error: EndpointError, body: Mapping[str, Any]) -> set[str]:
        """The settings in ``body`` that a server names as what it does not want."""
        if error.status not in (400, 422):
            return set()
        settings = body.keys() - {"model", "messages", *_RENAMED.values()}
        return {name for name in settings if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", error.about)}

    def _remember(self, left_out: set[str]) -> None:
        """What was left out, with success, is left out from now on."""
        with self._lock:
            for name in sorted(left_out - self.refused):
                other = f"{_RENAMED[name]} is sent in its place" if name in _RENAMED else "it is left out"
                self.notes.append(f"the summariser's server refuses {name}: {other}")
            self.refused |= left_out

    def _body(self, messages: Sequence[Message], left_out: Collection[str]) -> dict[str, Any]:
        settings = self.settings
        body: dict[str, Any] = {"model": settings.model, "messages": list(messages), **settings.extra}
        if settings.temperature is not None:
            body.setdefault("temperature", settings.temperature)
        if "max_completion_tokens" not in body:
            body.setdefault("max_tokens", settings.answer_tokens)
        named = {_RENAMED.get(name, "") if name in left_out else name: value for name, value in body.items()}
        return {name: value for name, value in named.items() if name}

    def _wait(self, error: EndpointError, attempt: int, end: float) -> None:
        """Sleep before the next try: as long as the server asks, or longer every time; never in step with others."""
        asked = error.retry_after
        seconds = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt) if asked is None else asked
        seconds += random.uniform(0, seconds / 2 if asked is None else 0.5)
        if seconds > MAX_WAIT + 1 or time.monotonic() + seconds >= end:
            raise EndpointError(f"{error}; too long to wait for the next try ({seconds:.0f} s)", error.status)
        time.sleep(seconds)

    def _call(self, body: Mapping[str, Any], end: float) -> Answer:
        """One request, in all before ``end``."""
        left = max(0.01, end - time.monotonic())
        try:
            status, headers, data = wait_for(self._exchange(json.dumps(body).encode()), left)
        except TimeoutError:
            raise self._error(
                f"no answer from {self._url} within {max(0.1, round(left, 1)):g} s", passing=True
            ) from None
        except (httpx2.HTTPError, OSError) as error:
            raise self._error(f"no answer from {self._url}: {_cause(error)}", passing=True) from None
        text = self.hide(completion.decode(data))
        tree = completion.body(text)
        about = completion.field(tree)
        if not 200 <= status < 300:
            said = " ".join(completion.complaint(tree).split())[:_LONGEST]
            text = f"HTTP {status}: {said}{self._hint(status, headers)}"
            raise self._error(text, status, completion.may_pass(status), headers, True, about)
        self._spend(completion.tokens(tree) or 0)
        try:
            answer = completion.answer(tree)
        except NoCompletion as error:
            if not error.told and "\ufffd" in text:
                raise self._error("the server's answer is not UTF-8") from None
            field = error.told or error.empty
            passing = error.told and error.passing
            raise self._error(str(error), error.status, passing, headers, field, about) from None
        if completion.tokens(tree) is None:  # a server that does not count: 4 characters are about a token
            self._spend((len(json.dumps(body["messages"])) + len(text)) // 4)
        return replace(answer, text=self.hide(answer.text))

    def _spend(self, tokens: int) -> None:
        self.count("tokens", tokens)
        self.store.spend_tokens(tokens)

    async def _exchange(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer."""
        data = bytearray()
        headers = {"Content-Type": "application/json"}
        async with self._client.stream("POST", self._url, content=body, headers=headers) as reply:
            async for chunk in reply.aiter_bytes():
                data += chunk
                if len(data) > MAX_BYTES:
                    raise self._error(f"the server's answer is larger than {MAX_BYTES >> 20} MiB")
        return reply.status_code, reply.headers, bytes(data)

    def _error(
        self,
        text: str,
        status: int = 0,
        passing: bool = False,
        headers: Mapping[str, str] | None = None,
        told: bool = False,
        about: str = "",
    ) -> EndpointError:
        """What went wrong, in one line that can be shown; ``told``: the server itself says so, or says nothing."""
        return EndpointError(
            printable(self.hide(text), lines=False),
            status,
            passing,
            _retry_after(headers) if headers else None,
            (told or passing) and (status == 0 or status >= 400) and status not in _NOT_OF_A_FIELD,
            about,
        )

    @staticmethod
    def _hint(status: int, headers: Mapping[str, str]) -> str:
        if 300 <= status < 400:
            return f"; it points to {headers.get('location', '')[:_LONGEST]}: is summarizer.base_url right?"
        return {
            401: "; summarizer.api_key_env names the environment variable with the key",
            404: "; are summarizer.base_url (often it ends in /v1) and summarizer.model right?",
        }.get(status, "")


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


def _cause(error: BaseException) -> str:
    """Why a connection failed, as the system says it; libraries wrap that."""
    deepest = error
    while isinstance(deepest.__cause__ or deepest.__context__, Exception):
        deepest = deepest.__cause__ or deepest.__context__  # type: ignore[assignment]
    if isinstance(deepest, OSError) and deepest.errno and deepest.errno > 0 and not isinstance(deepest, ssl.SSLError):
        return os.strerror(deepest.errno)
    text = str(error) or str(deepest) or type(error).__name__
    return f"{text}; SSL_CERT_FILE may name the certificates to trust" if "CERTIFICATE_VERIFY" in text else text


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
