"""A server that repeats to all clients what one of them says, line by line.

    python examples/multi_echo.py --port 8080
    python examples/multi_echo_client.py --port 8080        (in two or three terminals; or nc, or telnet)

Whoever talks to many has three questions to answer that an echo does not ask:

  * What if somebody does not listen? What one client has not taken waits in a queue, and the queue is bounded: while
    one is full nobody is read from, and what is said meanwhile waits with the speakers (back-pressure). So nobody
    misses anything. But a client whose queue is full, and who has not yet taken what was said ``--patience`` seconds
    ago, is disconnected: one may hold up all, but not for good. To drop lines would be the third way, and a loss that
    nobody sees.
  * What if somebody breaks off? The connection is reset and forgotten, in whichever call that was noticed. A line
    is said when its end has come, so what had only been begun is said to nobody.
  * Who is who? Connections live in a ``Slab``, and the key it gives is the token, as in mio. Keys are used again, so
    of each event we ask whether it is current: its connection may have ended in this very batch.

Each connection is registered once, for both directions, in edge mode, and never changed. That is what edges are good
for: the server keeps its own books of who may have said more and who takes no more, and makes all speakers wait by
not looking into the first. What it owes for that: a note is struck out only when a call would have blocked.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from typing import Final

from send_queue import SendQueue
from serving import announce, listen, on_signals, options, raise_limit, reset_on_close

from polling import Event, Interest, Mode, Poll, Slab
from polling.net import TcpListener, TcpStream

LISTENER: Final = -1  # tokens that no slab gives
STOP: Final = -2
LONGEST_LINE: Final = 64 * 1024  # bytes
FULL: Final = 256 * 1024  # bytes that wait for a client; when nobody is read from, up to two lines more may wait
KERNELS_QUEUE: Final = 64 * 1024  # bytes; left to itself a kernel holds megabytes for each client who does not read
RESERVE: Final = 32  # descriptors that are no client's


class Connection:
    """One client: the line that is begun, and what has not been sent yet."""

    def __init__(self, stream: TcpStream) -> None:
        self.stream = stream
        self.queue = SendQueue(stream)
        self.finished = False  # the last line has come; the rest is sent, and then it is over
        self._begun = b""

    def receive(self) -> bytes:
        """Receive once, and give the lines that this completes. BlockingIOError: nothing is there."""
        data = self.stream.recv(LONGEST_LINE)
        self.finished = not data
        lines, end, self._begun = (self._begun + data).rpartition(b"\n")
        if len(self._begun) > LONGEST_LINE:
            raise ConnectionError("a line without end")
        return lines + end


class Server:
    """The listener, the connections, and the loop."""

    def __init__(self, poll: Poll[int], listener: TcpListener, places: int, patience: float) -> None:
        self._poll = poll
        self._listener = listener
        self._places = places
        self._patience = patience  # seconds
        self._connections = Slab[Connection](places)
        self._speaking = OrderedDict[int, None]()  # the keys of those who may have said more, who spoke last at the end
        self._full = set[int]()  # the keys of those for whom all wait
        poll.register(listener, LISTENER)

    def run(self) -> None:
        """Serve until STOP is reported."""
        running = True
        while running:
            for event in self._poll.poll(self._timeout()):
                if event.token == STOP:
                    running = False
                elif event.token == LISTENER:
                    self._accept()
                elif self._poll.is_current(event):
                    self._note(event)
            self._hear()
            for key in [key for key in self._full if self._left(key) <= 0]:
                self._end(key, broken=True)
        for key in list(self._connections):
            self._end(key, broken=False)
        self._poll.deregister(self._listener)

    def _timeout(self) -> float | None:
        """Say how long to wait: until patience is over, not at all if there is something to hear, or without limit."""
        if self._full:
            return min(map(self._left, self._full))
        return 0 if self._speaking else None

    def _left(self, key: int) -> float:
        """Give the seconds until we lose patience with a client who is full."""
        return self._patience - self._connections[key].queue.delay

    def _accept(self) -> None:
        """Accept one client. When the last place is taken, who comes waits in the kernel: the listener is parked."""
        try:
            stream, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # gone again
        key = self._connections.insert(Connection(stream))
        self._poll.register(stream, key, Interest.READ_WRITE, Mode.EDGE)
        if len(self._connections) == self._places:
            self._poll.reregister(self._listener, LISTENER, Interest.NONE, Mode.LEVEL)

    def _note(self, event: Event[int]) -> None:
        """Put down what an edge tells."""
        if event.readable:
            self._speaking[event.token] = None
        if event.writable:
            self._connections[event.token].queue.blocked = False
            self._send(event.token)

    def _hear(self) -> None:
        """Let each who may have said something speak once, while nobody is full."""
        for _ in range(len(self._speaking)):
            if self._full or not self._speaking:
                return
            key, _ = self._speaking.popitem(last=False)
            connection = self._connections[key]
            try:
                lines = connection.receive()
            except BlockingIOError:
                continue  # all is read: there will be an edge
            except OSError:
                self._end(key, broken=True)
                continue
            if not connection.finished:
                self._speaking[key] = None  # there may be more, and no edge would tell
            if lines:
                for listening in list(self._connections):
                    self._connections[listening].queue.put(memoryview(lines))
                    self._send(listening)
            elif connection.finished:
                self._send(key)

    def _send(self, key: int) -> None:
        """Send what one client can take, and see where that leaves us."""
        connection = self._connections[key]
        try:
            connection.queue.send()
        except OSError:
            self._end(key, broken=True)
            return
        if connection.queue.size >= FULL:
            self._full.add(key)
        else:
            self._full.discard(key)
        if connection.finished and not connection.queue.size:
            self._end(key, broken=False)

    def _end(self, key: int, *, broken: bool) -> None:
        """Strike a client out of all books, and close: by a reset if that was not agreed on."""
        stream = self._connections.pop(key).stream
        self._speaking.pop(key, None)
        self._full.discard(key)
        if broken:
            reset_on_close(stream)
        self._poll.deregister(stream)
        stream.close()
        if len(self._connections) == self._places - 1:
            self._poll.reregister(self._listener, LISTENER, Interest.READABLE, Mode.LEVEL)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = options("Repeat to all clients what one of them says.")
    parser.add_argument("--clients", type=int, default=1000, help="at the same time (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=10, help="with who does not read; seconds (%(default)s)")
    arguments = parser.parse_args()
    if arguments.clients < 1:
        parser.error("--clients is at least 1")
    if missing := raise_limit(arguments.clients + RESERVE):
        parser.error(f"for {arguments.clients} clients {missing} descriptors are missing: see ulimit -Hn")
    poll: Poll[int] = Poll(arguments.backend)
    with poll, listen(arguments) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNELS_QUEUE)  # accepted sockets inherit it, as well
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = Server(poll, listener, arguments.clients, arguments.patience)
        on_signals(poll, STOP)
        announce(poll, listener)
        server.run()


if __name__ == "__main__":
    main()
