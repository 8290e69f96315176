"""The report of a run while it runs, served to the browsers of this machine alone.

The server listens on the loopback address. The address it prints has a random token, so that other users of the machine
and pages of other sites cannot guess it; a request whose Host header is not this server is refused, so that a name that
somebody points to 127.0.0.1 does not reach it. There is one page, read-only, and nothing else of the disk.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mmsearch.errors import MMSearchError
from mmsearch.recommend import card
from mmsearch.recommend.page import live, page
from mmsearch.recommend.report import drawn
from mmsearch.search.journal import read_events
from mmsearch.search.run_folder import RunFolder, viewed

LOOPBACK = "127.0.0.1"

REST = 2.0
"""Seconds for which a page that was drawn stands at least, whatever the run does."""

SHARE = 0.1
"""Of a core that drawing may take at most: the trainings need the others, and a browser cannot keep one busy."""

_UNDECIDED = ("start", "decode", "teachers", "search", "confirm")
"""Phases in which a recommendation in the folder is that of an earlier session."""

_HEADERS = {
    "Cache-Control": "no-cache, private",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclasses.dataclass(frozen=True)
class Shown:
    """A page as it is served.

    Attributes:
        body: HTML in UTF-8.
        tag: the ETag; the same content has the same.
        done: whether the run is over and the page will not change.
    """

    body: bytes
    tag: str
    done: bool


class LiveReport:
    """The report of a run at this moment; drawn anew only where the run has gone on.

    Args:
        run: the run's folder, or its address.
        nonce: of the page's one script.

    Raises:
        MMSearchError: no run there.
    """

    def __init__(self, run: Path | str, nonce: str) -> None:
        self._run = RunFolder(run)
        self._nonce = nonce
        self._lock = threading.Lock()
        self._state: object = None
        self._due = 0.0
        self._shown: Shown | None = None
        self.now()

    def now(self) -> Shown:
        """The page.

        Raises:
            MMSearchError: the run's folder is gone or its journal damaged.
        """
        with self._lock:
            begun = time.monotonic()
            if self._shown is None or begun >= self._due:
                state = self._run.state(card.FILE)
                if self._shown is None or state != self._state:
                    self._shown, self._state = self._draw(), state
                ended = time.monotonic()
                self._due = ended + max(REST, (ended - begun) / SHARE)
            return self._shown

    def _draw(self) -> Shown:
        run_dir = viewed(self._run.address)
        events = read_events(run_dir)
        phase = next((e["name"] for e in reversed(events) if e["event"] == "phase"), "start")
        decided = phase not in _UNDECIDED and (run_dir / card.FILE).is_file()
        content = page(card.read(run_dir), events, run_dir) if decided else live(events, run_dir.resolve().name)
        body = drawn(content, self._nonce).encode()
        return Shown(body, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"', decided and phase == "done")


class Server(ThreadingHTTPServer):
    """Serves one run's report; `serve_forever` runs it, `server_close` ends it.

    Args:
        run: the run's folder, or its address.
        port: 0 for a free one.

    Attributes:
        address: what to open in a browser.

    Raises:
        MMSearchError: no run there, or the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, run: Path | str, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.nonce = secrets.token_urlsafe(16)
        self.report = LiveReport(run, self.nonce)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as e:
            reason = e.strerror if isinstance(e, OSError) else "a port is a number from 0 to 65535"
            raise MMSearchError(f"--port {port}: cannot listen there: {reason}; leave it out for a free one") from None
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}
        self.address = f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "mmsearch", ""
    timeout = 10.0

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"not this server\n")
        elif not hmac.compare_digest(self.path.encode(), f"/{self.server.token}/".encode()):
            self._answer(HTTPStatus.NOT_FOUND, b"nothing here\n")
        else:
            try:
                shown = self.server.report.now()
            except MMSearchError as e:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{e}\n".encode())
                return
            about = {"ETag": shown.tag, "X-Run": "done" if shown.done else "running"}
            if self.headers.get("If-None-Match") == shown.tag:
                self._answer(HTTPStatus.NOT_MODIFIED, b"", about)
            else:
                self._answer(HTTPStatus.OK, shown.body, {**about, "Content-Type": "text/html; charset=utf-8"})

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> None:
        nonce = self.server.nonce
        policy = (
            "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; connect-src 'self'; "
            f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        own = {"Content-Type": "text/plain; charset=utf-8", "Content-Security-Policy": policy, **_HEADERS}
        self.send_response(status)
        for name, value in {**own, **(headers or {})}.items():
            self.send_header(name, value)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the person's."""
