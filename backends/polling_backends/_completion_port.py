"""What a completion port is to the backend above, and the one that Windows has.

The façade is a handful of calls that speak in numbers and plain tuples, so that the backend on top of it runs, is
type-checked and is tested on every system. Two ports stand behind it: this module's, over CPython's private modules
``_overlapped`` and ``_winapi``, and one in pure Python over poll(2), in ``_emulated_port``.

Some facts about completion ports, as Windows has them:

  * A socket is bound to a port once and for life; a second time, or to a second port, is error 87. What is bound is
    the open socket and not the handle, so duplicates share it.
  * An operation that was begun ends exactly once, and then a packet is put into the port. It names the operation by
    the address of a structure, OVERLAPPED, that the caller gave. Until the operation has ended the kernel may write
    there, so the structure must live on; until the packet was fetched the address must mean nothing else.
  * Cancelling asks an operation to end soon. It ends with error 995, or in any other way that was faster, and the
    packet comes as ever. Closing a socket ends its operations, with their packets.
  * A receive of no bytes ends when there is something to receive, and takes nothing, except that a datagram is gone
    unless the receive only peeks. (The documentation has MSG_PEEK for sockets without overlapped I/O. libuv has
    peeked with overlapped ones for many years.) One that peeks at a datagram which is there already fails with error
    10040, and under Wine a packet comes nevertheless.
  * On a socket that is not connected, or listens, a receive fails with error 10057.
  * ``PostQueuedCompletionStatus`` puts a packet of the caller's own into the port. One with the address NULL makes
    ``_overlapped.GetQueuedCompletionStatus`` raise, because that is how the system says that it failed.
  * ``GetQueuedCompletionStatus`` gives one packet, counts in milliseconds, and is not ended by Ctrl-C: Python runs
    signal handlers when it returns.

Nothing there waits for room to send, for a connect that was begun by ``connect``, or for a connection to accept,
without doing it, too: a send of no bytes ends at once, ``AcceptEx`` takes the connection away from whoever calls
``accept``, and ``ConnectEx`` has to be what begins the connect. ``select`` tells of all three, for at most 512
sockets a call, and of a connect that failed in its third set only, where urgent data shows as well. So *watches* are
threads that sit in ``select``, one for up to 500 watches, each with a socket to be kicked by, and they post the
packet that a kernel with such an operation would. They are begun with the first socket that needs one. They also
serve reading where a receive cannot: sockets that are bound to another port. (An event and ``RegisterWaitWithQueue``
would do that, too; watches are there anyway.)

AFD, the driver below, could tell all of this by packets, but to talk to it takes ``ctypes`` or compiled code. So does
everything about consoles and anonymous pipes, for which there is no ``select``.

References: the Windows documentation of I/O completion ports, WSARecv, CancelIoEx, PostQueuedCompletionStatus,
GetQueuedCompletionStatus and select; ``Modules/overlapped.c`` of CPython.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import partial
from importlib import import_module
from itertools import starmap
from threading import RLock, Thread
from time import monotonic

TYPE_CHECKING = False  # the module typing takes longer to import than all this

if TYPE_CHECKING:
    from typing import Any, Final, Protocol, TypeAlias
else:
    Protocol = object

__all__ = ["CompletionPort", "Kind", "Operation", "Watchers", "WindowsPort", "describe", "describe_if_open"]

READ: Final = 1
WRITE: Final = 2
INVALID: Final = 4
"""Bits of a sample: something to read, room to write, and: this is no open socket. The first two are Interest's."""

CHUNK: Final = 500
"""Sockets that one ``select`` is asked about: CPython's takes 512 on Windows."""

FOREVER: Final = 0xFFFFFFFF
"""Milliseconds that ``get`` takes for no limit."""

ABORTED: Final = 995  # ERROR_OPERATION_ABORTED
RESET: Final = 64  # ERROR_NETNAME_DELETED
MORE_DATA: Final = 234  # ERROR_MORE_DATA
TOO_LARGE: Final = 10040  # WSAEMSGSIZE

Packet: TypeAlias = tuple[int, int, int, int]
"""Error, bytes, key, address: what ``GetQueuedCompletionStatus`` gives. All that counts here is the address."""


class Kind(Enum):
    """What a socket is, as far as waiting to read from it goes."""

    STREAM = "a connected stream: receives of no bytes wait for it"
    UNCONNECTED = "a stream that is not connected, or not yet"
    LISTENER = "a listener"
    DATAGRAM = "a socket of datagrams, at which receives must peek"
    UNKNOWN = "a socket that cannot be asked"


