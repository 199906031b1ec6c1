"""What can have happened to a source, and what an event must and may say of it then.

A table, because several rules ask the same of every entry: that whatever happened shows up in the readiness
bits (EVT-01), and that no hint is true where its condition does not hold (EVT-04, EVT-06, EVT-14). The entries are
the situations in which facilities are known to differ, or to set flags that are easily misread.

An entry demands nothing that the contract leaves open: bits that are not in ``ready`` may be reported as long as
they were asked for, and hints in ``true`` may be missing.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

import pytest

from polling import Capability, Mode
from polling_conformance.ends import Descriptor, End, arrived, recv, reset, send
from polling_conformance.harness import Harness

__all__ = ["SITUATIONS", "Fifo", "Situation", "Situations", "stuff"]

Prepared: TypeAlias = tuple[End, Callable[[], object]]
"""A source, and what brings it into its situation."""


class Situation(NamedTuple):
    """An entry. Bits are letters, as in ``Harness.expect_events``; hints are names of an event's fields."""

    prepare: Callable[[Situations], Prepared]
    ready: str = ""
    """The bits that must be reported wherever they are asked for."""
    true: frozenset[str] = frozenset()
    """The hints that are true then, and so may be given."""
    certain: frozenset[str] = frozenset()
    """The hints that a backend must give if it declares them."""
    asks: str = "rw"
    """The bits that can be asked for: a pipe's end has one direction, and only TCP has urgent data."""
    silent_by_completion: bool = False
    """Whether completion ports need not report it, as they are not told of own shutdowns."""


def stuff(end: End) -> None:
    """Fill a pipe or a Unix socket. Nothing empties it behind our back, so the first refusal is the last."""
    with suppress(BlockingIOError):
        while True:
            send(end, bytes(4096))


def in_turn(*steps: Callable[[], object]) -> Callable[[], None]:
    """Give a call that makes all of these, one after the other."""

    def make() -> None:
        for step in steps:
            step()

    return make


class Fifo:
    """A FIFO with a reader, whose writers come and go."""

    def __init__(self, path: str) -> None:
        self._path = path
        if sys.platform != "win32":  # where Situations.fifo skips
            os.mkfifo(path)
        self.reader = Descriptor(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))

    def writer(self) -> Descriptor:
        """Open it for writing, which does not block, since there is a reader."""
        return Descriptor(os.open(self._path, os.O_WRONLY))


