"""A server of many threads: one waits for all connections, the others do the reading, the work and the writing.

    python examples/workers_http.py        HTTP with it
    python examples/workers_websocket.py   WebSocket
    python examples/chat.py                both

A connection belongs to one thread at a time, and so it needs no lock:

  * While there is nothing to do for it, it is registered with Mode.ONESHOT. Its event disarms it, so there is one.
  * The listener's thread, which owns the poll, puts it into a queue. Whichever worker is idle takes it from there.
  * The worker takes a turn: it receives, works, sends, and never waits for the network.
  * The connection goes back by a channel, with what to wait for next. The channel's receiver is a source like
    any other, so the poll wakes up for it, and nobody looks every so often. The listener's thread arms it again.

Two kinds of queue, then. A thread that has nothing else to wait for can sleep at a ``queue.SimpleQueue``, and of many
one gets the job. A thread that waits at a poll is reached by a ``Channel``.

Somebody else may have something to say to a client: what others write in a chat. That is left in the connection's
mail, and the listener's thread is told if nobody has the connection just then.

Nothing grows without bound. While something waits to be sent to a client, nothing is received from it. Its mail has a
limit, and whoever reaches it is disconnected. So is whoever rests for longer than its protocol has patience.
"""

from __future__ import annotations

import argparse
import socket
import traceback
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread

from http_hello import OUT_OF_RESOURCES, PARKED
from serving import announce, listen, on_signals, options
from workers_connection import Connection, Protocol

from polling import Channel, ChannelClosedError, Interest, Mode, Poll, Timer
from polling.net import TcpListener

CALLS = 1024  # that may wait for the listener's thread; a worker that makes one more waits, too

Call = Callable[[], None]


class Server:
    """The listener's thread, which has the poll, and the workers."""

    def __init__(self, poll: Poll[Call], listener: TcpListener, protocol: Callable[[Connection], Protocol]) -> None:
        self._poll = poll
        self._listener = listener
        self._protocol = protocol
        self._connections: set[Connection] = set()
        self._jobs = SimpleQueue[Connection | None]()
        self._calls = Channel[Call](CALLS)
        self._timer = Timer[Call]()
        self._running = True

    def run(self, workers: int) -> None:
        """Serve until ``stop``, in this thread and as many others. What a worker has begun it finishes."""
        self._poll.register(self._listener, self._on_connection)
        self._poll.register(self._calls.receiver, self._on_calls)
        self._poll.register(self._timer, self._on_timeouts)
        threads = [Thread(target=self._work, name=f"worker {number}") for number in range(workers)]
        for thread in threads:
            thread.start()
        try:
            while self._running:
                for event in self._poll.poll():
                    event.token()
        finally:
            self._calls.receiver.close()  # so that no worker waits for room in it
            for _ in threads:
                self._jobs.put(None)
            for thread in threads:
                thread.join()
            for source in self._listener, self._calls.receiver, self._timer:
                self._poll.deregister(source)
            for connection in self._connections:
                self._poll.deregister(connection.stream)
                connection.leave()

    def stop(self) -> None:
        """Let ``run`` return. In its own thread only."""
        self._running = False

    # In the listener's thread.

    def _on_connection(self) -> None:
        """Accept one client. Whoever else waits is reported again."""
        try:
            stream, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # gone again
        except OSError as error:
            if error.errno not in OUT_OF_RESOURCES:
                raise
            self._poll.reregister(self._listener, self._on_connection, Interest.NONE, Mode.LEVEL)
            again = partial(self._poll.reregister, self._listener, self._on_connection, Interest.READABLE, Mode.LEVEL)
            self._timer.set_timeout(PARKED, again)
            return
        connection = Connection(stream, self._protocol, self._tell)
        self._connections.add(connection)
        self._poll.register(stream, partial(self._dispatch, connection), Interest.READABLE, Mode.ONESHOT)
        self._limit_rest(connection)

    def _on_calls(self) -> None:
        for call in self._calls.receiver.drain():
            call()

    def _on_timeouts(self) -> None:
        for call in self._timer.expired():
            call()

    def _dispatch(self, connection: Connection) -> None:
        """Give a connection to the workers, unless they have it: they will see what there is to do."""
        if not connection.busy:
            connection.busy = True
            if connection.timeout is not None:
                connection.timeout.cancel()
            self._jobs.put(connection)

    def _rest(self, connection: Connection, wanted: Interest | None) -> None:
        """Take a connection back from a worker, to wait for what is wanted; None: it is over."""
        if wanted is None:
            self._connections.remove(connection)
            self._poll.deregister(connection.stream)
            connection.stream.close()
            return
        connection.busy = False  # first this, and then the look at its mail: see Connection.post
        if connection.has_news():
            self._dispatch(connection)
        else:
            token = partial(self._dispatch, connection)
            self._poll.reregister(connection.stream, token, wanted, Mode.ONESHOT)
            self._limit_rest(connection)

    def _limit_rest(self, connection: Connection) -> None:
        if connection.patience is not None:
            connection.timeout = self._timer.set_timeout(connection.patience, partial(self._give_up, connection))

    def _give_up(self, connection: Connection) -> None:
        if not connection.busy:
            connection.broken = True
            self._dispatch(connection)

    # In the others.

    def _work(self) -> None:
        """Be a worker."""
        while (connection := self._jobs.get()) is not None:
            wanted = None
            try:
                wanted = connection.turn()
            except Exception:
                traceback.print_exc()  # a mistake of ours. It costs this connection, and nobody else
            self._call(partial(self._rest, connection, wanted))

    def _tell(self, connection: Connection) -> None:
        """Have a connection looked after."""
        self._call(partial(self._dispatch, connection))

    def _call(self, call: Call) -> None:
        """Have the listener's thread make a call."""
        try:
            self._calls.sender.send(call)
        except ChannelClosedError:
            pass  # the server ends


def at_least_one(text: str) -> int:
    """Read a number of workers."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("somebody has to do the work")
    return number


def worker_options(description: str) -> argparse.ArgumentParser:
    """Begin a command line: by which backend, where, and with how many workers."""
    parser = options(description)
    parser.add_argument("--workers", type=at_least_one, default=4, metavar="N", help="threads (default: %(default)s)")
    return parser


def serve(arguments: argparse.Namespace, protocol: Callable[[Connection], Protocol]) -> None:
    """Serve until SIGINT or SIGTERM."""
    poll: Poll[Call] = Poll(arguments.backend)
    with poll, listen(arguments) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        server = Server(poll, listener, protocol)
        on_signals(poll, server.stop)
        announce(poll, listener, "http://")
        server.run(arguments.workers)
