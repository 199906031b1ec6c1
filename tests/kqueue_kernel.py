"""A kqueue for Linux: a model of the kernels of FreeBSD and macOS, driven by real descriptors.

It stands where ``select.kqueue`` stands, speaks plain tuples, and knows nothing of what is built above it. It is
written from the manual pages, kqueue(2) of FreeBSD 15 and of macOS 15 ("DESCRIPTION" for the life of an event, EV_*
and EVFILT_*; "RETURN VALUES" for errors in the change list; "ERRORS"); from the kernels' sources where a page says
nothing or says something else (``kern_event.c``, ``uipc_socket.c``, ``sys_pipe.c``, ``tty.c`` of both, called "the
kernel" below); and, for what CPython does above kevent(2), from its ``selectmodule.c``.

Some facts about kqueue:

  * What is watched is a *knote*, found by (ident, filter). "The filter is executed upon the initial registration", each
    time something happens to the source, and "also run when the user attempts to retrieve the kevent": a condition that
    is gone by then is not reported. Level is the default; EV_CLEAR reports again only after something happened again.
  * EV_ADD of a knote that exists runs the filter anew and sets fflags and data. It changes none of EV_CLEAR,
    EV_ONESHOT, EV_DISPATCH, and it does not enable a disabled knote, though the pages say "automatically enables it".
    Any change of an existing knote but EV_DELETE runs its filter.
  * All changes are applied first. One that fails is answered by an event with EV_ERROR, one with EV_RECEIPT always, and
    a call that has answered collects nothing. Without room for the answer the failure ends the call as an error,
    and the changes behind it are not made; those before it are.
  * Knotes belong to the descriptor, not to the file: closing the number removes them, whoever else has the file open.

Some facts about Linux, and what follows:

  * An epoll instance that watches with EPOLLET becomes ready when the source wakes it, and at EPOLL_CTL_MOD if the
    condition holds, and is quiet once asked. That is when a kernel runs a knote's filter. So each knote has a private
    epoll instance, and all of them are in an outer one, which is the kqueue's number: its readiness is level, its list
    takes turns, other threads' changes wake it, and between the source and it there is no code of ours that could
    mask or invent an edge.
  * While the filter of a level knote says yes, its instance watches level-triggered. It says no to some of what
    Linux reports (a socket that was never connected); then the instance watches for the next edge.
  * epoll finds what it watches by number and file, so EPOLL_CTL_MOD succeeds if and only if the number still means
    the same file. That is how a knote learns that its descriptor was closed: when it is next looked at. Meanwhile a
    duplicate that lives may make the kqueue's number readable, or end a sleep inside ``control``; no more than that.
  * Python code can be cut off by the handler of a signal after any call; a kernel cannot. So the table of knotes is
    replaced, never changed, and a call takes effect by one assignment. What was taken from epoll
    without having been handed out is noted, and put back by the next call.

Where the flavours differ (F: FreeBSD, M: macOS):

  * EVFILT_USER is -11 on F, -10 on M. NOTE_TRIGGER in the change that adds the knote triggers it on M only. A later
    change with EV_CLEAR resets a triggered one on F: NOTE_TRIGGER with EV_CLEAR does nothing there.
  * EV_WRITE of a pipe whose reader is gone: F refuses it with EPIPE, and makes a knote that was there before into a
    last EV_EOF | EV_ONESHOT; M reports EV_EOF, level.
  * READ of a pipe's write end, WRITE of its read end: M EV_EOF once the peer is gone. On F both ends of a pipe that has
    no name are open for both, so READ says EV_EOF there, too; it is silent for the wrong end of a FIFO.
  * A closed number: F says EBADF to any change, M to EV_ADD only, and ENOENT to the others.
  * EV_ADD | EV_DELETE of a knote that is not there: F adds, M says ENOENT. EV_ENABLE | EV_DISABLE: F says EINVAL,
    M disables.
  * An answer has EV_ERROR alone on F, with the change's own flags on M. An event has the flags of the knote, on M
    with EV_ADD and EV_ENABLE, if they were given when it was added.
  * EV_RECEIPT without room for it: F ends the call there and says that nothing is in the eventlist, M goes on.
  * ``/dev/tty``: M EINVAL. ``/dev/null``: F ENODEV, M EINVAL.

Limits of the model:

  * Of the filters there are READ, WRITE and USER; the others are EINVAL. NOTE_LOWAT is ignored.
  * An edge may come where a BSD has none: Linux wakes without saying for which direction when a connection changes
    state, so a WRITE knote with EV_CLEAR reports again at the peer's half-close; and it wakes the sender of a datagram.
  * A number that is closed and gets the very same file back by dup2(2), unseen, keeps its knotes.
  * A oneshot runs its filter when it is retrieved, as the pages say; F's kernel hands it out as it was activated.
  * ``fflags`` at EV_EOF cannot be read without taking it from the application. It is ECONNREFUSED for a TCP socket that
    never had a connection, and ECONNRESET for others, while SO_ERROR is set; a timeout would be told wrongly.
  * ``data`` of a Unix listener is 1; of a UDP socket, the size of the next datagram.
  * What goes the other way through F's pipes is left out: their read end is never reported for WRITE.
  * The end of a file wakes nothing when it moves. A FIFO behaves as on F;
    on M it is watched as a file, and its end is not reported.
  * A kqueue in a kqueue takes WRITE, to which both say EINVAL, and a cycle of them is ELOOP, which only Linux says.
  * EINTR is not seen, as ``select`` of CPython goes on by itself; see *seed* for what else that would do.
"""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import stat
import struct
import sys
import threading
import weakref
from enum import Enum
from functools import cache, partial
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kevent: TypeAlias = tuple[int, int, int, int, int]
"""``(ident, filter, flags, fflags, data)``: the same shape for a change and for an event."""