class Situations(Harness):
    """A harness that can bring about what ``SITUATIONS`` lists."""

    def by_completion(self) -> bool:
        """Say whether that is allowed which the rules allow on completion ports only."""
        return sys.platform == "win32" or self.backend_name == "iocp"

    def fifo(self) -> Fifo:
        """A FIFO that never had a writer. Needs ``Capability.PIPES``."""
        self.needs(Capability.PIPES)
        if sys.platform == "win32":
            pytest.skip("this platform has no FIFOs")
        fifo = Fifo(os.path.join(self._sources.enter_context(tempfile.TemporaryDirectory()), "fifo"))
        self._keep(fifo.reader)
        return fifo

    def fifo_writer(self, fifo: Fifo) -> Descriptor:
        """Another writer of it."""
        writer = fifo.writer()
        self._keep(writer)
        return writer

    def unix_datagram_pair(self) -> tuple[socket.socket, socket.socket]:
        """Two plain Unix datagram sockets connected to each other."""
        if sys.platform == "win32":
            pytest.skip("this platform has no pairs of Unix sockets")
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._keep(near, far)
        for end in near, far:
            end.setblocking(False)
        return near, far

    def unconnected(self) -> socket.socket:
        """A plain TCP socket that was never connected."""
        sock = socket.socket()
        self._keep(sock)
        sock.setblocking(False)
        return sock

    def refusing_address(self) -> tuple[str, int]:
        """An address of ours where nobody listens, and nobody can begin to, because it is taken."""
        taken = socket.socket()
        self._keep(taken)
        taken.bind(("127.0.0.1", 0))
        host, port = taken.getsockname()
        return host, port

    def begin_connect(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Begin a connect whose outcome is told later."""
        try:
            sock.connect(address)
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            pytest.skip("this platform refuses a connect over the loopback at once, so nothing is left to report")

    def modes(self, *, hooked: bool = False) -> list[Mode]:
        """The modes in which this backend takes a plain source, or one with the library's hooks."""
        return [mode for mode in Mode if mode is not Mode.EDGE or hooked or self.has(Capability.NATIVE_EDGE)]

    # -- the makers: each gives a source, and what brings it into the situation ----------------------

    def _idle(self) -> Prepared:
        near, _ = self.tcp_pair()
        return near, lambda: None

    def _data(self) -> Prepared:
        near, far = self.tcp_pair()
        return near, lambda: send(far, b"x")

    def _urgent(self) -> Prepared:
        near, far = self.tcp_pair()
        return near, lambda: far.send(b"!", socket.MSG_OOB)

    def _peer_ended(self) -> Prepared:
        near, far = self.tcp_pair()
        return near, partial(far.shutdown, socket.SHUT_WR)

    def _peer_ended_after_data(self) -> Prepared:
        near, far = self.tcp_pair()
        return near, in_turn(partial(send, far, b"x"), partial(far.shutdown, socket.SHUT_WR))

    def _peer_ended_while_full(self) -> Prepared:
        near, far = self.unix_pair()
        return near, in_turn(partial(stuff, near), partial(far.shutdown, socket.SHUT_WR))

    def _both_ended(self) -> Prepared:
        near, far = self.tcp_pair()
        return near, in_turn(partial(far.shutdown, socket.SHUT_WR), partial(near.shutdown, socket.SHUT_WR))

    def _ended(self) -> Prepared:
        near, _ = self.tcp_pair()
        return near, partial(near.shutdown, socket.SHUT_WR)

    def _deaf(self) -> Prepared:
        near, _ = self.tcp_pair()
        return near, partial(near.shutdown, socket.SHUT_RD)

    def _ended_and_deaf(self) -> Prepared:
        near, _ = self.tcp_pair()
        return near, partial(near.shutdown, socket.SHUT_RDWR)

    def _reset(self) -> Prepared:
        near, far = self.tcp_pair()
        return near, lambda: reset(far)

    def _reset_and_told(self) -> Prepared:
        near, far = self.tcp_pair()

        def happen() -> None:
            reset(far)
            arrived(near)
            with suppress(ConnectionResetError):
                recv(near)

        return near, happen

    def _refused(self) -> Prepared:
        near = self.unconnected()
        return near, lambda: self.begin_connect(near, self.refusing_address())

    def _refused_and_told(self) -> Prepared:
        near = self.unconnected()

        def happen() -> None:
            self.begin_connect(near, self.refusing_address())
            arrived(near, "w")
            near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

        return near, happen

    def _unconnected(self) -> Prepared:
        return self.unconnected(), lambda: None

    def _unix_peer_closed(self) -> Prepared:
        near, far = self.unix_pair()
        return near, far.close

    def _unix_peer_closed_unread(self) -> Prepared:
        near, far = self.unix_pair()
        return near, in_turn(partial(send, near, b"x"), far.close)

    def _unix_peer_deaf(self) -> Prepared:
        near, far = self.unix_pair()
        return near, partial(far.shutdown, socket.SHUT_RD)

    def _datagram_peer_closed(self) -> Prepared:
        near, far = self.unix_datagram_pair()
        return near, far.close

    def _writer_closed(self) -> Prepared:
        reader, writer = self.pipe()
        return reader, writer.close

    def _writer_closed_after_data(self) -> Prepared:
        reader, writer = self.pipe()
        return reader, in_turn(partial(send, writer, b"x"), writer.close)

    def _reader_closed(self) -> Prepared:
        reader, writer = self.pipe()
        return writer, reader.close

    def _reader_closed_while_full(self) -> Prepared:
        reader, writer = self.pipe()
        return writer, in_turn(partial(stuff, writer), reader.close)

    def _fifo_without_writer(self) -> Prepared:
        return self.fifo().reader, lambda: None

    def _fifo_left(self) -> Prepared:
        fifo = self.fifo()
        return fifo.reader, lambda: self.fifo_writer(fifo).close()

    def _fifo_joined_again(self) -> Prepared:
        fifo = self.fifo()
        return fifo.reader, in_turn(lambda: self.fifo_writer(fifo).close(), lambda: self.fifo_writer(fifo))

    def _terminal_closed(self) -> Prepared:
        master, slave = self.pty()
        return master, slave.close

    def _unreachable(self) -> Prepared:
        near, far = self.udp_pair()
        return near, in_turn(far.close, partial(send, near, b"x"))

    def _connection_pending(self) -> Prepared:
        listener = self.listener()
        return listener, lambda: self.begin_connect(self.unconnected(), listener.getsockname())

    def _listener_shut(self) -> Prepared:
        listener = self.listener()

        def happen() -> None:
            with suppress(OSError):  # ENOTCONN: some systems know no shutdown of a listener
                listener.shutdown(socket.SHUT_RDWR)

        return listener, happen


READ_CLOSED: Final = frozenset({"read_closed"})
WRITE_CLOSED: Final = frozenset({"write_closed"})
ERROR: Final = frozenset({"error"})
OVER: Final = READ_CLOSED | WRITE_CLOSED

SITUATIONS: Final[Mapping[str, Situation]] = MappingProxyType(
    {
        "idle": Situation(Situations._idle, "w", asks="rwp"),
        "data": Situation(Situations._data, "rw", asks="rwp"),
        "urgent-data": Situation(Situations._urgent, asks="rwp"),
        "peer-ended": Situation(Situations._peer_ended, "rw", READ_CLOSED, READ_CLOSED, asks="rwp"),
        "peer-ended-after-data": Situation(
            Situations._peer_ended_after_data, "rw", READ_CLOSED, READ_CLOSED, asks="rwp"
        ),
        "peer-ended-while-full": Situation(Situations._peer_ended_while_full, "r", READ_CLOSED, READ_CLOSED),
        "both-ended": Situation(Situations._both_ended, "rwp", OVER, READ_CLOSED, asks="rwp"),
        "own-SHUT_WR": Situation(Situations._ended, "", WRITE_CLOSED, asks="rwp"),
        "own-SHUT_RD": Situation(Situations._deaf, "rw", READ_CLOSED, asks="rwp", silent_by_completion=True),
        "own-SHUT_RDWR": Situation(Situations._ended_and_deaf, "rwp", OVER, asks="rwp", silent_by_completion=True),
        "reset": Situation(Situations._reset, "rwp", OVER | ERROR, WRITE_CLOSED, asks="rwp"),
        "reset-and-told": Situation(Situations._reset_and_told, "r", OVER, asks="rwp"),
        "refused": Situation(Situations._refused, "rwp", OVER | ERROR, ERROR, asks="rwp"),
        "refused-and-told": Situation(Situations._refused_and_told, "", OVER, asks="rwp"),
        "never-connected": Situation(Situations._unconnected, asks="rwp"),
        "unix-peer-closed": Situation(Situations._unix_peer_closed, "rw", OVER),
        "unix-peer-closed-unread": Situation(Situations._unix_peer_closed_unread, "rw", OVER | ERROR),
        "unix-peer-SHUT_RD": Situation(Situations._unix_peer_deaf, "", WRITE_CLOSED),
        "unix-datagram-peer-closed": Situation(Situations._datagram_peer_closed, "", WRITE_CLOSED),
        "pipe-writer-closed": Situation(Situations._writer_closed, "r", OVER, asks="r"),
        "pipe-writer-closed-after-data": Situation(Situations._writer_closed_after_data, "r", OVER, asks="r"),
        # The next write raises EPIPE: that is an error pending, if not one that could be asked for.
        "pipe-reader-closed": Situation(Situations._reader_closed, "w", OVER | ERROR, asks="w"),
        "full-pipe-reader-closed": Situation(Situations._reader_closed_while_full, "w", OVER | ERROR, asks="w"),
        "fifo-never-a-writer": Situation(Situations._fifo_without_writer, asks="r"),
        "fifo-writer-gone": Situation(Situations._fifo_left, "r", OVER, asks="r"),
        "fifo-new-writer": Situation(Situations._fifo_joined_again, "", WRITE_CLOSED, asks="r"),
        # Read EIO is such an error, too. The other side can be opened again, so nothing is over for writing.
        "pty-slave-closed": Situation(Situations._terminal_closed, "r", READ_CLOSED | ERROR),
        "udp-port-unreachable": Situation(Situations._unreachable, "", ERROR),
        "connection-pending": Situation(Situations._connection_pending, "r", WRITE_CLOSED),
        "listener-shut-down": Situation(Situations._listener_shut, "", OVER),
    }
)
"""What can have happened to a source, by a name for messages."""
