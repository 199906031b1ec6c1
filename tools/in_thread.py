"""A server of ``examples/workers.py`` in a thread of this process, for tests that look inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from workers import Server
from workers_connection import Connection, Protocol

from polling import Poll, Waker
from polling.net import TcpListener

PATIENCE = 30.0  # seconds that it may take to end


@contextmanager
def serving(
    backend: str,
    protocol: Callable[[Connection], Protocol],
    workers: int = 2,
    *,
    poll_type: type[Poll[Any]] = Poll,
    listener_type: type[TcpListener] = TcpListener,
) -> Iterator[tuple[str, int]]:
    """Serve, and give the address. It has ended when this has."""
    with poll_type(backend) as poll, listener_type.open(("127.0.0.1", 0)) as listener:
        server = Server(poll, listener, protocol)
        stop = Waker(poll, server.stop)
        thread = Thread(target=server.run, args=(workers,))
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            stop.wake()
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the server does not end"
