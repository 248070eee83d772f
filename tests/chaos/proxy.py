"""A TCP proxy that spoils connections: cut, silent, slow, refused.

It runs in threads of its own. While it is silent or slow both ends believe that the connection
lives: their kernels answer each other, only the data does not come.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

Mode = Literal["pass", "silent", "drip", "refuse"]
DRIP_BYTES, DRIP_SECONDS = 64, 0.02
"""So many bytes at a time, and such a pause after them, when it drips."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """One connection and its other half."""

    ends: tuple[socket.socket, socket.socket]

    def other(self, end: socket.socket) -> socket.socket:
        return self.ends[1] if end is self.ends[0] else self.ends[0]


class Proxy:
    """Stands before one address: host and port, or the path of a socket."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self.mode: Mode = "pass"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._pairs: dict[socket.socket, _Pair] = {}
        self._lock = threading.Lock()
        self._cut = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"proxy {self.port}", daemon=True)
        self._thread.start()

    def cut(self) -> int:
        """Reset every connection; return how many there were."""
        count = self.connections
        self._cut.set()
        while self._cut.is_set() and self._thread.is_alive():
            time.sleep(0.002)
        return count

    @property
    def connections(self) -> int:
        with self._lock:
            return len(self._pairs) // 2

    @property
    def withheld(self) -> bool:
        """Whether something was sent to the target that does not come through: it is silent."""
        with self._lock:
            clients = {pair.ends[0] for pair in self._pairs.values()}
        return self.mode == "silent" and any(_has_data(client) for client in clients)

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _serve(self) -> None:
        try:
            while not self._stopped.is_set():
                self._once()
        finally:
            self._cut_all()
            self._listener.close()

    def _once(self) -> None:
        if self._cut.is_set() or self.mode == "refuse":
            self._cut_all()
            self._cut.clear()
        self._accept()
        if self.mode == "silent":
            time.sleep(0.01)
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            for end in self._pairs:
                selector.register(end, selectors.EVENT_READ)
            for key, _ in selector.select(0.02):
                if key.fileobj in self._pairs:
                    self._forward(key.fileobj)  # type: ignore[arg-type]

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            client, _ = self._listener.accept()
            if self.mode == "refuse":
                _reset(client)
                return
            try:
                server = self._connect()
            except OSError:
                _reset(client)
                return
            pair = _Pair((client, server))
            for end in pair.ends:
                end.settimeout(5.0)
                with suppress(OSError):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs |= {client: pair, server: pair}

    def _connect(self) -> socket.socket:
        if isinstance(self._target, tuple):
            return socket.create_connection(self._target, timeout=2.0)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.settimeout(2.0)
            server.connect(self._target)
        except OSError:
            server.close()
            raise
        return server

    def _forward(self, end: socket.socket) -> None:
        pair = self._pairs[end]
        drip = self.mode == "drip"
        try:
            data = end.recv(DRIP_BYTES if drip else 65_536)
            if data:
                pair.other(end).sendall(data)
                if drip:
                    time.sleep(DRIP_SECONDS)
                return
        except OSError:
            pass
        self._drop(pair)

    def _drop(self, pair: _Pair) -> None:
        for end in pair.ends:
            with self._lock:
                self._pairs.pop(end, None)
            end.close()

    def _cut_all(self) -> None:
        for pair in set(self._pairs.values()):
            with self._lock:
                for end in pair.ends:
                    self._pairs.pop(end, None)
            for end in pair.ends:
                _reset(end)


def _has_data(end: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(end, selectors.EVENT_READ)
        return bool(selector.select(0) and end.recv(1, socket.MSG_PEEK))  # no bytes: it was closed


def _reset(end: socket.socket) -> None:
    """Close with RST, as a machine that has forgotten the connection."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
