"""kqueue: readiness on macOS and the BSDs.

Some facts about kqueue:

  * It watches a descriptor through *filters*, one for reading and one for writing, each armed, triggered and reported
    apart. So a source that is ready in both directions makes two events, perhaps in two batches.
  * EV_CLEAR makes a filter report edges. EV_ONESHOT deletes it when its event is fetched, and leaves the other one be.
    A filter keeps the flags that it was made with; to change them is to delete it and add it again.
  * EV_ADD for a filter that exists arms it anew: a condition that holds is reported.
  * Filters go with their number, on ``close`` and ``dup2``, whatever duplicates live.
  * Changes are made in the order of their list. With EV_RECEIPT each is answered, by an error number or 0, and a
    failure does not keep those behind it from being made.
  * EV_EOF says that its direction is over. What had arrived before is still there to be read, and the other direction
    may go on. ``fflags`` is then the socket's pending error, which the application still gets from its own call.
  * What is ready stands in a queue, and goes to its end when it is reported. So no source starves another.
  * EVFILT_USER is an event by which a program wakes itself. Not every system has it.
  * Regular files are watched, in ways that differ by system and mostly spin.
  * A forked child does not inherit a kqueue. Its number is free there.

What follows: the modes are the kernel's own, and a registration with one interest costs no more than a change of
notation. Where both interests are asked for, two things are ours:

*One event for both directions.* The kernel is asked for as many events as are wanted, they are brought together by
number, and while its answers are full and leave room, it is asked for the difference, without waiting. So a batch is
never larger than it may be, nothing is fetched that cannot be handed out, and what found no room stays in the kernel's
queue. An answer that ends with what is known ends this: the queue has gone round. So does a room so small that it
would take more than a handful of calls to bring the other halves of all that is there: with a thousand sources and
room for one more that would be a thousand calls, and the halves come with the next wait as well.

*One event for a oneshot.* When one direction has fired, the filter of the other is still armed. To remove it would be a
system call for nothing, since most are armed again before it fires. The number counts as *spent* instead, and what a
spent number reports is dropped, which happens once at most, since that filter is a oneshot, too. Arming
makes the number unspent first and tells the kernel then. So what fires at that moment is handed out,
and if it was dropped just before, the kernel looks again.

*A change* deletes both filters and adds what is wanted, in one list, whatever is known of what had been. ENOENT means
that there was no such filter: it was not asked for, or was a oneshot and has fired, or the number means another file
by now. EBADF means that the number is closed, and its filters are gone with it. If one cannot be added, those that
were deleted are added again: the receipts tell which were armed, and a oneshot that had fired stays silent. Should the
kernel have no memory for these either, or for a oneshot that is armed again, they are left to ``waiter``.

*A pipe without a reader* can be written to at any time, which fails. Instead of reporting that, FreeBSD refuses to add
a filter for writing, with EPIPE, and one that was there reports EV_EOF once more and is gone, in whatever mode. (macOS
had the former up to 10.11.) The filter for reading is accepted, and reports EV_EOF in the mode that was asked for:
pipes are two-way there, and this one is over in both. So it stands in for the other. Where it is the waiter who finds
that this must be done, it is left to ``waiter``, while nobody else changes anything.

*What is left to ``waiter``* is rung for, which ends a wait in progress and has the kqueue readable for who watches it;
and a wait that begins before does nothing but ask for ``waiter``, so that its batch lacks nothing. What there is no
memory for by then either is tried again whenever ``waiter`` is asked for. By then the number may have been registered
anew, which is known by the entry in the books being another one; or closed and given to a file that nobody registered,
which ``fstat`` tells.

*Signals.* A handler may raise at any call. So what was fetched is kept in ``_fetched`` until the batch that was made of
it is the caller's; the kernel's answer gets there, and the batch to the caller, without a call in between. What is
found there by ``waiter`` never got to the caller, and is armed anew, not handed out: it may have changed since.

*The bell* is EVFILT_USER with EV_CLEAR, under the number of the kqueue itself, which is nobody's source; elsewhere a
doorbell, watched for edges and never read by the waiter.

References: kqueue(2) of FreeBSD 15 and macOS 15; ``sys_pipe.c``, ``uipc_socket.c`` and ``kern_event.c`` of both; the
rules REG-06, REG-08, ONE-02, ONE-03, MRG-01 to MRG-03, EVT-02, EVT-05, EVT-16, SIG-02, FRK-02. What was tried on what
is in docs/kqueue.md.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from functools import partial
from itertools import starmap

from polling import Backend, Capability, Interest, Mode, Readiness
from polling_backends._doorbell import Doorbell
from polling_backends._kqueue_kernel import SystemKernel

TYPE_CHECKING = False  # the module typing takes longer to import than all this

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Final, TypeAlias

    from polling.backend import Pair, Wait
    from polling_backends._kqueue_kernel import Kernel, Kevent

__all__ = ["KqueueBackend"]

Asked: TypeAlias = "tuple[Sequence[int], int]"
"""The filters that a number was registered for, and their flags."""

File: TypeAlias = "tuple[int, int, int]"
"""Kind, device and number of a file. Where those of sockets have no number, one is taken for another."""

READ: Final = -1
WRITE: Final = -2
BOTH: Final = (READ, WRITE)

ADD: Final = 0x0001
DELETE: Final = 0x0002
ONESHOT: Final = 0x0010
CLEAR: Final = 0x0020
RECEIPT: Final = 0x0040
EOF: Final = 0x8000  # the highest of the flags
NOTE_TRIGGER: Final = 0x0100_0000

# Bits of a pair: the filters, by their numbers negated; which of them said EV_EOF; whether with an error.
CAN_READ: Final = -READ
CAN_WRITE: Final = -WRITE
READ_OVER: Final = CAN_READ << 2
WRITE_OVER: Final = CAN_WRITE << 2
FAILED: Final = 16

FILTERS: Final = ((), (READ,), (WRITE,), BOTH) * 2
"""By interest. There is none for urgent data that every system has."""

FLAGS: Final = tuple(ADD | RECEIPT | how for how in (0, CLEAR, ONESHOT, CLEAR | ONESHOT))
"""By mode."""

REFILLS: Final = 8
"""Calls that the other halves of a batch may cost, each for as much as there is room left for."""

UNWATCHABLE: Final = (errno.EINVAL, errno.ENODEV, errno.ENXIO, errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What macOS and FreeBSD say of what has no filters, such as ``/dev/null`` and, on macOS, shared memory."""