Key: TypeAlias = tuple[int, int]
"""``(ident, filter)``, by which a knote is found."""

EVFILT_READ: Final = -1
EVFILT_WRITE: Final = -2

EV_ADD: Final = 0x0001
EV_DELETE: Final = 0x0002
EV_ENABLE: Final = 0x0004
EV_DISABLE: Final = 0x0008
EV_ONESHOT: Final = 0x0010
EV_CLEAR: Final = 0x0020
EV_RECEIPT: Final = 0x0040
EV_DISPATCH: Final = 0x0080
EV_ERROR: Final = 0x4000
EV_EOF: Final = 0x8000

NOTE_FFNOP: Final = 0x00000000
NOTE_TRIGGER: Final = 0x01000000
NOTE_FFAND: Final = 0x40000000
NOTE_FFOR: Final = 0x80000000
NOTE_FFCOPY: Final = 0xC0000000
NOTE_FFCTRLMASK: Final = 0xC0000000
NOTE_FFLAGSMASK: Final = 0x00FFFFFF

IN: Final = 0x001
OUT: Final = 0x004
ERR: Final = 0x008
HUP: Final = 0x010
NVAL: Final = 0x020
RDHUP: Final = 0x2000
ET: Final = 1 << 31

Found: TypeAlias = tuple[int, int, int]
"""What a filter that says yes has to say: flags to add, fflags, data."""


class Flavour(Enum):
    """Whose kernel this is."""

    FREEBSD = "freebsd"
    MACOS = "macos"


USER_FILTERS: Final = {Flavour.FREEBSD: -11, Flavour.MACOS: -10}


