"""An HTTP front before a server, which answers some requests itself: denied, broken, too busy."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

CODES = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}
HOP = ("connection", "transfer-encoding", "content-length")


class Front:
    """Stands before ``target``, an address such as http://127.0.0.1:5000."""

    def __init__(self, target: str) -> None:
        self.refuse: Callable[[str, str], int] = lambda _method, _path: 0
        """The status that a request gets, by method and path; 0: the server's own answer."""
        self.refused: list[str] = []
        front, host = self, target.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            methods: ClassVar[list[str]] = ["GET", "PUT", "POST", "DELETE", "HEAD"]

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status = front.refuse(self.command, self.path)
                if status:
                    front.refused.append(f"{self.command} {self.path}")
                    text = f"<Error><Code>{CODES[status]}</Code></Error>".encode()
                    self._answer(status, {}, text)
                    return
                server = http.client.HTTPConnection(host, timeout=30)
                server.request(self.command, self.path, body, dict(self.headers))
                answer = server.getresponse()
                found = answer.read()
                headers = {k: v for k, v in answer.getheaders() if k.lower() not in HOP}
                if self.command == "HEAD":
                    headers["Content-Length"] = answer.getheader("Content-Length", "0")
                self._answer(answer.status, headers, found)
                server.close()

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        for method in Handler.methods:
            setattr(Handler, f"do_{method}", Handler.handle_any)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
