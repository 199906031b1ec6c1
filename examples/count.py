"""A server that answers: "Received N bytes" to whatever it is sent. Reading, writing, and who is next.

    python examples/count.py --port 8080
    printf hello | nc -N 127.0.0.1 8080

A socket is writable nearly always, so a server that watched for that all the time would never sleep. It is asked
for when there is something to say, and not before: writing is *scheduled*. Mode.EDGE_ONESHOT makes that plain. After
one event the source is silent until it is registered anew, and each step says what the next one is: read, so write;
written, so read. ``sendall`` would be shorter, and is a trap: on a non-blocking socket it raises when the kernel's
buffer is full, and does not say how much it had sent by then.
"""

from __future__ import annotations

from collections.abc import Callable

from serving import announce, listen, on_signals, options

from polling import Interest, Mode, Poll
from polling.net import TcpListener, TcpStream

Token = Callable[[], None]


class Connection:
    """One client, from whom we read, or to whom we write: never both."""

    def __init__(self, server: Server, stream: TcpStream) -> None:
        self._server = server
        self._stream = stream
        self._unsent = b""
        self._finished = False  # the client has sent its last byte
        server.connections.add(self)
        server.poll.register(stream, self.on_readable, Interest.READABLE, Mode.EDGE_ONESHOT)

    def on_readable(self) -> None:
        """Receive until it would block, since an edge tells only of what is new, and then answer."""
        received = 0
        try:
            while size := self._stream.recv_into(self._server.buffer):
                received += size
            self._finished = True
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if received:
            self._unsent = b"Received %d bytes\n" % received
        self._schedule()

    def on_writable(self) -> None:
        """Send what there is room for."""
        try:
            self._unsent = self._unsent[self._stream.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._schedule()

    def _schedule(self) -> None:
        """Say what comes next."""
        if self._unsent:
            self._server.poll.reregister(self._stream, self.on_writable, Interest.WRITABLE, Mode.EDGE_ONESHOT)
        elif self._finished:
            self.close()
        else:
            self._server.poll.reregister(self._stream, self.on_readable, Interest.READABLE, Mode.EDGE_ONESHOT)

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
        self.buffer = bytearray(64 * 1024)  # one for all: it is used up before the next event
        self._listener = listener
        self._running = True
        poll.register(listener, self.on_connection)

    def on_connection(self) -> None:
        """Accept one client. Whoever else waits is reported again, for the listener is in level mode."""
        try:
            stream, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # gone again
        Connection(self, stream)

    def run(self) -> None:
        """Serve until ``stop`` is called."""
        while self._running:
            for event in self.poll.poll():
                event.token()
        for connection in list(self.connections):
            connection.close()

    def stop(self) -> None:
        """Let ``run`` return."""
        self._running = False


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    arguments = options("Answer with the number of bytes received.").parse_args()
    with Poll(arguments.backend) as poll, listen(arguments) as listener:
        server = Server(poll, listener)
        on_signals(poll, server.stop)
        announce(poll, listener)
        server.run()


if __name__ == "__main__":
    main()
