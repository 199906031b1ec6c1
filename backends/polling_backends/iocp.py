"""I/O completion ports: readiness where the kernel tells of completions, which is Windows.

A completion port says "this operation has ended", once, some time after. Readiness asks "would this call block now?",
at every wait. What bridges the two:

  * *A packet is a hint.* It may be late, of an operation that was cancelled, of data that was read meanwhile. So
    nothing is reported because of a packet. It makes its socket *hot*, and a wait looks at what is hot, by a
    ``select`` that does not block, before it reports any of it. That gives levels, looks again after a drain, and
    makes late packets harmless, all in one step.
  * *Each direction that is armed is hot, or an operation for it is outstanding.* On this no event is lost. What is
    registered, changed or armed again is hot. A look that finds a direction not ready begins its operation, and the
    packet makes it hot again. What was reported in level mode stays hot. So a socket with nothing to say costs a wait
    nothing, and one that is always ready costs a look and no operation.
  * Only the waiting thread begins operations, after it has taken all packets that there are. So registering and
    deregistering ten thousand times begins none, and with waits in between those that were cancelled do not pile up.
  * Operations belong to the socket, from ``register`` to ``deregister``. A change of interest keeps what is
    outstanding: there is never a second receive on one socket. ``deregister`` cancels, and whoever is registered next
    begins its own.
  * An operation is kept until its packet was fetched, and is known by its address, which cannot mean another one
    before that. So a late packet finds its own operation, or none. A slab with slots and generations would say the
    same twice.
  * Connected streams are waited for by receives of no bytes, datagrams by such that peek. Listeners, sockets that are
    not connected, room to write, and sockets that are bound to another port are left to watches.
  * A receive may end though there is nothing to read: under Wine urgent data does that, for as long as it is there.
    After a few in a row a watch takes over, until there is something; or else a peer could make the wait spin.

A wake is a packet with an address that no operation has. Wakes merge: none is posted while one is known to be under
way. What is known is counted, posts after they were made and packets as they are taken, and not flagged. So an
exception from a signal handler can only make for one post too many, and never suppress the one that is needed.

Nor must such an exception lose what was fetched, see ``polling.poll``. A packet goes from the port right into
``self._packet``, with no call between, and leaves it when it has taken effect, which may happen twice without harm.
The books of what was delivered are done when the next wait begins, as for poll(2).

``GetQueuedCompletionStatus`` cannot be interrupted, so the main thread waits in slices of a quarter of a second. That
is how long a Ctrl-C may take to be noticed.

What it cannot do: watch anything but sockets. Pipes, consoles and files are refused; they would take threads that
read ahead, or AFD and ``ctypes``. There are no hints, for a ``select`` does not tell an end from data, and no
priority. An own ``shutdown`` of receiving is not reported before something else is.

On other systems the same runs over an emulated port, for development and tests.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from _thread import get_ident
from collections import deque
from collections.abc import Sequence
from itertools import repeat, starmap
from math import ceil
from threading import RLock

from polling import Backend, Capability, Interest, Mode, Readiness
from polling_backends._completion_port import (
    CHUNK,
    FOREVER,
    INVALID,
    READ,
    WRITE,
    Kind,
    Operation,
    WindowsPort,
    describe,
    describe_if_open,
)
from polling_backends._emulated_port import EmulatedPort

TYPE_CHECKING = False  # the module typing takes longer to import than all this

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import ClassVar, Final

    from polling.backend import Pair, Wait
    from polling_backends._completion_port import CompletionPort, Packet

__all__ = ["IocpBackend"]

WAKE: Final = 1
"""The address of a wake's packet. NULL would be an error, and operations have higher ones."""

SLICE_MS: Final = 250
"""How long the main thread waits at a time, in milliseconds, where waits cannot be interrupted."""

FUTILE: Final = 3
"""Receives in a row that may end with nothing to read before a watch takes over."""

READINESS: Final = tuple(Readiness(readable=bool(bits & READ), writable=bool(bits & WRITE)) for bits in range(4))
"""By bits."""

