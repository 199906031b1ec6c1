"""A completion port in pure Python over poll(2), so that the backend for Windows runs wherever there is poll(2).

It emulates the façade of ``_completion_port`` with the properties that make the real port difficult. It is no way to
serve anything, since it asks poll(2) about all that waits; it is there so that what stands on the façade is tested,
and changed, on every machine. What it keeps of the documentation of Windows:

  * What is bound is the open socket, and for life: ``attach`` refuses it a second time, under a duplicate's number
    and after the port was closed, too.
  * Each operation that was begun ends once and leaves one packet with its address, cancelled or not, in the order in
    which they end.
  * A receive is refused on a socket that is not connected, or listens. It ends when there is something to receive, an
    end or an error; on datagrams with error 234 if it peeks, and else it takes the datagram. One that peeks at a
    datagram which is there already is refused, and leaves a packet.
  * An operation that was cancelled has ended when ``cancel`` returns, with error 995, and its packet is behind all
    that are queued.
  * The operations of a socket that was closed end with error 995: here when the port looks next.
  * A packet whose address is 0 makes ``get`` raise.

What corrupts memory on Windows, or makes a packet look like another or go to another port, raises ``Misuse`` here: to
let go of an operation before its packet was fetched, to begin it twice, to have two of a kind outstanding on one
socket, to receive on a socket that is bound to another port. An address is given to the next operation as soon as
nobody has the former one any more, the last one first, as allocators do.

Three differences remain. A receive does not stay pending after an own ``shutdown`` of receiving. The operations of a
socket that is closed while a duplicate lives end, as poll(2) knows numbers only. And nothing ends while nobody is in
``get``: a packet that is stale when it is fetched has to be brought about by a test, as ``Contrary`` in
``tests/mutants`` does.

A signal handler may raise anywhere. Where an operation ends and where a packet is handed out nothing is called in
between, so neither can be lost or doubled; everything else can be done again.

References: the Windows documentation of CreateIoCompletionPort, GetQueuedCompletionStatus,
PostQueuedCompletionStatus, CancelIoEx and WSARecv; poll(2).
"""

from __future__ import annotations

import errno
import os
import select
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from math import ceil
from time import monotonic

from polling_backends import _flags
from polling_backends._completion_port import (
    ABORTED,
    FOREVER,
    INVALID,
    MORE_DATA,
    READ,
    RESET,
    WRITE,
    Kind,
    Operation,
    Packet,
    describe_if_open,
)
from polling_backends._doorbell import Doorbell

TYPE_CHECKING = False  # the module typing takes longer to import than all this

if TYPE_CHECKING:
    from typing import Final, Protocol
else:
    Protocol = object

__all__ = ["EmulatedPort", "Misuse"]

GONE: Final = _flags.ERR | _flags.HUP
ASKED: Final = (0, _flags.IN, _flags.OUT, _flags.IN | _flags.OUT)
"""The flags to ask for, by bits."""

FOUND: Final = tuple(
    (INVALID if flags & _flags.NVAL else 0)
    | (READ if flags & (_flags.IN | GONE) else 0)
    | (WRITE if flags & (_flags.OUT | GONE) else 0)
    for flags in range(64)
)
"""The bits that hold, by flags. On Windows ``select`` says of a socket that failed that it is ready both ways, too."""

LOWEST: Final = 1 << 16
"""The first address of an operation. No program has anything below."""

SIZE: Final = 64


class Misuse(RuntimeError):
    """What Windows would answer with corrupted memory, or a packet that nobody can tell from another."""


class _Poll(Protocol):
    """``select.poll``, as far as it is used here, for type checkers of systems that have none."""

    def register(self, fd: int, eventmask: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...
    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]: ...


def _open_poll() -> _Poll:
    opened: _Poll = getattr(select, "poll")()  # noqa: B009  # an attribute that type checkers do not see on Windows
    return opened


class _Request:
    """The kernel's side of an operation: it knows the address, and not what the owner keeps there."""

    __slots__ = ("address", "bit", "eats", "ending", "fd", "outstanding", "peek", "receives")

    def __init__(self, address: int, fd: int, bit: int, receives: bool, peek: bool) -> None:
        self.address: Final = address
        self.fd: Final = fd
        self.bit: Final = bit
        self.receives: Final = receives
        self.peek: Final = peek
        self.ending = 0
        self.eats = False
        self.outstanding = False


