"""The connections of one post, which can be ended from outside.

A receiver that says a byte now and then would keep the thread that listens to it for ever. When the
time is over its connections are shut, whatever is being read or encrypted on them, and the thread
comes to its end.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests


class Line:
    """Connections of one post, noted as they are made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._copies: list[socket.socket] = []

    def note(self, opened: socket.socket) -> socket.socket:
        """Keep a copy of a connection: what encrypts it takes the socket itself away."""
        with self._lock:
            if self._over:
                opened.close()
                raise TimeoutError
            self._copies.append(opened.dup())
        return opened

    def hang_up(self) -> None:
        """End them: whoever waits for an answer is told that there is none."""
        with self._lock:
            self._over = True
            for copy in self._copies:
                with suppress(OSError):
                    copy.shutdown(socket.SHUT_RDWR)
        self.put_down()

    def put_down(self) -> None:
        """Let go of the copies, when the post is over."""
        with self._lock:
            for copy in self._copies:
                copy.close()
            self._copies.clear()

    def session(self) -> requests.Session:
        """A session whose connections are noted, but for those through a proxy."""
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.connection import HTTPConnection, HTTPSConnection
        from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

        line = self

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return line.note(super()._new_conn())

        class Encrypted(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return line.note(super()._new_conn())

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class EncryptedPool(HTTPSConnectionPool):
            ConnectionCls = Encrypted

        class Adapter(HTTPAdapter):
            def init_poolmanager(self, *how: Any, **more: Any) -> None:
                super().init_poolmanager(*how, **more)
                pools = {"http": PlainPool, "https": EncryptedPool}
                self.poolmanager.pool_classes_by_scheme = pools

        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, Adapter())
        return session