class Operation:
    """Something that was begun, or is about to be, and ends with a packet that has its address.

    It is the memory that the kernel writes to: whoever has it keeps it until the packet was fetched.
    """

    __slots__ = ("__weakref__", "address", "bit", "fd", "owner", "started")

    def __init__(self, fd: int, bit: int, owner: object) -> None:
        self.fd: Final = fd
        self.bit: Final = bit
        self.owner: Final = owner
        self.address = 0
        self.started = False
        """Whether it is known to have begun. ``start`` sets it last, and goes on if it was cut off before."""


class CompletionPort(Protocol):
    """What the backend asks of a port. One thread waits and starts operations; the rest comes from any."""

    @property
    def interruptible(self) -> bool:
        """Whether signal handlers run while ``get`` waits."""

    @property
    def get(self) -> Callable[[int], Packet | None]:
        """``get(milliseconds)``: fetch a packet; None if there was none in that time."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Its own handles or descriptors; a wake goes under the first."""

    def attach(self, fd: int) -> bool:
        """Bind a socket to this port; false if it is bound already, to this or another."""

    def receive(self, fd: int, peek: bool, owner: object) -> Operation:
        """Prepare a receive of no bytes. Nothing has begun."""

    def watch(self, fd: int, bit: int, owner: object) -> Operation:
        """Prepare a watch for READ or WRITE. Nothing has begun."""

    def start(self, operation: Operation) -> bool:
        """Begin it; false if the system refuses."""

    def is_outstanding(self, operation: Operation) -> bool:
        """Tell whether a packet of it is still to come: it has begun, or was refused and one comes nevertheless."""

    def cancel(self, operation: Operation) -> None:
        """Have it end soon. Its packet still comes. Nothing happens if it has ended, or not begun."""

    def post(self, address: int) -> None:
        """Put a packet of our own into the port, from signal handlers, too. Nothing happens after ``close``."""

    def sample(self, asked: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        """Look at sockets, given by number and bits, ``CHUNK`` at most; give those that are ready, and how."""

    def close(self, outstanding: dict[int, Operation]) -> None:
        """End all that is outstanding, by address, and let go."""

    def abandon(self) -> None:
        """Let go in a forked child."""


def describe(fd: int) -> Kind:
    """Say what *fd* is.

    Raises:
        OSError: EBADF: it is closed. EPERM: it is no socket.
    """
    try:
        if socket.getdefaulttimeout() is not None:
            # An object made for the number would set its blocking mode, and what that was Windows does not tell.
            if sys.platform == "win32":
                select.select([fd], [], [], 0)
            elif not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
            return Kind.UNKNOWN
        # The family only says how much room there is for an address, for which Windows wants to have enough.
        # Not ``found = ...``: if a signal handler raised before that was stored, the object would close the number.
        for found in starmap(socket.SocketType, [(socket.AF_INET6, socket.SOCK_STREAM, 0, fd)]):
            try:
                kind = _describe(found)
            finally:
                found.detach()
            return kind
    except OSError as error:
        if error.errno != errno.ENOTSOCK:
            raise
    os.fstat(fd)  # EBADF. On Windows it asks for a number of the C library's, which files have, and not a handle.
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def describe_if_open(fd: int) -> Kind | None:
    """Say what *fd* is, None if it is no open socket any more."""
    try:
        return describe(fd)
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EPERM):
            raise  # a signal handler's
        return None


def _describe(found: socket.SocketType) -> Kind:
    if found.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        return Kind.DATAGRAM
    try:
        found.getpeername()
        return Kind.STREAM
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EINVAL):  # EINVAL: macOS, of one that was shut down
            raise
    return Kind.LISTENER if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) else Kind.UNCONNECTED


# -- watches ---------------------------------------------------------------------------------------------