class _Memory(Operation):
    """The owner's side of it."""

    __slots__ = ("request",)

    def __init__(self, request: _Request, owner: object) -> None:
        super().__init__(request.fd, request.bit, owner)
        self.address = request.address
        self.request: Final = request


class _Allocation(weakref.ref[_Memory]):
    """What the heap knows of it: where it is, and when the last reference to it is gone."""

    __slots__ = ("address",)

    address: int


_BOUND: Final[dict[object, object]] = {}
_BOUND_AT: Final[dict[int, object]] = {}
"""Sockets that are bound, with the mark of their port, and by number: a closed one is forgotten when that is bound."""


class EmulatedPort:
    """A completion port that is none."""

    interruptible = True

    @staticmethod
    def unavailable_reason() -> str | None:
        """Say what this emulation misses."""
        return None if hasattr(select, "poll") else "this system has no poll(2) to emulate a completion port by"

    def __init__(self) -> None:
        self._mark: Final = object()
        self._bell: Doorbell | None = Doorbell()
        self.numbers: Final = self._bell.fds
        self._poll = _open_poll()
        self._poll.register(self._bell.fd, _flags.IN)
        self._requests: dict[tuple[int, int], _Request] = {}  # that have not ended, by number and bit
        self._packets: deque[Packet] = deque()
        self._outstanding: dict[int, _Request] = {}  # those whose packet is still to be fetched
        self._allocations: dict[int, _Allocation] = {}  # by address
        self._freed: list[_Allocation] = []  # of which nobody has the memory any more
        self._heap: list[int] = []  # addresses to be given anew
        self._top = LOWEST  # the first address that was never given

    # -- operations ------------------------------------------------------------------------------------

    def attach(self, fd: int) -> bool:
        if self._bell is None:  # closed by a signal handler, in the midst of a call
            return False
        identity = _identity(fd)
        if identity in _BOUND:
            return False
        _BOUND.pop(_BOUND_AT.get(fd), None)
        _BOUND_AT[fd] = identity
        _BOUND[identity] = self._mark
        return True

    def receive(self, fd: int, peek: bool, owner: object) -> Operation:
        return self._prepare(fd, READ, True, peek, owner)

    def watch(self, fd: int, bit: int, owner: object) -> Operation:
        return self._prepare(fd, bit, False, False, owner)

    def _prepare(self, fd: int, bit: int, receives: bool, peek: bool, owner: object) -> Operation:
        self._reclaim()
        if self._heap:
            address = self._heap.pop()
        else:
            address = self._top
            self._top += SIZE
        memory = _Memory(_Request(address, fd, bit, receives, peek), owner)
        allocation = _Allocation(memory, self._freed.append)
        allocation.address = address
        self._allocations[address] = allocation
        return memory

    def _reclaim(self) -> None:
        """Take back the memory of operations that nobody has any more."""
        while self._freed:
            address = self._freed[-1].address
            if address in self._outstanding:
                raise Misuse(f"the operation at {address:#x} was let go of before its packet was fetched")
            del self._allocations[address]
            self._freed.pop()
            self._heap.append(address)

    def start(self, operation: Operation) -> bool:
        assert isinstance(operation, _Memory)
        request = operation.request
        if operation.started:
            raise Misuse(f"the operation at {request.address:#x} was begun before")
        if not request.outstanding:
            if (request.fd, request.bit) in self._requests:
                raise Misuse(f"an operation of this kind is outstanding already on descriptor {request.fd}")
            if request.receives and not self._begin_receive(request):
                return False
            request.outstanding = True
            self._outstanding[request.address] = request
            self._requests[request.fd, request.bit] = request
        self._ask(request.fd)
        operation.started = True
        return True

    def _begin_receive(self, request: _Request) -> bool:
        """Say whether a receive can be pending; if not, leave the packet that there may be."""
        kind = describe_if_open(request.fd)
        if kind is Kind.DATAGRAM and request.peek:
            if any(bits & READ for _, bits in self.sample([(request.fd, READ)])):
                request.outstanding = True
                self._outstanding[request.address] = request
                self._packets.append((MORE_DATA, 0, 0, request.address))
                return False
            request.ending = MORE_DATA
        request.eats = kind is Kind.DATAGRAM and not request.peek
        if kind is not Kind.STREAM and kind is not Kind.DATAGRAM:
            return False
        if self._is_bound_elsewhere(request.fd):
            raise Misuse(f"descriptor {request.fd} is bound to another port, and so its packets go there")
        return True

    def _is_bound_elsewhere(self, fd: int) -> bool:
        try:
            return _BOUND.get(_identity(fd), self._mark) is not self._mark
        except OSError as error:
            if error.errno is None:
                raise  # a signal handler's
            return False  # closed

    def is_outstanding(self, operation: Operation) -> bool:
        assert isinstance(operation, _Memory)
        return operation.request.outstanding

    def cancel(self, operation: Operation) -> None:
        assert isinstance(operation, _Memory)
        self._end(operation.request, ABORTED)
        self._ask(operation.fd)

    def post(self, address: int) -> None:
        bell = self._bell
        if bell is not None:
            self._packets.append((0, 0, 0, address))
            bell.ring()

    # -- packets ---------------------------------------------------------------------------------------

    def get(self, milliseconds: int) -> Packet | None:
        deadline = None if milliseconds == FOREVER else monotonic() + milliseconds / 1000
        left: float | None = None if deadline is None else milliseconds
        packets = self._packets
        while True:
            self._reclaim()
            if packets:
                # From here on to the caller nothing is called, so no signal handler comes between.
                address = packets[0][3]
                if not address:
                    del packets[0]
                    raise OSError(0, "the packet's address is NULL, as if there were none")
                if address in self._outstanding:
                    self._outstanding[address].outstanding = False
                    del self._outstanding[address]
                packet = packets[0]
                del packets[0]
                return packet
            for fd, flags in self._poll.poll(left):
                if self._bell is None or fd == self._bell.fd:
                    self._answer(flags)
                else:
                    self._look(fd, flags)
            if packets:
                continue
            if deadline is not None:
                left = ceil((deadline - monotonic()) * 1000)
                if left <= 0:
                    return None

    def _answer(self, flags: int) -> None:
        """Clear the bell. One that is broken must not spin."""
        bell = self._bell
        if bell is None or flags & (_flags.NVAL | GONE):
            raise OSError(errno.EBADF, "somebody else closed the descriptor by which this port is woken")
        bell.clear()

    def _look(self, fd: int, flags: int) -> None:
        """End what *flags* end."""
        found = FOUND[flags & 63]
        for bit in (READ, WRITE):
            request = self._requests.get((fd, bit))
            if request is not None and found & (bit | INVALID):
                if found & INVALID:
                    self._end(request, ABORTED)
                elif not request.receives or not flags & GONE:
                    if request.eats:
                        _take_one(fd)
                    self._end(request, request.ending)
                else:
                    self._end(request, RESET)
        self._ask(fd)

    def _end(self, request: _Request, error: int) -> None:
        """Take a request out, and queue its packet, unless it has just ended in another way."""
        pending, key, append = self._requests, (request.fd, request.bit), self._packets.append
        # From here on nothing is called, so neither a thread that cancels nor a signal handler comes between.
        if key in pending and pending[key] is request:
            del pending[key]
            append((error, 0, 0, request.address))

    def _ask(self, fd: int) -> None:
        """Have poll(2) look at a number for what is pending there, from its next call on."""
        flags = ASKED[(READ if (fd, READ) in self._requests else 0) | (WRITE if (fd, WRITE) in self._requests else 0)]
        if flags:
            self._poll.register(fd, flags)
        else:
            try:
                self._poll.unregister(fd)
            except KeyError:
                pass

    # -- the rest --------------------------------------------------------------------------------------

    def sample(self, asked: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        look = _open_poll()
        for fd, bits in asked:
            look.register(fd, ASKED[bits])
        return [(fd, FOUND[flags]) for fd, flags in look.poll(0)]

    def close(self, outstanding: dict[int, Operation]) -> None:
        self._bell = None
        self._requests.clear()
        for request in self._outstanding.values():
            request.outstanding = False
        self._outstanding.clear()
        self._allocations.clear()
        outstanding.clear()

    def abandon(self) -> None:
        # Closing the child's numbers takes nothing from the parent, whose own numbers keep the bell open.
        self.close({})


def _identity(fd: int) -> object:
    """Say what open socket a number means.

    Raises:
        OSError: EBADF: it is closed.
    """
    status = os.fstat(fd)
    return (status.st_dev, status.st_ino) if status.st_ino else fd  # macOS gives sockets no inode


def _take_one(fd: int) -> None:
    """Take a datagram, if there still is one, and the number still means who had it."""
    try:
        os.read(fd, 1)
    except OSError as error:
        if error.errno is None:
            raise  # a signal handler's
