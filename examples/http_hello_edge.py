"""The web server that says hello once more, in edge mode: told only of what is new.

    python examples/http_hello_edge.py --port 8080
    curl -i http://127.0.0.1:8080/

This is the way of most tutorials: read until it would block, register for writing; write until all is sent, register
for reading. Compare ``http_hello.py``, which answers at once and is watched for writability only if it must wait. That
is faster, as it saves two system calls a request, and simpler, as level mode forgets nothing. What edges are for: one
registration for both directions that is never changed, in servers that keep their own books of what is ready.

A server in edge mode has one more thing to get right. It may stop reading early, to be fair to others or because
answers wait, but then nobody tells it of what it left; it must come back by itself. Here registering anew does that: a
condition that holds at that moment is reported.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable

from http_hello import RESPONSE
from http_requests import Requests

from polling import Interest, Mode, Poll
from polling.net import TcpListener, TcpStream

Token = Callable[[], None]
AT_MOST = 16  # receives for one client before it is the next one's turn


class Connection:
    """One client. It is watched for readability or for writability: never both."""

    def __init__(self, server: Server, stream: TcpStream) -> None:
        self._server = server
        self._stream = stream
        self._requests = Requests()
        self._unsent = memoryview(b"")
        server.connections.add(self)
        server.poll.register(stream, self.on_readable, Interest.READABLE, Mode.EDGE)

    def on_readable(self) -> None:
        """Receive until it would block, or long enough, and schedule the answers."""
        complete = 0
        try:
            for _ in range(AT_MOST):
                size = self._stream.recv_into(self._server.buffer)
                if not size:
                    self._requests.finished = True
                if size:
                    complete += self._requests.feed(self._server.buffer[:size].tobytes())
                if self._requests.finished:
                    break
        except BlockingIOError:
            pass
        except OSError:  # a reset, for one
            self.close()
            return
        self._unsent = memoryview(RESPONSE * complete)
        self._schedule()

    def on_writable(self) -> None:
        """Send until all is sent, or it would block."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._stream.send(self._unsent) :]
        except BlockingIOError:
            return  # and there will be an edge
        except OSError:
            self.close()
            return
        self._schedule()

    def _schedule(self) -> None:
        """Say what comes next. What is possible already counts as new."""
        if self._unsent:
            self._server.poll.reregister(self._stream, self.on_writable, Interest.WRITABLE, Mode.EDGE)
        elif self._requests.finished:
            self.close()
        else:
            self._server.poll.reregister(self._stream, self.on_readable, Interest.READABLE, Mode.EDGE)

    def close(self) -> None:
        """Leave the poll, and close."""
        self._server.connections.discard(self)
        self._server.poll.deregister(self._stream)
        self._stream.close()


class Server:
    """The listener, its connections, and the loop."""

    def __init__(self, poll: Poll[Token], listener: TcpListener) -> None:
        self.poll = poll
        self.connections: set[Connection] = set()
        self.buffer = memoryview(bytearray(64 * 1024))
        self._listener = listener
        poll.register(listener, self.on_connection)  # level: whom we do not accept now is reported again

    def on_connection(self) -> None:
        """Accept one client."""
        try:
            stream, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # gone again
        Connection(self, stream)

    def run(self) -> None:
        """Serve until interrupted."""
        while True:
            for event in self.poll.poll():
                event.token()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Answer every HTTP request with a hello, in edge mode.")
    parser.add_argument("--backend", help="the poll's backend (default: the best one here)")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free (default: %(default)s)")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # also where the shell had it ignored, as in the background
        signal.signal(number, signal.default_int_handler)
    with Poll(arguments.backend) as poll, TcpListener.open(("127.0.0.1", arguments.port)) as listener:
        server = Server(poll, listener)
        try:
            print(
                f"listening on http://127.0.0.1:{listener.getsockname()[1]} (backend {poll.backend.name})", flush=True
            )
            server.run()
        except KeyboardInterrupt:
            for connection in list(server.connections):
                connection.close()


if __name__ == "__main__":
    main()