class _Watcher(Thread):
    """A thread that sits in ``select`` for up to ``CHUNK`` watches."""

    def __init__(self, post: Callable[[int], None]) -> None:
        super().__init__(name="polling watcher", daemon=True)
        self._post = post
        self._watches: dict[int, tuple[int, int, bool]] = {}  # by address: number, bit, and whether it may fail
        self._kicked, self._kick = socket.socketpair()
        self._kicked.setblocking(False)
        self._kick.setblocking(False)
        self._over = False

    def has(self, address: int) -> bool:
        return address in self._watches

    def has_room_for(self, address: int) -> bool:
        return self.has(address) or len(self._watches) < CHUNK

    def add(self, address: int, fd: int, bit: int, may_fail: bool) -> None:
        self._watches[address] = (fd, bit, may_fail)
        self.kick()

    def remove(self, address: int) -> bool:
        """End a watch; false if it has ended by itself."""
        if self._watches.pop(address, None) is None:
            return False
        self.kick()
        return True

    def end(self) -> None:
        self._over = True
        self.kick()
        if self.ident is not None:
            self.join()
        self._kicked.close()
        self._kick.close()

    def kick(self) -> None:
        """Have the thread begin anew. One that has been kicked often enough to be full of it will."""
        try:
            self._kick.send(b"k")
        except BlockingIOError:
            pass

    def run(self) -> None:
        while not self._over:
            for address in self._look():
                # Whoever takes it out, this thread or ``remove``, posts the packet: there is one.
                if self._watches.pop(address, None) is not None:
                    self._post(address)

    def _look(self) -> list[int]:
        """Wait, and give the addresses of what ended."""
        watches = list(self._watches.items())
        reads = [fd for _, (fd, bit, _) in watches if bit == READ]
        writes = [fd for _, (fd, bit, _) in watches if bit == WRITE]
        failing = [fd for _, (fd, _, may_fail) in watches if may_fail]
        kicked = self._kicked.fileno()
        try:
            ended = set().union(*select.select([kicked, *reads], writes, failing))
        except OSError:
            # One of them was closed. On its own each one says so.
            return [address for address, (fd, bit, _) in watches if not _is_idle(fd, bit)]
        if kicked in ended:
            try:
                self._kicked.recv(4096)
            except BlockingIOError:
                pass
        # Both watches of a number: one that was closed meanwhile may show in one of the sets only, and mean another
        # socket by the next time.
        return [address for address, (fd, _, _) in watches if fd in ended]


def _is_idle(fd: int, bit: int) -> bool:
    try:
        return not any(select.select([fd] if bit == READ else [], [fd] if bit == WRITE else [], [], 0))
    except OSError:
        return False


class Watchers:
    """All watches of a port, and their threads, of which there are none until the first watch."""

    def __init__(self, post: Callable[[int], None]) -> None:
        self._post = post
        self._lock = RLock()  # a signal handler that cancels may strike whoever has it
        self._threads: list[_Watcher] = []

    def start(self, operation: Operation, may_fail: bool) -> None:
        """Begin a watch. Does no harm if it has begun."""
        with self._lock:
            for thread in self._threads:
                if thread.has_room_for(operation.address):
                    break
            else:
                thread = _Watcher(self._post)
                self._threads.append(thread)
            if thread.ident is None:
                thread.start()
            thread.add(operation.address, operation.fd, operation.bit, may_fail)

    def has(self, operation: Operation) -> bool:
        """Tell whether a watch is under way."""
        return any(thread.has(operation.address) for thread in self._threads)

    def cancel(self, operation: Operation) -> None:
        """End a watch, with its packet."""
        with self._lock:
            if any(thread.remove(operation.address) for thread in self._threads):
                self._post(operation.address)

    def close(self) -> None:
        """End the threads. No packets come of what they watched."""
        while self._threads:
            self._threads[-1].end()
            self._threads.pop()


# -- Windows ---------------------------------------------------------------------------------------------

NEEDED: Final = {
    "_overlapped": (
        "CreateIoCompletionPort",
        "GetQueuedCompletionStatus",
        "INVALID_HANDLE_VALUE",
        "Overlapped",
        "PostQueuedCompletionStatus",
    ),
    "_winapi": ("CloseHandle",),
}
"""What is used of CPython's private modules."""


class _Handle:
    """A handle, closed when the last reference to it goes: whoever uses it has one, so it never means another."""

    __slots__ = ("_close", "number")

    def __init__(self, number: int, close: Callable[[int], object]) -> None:
        self.number: Final = number
        self._close: Final = close

    def __del__(self) -> None:
        self._close(self.number)


class _Receive(Operation):
    """A receive: an operation of the kernel's."""

    __slots__ = ("overlapped", "peek")

    def __init__(self, fd: int, peek: bool, owner: object, overlapped: Any) -> None:
        super().__init__(fd, READ, owner)
        self.peek: Final = peek
        self.overlapped: Final = overlapped
        self.address: int = overlapped.address

    def __del__(self) -> None:
        """Whoever lets go of it, the memory stays for as long as the kernel may write there."""
        overlapped = getattr(self, "overlapped", None)  # None: a signal handler cut off the making
        if overlapped is not None and overlapped.pending:
            _LIMBO.add(self)

    def has_begun(self) -> bool:
        try:
            self.overlapped.getresult(False)
        except ValueError:
            return False  # not attempted, or refused
        except OSError:
            pass  # under way, or ended with an error
        return True


_LIMBO: Final[set[_Receive]] = set()
"""Those that are under way though nobody has them: of sockets that were closed while a duplicate lives.

The next port that is closed lets go of those that have ended.
"""


