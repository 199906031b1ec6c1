"""A TCP proxy: carries bytes both ways, passes on who has finished, and never holds more than it must.

    python examples/proxy.py --port 8081 --to 127.0.0.1:8080

A connection through a proxy is two flows, one each way, and everything that is hard about it follows from that:

  * Back-pressure. A flow holds at most one buffer, and reads again only when that is sent. So a receiver that is slow
    slows the sender down, through both kernels, and memory stays bounded whoever is fast.
  * Half-closes. When one side has finished sending, the other is told so, by ``shutdown``, once it has everything.
    The opposite flow goes on.
  * Resets. When one side breaks, nothing can be delivered any more, so the other is broken too, and not closed as
    if all had gone well.

Each stream is in two flows, the source of one and the destination of the other. What it has to be watched for is what
either needs of it; with nothing to wait for it is parked with ``Interest.NONE``. Level mode does the rest.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from serving import announce, listen, on_signals, options, reset_on_close

from polling import Event, Interest, Mode, Poll
from polling.net import TcpListener, TcpStream

BUFFER = 64 * 1024  # bytes held in each direction, at most
PARKED = 0.1  # seconds without accepting when there is no descriptor left
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Ready = Callable[[Event[Any]], None]  # what a token is: whom to call with the event


class Flow:
    """One direction: what came from one stream and has not gone to the other yet."""

    __slots__ = ("finished", "source", "target", "unsent")

    def __init__(self, source: TcpStream, target: TcpStream) -> None:
        self.source = source
        self.target = target
        self.unsent = memoryview(b"")
        self.finished = False  # the source has sent its last byte, and the target knows

    def receives(self) -> bool:
        """Tell whether there is anything to receive for."""
        return not self.unsent and not self.finished

    def move(self) -> None:
        """Send what is held, or else receive and send at once. OSError: one side is broken."""
        try:
            if self.receives():
                self.unsent = memoryview(self.source.recv(BUFFER))
                if not self.unsent:
                    self.finished = True
                    self.target.shutdown(socket.SHUT_WR)
            if self.unsent:
                self.unsent = self.unsent[self.target.send(self.unsent) :]
        except BlockingIOError:
            pass


class Link:
    """One client, its connection to the server, and the flow each way."""

    __slots__ = ("_connecting", "_flows", "_proxy", "_server", "_watched")

    def __init__(self, proxy: Proxy, client: TcpStream, server: TcpStream) -> None:
        self._proxy = proxy
        self._server = server
        self._connecting = True
        self._flows = (Flow(client, server), Flow(server, client))
        self._watched: dict[TcpStream, tuple[Interest, Ready]] = {}
        # The server becomes writable when it is connected; until then the client may wait.
        for stream, interest in ((client, Interest.NONE), (server, Interest.WRITABLE)):
            ready = partial(self.on_ready, stream)
            self._watched[stream] = interest, ready
            proxy.poll.register(stream, ready, interest)
        proxy.links.add(self)

    def on_ready(self, stream: TcpStream, event: Event[Ready]) -> None:
        """Go on where *stream* lets us."""
        try:
            if self._connecting and stream is self._server:
                self._connecting = False
                if error := stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, "not connected")
            for flow in self._flows:
                if event.readable if flow.source is stream else event.writable:
                    flow.move()
            self._watch()
            if all(flow.finished for flow in self._flows):
                self.close(broken=False)
        except OSError:
            self.close(broken=True)

    def _watch(self) -> None:
        """Have each stream watched for what its two flows wait for, be it nothing."""
        for outward, inward in (self._flows, self._flows[::-1]):
            stream = outward.source
            interest = Interest.READABLE if outward.receives() else Interest.NONE
            if inward.unsent or (self._connecting and stream is self._server):
                interest |= Interest.WRITABLE
            former, ready = self._watched[stream]
            if interest is not former:
                self._watched[stream] = interest, ready
                self._proxy.poll.reregister(stream, ready, interest, Mode.LEVEL)

    def close(self, *, broken: bool) -> None:
        """Let go of both streams. Half of an answer must not look like the whole: what broke is reset, not ended."""
        self._proxy.links.discard(self)
        for stream in self._watched:
            if broken:
                reset_on_close(stream)
            self._proxy.poll.deregister(stream)
            stream.close()


class Proxy:
    """The listener, its links, and the loop."""

    def __init__(self, poll: Poll[Ready], listener: TcpListener, target: tuple[str, int]) -> None:
        self.poll = poll
        self.links: set[Link] = set()
        self._listener = listener
        self._target = target
        self._parked_until: float | None = None  # on the monotonic clock
        self._running = True
        poll.register(listener, self.on_connection)

    def run(self) -> None:
        """Carry bytes until ``stop`` is called."""
        try:
            while self._running:
                parked = self._parked_until
                for event in self.poll.poll(None if parked is None else parked - monotonic()):
                    if self.poll.is_current(event):  # the other stream of a link may have ended it in this batch
                        event.token(event)
                if parked is not None and parked <= monotonic():
                    self._parked_until = None
                    self.poll.reregister(self._listener, self.on_connection, Interest.READABLE, Mode.LEVEL)
        finally:
            for link in list(self.links):
                link.close(broken=True)
            self.poll.deregister(self._listener)

    def stop(self, event: Event[Ready]) -> None:
        """Let ``run`` return."""
        self._running = False

    def on_connection(self, event: Event[Ready]) -> None:
        """Accept a client, and begin to connect to the server on its behalf."""
        client = None
        try:
            client, _ = self._listener.accept()
            Link(self, client, TcpStream.open(self._target))
        except OSError as error:
            if client is not None:
                client.close()
            if error.errno in OUT_OF_RESOURCES:
                self._parked_until = monotonic() + PARKED
                self.poll.reregister(self._listener, self.on_connection, Interest.NONE, Mode.LEVEL)
            elif client is None and not isinstance(error, (BlockingIOError, ConnectionError)):
                raise  # nobody's fault but ours; what else there is concerns this client alone


def address(text: str) -> tuple[str, int]:
    """Read HOST:PORT."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def main() -> None:
    """Carry bytes until SIGINT or SIGTERM."""
    parser = options("Carry TCP connections to another address.", 8081)
    parser.add_argument("--to", type=address, default=("127.0.0.1", 8080), metavar="HOST:PORT")
    arguments = parser.parse_args()
    poll: Poll[Ready] = Poll(arguments.backend)
    with poll, listen(arguments) as listener:
        proxy = Proxy(poll, listener, arguments.to)
        on_signals(poll, proxy.stop)
        announce(poll, listener)
        proxy.run()


if __name__ == "__main__":
    main()
