"""An OpenAI-compatible server on loopback that misbehaves as told: real HTTP, faults of every kind."""

import base64
import html
import itertools
import json
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from skillsd.config import SummarizerConfig
from skillsd.skills.summarize.openai import OpenAISummarizer
from skillsd.skills.summarize.store import SummaryStore
from skillsd.types import SummaryRequest, Task, Trajectory, Turn

GOOD = {
    "success_analysis": "Push the box from the far side. 箱を押す 🙂",
    "mistake_analysis": "Walking in circles wasted moves.",
    "golden_workflow": "Stand behind the box, push it up to the target.",
}


def completion(content, finish="stop", **more):
    tree = {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": finish}]}
    return json.dumps({**tree, "usage": {"total_tokens": 100}, **more}, ensure_ascii=False).encode()


def good_with(text):
    return completion(json.dumps({**GOOD, "success_analysis": text}))


def message(content=None, finish="stop", **fields):
    """A whole answer: (status, headers, body)."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **fields}}
    return said({"choices": [choice], "usage": {"total_tokens": 100}})


def said(tree, status=200, **headers):
    return status, headers, json.dumps(tree).encode()


def error(said_, code=None, **more):
    return {"error": {"message": said_, **({} if code is None else {"code": code})}, **more}


def escaped(text, depth=1):
    """Every character as a JSON escape, that escaped again, and so on."""
    text = "".join(f"\\u{ord(c):04x}" for c in text)
    return text if depth == 1 else text.replace("\\", "\\" * 2 ** (depth - 1))


#: Ways in which servers and gateways repeat a header's key, as it stands in their answer's JSON.
ECHOES = {
    "plain": lambda key: key,
    "slashes": lambda key: key.replace("/", "\\/").replace("+", "\\u002b"),
    "escaped": escaped,
    "escaped twice": lambda key: escaped(key, 2),
    "escaped thrice": lambda key: escaped(key, 3),
    "url": lambda key: urllib.parse.quote(key, safe=""),
    "url twice": lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
    "html": lambda key: html.escape("".join(f"&#{ord(c)};" for c in key)).replace("&amp;", "&"),
    "basic header": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "base64 of the header": lambda key: base64.b64encode(f"Bearer {key}\r\n".encode()).decode(),
    "base64, escaped": lambda key: escaped(base64.b64encode(key.encode()).decode()),
    "hexadecimal": lambda key: key.encode().hex(),
}


#: name -> (status, headers, body); the other faults are in ``Handler.misbehave``.
ANSWERS = {
    "good": (200, {}, completion(json.dumps(GOOD, ensure_ascii=False))),
    "fenced": (200, {}, completion(f"Sure!\n```json\n{json.dumps(GOOD)}\n```\nHope this helps {{smile}}.")),
    "garbage": (200, {}, completion("I like trains.")),
    "half": (200, {}, completion(json.dumps(GOOD)[:90], finish="length")),
    "wrong_schema": (200, {}, completion('{"success_analysis": "a", "advice": "b"}')),
    "wrong_types": (200, {}, completion(json.dumps({**GOOD, "golden_workflow": 7}))),
    "surrogates": (200, {}, good_with("\ud800")),
    "no_content": (200, {}, completion(None)),
    "not_json": (200, {}, b"<html>hello</html>"),
    "no_choices": (200, {}, b'{"choices": []}'),
    "latin": (200, {}, b'{"choices": "\xe9\xff"}'),
    "deep": (200, {}, b"[" * 100_000),
    "huge": (200, {}, b" " * (6 << 20)),
    "many_words": (200, {}, completion("{" * 200_000)),
    "long_field": (200, {}, good_with("word " * 2000)),
    "parrot": (200, {}, good_with("What was the strategy that led to success here, or what would have been?")),
    "busy": (429, {"Retry-After": "1"}, b'{"error": {"message": "slow down"}}'),
    "very_busy": (429, {"Retry-After": "86400"}, b'{"error": {"message": "quota"}}'),
    "broken": (500, {}, b"Internal Server Error"),
    "no_model": (404, {}, b'{"error": {"message": "The model `x` does not exist."}}'),
    "moved": (302, {"Location": "http://127.0.0.1:9/"}, b""),
    "no_schema": (400, {}, b'{"error": {"message": "response_format is not supported"}}'),
}  # fmt: skip


class FaultServer:
    """``plan`` says what the next requests get (the last goes on for ever), or is a function of the request's body."""

    # An item is a fault's name, a whole answer (status, headers, body), or a function of the key that makes one.

    def __init__(self, *plan):
        self.plan, self.bodies, self.headers, self.times = list(plan), [], [], []
        self.busy = self.busiest = 0
        self.lock, self.release = threading.Lock(), threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                owner.serve(self)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()

    def serve(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.times.append(time.monotonic())
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            kind = self.plan[0](body) if callable(self.plan[0]) else self.plan[0]
            if len(self.plan) > 1:
                self.plan.pop(0)
        try:
            self.misbehave(handler, kind, body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client had enough
        finally:
            with self.lock:
                self.busy -= 1

    def misbehave(self, handler, kind, body):
        if kind == "closes":
            handler.close_connection = True
            return
        if kind == "silent":
            self.release.wait(20)
            return
        if kind == "drips":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
            for _ in range(100):
                handler.wfile.write(b" ")
                if self.release.wait(0.1):
                    return
            return
        if kind == "slow":
            time.sleep(0.15)
            kind = "good"
        if kind == "schema_only_refused":
            kind = "no_schema" if "response_format" in body else "good"
        if kind == "echo_key":
            said = f"wrong key {handler.headers['Authorization']}"
            status, headers, data = 401, {}, json.dumps({"error": {"message": said}}).encode()
        elif kind == "key_in_skill":
            status, headers, data = 200, {}, good_with(f"use {handler.headers['Authorization']}")
        else:
            kind = kind(handler.headers["Authorization"].removeprefix("Bearer ")) if callable(kind) else kind
            status, headers, data = ANSWERS[kind] if isinstance(kind, str) else kind
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


def serving(monkeypatch, key):
    """For a fixture: what starts servers, with ``key`` in MY_KEY and short waits between tries; it ends them too."""
    monkeypatch.setenv("MY_KEY", key)
    monkeypatch.setattr("skillsd.skills.summarize.endpoint._FIRST_WAIT", 0.01)
    servers = []

    def start(*plan, kind=FaultServer):
        servers.append(kind(*plan))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class DripServer:
    """A server that never ends its answer: ``begin``, then ``drop`` for ever, ``pause`` seconds apart."""

    def __init__(self, begin, drop, pause=0.02):
        self.begin, self.drop, self.pause = begin, drop, pause
        self.ended, self.lost = threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.drip, args=(connection,), daemon=True).start()

    def drip(self, connection):
        with connection:
            try:
                connection.recv(1 << 20)
                connection.sendall(self.begin)
                for number in itertools.count():
                    connection.sendall(self.drop.replace(b"#", str(number).encode()))
                    if self.ended.wait(self.pause):
                        return
            except OSError:
                self.lost.set()  # the client hung up

    def close(self):
        self.ended.set()
        self.listener.close()


def request(number=0):
    trajectory = Trajectory("t", 1, number, "push", [1], [number], turns=[Turn("up", "wall", True)])
    return SummaryRequest(trajectory, Task("t"))


def summarizer(server, **settings):
    values = {"base_url": server.url, "model": "m", "api_key_env": "MY_KEY", "timeout": 5, "max_retries": 1}
    return OpenAISummarizer(SummarizerConfig(**{**values, **settings}), SummaryStore(None))


def text(words, kind="text"):
    return {"type": kind, "text": words}
