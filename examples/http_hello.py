"""A web server that says hello: the whole of polling on one page.

    python examples/http_hello.py --backend epoll --port 8080
    curl -i http://127.0.0.1:8080/

Every complete request gets the same answer. A client may send half a request, or sixty-four at once: ``Requests``
finds them. It may not read its answers: they wait, and nothing more is read from it until they are gone. The process
may run out of descriptors: the listener is parked for a moment. The token of each source is the function to call
when it is ready, so that there is nothing to look up.
"""

from __future__ import annotations

import argparse
import errno
import signal
import socket
from collections.abc import Callable
from functools import lru_cache
from time import monotonic

from polling import Interest, Mode, Poll, Waker
from polling.net import TcpListener, TcpStream

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: keep-alive\r\nContent-Length: 6\r\n\r\nhello\n"
BLANK_LINE = b"\r\n\r\n"
MAX_HEAD = 64 * 1024  # bytes; a client that sends more without a blank line is not speaking HTTP
PARKED = 0.1  # seconds without accepting when there is no descriptor left
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@lru_cache(maxsize=64)  # clients repeat themselves
def parse_head(head: bytes) -> tuple[bool, int]:
    """Tell whether the client wants to go on after this request, and how long the request's body is."""
    request_line, *fields = head.lower().lstrip(b"\r\n").split(b"\r\n")
    headers = {name: value.strip() for name, _, value in (field.partition(b":") for field in fields)}
    connection = headers.get(b"connection", b"")
    keep_alive = b"close" not in connection if request_line.endswith(b"http/1.1") else b"keep-alive" in connection
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not length.isdigit() or len(length) > 18:
        return False, 0  # no telling where the next request would begin, so this one is the last
    return keep_alive, int(length)


class Requests:
    """Finds the requests in what one client sends, until it is ``finished``: it wants or deserves no more answers."""

    __slots__ = ("_body", "_last", "_rest", "finished")

    def __init__(self) -> None:
        self.finished = False
        self._rest = b""  # a head that is not complete
        self._body = 0  # bytes still to come of the body of a request whose head was
        self._last = False  # whether that request is the last

    def feed(self, data: bytes) -> int:
        """Take in what came, and return how many requests that completes."""
        data = self._rest + data
        self._rest = b""
        requests, position, size = 0, self._body, len(data)
        if 0 < position <= size:
            requests, self.finished = 1, self._last
        while position < size and not self.finished:
            end = data.find(BLANK_LINE, position)
            if end < 0:
                self._rest = data[position:]
                self.finished = len(self._rest) > MAX_HEAD
                break
            keep_alive, body = parse_head(data[position:end])
            position = end + len(BLANK_LINE) + body
            if position > size:
                self._last = not keep_alive
                break
            requests += 1
            self.finished = not keep_alive
        self._body = max(position - size, 0)
        return requests


class Connection:
    """One client. It is watched for readability or, while answers wait to be sent, for writability: never both."""

    __slots__ = ("_requests", "_server", "_stream", "_unsent")

    def __init__(self, server: Server, stream: TcpStream) -> None:
        self._server = server
        self._stream = stream
        self._requests = Requests()
        self._unsent = memoryview(b"")
        server.poll.register(stream, self.on_readable, Interest.READABLE, Mode.LEVEL)
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

    def __init__(self, poll: Poll[Callable[[], None]], listener: TcpListener) -> None:
        self.poll = poll
        self.connections: set[Connection] = set()
        self.buffer = memoryview(bytearray(64 * 1024))  # one for all: what was received is used up before the next call
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
                Connection(self, self._listener.accept()[0])
        except (BlockingIOError, ConnectionAbortedError):
            return  # whoever else waits is reported again
        except OSError as error:
            if error.errno not in OUT_OF_RESOURCES:
                raise
            # The client still waits, so the listener stays readable and a level would be reported without end.
            self._parked_until = monotonic() + PARKED
            self.poll.reregister(self._listener, self.on_connection, Interest.NONE, Mode.LEVEL)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="Answer every HTTP request with a hello.")
    parser.add_argument("--backend", help="the poll's backend (default: the best one here)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free (default: %(default)s)")
    arguments = parser.parse_args()
    with Poll(arguments.backend) as poll, TcpListener.open((arguments.host, arguments.port)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        server = Server(poll, listener)
        waker = Waker(poll, server.stop)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: waker.wake())
        host, port = listener.getsockname()[:2]
        print(f"listening on http://{host}:{port} (backend {poll.backend.name})", flush=True)
        server.run()


if __name__ == "__main__":
    main()
