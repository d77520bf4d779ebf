"""A small HTTP server that answers chat requests as a test says, including faults. It runs no model."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from vlprm.policy.open import open_policy
from vlprm.serving.config import ModelConfig, ServerConfig

Body = dict[str, Any]
Answer = tuple[int, str, str]  # status, content type (`cut`: JSON that ends before its end), body
KEY = "secret-of-the-servers"


def completion(*texts: str | None, reason: str = "stop", read: int | None = None) -> Answer:
    listed = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        for i, text in enumerate(texts)
    ]
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "policy", "choices": listed}
    usage = {} if read is None else {"usage": {"prompt_tokens": read}}
    return 200, "application/json", json.dumps({**body, **usage})


def as_asked(body: Body) -> Answer:
    return completion(*(f"[answer] {i}" for i in range(body["n"])) if "n" in body else "[answer] 0")


class StandIn(ThreadingHTTPServer):
    """Answers as `reply` says, and records the requests and how many calls were open at once."""

    request_queue_size = 128  # the default of 5 resets some of many connections made at once

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply: Callable[[Body], Answer] = as_asked
        self.asked: list[Body] = []
        self.keys: set[str | None] = set()
        self.open = self.most_open = 0
        self.models: list[dict[str, Any]] = []
        self.version: str | None = None  # that a vLLM would say
        self.away = False  # then it accepts connections and closes them without an answer
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed client leaves a connection that nobody reads."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_GET(self) -> None:
        """The list of models, from which a client sees that the server is up, or the version."""
        if self.server.away:
            self.close_connection = True
        elif self.path == "/version":
            known = json.dumps({"version": self.server.version})
            self._send(200 if self.server.version else 404, "application/json", known)
        else:
            self._send(200, "application/json", json.dumps({"object": "list", "data": self.server.models}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.keys.add(self.headers["Authorization"])
            self.server.open += 1
            self.server.most_open = max(self.server.most_open, self.server.open)
        try:
            status, kind, text = self.server.reply(body)
            if self.server.away:
                self.close_connection = True
                return
        finally:
            with self.server.lock:
                self.server.open -= 1
        self._send(status, kind, text)

    def _send(self, status: int, kind: str, text: str) -> None:
        cut = kind == "cut"
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if cut else kind)
        self.send_header("Content-Length", str(len(text.encode()) * (2 if cut else 1)))
        self.end_headers()
        self.wfile.write(text.encode())
        self.close_connection = cut

    def log_message(self, format: str, *args: object) -> None:
        pass


def config_of(*servers: StandIn, **changes: Any) -> ServerConfig:
    return ServerConfig(
        tuple(s.url for s in servers), "policy", **{"retries": 0, "timeout": 20.0, "patience": 5.0, **changes}
    )


def open_on(backbone: Path, config: ServerConfig) -> None:
    async def enter() -> None:
        async with open_policy(ModelConfig(str(backbone), config)):
            pass

    asyncio.run(enter())
