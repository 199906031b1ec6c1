"""The server of examples/http_hello.py over ``select.epoll`` itself: what the library's share is measured against.

    python benchmarks/bare_epoll.py --port 8080

The same protocol code and the same system calls a request, with nothing between the loop and the kernel: plain
sockets, a dictionary from descriptor to handler, no waker, no parking. Not a server to put before anybody.
"""

from __future__ import annotations

import argparse
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from http_hello import RESPONSE
from http_requests import Requests

assert sys.platform == "linux", "epoll is Linux's"


class Server:
    """The listener and the loop."""

    def __init__(self, listener: socket.socket) -> None:
        self.epoll = select.epoll()
        self.buffer = memoryview(bytearray(64 * 1024))
        self.handlers: dict[int, Callable[[], None]] = {listener.fileno(): self.on_connection}
        self._listener = listener
        self.epoll.register(listener, select.EPOLLIN)

    def run(self) -> None:
        """Serve until a signal handler raises."""
        handlers = self.handlers
        while True:
            for fd, _ in self.epoll.poll(None, 1024):
                handlers[fd]()

    def on_connection(self) -> None:
        """Accept who waits."""
        try:
            for _ in range(64):
                Connection(self, self._listener.accept()[0])
        except BlockingIOError:
            pass


class Connection:
    """One client."""

    __slots__ = ("_requests", "_server", "_stream", "_unsent")

    def __init__(self, server: Server, stream: socket.socket) -> None:
        self._server = server
        self._stream = stream
        self._requests = Requests()
        self._unsent = memoryview(b"")
        stream.setblocking(False)
        server.epoll.register(stream, select.EPOLLIN)
        server.handlers[stream.fileno()] = self.on_readable

    def on_readable(self) -> None:
        """Receive once, and answer."""
        try:
            size = self._stream.recv_into(self._server.buffer)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if size and (requests := self._requests.feed(self._server.buffer[:size].tobytes())):
            self._send(RESPONSE * requests)
        elif not size or self._requests.finished:
            self.close()

    def on_writable(self) -> None:
        """Go on sending."""
        self._send(self._unsent)

    def _send(self, data: bytes | memoryview) -> None:
        try:
            sent = self._stream.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._watch(self.on_writable, select.EPOLLOUT)
        elif self._requests.finished:
            self.close()
        elif self._unsent:
            self._unsent = memoryview(b"")
            self._watch(self.on_readable, select.EPOLLIN)

    def _watch(self, handler: Callable[[], None], events: int) -> None:
        self._server.handlers[self._stream.fileno()] = handler
        self._server.epoll.modify(self._stream, events)

    def close(self) -> None:
        """Leave the set, then close."""
        del self._server.handlers[self._stream.fileno()]
        self._server.epoll.unregister(self._stream)
        self._stream.close()


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["epoll"], default="epoll", help="there is only one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free (default: %(default)s)")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    with socket.create_server((arguments.host, arguments.port), backlog=1024) as listener:
        listener.setblocking(False)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = listener.getsockname()[:2]
        print(f"listening on http://{host}:{port} (bare epoll)", flush=True)
        Server(listener).run()


if __name__ == "__main__":
    main()
