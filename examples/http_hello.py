"""A web server that says hello: the whole of polling on one page.

    python examples/http_hello.py --backend epoll --port 8080
    curl -i http://127.0.0.1:8080/

Every complete request gets the same answer. A client may send half a request, or sixty-four at once. It may not read
its answers: they wait, and nothing more is read from it until they are gone. The process may run out of descriptors:
the listener is parked for a moment. The token of each source is the function to call when it is ready, so that there
is nothing to look up.

One thread uses one core. For more there is ``--processes``: each has its own listener for the same port, and the kernel
deals new connections out among them (SO_REUSEPORT). Nothing is shared, and nothing has to be locked.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Callable
from time import monotonic
from typing import ClassVar

from http_requests import Requests
from serving import announce, listen, on_signals, options

from polling import Interest, Mode, Poll
from polling.net import TcpListener, TcpStream

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: keep-alive\r\nContent-Length: 6\r\n\r\nhello\n"
PARKED = 0.1  # seconds without accepting when there is no descriptor left
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Token = Callable[[], None]


class Connection:
    """One client. It is watched for readability or, while answers wait to be sent, for writability: never both."""

    __slots__ = ("_requests", "_server", "_stream", "_unsent")
    mode: ClassVar = Mode.LEVEL

    def __init__(self, server: Server, stream: TcpStream) -> None:
        self._server = server
        self._stream = stream
        self._requests = Requests()
        self._unsent = memoryview(b"")
        server.poll.register(stream, self.on_readable, Interest.READABLE, self.mode)
        server.connections.add(self)

    def on_readable(self) -> None:
        """Receive once, and answer. Level mode reports what was left, so there is no need to ask again."""
        try:
            size = self._stream.recv_into(self._server.buffer)
        except BlockingIOError:
            return
        except OSError:  # a reset, for one, and no concern of the other clients
            size = 0
        if size and (requests := self._requests.feed(self._server.buffer[:size].tobytes())):
            self._send(RESPONSE * requests)
        elif not size or self._requests.finished:
            self.close()

    def on_writable(self) -> None:
        """Send what had to wait."""
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
            if not self._unsent:
                self._server.poll.reregister(self._stream, self.on_writable, Interest.WRITABLE, Mode.LEVEL)
            self._unsent = memoryview(data)[sent:]
        elif self._requests.finished:
            self.close()
        elif self._unsent:
            self._unsent = memoryview(b"")
            self._server.poll.reregister(self._stream, self.on_readable, Interest.READABLE, Mode.LEVEL)

    def close(self) -> None:
        """Leave the poll first and close then: nothing is ever reported for a descriptor that is gone."""
        self._server.connections.discard(self)
        self._server.poll.deregister(self._stream)
        self._stream.close()


class Server:
    """The listener, its connections, and the loop."""

    def __init__(self, poll: Poll[Token], listener: TcpListener, connection: type[Connection] = Connection) -> None:
        self.poll = poll
        self.connections: set[Connection] = set()
        self.buffer = memoryview(bytearray(64 * 1024))  # one for all: what was received is used up before the next call
        self._connection = connection
        self._listener = listener
        self._parked_until: float | None = None  # on the monotonic clock
        self._running = True
        poll.register(listener, self.on_connection, Interest.READABLE, Mode.LEVEL)

    def run(self) -> None:
        """Serve until ``stop`` is called."""
        try:
            while self._running:
                parked = self._parked_until
                for event in self.poll.poll(None if parked is None else max(0, parked - monotonic())):
                    event.token()
                if parked is not None and parked <= monotonic():
                    self._parked_until = None
                    self.poll.reregister(self._listener, self.on_connection, Interest.READABLE, Mode.LEVEL)
        finally:
            for connection in list(self.connections):
                connection.close()
            self.poll.deregister(self._listener)

    def stop(self) -> None:
        """Let ``run`` return."""
        self._running = False

    def on_connection(self) -> None:
        """Accept who waits, but only so many at a time: those who are connected want their answers."""
        try:
            for _ in range(64):
                self._connection(self, self._listener.accept()[0])
        except (BlockingIOError, ConnectionAbortedError):
            return  # whoever else waits is reported again
        except OSError as error:
            if error.errno not in OUT_OF_RESOURCES:
                raise
            # The client still waits, so the listener stays readable and a level would be reported without end.
            self._parked_until = monotonic() + PARKED
            self.poll.reregister(self._listener, self.on_connection, Interest.NONE, Mode.LEVEL)


def fork(listeners: list[TcpListener]) -> tuple[TcpListener, list[int]]:
    """Be as many processes as there are listeners; give this one's, and, to the first, the numbers of the others."""
    mine = listeners[0]
    children: list[int] = []
    if sys.platform != "win32":  # where no port is shared, either
        for listener in listeners[1:]:
            child = os.fork()
            if child == 0:
                mine, children = listener, []
                break
            children.append(child)
    for listener in listeners:
        if listener is not mine:
            listener.close()
    return mine, children


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = options("Answer every HTTP request with a hello.")
    parser.add_argument("--processes", type=int, default=1, help="how many share the port (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.processes < 1:
        parser.error("--processes is at least 1")
    listeners = []
    for _ in range(arguments.processes):
        listener = listen(arguments, reuse_port=arguments.processes > 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        arguments.port = listener.getsockname()[1]
        listeners.append(listener)
    listener, children = fork(listeners)  # before there is a poll: one belongs to the process that made it
    try:
        with Poll(arguments.backend) as poll, listener:
            server = Server(poll, listener)
            on_signals(poll, server.stop)
            if listener is listeners[0]:
                announce(poll, listener, "http://")
            server.run()
    finally:
        for child in children:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
