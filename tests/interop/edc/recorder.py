"""A reverse proxy on loopback that keeps what passes: every request and its answer, in order.

Put in front of a connector's door, and named as its address, it shows what the other side really
sends. It is no part of any assertion about times: it handles one message per connection.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})
TIMEOUT_S = 30


@dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer_headers: dict[str, str]
    answer: bytes

    def __str__(self) -> str:
        sent = "".join(f"{name}: {value}\n" for name, value in self.headers.items())
        got = "".join(f"{name}: {value}\n" for name, value in self.answer_headers.items())
        return (
            f"{self.method} {self.path}\n{sent}\n{_pretty(self.body)}\n"
            f"-> {self.status}\n{got}\n{_pretty(self.answer)}\n"
        )


@dataclass
class Recorder:
    """Where the proxy listens, and what it saw so far.

    ``lose``: endings of paths whose next answer gets lost, once for each: the message arrives, and
    its sender hears 503.
    """

    url: str
    exchanges: list[Exchange] = field(default_factory=list)
    lose: list[str] = field(default_factory=list)

    def lost(self, path: str) -> bool:
        for ending in self.lose:
            if path.endswith(ending):
                self.lose.remove(ending)
                return True
        return False

    def messages(self, kind: str) -> list[dict[str, object]]:
        """The requests' bodies whose ``@type`` is ``kind``, in order."""
        bodies = [json.loads(seen.body) for seen in self.exchanges if seen.body]
        return [body for body in bodies if body.get("@type") == kind]


@contextmanager
def record(port: int, upstream: str) -> Iterator[Recorder]:
    """Listen on the loopback ``port`` (0: any) and pass everything to ``upstream``'s host."""
    target = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            connection = http.client.HTTPConnection(
                str(target.hostname), target.port, timeout=TIMEOUT_S
            )
            try:
                connection.request(self.command, self.path, body or None, headers)
                response = connection.getresponse()
                answer = response.read()
            finally:
                connection.close()
            kept = {k: v for k, v in response.getheaders() if k.lower() not in HOP_BY_HOP}
            recorder.exchanges.append(
                Exchange(self.command, self.path, headers, body, response.status, kept, answer)
            )
            if recorder.lost(self.path):
                self.send_response_only(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response_only(response.status)
            for name, value in kept.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what passed is in the recorder."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    recorder = Recorder(f"http://127.0.0.1:{server.server_port}{target.path}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()


def _pretty(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False) + "\n"
    except ValueError:
        return body.decode(errors="replace")
