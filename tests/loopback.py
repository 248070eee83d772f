"""Servers on this machine that behave badly: they accept, and are silent or never finish."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def silent() -> Iterator[int]:
    """The port of a server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield int(listener.getsockname()[1])


@contextmanager
def dripping(first: bytes, drop: bytes = b"x") -> Iterator[int]:
    """The port of a server that begins an answer and never comes to its end."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):  # whoever has heard enough hangs up
            connection.sendall(first)
            while not over.wait(0.02):
                connection.sendall(drop)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=drip, args=[connection]))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            for thread in [acceptor, *threads]:
                thread.join()


@contextmanager
def refusing() -> Iterator[int]:
    """A port that nothing listens on, and that nobody else is given meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
