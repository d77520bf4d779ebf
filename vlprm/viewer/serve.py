"""Serve a page with too many problems for one file, on this machine only.

The facts of all problems are read when the server starts and kept as text (some hundred bytes per problem); everything
else is read on request. There are four addresses, none of which names a file:

    /                        the page
    /facts?from=0&count=9    what the list of problems shows and filters by
    /problem?at=7            one problem
    /image?at=7&index=0&small=0
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from markupsafe import Markup

from vlprm.errors import UserError
from vlprm.viewer.page import problem_json, render_served
from vlprm.viewer.pictures import media_type, thumbnail
from vlprm.viewer.views import Problems, ProblemView

log = logging.getLogger(__name__)

SMALL = 4_000  # maximum bytes of an image in the list
LARGE = 400_000
Answer = tuple[str, bytes]  # media type and body
JSON = "application/json"


class PageServer(ThreadingHTTPServer):
    """Serves one run's page on the loopback address at `url`. UserError if it cannot listen on the port."""

    daemon_threads = True

    def __init__(self, port: int, title: str, sections: Sequence[Markup], problems: Problems) -> None:
        self.page = render_served(title, sections, problems).encode()
        self.problems = problems
        self.facts = [_facts(problems, at) for at in range(len(problems))]
        self.lock = Lock()  # a source of problems reads files and need not be thread-safe
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(f"cannot listen on port {port} ({error}); pass another --port, or 0") from error
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore closed connections: the browser has moved on to another problem."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def answer(self, path: str, number: Callable[[str], int]) -> Answer | None:
        """The media type and body at an address, whose parameters `number` reads; None for an unknown address."""
        if path == "/":
            return "text/html; charset=utf-8", self.page
        if path == "/facts":
            first = number("from")
            return JSON, b"[" + b",".join(self.facts[first : first + number("count")]) + b"]"
        if path == "/problem":
            view, images = self._read(number("at"))
            return JSON, json.dumps(problem_json(view, images), allow_nan=False).encode()
        if path == "/image":
            _, images = self._read(number("at"))
            shown = thumbnail(images[number("index")], SMALL if number("small") else LARGE)
            return media_type(shown), shown
        return None

    def _read(self, at: int) -> tuple[ProblemView, tuple[bytes, ...]]:
        with self.lock:
            return self.problems.view(at), self.problems.images(at)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PageServer

    def do_GET(self) -> None:
        # Against DNS rebinding: another site's name may resolve to this machine, but its Host header gives it away.
        if self.headers.get("Host") not in self.server.hosts:
            return self._send(
                HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"this server answers for this machine alone"
            )
        asked = urlsplit(self.path)
        try:
            answer = self.server.answer(asked.path, _numbers(asked.query))
        except LookupError as error:
            return self._send(HTTPStatus.NOT_FOUND, "text/plain", f"there is no {error}".encode())
        except ValueError as error:
            return self._send(HTTPStatus.BAD_REQUEST, "text/plain; charset=utf-8", str(error).encode())
        if answer is None:
            return self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is nothing at this address")
        return self._send(HTTPStatus.OK, *answer)

    def _send(self, status: HTTPStatus, media: str, body: bytes) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": media,
            "Content-Length": str(len(body)),
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Content-Security-Policy": "frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)


def _numbers(query: str) -> Callable[[str], int]:
    """The parameters of an address, which must be non-negative integers. UserError if one is missing or malformed."""
    parameters = parse_qs(query)

    def number(name: str) -> int:
        (text,) = parameters.get(name, [""])[:1]
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise UserError(f"{name} must be a non-negative integer")
        return int(text)

    return number


def _facts(problems: Problems, at: int) -> bytes:
    return json.dumps(problems.facts(at), allow_nan=False).encode()