class _Epoll(Protocol):
    """``select.epoll``, as far as it is used here, for type checkers of systems that have none."""

    def register(self, fd: int, eventmask: int, /) -> None: ...
    def modify(self, fd: int, eventmask: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...
    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


@cache
def _linux(module: str, name: str) -> Any:  # Any, as type checkers of other systems know no such name
    return getattr(import_module(module), name)


# A signal's handler that raises between the call that opens a descriptor and the assignment of its number would leak
# it. So it goes from hand to hand between iterators written in C, where no handler runs, into an object that closes it.


def _own(numbers: Iterator[int]) -> _Epoll:
    """Give an object that owns the descriptor, of whatever kind, and closes it with its last reference."""
    epoll: _Epoll = next(map(_linux("select", "epoll").fromfd, numbers))
    return epoll


def _far_away(fd: int) -> _Epoll:
    """Duplicate *fd* to where it takes no number that an application expects to be given."""
    soft, _ = _linux("resource", "getrlimit")(_linux("resource", "RLIMIT_NOFILE"))
    dup = partial(_linux("fcntl", "fcntl"), fd, _linux("fcntl", "F_DUPFD_CLOEXEC"))
    return _own(map(dup, (min(soft, 1 << 20) // 2,)))


def _private_epoll() -> _Epoll:
    near = _linux("select", "epoll")()
    return _far_away(near.fileno())


def _always_ready() -> _Epoll:
    return _own(map(_linux("os", "eventfd"), (1,)))


# The filters: what a descriptor has to say now. All of them only look.


def _poll(fd: int) -> int:
    poll = _linux("select", "poll")()
    poll.register(fd, IN | OUT | RDHUP)
    answer: list[tuple[int, int]] = poll.poll(0)
    return answer[0][1] if answer else 0


def _count(fd: int, request: str) -> int:
    """Ask for a number of bytes; 0 if the descriptor cannot tell."""
    try:
        answer = _linux("fcntl", "ioctl")(fd, _linux("termios", request), b"\0\0\0\0")
    except OSError:
        return 0
    count: int = struct.unpack("i", answer)[0]
    return count


class _Tcp(NamedTuple):
    """What TCP_INFO tells of a connection."""

    state: int
    pending: int  # of a listener: connections
    rtt: int  # measured at the handshake; 0: there was none

    @classmethod
    def of(cls, sock: socket.SocketType) -> _Tcp:
        info = sock.getsockopt(socket.IPPROTO_TCP, 11, 104)  # TCP_INFO: 8 bytes, then 24 numbers of 4
        numbers = struct.unpack_from("=24I", info, 8)
        return cls(info[0], numbers[4], numbers[15])


SENDS_NO_MORE: Final = frozenset({4, 5, 6, 7, 9, 11})
"""FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, LAST_ACK, CLOSING."""


def _socket_filter(sock: socket.SocketType, wanted: int, flags: int) -> Found | None:
    fd = sock.fileno()
    kind = sock.type
    is_stream = kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
    tcp = _Tcp.of(sock) if kind == socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6) else None
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        if wanted == EVFILT_READ and flags & IN:
            return 0, 0, tcp.pending if tcp else 1
        return None
    if is_stream and flags & (HUP | RDHUP) == HUP:
        return None  # PR_CONNREQUIRED, and it was never connected
    if not flags & ERR:
        number = 0
    elif tcp and not tcp.rtt:
        number = errno.ECONNREFUSED
    else:
        number = errno.ECONNRESET
    if wanted == EVFILT_READ:
        data = _count(fd, "FIONREAD")
        if flags & RDHUP:
            return EV_EOF, number, data
        return (0, 0, data) if flags & (IN | ERR) else None
    space = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _count(fd, "TIOCOUTQ")
    if tcp:
        is_shut = tcp.state in SENDS_NO_MORE
    elif kind == socket.SOCK_STREAM and sock.family == _linux("socket", "AF_UNIX"):
        try:
            sock.send(b"", _linux("socket", "MSG_DONTWAIT") | _linux("socket", "MSG_NOSIGNAL"))  # nothing, or EPIPE
            is_shut = False
        except BrokenPipeError:
            is_shut = True
        except OSError:
            is_shut = False
    else:
        is_shut = bool(flags & HUP)
    if is_shut:
        return EV_EOF, number, max(space, 0)
    return (0, 0, max(space, 1)) if flags & (OUT | ERR) else None


def _access(fd: int) -> int:
    mode: int = _linux("fcntl", "fcntl")(fd, _linux("fcntl", "F_GETFL")) & _linux("os", "O_ACCMODE")
    return mode


def _name(fd: int) -> str:
    """What it was opened as, or its kind if it has no name."""
    return os.readlink(f"/proc/self/fd/{fd}")


def _is_nameless_pipe(fd: int) -> bool:
    return _name(fd).startswith("pipe:")


def _pipe_filter(fd: int, wanted: int, flags: int, flavour: Flavour) -> Found | None:
    if _access(fd) == (os.O_WRONLY if wanted == EVFILT_READ else os.O_RDONLY):
        # The wrong end: it waits for the peer to go, if for anything.
        waits = flavour is Flavour.MACOS or (wanted == EVFILT_READ and _is_nameless_pipe(fd))
        return (EV_EOF, 0, 0) if waits and flags & (HUP | ERR) else None
    queued = _count(fd, "FIONREAD")
    if wanted == EVFILT_READ:
        if flags & HUP:
            return EV_EOF, 0, queued
        return (0, 0, queued) if flags & IN else None
    if flags & ERR:
        if flavour is Flavour.FREEBSD and _is_nameless_pipe(fd):
            return EV_EOF | EV_ONESHOT, 0, 0
        return EV_EOF, 0, 0
    size: int = _linux("fcntl", "fcntl")(fd, _linux("fcntl", "F_GETPIPE_SZ"))
    return (0, 0, max(size - queued, 1)) if flags & OUT else None


def _filter(fd: int, mode: int, wanted: int, flavour: Flavour) -> Found | None:
    """Run the filter *wanted* on *fd*, a file of the kind *mode*: what it reports, or ``None`` for nothing.

    Raises:
        OSError: *fd* is closed.
    """
    flags = _poll(fd)
    if flags & NVAL:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if stat.S_ISSOCK(mode):
        # It must not be closed with the object: no handler runs before it is assigned.
        for sock in map(partial(socket.SocketType, -1, -1, -1), (fd,)):
            try:
                found = _socket_filter(sock, wanted, flags)
            finally:
                sock.detach()
            return found
    if stat.S_ISFIFO(mode):
        return _pipe_filter(fd, wanted, flags, flavour)
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        if wanted == EVFILT_WRITE:
            return 0, 0, 0
        left = os.fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR)
        return (0, 0, left) if left else None
    if wanted == EVFILT_READ:
        data = _count(fd, "FIONREAD") if stat.S_ISCHR(mode) else 1
        if flags & HUP:
            return EV_EOF, 0, data
        return (0, 0, data) if flags & IN else None
    if flags & HUP:
        return EV_EOF, 0, 0
    return (0, 0, max(4096 - _count(fd, "TIOCOUTQ"), 1)) if flags & OUT else None


class _Descriptor:
    """What one knote has of a descriptor: the private epoll instance, which is ready when the filter is to be run."""

    def __init__(
        self, ident: int, status: os.stat_result, wanted: int, flavour: Flavour, ready: int, *, edge: bool
    ) -> None:
        """Begin to watch *ident*, a file of that *status*, asleep. *ready* is a descriptor that always is.

        Raises:
            OSError: It is closed, or cannot be watched.
        """
        self._filter = partial(_filter, ident, status.st_mode, wanted, flavour)
        self._ident = self._watched = ident
        self._mask = IN | RDHUP if wanted == EVFILT_READ else OUT
        self._edge = edge
        self._asleep = True
        self._file: tuple[int, int] | None = None
        self._epoll = _private_epoll()
        self.fd = self._epoll.fileno()
        try:
            self._epoll.register(ident, self._mask | ET)
        except PermissionError:
            # epoll has no use for files. They are always ready, and so is what stands in for them.
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                raise OSError(errno.ENODEV if flavour is Flavour.FREEBSD else errno.EINVAL, "no kqfilter") from None
            self._file = status.st_dev, status.st_ino
            self._watched = ready
            self._epoll.register(self._watched, self._mask | ET)

    def _check(self) -> None:
        """Make sure of what the instance watches.

        Raises:
            OSError: The number was closed, whatever it means by now.
        """
        if self._file:
            status = os.fstat(self._ident)
            if self._file != (status.st_dev, status.st_ino):
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._epoll.modify(self._watched, self._mask | (ET if self._asleep else 0))

    def is_current(self) -> bool:
        """Whether the number is still open, and still the same file. May make the instance ready."""
        try:
            self._check()
        except OSError:
            return False
        return True

    def collect(self) -> Found | None:
        """Take what made the instance ready, and run the filter.

        The edge is taken first, so that whatever happens while the filter runs makes another.

        Raises:
            OSError: It was closed meanwhile.
        """
        self._check()
        if self._asleep:
            self._epoll.poll(0, 1)
        found = self._filter()
        if not self._edge:
            if found:
                self._epoll.modify(self._watched, self._mask)
                self._asleep = False
            elif not self._asleep:
                self._asleep = True
                return self.collect()
        return found

    def look_again(self) -> None:
        """Become ready if the filter says yes now."""
        self._asleep = True
        try:
            if self.collect() and self._edge:
                self._epoll.modify(self._watched, self._mask | ET)
        except OSError:
            pass  # closed, as the next look will find

    put_back = look_again

    def close(self) -> None:
        self._epoll.close()


class _User:
    """What one knote has of EVFILT_USER: whether it is triggered, and so watches something that is always ready."""

    def __init__(self, ready: int, *, clear: bool) -> None:
        self._ready = ready
        self._clear = clear
        self._epoll: _Epoll = _linux("select", "epoll")()
        self.fd = self._epoll.fileno()

    def trigger(self) -> None:
        try:
            self._epoll.register(self._ready, IN)
        except FileExistsError:
            pass

    put_back = trigger

    def reset(self) -> None:
        try:
            self._epoll.unregister(self._ready)
        except FileNotFoundError:
            pass

    def close(self) -> None:
        self._epoll.close()

    def is_current(self) -> bool:
        return True

    def look_again(self) -> None:
        pass

    def collect(self) -> Found | None:
        if not self._epoll.poll(0, 1):
            return None
        if self._clear:
            self.reset()
        return 0, 0, 0


class _Knote(NamedTuple):
    """What is watched. Never changed, but replaced."""

    flags: int
    fflags: int
    data: int
    enabled: bool
    source: _Descriptor | _User


_Table: TypeAlias = dict[Key, _Knote]

_kernels: list[weakref.ref[SimulatedKqueue]] = []
"""For the fork. Without a callback, which could be cut off by a signal's handler, and say so on stderr."""


class SimulatedKqueue:
    """A kqueue, as the object of CPython's ``select`` shows it, in plain tuples.

    Args:
        flavour: Whose kernel.
        user_events: Whether it has EVFILT_USER.
        seed: Makes it awkward, in ways that are a kernel's right: ready knotes come in any order, and a call that both
            changes and waits may make its changes twice. CPython does that when a signal arrives: kevent(2) has made
            them before it says EINTR, and is called again with all its arguments.
        short: With a *seed*: hand out fewer events than there is room for. No kernel does so while more are ready.
        fork_fix: What CPython has since 3.13, and in later releases of 3.11 and 3.12: in a forked child the object is
            closed. Without, its number is, and whatever else has the number there is closed with the object.
    """

    def __init__(
        self,
        flavour: Flavour = Flavour.FREEBSD,
        *,
        user_events: bool = True,
        seed: int | None = None,
        short: bool = False,
        fork_fix: bool = False,
    ) -> None:
        self.user_filter: int | None = USER_FILTERS[flavour] if user_events else None
        self._flavour = flavour
        self._random = None if seed is None else random.Random(seed)
        self._short = short
        self._fork_fix = fork_fix
        self._lock = threading.RLock()  # a signal's handler may call while its own thread is inside
        self._knotes: _Table = {}
        self._taken: _Table = {}  # what a call under way, or cut off, has taken from epoll
        self._keys: dict[int, Key] = {}  # whose a number in the outer epoll is, or was
        self._inside = 0
        self._closed = False
        self._is_inherited = False  # this is a forked child
        self._ready = _always_ready()
        self._outer: _Epoll = _linux("select", "epoll")()
        _kernels[:] = [*(known for known in _kernels if known()), weakref.ref(self)]

    def control(self, changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        """Apply *changes*, then give at most *most* events, waiting for the first at most *timeout* seconds.

        Raises:
            OSError: A change failed and there was no room to say so.
            ValueError: It is closed; *most* or *timeout* is negative.
        """
        self._check_open()
        if most < 0:
            raise ValueError(f"Length of eventlist must be 0 or positive, got {most}")
        if timeout is not None and not timeout >= 0:
            raise ValueError("timeout must be positive or None")
        deadline = None if timeout is None else monotonic() + timeout
        twice = self._random is not None and bool(changes) and self._random.random() < 0.25
        try:
            self._inside += 1
            self._check_ours()
            answers = self._apply(changes, most)
            while answers is None:
                self._check_ours()
                # An exception from a signal's handler may come after any call. From the assignments to the return there
                # is none, and what is not handed out by then is put back.
                events, before, after, taken = self._scan(most)
                if self._taken is taken and self._knotes is before:
                    self._knotes = after
                    self._taken = {}
                    if events:
                        return events
                    left = None if deadline is None else deadline - monotonic()
                    if left is not None and left <= 0:
                        return events
                    del before, after, taken  # which a traceback would keep
                    self._sleep(left)
                    if twice:
                        twice = False
                        answers = self._apply(changes, most)
            if isinstance(answers, int):
                raise OSError(answers, os.strerror(answers))
            return answers
        finally:
            self._inside -= self._inside > 0  # in a child that a signal's handler forked it is 0
            if self._closed and not self._inside:
                self._release()

    def fileno(self) -> int:
        """Give its number: readable while ``control`` has something to return."""
        self._check_open()
        return self._outer.fileno()

    @property
    def private(self) -> tuple[int, ...]:
        """Its numbers that a kqueue would not have. Knotes that watch a descriptor have others, far away."""
        users = (knote.source.fd for knote in self._knotes.values() if isinstance(knote.source, _User))
        return self._ready.fileno(), *users

    def close(self) -> None:
        """Let go of it. Its number is released when the last call of ``control`` has left."""
        self._closed = True
        if not self._inside:
            self._release()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed kqueue object")

    def _check_ours(self) -> None:
        if self._is_inherited:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _release(self) -> None:
        for knote in self._knotes.values():
            knote.source.close()  # which a traceback may keep alive
        self._knotes = {}
        self._taken = {}
        self._ready.close()
        self._outer.close()

    def _forked(self) -> None:
        """Become what is left of a kqueue in a child. What is closed here is not felt by the parent."""
        if not self._closed:
            number = self._outer.fileno()
            self._closed = self._fork_fix
            self._is_inherited = True
            self._lock = threading.RLock()
            self._inside = 0
            self._release()
            if not self._fork_fix:
                self._outer = _own(iter((number,)))  # whatever it comes to mean

    # Changes

    def _apply(self, changes: Sequence[Kevent], most: int) -> list[Kevent] | int | None:
        """Apply *changes*, all at once. Give what the call has to return, or to raise; ``None``: it may collect."""
        if not changes:
            return None if most else []
        with self._lock:
            while True:
                before = self._knotes
                after = before.copy()
                answers: list[Kevent] = []
                failure = 0
                for change in changes:
                    error = self._change(after, change)
                    ident, wanted, flags, fflags, _ = change
                    if not error and not flags & EV_RECEIPT:
                        continue
                    if len(answers) < most:
                        kept = flags if self._flavour is Flavour.MACOS else 0
                        answers.append((ident, wanted, kept | EV_ERROR, fflags, error))
                    elif error:
                        failure = error
                        break
                    elif self._flavour is Flavour.FREEBSD:
                        answers = []
                        most = 0
                        break
                if self._knotes is before:  # and not changed by a signal's handler
                    self._knotes = after
                    break
            for knote in after.values():
                if not knote.enabled:
                    self._leave(knote.source.fd)
        if failure:
            return failure
        return answers if answers or not most else None

    def _change(self, knotes: _Table, change: Kevent) -> int:
        """Apply one change to *knotes*. Give 0 or the error's number."""
        ident, wanted, flags, fflags, data = change
        is_user = wanted == self.user_filter
        if wanted not in (EVFILT_READ, EVFILT_WRITE) and not is_user:
            return errno.EINVAL
        if self._flavour is Flavour.FREEBSD:
            if flags & EV_ENABLE and flags & EV_DISABLE:
                return errno.EINVAL
        else:
            if flags & EV_DELETE:
                flags &= ~EV_ADD
            if flags & EV_DISABLE:
                flags &= ~EV_ENABLE
        key = ident, wanted
        knote = knotes.get(key)
        if knote and not knote.source.is_current():
            del knotes[key]
            knote = None
        if not is_user and self._flavour is Flavour.FREEBSD and not _is_open(ident):
            return errno.EBADF
        if knote is None:
            if not flags & EV_ADD:
                return errno.ENOENT
            try:
                knotes[key] = self._attach(key, flags, fflags, data)
            except OSError as error:
                return error.errno or errno.ENOMEM
            return 0
        if flags & EV_DELETE:
            del knotes[key]
            return 0
        if isinstance(knote.source, _User):
            knote = self._touch_user(knote, knote.source, flags, fflags, data)
        else:
            self._taken[key] = knote  # as it is when its filter is run
        if flags & (EV_ENABLE | EV_DISABLE):
            if not knote.enabled:
                self._enter(knote.source.fd)
            knote = knote._replace(enabled=bool(flags & EV_ENABLE))
        knotes[key] = knote
        if knote.enabled:
            knote.source.look_again()
        return 0

    def _attach(self, key: Key, flags: int, fflags: int, data: int) -> _Knote:
        ident, wanted = key
        source: _Descriptor | _User
        if wanted == self.user_filter:
            source = _User(self._ready.fileno(), clear=bool(flags & EV_CLEAR))
            if fflags & NOTE_TRIGGER and self._flavour is Flavour.MACOS:
                source.trigger()
        else:
            if ident == self._outer.fileno():
                raise OSError(errno.EINVAL, "a kqueue in itself")
            source = self._attach_descriptor(key, flags)
        keep = EV_ONESHOT | EV_CLEAR | EV_DISPATCH | EV_RECEIPT
        if self._flavour is Flavour.MACOS:
            keep |= EV_ADD | EV_ENABLE
        knote = _Knote(flags & keep, fflags & NOTE_FFLAGSMASK, data, not flags & EV_DISABLE, source)
        self._keys[source.fd] = key
        if knote.enabled:
            self._enter(source.fd)
            source.look_again()
        return knote

    def _attach_descriptor(self, key: Key, flags: int) -> _Descriptor:
        ident, wanted = key
        status = os.fstat(ident)
        if self._flavour is Flavour.FREEBSD:
            is_pipe = stat.S_ISFIFO(status.st_mode) and _is_nameless_pipe(ident)
            if is_pipe and wanted == EVFILT_WRITE and _access(ident) != os.O_RDONLY and _poll(ident) & ERR:
                raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        elif _name(ident) == "/dev/tty":
            raise OSError(errno.EINVAL, "/dev/tty has no kqfilter")
        edge = bool(flags & (EV_CLEAR | EV_ONESHOT | EV_DISPATCH))
        return _Descriptor(ident, status, wanted, self._flavour, self._ready.fileno(), edge=edge)

    def _touch_user(self, knote: _Knote, user: _User, flags: int, fflags: int, data: int) -> _Knote:
        if fflags & NOTE_TRIGGER:
            user.trigger()
        control, fflags = fflags & NOTE_FFCTRLMASK, fflags & NOTE_FFLAGSMASK
        if control == NOTE_FFAND:
            fflags &= knote.fflags
        elif control == NOTE_FFOR:
            fflags |= knote.fflags
        elif control == NOTE_FFNOP:
            fflags = knote.fflags
        if flags & EV_CLEAR and self._flavour is Flavour.FREEBSD:
            user.reset()
        return knote._replace(fflags=fflags, data=data)

    # Events

    def _scan(self, most: int) -> tuple[list[Kevent], _Table, _Table, _Table]:
        """Take up to *most* events. Give them, the table they are from, that without what they end, and the taken."""
        with self._lock:
            self._put_back()
            before = self._knotes
            after = before.copy()
            taken = self._taken
            events: list[Kevent] = []
            if self._random is not None and self._short:
                most = self._random.randint(1, most)
            looked_at: set[int] = set()
            while len(events) < most:
                ready = [fd for fd, _ in self._outer.poll(0, most - len(events)) if fd not in looked_at]
                if not ready:
                    break
                looked_at.update(ready)
                if self._random is not None:
                    self._random.shuffle(ready)
                for fd in ready:
                    key = self._keys[fd]
                    knote = before.get(key)
                    if knote is None or knote.source.fd != fd or not knote.enabled:
                        self._leave(fd)
                        continue
                    taken[key] = knote
                    try:
                        found = knote.source.collect()
                    except OSError:  # its descriptor was closed
                        self._leave(fd)
                        del after[key]
                        continue
                    if found is None:
                        continue
                    flags, fflags, data = found
                    flags |= knote.flags
                    if isinstance(knote.source, _User):
                        fflags, data = knote.fflags, knote.data
                    events.append((*key, flags, fflags, data))
                    if flags & EV_ONESHOT:
                        del after[key]
                    elif flags & EV_DISPATCH:
                        after[key] = knote._replace(enabled=False)
            return events, before, after, taken

    def _put_back(self) -> None:
        """Make ready again what a call had taken when it was cut off, and have a call under way begin anew."""
        for key, knote in self._taken.items():
            if self._knotes.get(key) is knote:
                knote.source.put_back()
        self._taken = {}

    def _sleep(self, seconds: float | None) -> None:
        """Wait until the outer epoll is ready, or for at most *seconds*. Handlers of signals run meanwhile."""
        if seconds is not None:
            seconds = min(seconds, 3600.0)
        fd = self._outer.fileno()
        if fd < 1024:
            select.select([fd], [], [], seconds)
        else:
            self._outer.poll(-1 if seconds is None else seconds, 1)  # to the millisecond only

    def _enter(self, fd: int) -> None:
        try:
            self._outer.register(fd, IN)
        except FileExistsError:
            pass

    def _leave(self, fd: int) -> None:
        try:
            self._outer.unregister(fd)
        except OSError:
            pass


def _is_open(fd: int) -> bool:
    try:
        _linux("fcntl", "fcntl")(fd, _linux("fcntl", "F_GETFD"))
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _after_fork() -> None:
    for known in _kernels:
        if kernel := known():
            kernel._forked()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
