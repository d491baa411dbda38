"""HTTP clients as this program makes them, whatever the environment says of proxies and certificates."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import httpx2

from skillsd.errors import UsageError

T = TypeVar("T")

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def certificates(url: str) -> ssl.SSLContext:
    """What an https server at ``url`` has to prove itself by. Raises :class:`UsageError` (one line) if it is not there.

    For plain http nothing is read: such a client trusts nobody, and needs not.
    """
    if urlsplit(url).scheme != "https":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    named = [name for name in _CERTIFICATES if os.environ.get(name)]
    try:
        if named and not os.path.exists(os.environ[named[0]]):
            raise FileNotFoundError(f"there is no {os.environ[named[0]]}")
        return httpx2.create_ssl_context()
    except (OSError, ValueError) as error:
        remedy = f"correct or unset {named[0]}" if named else "SSL_CERT_FILE may name them"
        raise UsageError(f"the certificates for {url} cannot be read ({error}): {remedy}") from None


def client(url: str, **options: Any) -> httpx2.AsyncClient:
    """A client for the server at ``url``, through the proxy that the environment names, unless that is this machine.

    Raises :class:`UsageError` (one line) for a proxy or certificates that cannot be used.
    """
    trusted = certificates(url)
    try:
        return httpx2.AsyncClient(verify=trusted, trust_env=not _direct(urlsplit(url).hostname or ""), **options)
    except (ImportError, ValueError, TypeError, OSError, httpx2.InvalidURL) as error:
        named = [name for name in os.environ if name.upper() in _PROXIES]
        remedy = "pip install 'httpx2[socks]', or " if isinstance(error, ImportError) else ""
        raise UsageError(
            f"the proxy that the environment names ({', '.join(named)}) cannot be used for {url}: "
            f"{remedy}correct or unset it, or name the host in NO_PROXY"
        ) from None


def _direct(host: str) -> bool:
    """Whether a server is asked without a proxy: this machine's own always are (a proxy would ask itself)."""
    try:
        own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        own = host == "localhost" or host.endswith(".localhost")
    return own or bool(proxy_bypass(host))


def wait_for(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """The result of ``work``, from any thread.

    Raises ``TimeoutError`` after ``seconds``, whatever it waits for: a name, a connection, headers or a body that come
    in drips. What it holds, a connection for one, is closed then.
    """

    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await work

    future = asyncio.run_coroutine_threadsafe(bounded(), _loop())
    try:
        return future.result()
    finally:
        future.cancel()  # the caller was interrupted


@cache
def _new_loop(process: int) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # every caller hears of its own; at exit nobody listens
    threading.Thread(target=loop.run_forever, daemon=True, name="skillsd-http").start()
    return loop


_lock = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all clients, in a thread that does not hold up the end of the process."""
    with _lock:
        return _new_loop(os.getpid())  # a forked process has no such thread