_BOUND_TO: Final[dict[int, object]] = {}
"""By number: the mark of the one of our ports to which a socket of that number was bound last.

Not in the books of each, since the next socket under a number may be bound to another one, which does not say so.
"""

_open_port: Callable[[], CompletionPort]
if sys.platform == "win32":
    _open_port, _unavailable_reason = WindowsPort, WindowsPort.unavailable_reason
else:
    _open_port, _unavailable_reason = EmulatedPort, EmulatedPort.unavailable_reason


class _Socket:
    """A socket, from ``register`` to ``deregister``, and the operation outstanding for each direction."""

    __slots__ = ("fd", "futile", "operations")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.futile = 0  # receives begun since there was something to read
        self.operations: dict[int, Operation] = {}


class _Watch:
    """One registration: what it is watched for, and what of that is armed now."""

    __slots__ = ("armed", "fd", "mode", "socket", "watched")

    def __init__(self, socket: _Socket, interest: Interest, mode: Mode) -> None:
        self.fd = socket.fd
        self.socket = socket
        self.watched = self.armed = int(interest) & (READ | WRITE)
        self.mode = mode


class IocpBackend(Backend):
    """I/O completion ports."""

    name = "iocp"
    capabilities = Capability.DUP_CLOSE | Capability.SHARED_SOURCE
    if sys.platform != "win32":
        capabilities |= Capability.INTERRUPTIBLE

    open_port: ClassVar[Callable[[], CompletionPort]] = _open_port

    @classmethod
    def unavailable_reason(cls) -> str | None:
        return _unavailable_reason()

    def __init__(self) -> None:
        port = type(self).open_port()
        self._port = port
        self._internal = port.numbers
        self._lock = RLock()  # guards what follows, up to the notes; a leaf: nothing that waits is called under it
        self._watches: dict[int, _Watch] = {}
        self._mark: Final = object()  # which port this is, in _BOUND_TO
        self._operations: dict[int, Operation] = {}  # whose packet was not fetched yet, by address
        self._hot: dict[int, _Watch] = {}  # to be looked at, by number, those first that were not served for longest
        self._notes: deque[tuple[int, _Watch, Interest]] = deque()  # what to arm again
        self._delivered: Sequence[tuple[_Watch, int]] = ()  # by the last wait; the books are not done yet
        self._waiting = False
        self._posted = 0  # wakes, counted after the post
        self._taken = 0  # of their packets
        self._milliseconds = [0]
        self._fetch = starmap(port.get, repeat(self._milliseconds))
        self._packet: Packet | None = None  # fetched, and without effect so far

    @property
    def internal(self) -> Collection[int]:
        return self._internal

    # -- registering -----------------------------------------------------------------------------------

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        describe(fd)  # or raise
        with self._lock:
            former = self._watches.get(fd)
            if former is not None:  # its deregistration was cut off
                self._cancel(former.socket)
            self._bind(fd)
            self._install(_Watch(_Socket(fd), interest, mode))
        self._kick()

    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None:
        describe(fd)  # or raise
        with self._lock:
            watch = self._watches.get(fd)
            if watch is None:  # it was closed when it was looked at
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            socket = watch.socket
            if self._bind(fd):  # the number means another socket by now
                self._cancel(socket)
                socket = _Socket(fd)
            self._install(_Watch(socket, interest, mode))
        self._kick()

    def deregister(self, fd: int) -> None:
        with self._lock:
            watch = self._watches.get(fd)
            if watch is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._cancel(watch.socket)
            self._watches.pop(fd, None)
            self._hot.pop(fd, None)

    def rearm(self, fd: int, interest: Interest) -> None:
        watch = self._watches.get(fd)
        if watch is not None:
            self._notes.append((fd, watch, interest))
            self._kick()

    def _bind(self, fd: int) -> bool:
        """Bind a socket to the port; false if it is bound already."""
        former = _BOUND_TO.pop(fd, None)  # cut off by a signal handler, this leaves it unknown, and so to a watch
        bound = self._port.attach(fd)
        if bound:
            _BOUND_TO[fd] = self._mark
        elif former is not None:
            _BOUND_TO[fd] = former
        return bound

    def _install(self, watch: _Watch) -> None:
        self._watches[watch.fd] = watch
        self._hot[watch.fd] = watch

    def _cancel(self, socket: _Socket) -> None:
        for operation in list(socket.operations.values()):
            self._port.cancel(operation)

    # -- waiting ---------------------------------------------------------------------------------------

    def waiter(self) -> Wait:
        return self._wait

    def _wait(self, timeout: float | None, max_events: int) -> Sequence[Pair]:
        self._waiting = True
        try:
            with self._lock:
                self._do_books()
            woken = self._fetch_packets(0)
            batch, delivered = self._look(max_events)
            # What is still hot by now has yet to be looked at, or its operation could not begin.
            if not batch and not woken and not self._hot and timeout != 0:
                woken = self._fetch_packets(self._limit(timeout))
                batch, delivered = self._look(max_events)
        finally:
            self._waiting = False
        if woken:
            batch.append((self._internal[0], 0))
        self._delivered = delivered
        return batch

    def _limit(self, timeout: float | None) -> int:
        """Give the milliseconds to wait at once."""
        limit = FOREVER if timeout is None else ceil(timeout * 1000)
        if not self._port.interruptible and get_ident() == threading.main_thread().ident:
            limit = min(limit, SLICE_MS)
        return limit

    def _do_books(self) -> None:
        """Disarm what was delivered, then arm what was noted since. An exception between leaves nothing out."""
        for watch, bits in self._delivered:
            watch.armed = watch.armed & ~bits if watch.mode is Mode.EDGE else 0
        self._delivered = ()
        while self._notes:
            fd, watch, interest = self._notes[0]
            watch.armed |= watch.watched & int(interest)
            if self._watches.get(fd) is watch:  # and not another, which a note from before must not arm
                self._hot[fd] = watch
            self._notes.popleft()

    def _fetch_packets(self, milliseconds: int) -> bool:
        """Take all packets there are, after waiting for the first; tell whether one of them was a wake."""
        woken = self._take_packet()
        while True:
            self._milliseconds[0] = milliseconds
            for self._packet in self._fetch:  # noqa: B020  # the wait, which is stored with no call between
                break
            if self._packet is None:
                return woken
            woken |= self._take_packet()
            milliseconds = 0

    def _take_packet(self) -> bool:
        """Let a packet take effect; tell whether it was a wake."""
        packet = self._packet
        if packet is None:
            return False
        address = packet[3]
        if address == WAKE:
            self._taken += 1
            self._packet = None
            return True
        with self._lock:
            operation = self._operations.get(address)
            if operation is not None:
                self._heat(operation)
                del self._operations[address]
        self._packet = None
        return False

    def _heat(self, operation: Operation) -> None:
        """An operation has ended: what it was for is to be looked at."""
        socket = operation.owner
        assert isinstance(socket, _Socket)
        watch = self._watches.get(socket.fd)
        if watch is not None and watch.socket is socket:
            self._hot[socket.fd] = watch
        if socket.operations.get(operation.bit) is operation:
            del socket.operations[operation.bit]

    def _look(self, max_events: int) -> tuple[list[Pair], list[tuple[_Watch, int]]]:
        """Look at what is hot, report what is ready, and begin the operations of what is not."""
        batch: list[Pair] = []
        delivered: list[tuple[_Watch, int]] = []
        hot = self._hot
        queue = list(hot.values())
        for start in range(0, len(queue), CHUNK):
            chunk = queue[start : start + CHUNK]
            found = dict(self._port.sample([(watch.fd, watch.armed) for watch in chunk if watch.armed]))
            for watch in chunk:
                fd, armed = watch.fd, watch.armed
                bits = found.get(fd, 0)
                ready = bits & armed
                if ready != armed or not armed:
                    self._cool(watch, bits)
                if bits & READ:
                    watch.socket.futile = 0
                if ready and len(batch) < max_events:
                    batch.append((fd, ready))
                    if watch.mode is not Mode.LEVEL:
                        delivered.append((watch, ready))
            if len(batch) >= max_events:
                break
        if len(queue) > max_events:
            for fd, _ in batch:
                if fd in hot:  # behind all others, so that each has its turn; no call between, and so no signal handler
                    watch = hot[fd]
                    del hot[fd]
                    hot[fd] = watch
        return batch, delivered

    def _cool(self, watch: _Watch, bits: int) -> None:
        """Begin the operations of what is armed and not ready; what is covered by them is hot no longer."""
        fd, hot = watch.fd, self._hot
        with self._lock:
            if self._watches.get(fd) is not watch:
                return  # changed or gone since it was looked at
            if bits & INVALID:
                self._drop(watch)
                return
            waiting = watch.armed & ~bits
            try:
                begun = [self._begin(watch.socket, bit) for bit in (READ, WRITE) if waiting & bit]
            except BaseException:
                self._forget_unbegun(watch.socket)
                raise
            finally:
                present = self._watches.get(fd)
                if present is None or present.socket is not watch.socket:
                    self._cancel(watch.socket)  # a signal handler took it away before this had begun
            if waiting == watch.armed and all(begun) and fd in hot and hot[fd] is watch:
                del hot[fd]

    def _begin(self, socket: _Socket, bit: int) -> bool:
        """Begin an operation, if there is none outstanding; false if the socket must be looked at again instead."""
        operation = socket.operations.get(bit)
        if operation is None:
            # Asked each time: the number may mean another socket than when it was registered.
            kind = describe_if_open(socket.fd) if bit == READ else None
            receives = (
                kind in (Kind.STREAM, Kind.DATAGRAM)
                and _BOUND_TO.get(socket.fd) is self._mark
                and socket.futile < FUTILE
            )
            operation = self._prepare(socket, bit, kind if receives else None)
        elif operation.started:
            return True
        if self._port.start(operation):
            return True
        is_outstanding = self._port.is_outstanding(operation)
        if not is_outstanding:
            self._operations.pop(operation.address, None)
        socket.operations.pop(bit, None)
        return not is_outstanding and self._port.start(self._prepare(socket, bit))

    def _prepare(self, socket: _Socket, bit: int, receive_from: Kind | None = None) -> Operation:
        """Prepare a receive, from a socket of a kind that can be received from, or a watch."""
        if receive_from:
            socket.futile += 1
            operation = self._port.receive(socket.fd, receive_from is Kind.DATAGRAM, socket)
        else:
            operation = self._port.watch(socket.fd, bit, socket)
        socket.operations[bit] = operation
        self._operations[operation.address] = operation
        return operation

    def _forget_unbegun(self, socket: _Socket) -> None:
        """Forget what an exception has kept from beginning, since no packet will come of it."""
        for operation in list(socket.operations.values()):
            if not self._port.is_outstanding(operation):
                self._operations.pop(operation.address, None)
                socket.operations.pop(operation.bit, None)

    def _drop(self, watch: _Watch) -> None:
        """Forget a closed number, unless it was opened anew since it was looked at."""
        if describe_if_open(watch.fd) is None:
            self.deregister(watch.fd)
            _BOUND_TO.pop(watch.fd, None)

    # -- the rest --------------------------------------------------------------------------------------

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return READINESS[bits & int(interest)]  # whose operators are quick

    def wake(self) -> None:
        if self._posted <= self._taken:
            self._port.post(WAKE)
            self._posted += 1

    def _kick(self) -> None:
        """Have a wait in progress begin again, with what has just been changed."""
        if self._waiting:
            self.wake()

    def close(self) -> None:
        self._watches.clear()
        self._hot.clear()
        self._notes.clear()
        self._port.close(self._operations)

    def abandon(self) -> None:
        self._watches.clear()
        self._port.abandon()