UNKNOWN: Final[Asked] = (), 0
"""What the books say of a number that is not in them."""

NO_FILE: Final[File] = 0, 0, 0
"""Likewise."""

_of_the_parent: Final[list[Kernel]] = []


class KqueueBackend(Backend):
    """kqueue, of macOS and FreeBSD."""

    name = "kqueue"
    capabilities = (
        Capability.NATIVE_EDGE
        | Capability.DUP_CLOSE
        | Capability.SHARED_SOURCE
        | Capability.NESTED
        | Capability.SUB_MS
        | Capability.INTERRUPTIBLE
        | Capability.TTY
        | Capability.PIPES
        | Capability.READ_CLOSED
        | Capability.WRITE_CLOSED
        | Capability.ERROR
    )
    forgets_closed = True

    @classmethod
    def unavailable_reason(cls) -> str | None:
        if not hasattr(select, "kqueue"):
            return "this system has no kqueue; it is part of macOS and the BSDs"
        if getattr(select, "KQ_FILTER_WRITE", None) != WRITE:
            return "this system's kqueue numbers its filters in another way, as that of NetBSD does"
        return None

    def __init__(self) -> None:
        self._kernel = self._open_kernel()
        self._control = self._kernel.control
        own, user = self._kernel.fileno(), self._kernel.user_filter
        self._ring: Callable[[], object] | None
        if user is None:
            bell = Doorbell()
            self._control([(bell.fd, READ, ADD | CLEAR, 0, 0)], 0, 0)
            self._ring = bell.ring
            self._internal: tuple[int, ...] = (own, *bell.fds)
        else:
            self._control([(own, user, ADD | CLEAR, 0, 0)], 0, 0)
            self._ring = partial(self._control, [(own, user, 0, NOTE_TRIGGER, 0)], 0, 0)
            self._internal = (own,)
        self._watched: dict[int, Asked] = {}
        self._files: dict[int, File] = {}
        self._both: set[int] = set()  # numbers with two filters, whose events are to be brought together
        self._shots: set[int] = set()  # those of them that are oneshots
        self._spent: set[int] = set()  # those of these that have fired since they were armed
        self._readerless: set[int] = set()  # pipes whose filter for reading stands in for the one for writing
        self._lapsed: dict[int, tuple[Sequence[int], Asked]] = {}  # what is left to waiter: filters of a number, to add
        self._is_due = False  # some of it has not been tried yet
        self._fetched: list[Kevent] = []  # what the kernel gave to a wait that has not yet handed it out

    def _open_kernel(self) -> Kernel:
        """Give the kernel to work on."""
        return SystemKernel()

    @property
    def internal(self) -> Collection[int]:
        return self._internal

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        file = _file(fd)
        if file[0] in (stat.S_IFREG, stat.S_IFDIR):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        self._files[fd] = file
        self.reregister(fd, interest, mode)

    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None:
        filters, flags = FILTERS[interest], FLAGS[mode]
        was_spent, was_readerless, was_both = fd in self._spent, fd in self._readerless, fd in self._both
        self._spent.discard(fd)  # before the kernel hears of it, as in rearm
        self._readerless.discard(fd)
        errors = self._change([*_deleting(fd), *_adding(fd, filters, flags)])
        failure = next(filter(None, errors[2:]), 0)
        if failure:
            was_armed = [which for which, error in zip(BOTH, errors, strict=False) if not error]
            if was_spent:
                self._spent.add(fd)
            _put(fd, self._readerless, was_readerless)
            _put(fd, self._both, was_both)
            self._change(_deleting(fd))
            self._add_sometime(fd, was_armed, self._watched.get(fd, UNKNOWN))
            failure = errno.EPERM if failure in UNWATCHABLE else failure
            raise OSError(failure, os.strerror(failure))
        self._watched[fd] = filters, flags
        _put(fd, self._both, len(filters) == 2 or fd in self._readerless)
        _put(fd, self._shots, len(filters) == 2 and bool(flags & ONESHOT))

    def deregister(self, fd: int) -> None:
        self._watched.pop(fd, None)
        self._change(_deleting(fd))  # ENOENT and EBADF: nothing to delete, see above
        self._files.pop(fd, None)
        for numbers in self._both, self._shots, self._spent, self._readerless:
            numbers.discard(fd)

    def rearm(self, fd: int, interest: Interest) -> None:
        asked = self._watched.get(fd, UNKNOWN)
        again = [which for which in FILTERS[interest] if which in asked[0]]
        if again:
            self._spent.discard(fd)
            self._lapsed.pop(fd, None)
            try:
                self._add_sometime(fd, again, asked)  # EBADF: closed, and nothing to look at
            except ValueError:
                if self._ring is not None:
                    raise  # by the handler of a signal; else one has closed the poll just now

    def waiter(self) -> Wait:
        for fd in {event[0] for event in self._fetched}:
            if fd not in self._spent and self._is_same(fd):
                self.rearm(fd, Interest.READ_WRITE)
        self._fetched = []
        for fd, (filters, asked) in [*self._lapsed.items()]:
            is_stale = self._watched.get(fd) is not asked or not self._is_same(fd)
            if is_stale or self._add(fd, filters, asked):
                self._lapsed.pop(fd, None)
        self._is_due = False
        return self._wait

    def _wait(self, timeout: float | None, max_events: int) -> Sequence[Pair]:
        if self._is_due:
            raise StopIteration  # for ``waiter``
        for answer in starmap(self._control, (((), max_events, timeout),)):
            self._fetched = answer
        if not self._both:
            batch = [
                (fd, -which if flags < EOF else self._over(fd, which, flags, fflags))
                for fd, which, flags, fflags, _ in answer
            ]
            self._fetched = []
            return batch
        spent = self._spent
        merged: dict[int, int] = {}
        is_all = len(answer) < max_events
        while True:
            for fd, which, flags, fflags, _ in [each for each in answer if each[0] not in spent] if spent else answer:
                bits = -which if flags < EOF else self._over(fd, which, flags, fflags)
                if fd in merged:
                    merged[fd] |= bits
                else:
                    merged[fd] = bits
            room = max_events - len(merged)
            halves = min(len(merged), len(self._both))  # that may be missing, at most
            if is_all or not room or room * REFILLS < halves:
                break
            for answer in starmap(self._control, (((), room, 0),)):
                self._fetched += answer
            is_all = len(answer) < room or bool(merged.get(answer[-1][0], 0) & -answer[-1][1])
        for fd in self._readerless & merged.keys():
            merged[fd] |= CAN_WRITE
        batch = [*merged.items()]
        fired = self._shots & merged.keys()
        # From here to the caller's variable there is no call, and so no handler.
        spent |= fired
        self._fetched = []
        return batch

    def decode(self, bits: int, interest: Interest) -> Readiness:
        asked = int(interest)  # whose operators are quick, and whose bits are those of CAN_READ and CAN_WRITE
        return Readiness(
            readable=bool(asked & bits & CAN_READ),
            writable=bool(asked & bits & CAN_WRITE),
            error=bool(bits & FAILED),
            read_closed=bool(bits & READ_OVER),
            write_closed=bool(bits & WRITE_OVER),
        )

    def wake(self) -> None:
        ring = self._ring
        if ring is not None:
            try:
                ring()
            except ValueError:
                if self._ring is not None:
                    raise  # by the handler of a signal; else closed at this moment

    def fileno(self) -> int:
        return self._kernel.fileno()

    def close(self) -> None:
        self._ring = None
        self._kernel.close()

    def abandon(self) -> None:
        # The child has no kqueue, and its number may be another file's by now. An object that does not know of the fork
        # would close that when it dies, so it does not die.
        _of_the_parent.append(self._kernel)
        self._ring = None

    def _change(self, changes: list[Kevent]) -> list[int]:
        """Have the kernel make *changes*, each with its receipt. Give the error number of each, 0 for made."""
        errors = [receipt[4] for receipt in self._control(changes, len(changes), 0)]
        if errno.EPIPE in errors:
            refused = errors.index(errno.EPIPE)
            fd, _, flags, _, _ = changes[refused]
            self._readerless.add(fd)
            self._both.add(fd)
            ((*_, errors[refused]),) = self._control([(fd, READ, flags, 0, 0)], 1, 0)
        return errors

    def _over(self, fd: int, which: int, flags: int, fflags: int) -> int:
        """Give the bits for an event with EV_EOF."""
        if which == WRITE and flags & ONESHOT:
            asked = self._watched.get(fd, UNKNOWN)
            if WRITE in asked[0] and not asked[1] & (ONESHOT | CLEAR):
                self._leave_to_waiter(fd, (WRITE,), asked)
        # Only what a socket says is final, and of this direction: the others of a FIFO and of a terminal may come back,
        # and a pipe says the same at either end.
        is_final = self._files.get(fd, NO_FILE)[0] == stat.S_IFSOCK
        return -which | (-which << 2 if is_final else 0) | (FAILED if fflags else 0)

    def _is_same(self, fd: int) -> bool:
        """Tell whether a number means what was registered under it, which may have been closed since."""
        try:
            return _file(fd) == self._files.get(fd)
        except OSError:
            return False

    def _add(self, fd: int, filters: Sequence[int], asked: Asked) -> bool:
        """Add filters of a registration; false if the kernel has no memory for them."""
        errors = self._change(_adding(fd, filters, asked[1]))
        now = self._watched.get(fd, UNKNOWN)
        if now is not asked:  # changed meanwhile, by the handler of a signal
            self._change(_deleting(fd, [which for which in filters if which not in now[0]]))
        return errno.ENOMEM not in errors

    def _add_sometime(self, fd: int, filters: Sequence[int], asked: Asked) -> None:
        if not self._add(fd, filters, asked):
            self._leave_to_waiter(fd, filters, asked)

    def _leave_to_waiter(self, fd: int, filters: Sequence[int], asked: Asked) -> None:
        self._lapsed[fd] = filters, asked
        self._is_due = True
        self.wake()


def _file(fd: int) -> File:
    status = os.fstat(fd)
    return stat.S_IFMT(status.st_mode), status.st_dev, status.st_ino


def _adding(fd: int, filters: Collection[int], flags: int) -> list[Kevent]:
    return [(fd, which, flags, 0, 0) for which in filters]


def _deleting(fd: int, filters: Collection[int] = BOTH) -> list[Kevent]:
    return [(fd, which, DELETE | RECEIPT, 0, 0) for which in filters]


def _put(fd: int, numbers: set[int], belongs: bool) -> None:
    if belongs:
        numbers.add(fd)
    else:
        numbers.discard(fd)