class WindowsPort:
    """The completion port of Windows."""

    interruptible = False

    @staticmethod
    def unavailable_reason() -> str | None:
        """Say what is missing of CPython's private modules."""
        for module, names in NEEDED.items():
            try:
                found = import_module(module)
            except ImportError:
                return f"this Python has no module {module}; it is part of CPython on Windows"
            missing = [name for name in names if not hasattr(found, name)]
            if missing:
                return f"this Python's module {module} has no {', '.join(missing)}"
        return None

    def __init__(self) -> None:
        self._system: Final[Any] = import_module("_overlapped")
        number = self._system.CreateIoCompletionPort(self._system.INVALID_HANDLE_VALUE, 0, 0, 1)
        self._handle: _Handle | None = _Handle(number, import_module("_winapi").CloseHandle)
        self.numbers: Final = (number,)
        self.get: Callable[[int], Packet | None] = partial(self._system.GetQueuedCompletionStatus, number)
        self._watchers: Final = Watchers(self.post)
        self._last_watch = 1  # addresses of watches are odd, which no address of memory is, and never used again

    def attach(self, fd: int) -> bool:
        handle = self._handle
        if handle is None:  # closed by a signal handler, in the midst of a call
            return False
        try:
            self._system.CreateIoCompletionPort(fd, handle.number, 0, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:  # error 87
                raise
            return False
        return True

    def receive(self, fd: int, peek: bool, owner: object) -> Operation:
        return _Receive(fd, peek, owner, self._system.Overlapped(0))

    def watch(self, fd: int, bit: int, owner: object) -> Operation:
        operation = Operation(fd, bit, owner)
        self._last_watch += 2
        operation.address = self._last_watch
        return operation

    def start(self, operation: Operation) -> bool:
        if not isinstance(operation, _Receive):
            self._watchers.start(operation, _may_fail(operation.fd))
        else:
            try:
                operation.overlapped.WSARecv(operation.fd, 0, socket.MSG_PEEK if operation.peek else 0)
            except (OSError, ValueError) as error:
                if not operation.has_begun():
                    return False
                if isinstance(error, OSError):
                    raise  # a signal handler's: the call was through
                # ValueError: it was attempted before, and a signal handler raised then.
        operation.started = True
        return True

    def is_outstanding(self, operation: Operation) -> bool:
        if isinstance(operation, _Receive):
            return operation.overlapped.error == TOO_LARGE or operation.has_begun()
        return self._watchers.has(operation)

    def cancel(self, operation: Operation) -> None:
        if not isinstance(operation, _Receive):
            self._watchers.cancel(operation)
            return
        try:
            operation.overlapped.cancel()
        except OSError as error:
            if error.errno != errno.EBADF:  # error 6: the socket is closed, which ended it
                raise

    def post(self, address: int) -> None:
        handle = self._handle
        if handle is not None:
            self._system.PostQueuedCompletionStatus(handle.number, 0, 0, address)

    def sample(self, asked: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        fds = [fd for fd, _ in asked]
        try:
            readable, writable, exceptional = select.select(
                [fd for fd, bits in asked if bits & READ], [fd for fd, bits in asked if bits & WRITE], fds, 0
            )
        except OSError:
            return [(fd, bits) for entry in asked for fd, bits in self._sample_one(*entry)]
        found = dict.fromkeys(readable, READ)
        for fd in writable:
            found[fd] = found.get(fd, 0) | WRITE
        for fd in exceptional:
            # Urgent data, which is nobody's business here, or a connect that failed.
            if found.get(fd, 0) & WRITE == 0 and _may_fail(fd):
                found[fd] = READ | WRITE
        return found.items()

    def _sample_one(self, fd: int, bits: int) -> Iterable[tuple[int, int]]:
        """Look at one socket, when one of several was closed."""
        try:
            select.select([fd], [], [], 0)
        except OSError:
            return [(fd, INVALID)]
        return self.sample([(fd, bits)])

    def close(self, outstanding: dict[int, Operation]) -> None:
        self._watchers.close()
        for address, operation in list(outstanding.items()):
            if isinstance(operation, _Receive) and self.is_outstanding(operation):
                self.cancel(operation)
            else:
                outstanding.pop(address, None)  # no packet comes
        deadline = monotonic() + 1
        while outstanding and monotonic() < deadline:
            packet = self.get(50)
            if packet is not None:
                outstanding.pop(packet[3], None)
        outstanding.clear()
        _LIMBO.difference_update([operation for operation in list(_LIMBO) if not operation.overlapped.pending])
        self._handle = None

    def abandon(self) -> None:
        raise NotImplementedError("Windows has no fork")


def _may_fail(fd: int) -> bool:
    """Tell whether *fd* is a socket whose connect may fail: nothing else fails so that ``select`` says so."""
    return describe_if_open(fd) in (Kind.UNCONNECTED, Kind.UNKNOWN)
