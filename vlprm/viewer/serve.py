"""Serve pages on this machine only: `LocalServer`, and with it a page with too many problems for one file.

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
from abc import ABC, abstractmethod
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
JSON, HTML = "application/json", "text/html; charset=utf-8"
LONGEST = 1 << 16  # bytes of what a page may send


class LocalServer(ThreadingHTTPServer, ABC):
    """Answers on the loopback address at `url`. UserError if it cannot listen on the port."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
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

    @abstractmethod
    def answer(self, path: str, number: Callable[[str], int]) -> Answer | None:
        """The media type and body at an address, whose parameters `number` reads; None for an unknown address."""

    def take(self, path: str, sent: dict[str, Any]) -> Answer | None:
        """Take what the page sent to an address, and answer; None if nothing can be sent there."""
        return None


class PageServer(LocalServer):
    """Serves one run's page."""

    def __init__(self, port: int, title: str, sections: Sequence[Markup], problems: Problems) -> None:
        self.page = render_served(title, sections, problems).encode()
        self.problems = problems
        self.facts = [_facts(problems, at) for at in range(len(problems))]
        super().__init__(port)

    def answer(self, path: str, number: Callable[[str], int]) -> Answer | None:
        """The page, its facts, a problem or an image."""
        if path == "/":
            return HTML, self.page
        if path == "/facts":
            first = number("from")
            return JSON, b"[" + b",".join(self.facts[first : first + number("count")]) + b"]"
        if path == "/problem":
            view, images = self._read(number("at"))
            return JSON, json.dumps(problem_json(view, images), allow_nan=False).encode()
        if path == "/image":
            _, images = self._read(number("at"))
            return image_answer(images, number)
        return None

    def _read(self, at: int) -> tuple[ProblemView, tuple[bytes, ...]]:
        with self.lock:
            return self.problems.view(at), self.problems.images(at)


def image_answer(images: Sequence[bytes], number: Callable[[str], int]) -> Answer:
    """The image that the parameters `index` and `small` name, as a file that the page shows."""
    shown = thumbnail(images[number("index")], SMALL if number("small") else LARGE)
    return media_type(shown), shown


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LocalServer

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        self._answer(lambda: self.server.answer(asked.path, _numbers(asked.query)))

    def do_POST(self) -> None:
        self._answer(lambda: self.server.take(urlsplit(self.path).path, self._sent()))

    def _sent(self) -> dict[str, Any]:
        """The JSON object that the page sent. A page of another site may send requests here too, but not with this
        type and under our own origin."""
        self.close_connection = True  # what is not read would be taken for the next request
        length = self.headers.get("Content-Length", "")
        origins = {f"http://{host}" for host in self.server.hosts}
        if self.headers.get("Origin") not in origins or self.headers.get("Content-Type") != JSON:
            raise UserError("only the page of this server can send something")
        if not (length.isascii() and length.isdigit() and int(length) <= LONGEST):
            raise UserError(f"send at most {LONGEST} bytes")
        sent = json.loads(self.rfile.read(int(length)))
        if not isinstance(sent, dict):
            raise UserError("send a JSON object")
        return sent

    def _answer(self, asked: Callable[[], Answer | None]) -> None:
        # Against DNS rebinding: another site's name may resolve to this machine, but its Host header gives it away.
        if self.headers.get("Host") not in self.server.hosts:
            return self._send(
                HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"this server answers for this machine alone"
            )
        try:
            answer = asked()
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
