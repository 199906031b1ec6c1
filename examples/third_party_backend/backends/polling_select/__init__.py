"""select(2) as a backend for polling: the oldest facility, and the only one that every platform has.

Some facts about ``select.select``:

  * It keeps nothing. Each call is given the whole set and looks at every member: level by nature.
  * It says "readable" and "writable", and no more. An end, a hangup and an error are readable; an error is writable;
    which of these it is cannot be told, so there are no hints. On Windows a connect that failed is neither: it
    shows in the third set, as does urgent data; only the socket of the latter has, as a rule, room to send.
  * The third set is urgent data elsewhere, but a hangup does not show in it. Somebody who asks for priority alone
    has to be told of a hangup (EVT-01), and watching for readability as well would spin on plain data.
  * It fails as a whole, with EBADF (Windows: WSAENOTSOCK), if one member is closed, and does not say which.
  * It watches numbers: one that was closed and is used again is watched on as if nothing had happened.
  * POSIX: numbers from FD_SETSIZE on, usually 1024, do not fit; Python answers ValueError. Windows: there is room
    for 512 sockets of any number, and only for sockets.
  * It says of regular files that they are always ready.
  * POSIX: a timeout counts in microseconds, and signal handlers run at once. Windows: coarser, and they
    do not run before the call returns.

What follows, and what it costs:

  * Modes are ours to make. A registration is *watched* for some directions, and *armed* for those of them that are
    given to select now. What was delivered is disarmed: that direction for an edge, all for a oneshot.
  * The books of what was delivered are done when the next wait begins. So a batch that an exception cuts off was never
    marked as delivered; and a would-block that is reported after select looked is noted after the disarming
    that it shall undo, and wins.
  * A change takes effect in a wait in progress by a ring of the doorbell. The waiter says that it waits before it looks
    at what there is; who changes something changes first and looks then whether somebody waits. One of
    them sees the other.
  * There is no lock. What threads share are one dict and one deque, and each step on them is one operation that the
    interpreter does not divide. What consists of several steps, arming and disarming, only the waiter does, and
    on ``_Watch`` objects, of which each registration gets its own: so it never touches a newer registration.
  * When a number turns out to be closed, all are tried one by one, and the closed ones are watched for nothing.
  * When more is ready than asked for, the next wait goes on behind the number served last.
  * What select cannot watch, or would watch wrongly, is refused by ``register``.
  * Priority is not offered.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from collections import deque
from collections.abc import Collection, Sequence

from polling import Backend, Capability, Interest, Mode, Readiness, UnsupportedError
from polling.backend import Pair, Wait
from polling_select._doorbell import Doorbell

__all__ = ["SelectBackend"]

READ = int(Interest.READABLE)
WRITE = int(Interest.WRITABLE)

_CLOSED = (errno.EBADF, errno.ENOTSOCK)  # what select says of a closed number: POSIX, Windows
_NO_SOCKET = (errno.ENOTSOCK, errno.EOPNOTSUPP)  # what it says of another kind of number: Windows, Wine

_WINDOWS = sys.platform == "win32"

_ROOM = 512 if _WINDOWS else sys.maxsize  # elsewhere it is the number that must fit, see _check
_LONGEST = 0.25 if _WINDOWS else None  # seconds between two looks for signals


class _Watch:
    """One registration: the directions it is watched for, and those of them that are armed now."""

    __slots__ = ("armed", "may_fail", "mode", "watched")

    def __init__(self, watched: int, mode: Mode, may_fail: bool) -> None:
        self.watched = self.armed = watched
        self.mode = mode
        self.may_fail = may_fail  # a connect could show in the third set


class SelectBackend(Backend):
    """select(2). The bits of its pairs are those of ``Interest``."""

    name = "select"
    capabilities = Capability.DUP_CLOSE | Capability.SHARED_SOURCE
    if not _WINDOWS:
        capabilities |= Capability.CHAR_DEVICES | Capability.TTY | Capability.PIPES
        capabilities |= Capability.SUB_MS | Capability.INTERRUPTIBLE

    def __init__(self) -> None:
        bell = Doorbell()
        try:
            _check(bell.fd)
        except BaseException:
            bell.close()
            raise
        self._bell: Doorbell | None = bell
        self._internal = bell.numbers
        self._watches: dict[int, _Watch] = {}
        self._delivered: Sequence[tuple[_Watch, int]] = ()  # by the last wait; the books are not done yet
        self._notes: deque[tuple[int, int]] = deque()  # what to arm again
        self._waiting = False
        self._served = -1  # the last number of a batch that had to leave some out

    @property
    def internal(self) -> Collection[int]:
        return self._internal

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        _check(fd)
        if fd not in self._watches and len(self._watches) + 1 >= _ROOM:  # one is the bell's
            raise UnsupportedError(f"select() watches at most {_ROOM} sockets on this platform")
        self._watches[fd] = _Watch(int(interest), mode, may_fail=_WINDOWS and not _is_writable(fd))
        self._kick()

    reregister = register

    def deregister(self, fd: int) -> None:
        if self._watches.pop(fd, None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._kick()

    def rearm(self, fd: int, interest: Interest) -> None:
        self._notes.append((fd, int(interest)))
        self._kick()

    def waiter(self) -> Wait:
        return self._wait

    def _wait(self, timeout: float | None, max_events: int) -> Sequence[Pair]:
        bell = self._bell
        assert bell is not None, "a wait after close"
        ready = self._look(bell, timeout)
        while ready is None:
            self._pass_over_closed(bell)
            ready = self._look(bell, 0)  # what else is ready must not go unreported
        batch, delivered = self._choose(bell, ready, max_events)
        # From here to the one who keeps the batch there is no call, and so no signal handler that could raise.
        self._delivered = delivered
        return batch

    def decode(self, bits: int, interest: Interest) -> Readiness:
        bits &= interest
        return Readiness(readable=bool(bits & READ), writable=bool(bits & WRITE))

    def wake(self) -> None:
        bell = self._bell
        if bell is not None:
            bell.ring()

    def close(self) -> None:
        self._bell = None
        self._watches.clear()

    # Closing the child's numbers takes nothing from the parent, whose own numbers keep the sockets open.
    abandon = close

    def _kick(self) -> None:
        """Have a wait in progress begin again, with what has just been changed."""
        if self._waiting:
            self.wake()

    def _do_books(self) -> None:
        """Disarm what was delivered, then arm what was noted since. Done again from the start, it does no harm."""
        for watch, bits in self._delivered:
            watch.armed &= ~bits if watch.mode is Mode.EDGE else 0
        self._delivered = ()
        while self._notes:
            fd, interest = self._notes[0]
            noted = self._watches.get(fd)
            if noted is not None:
                # A oneshot is disarmed as a whole, and armed as a whole.
                noted.armed |= noted.watched & interest if noted.mode is Mode.EDGE else noted.watched
            self._notes.popleft()  # not before: a handler may raise between any two of these

    def _look(self, bell: Doorbell, timeout: float | None) -> dict[int, int] | None:
        """Ask select, and give what is ready; None if it failed because a member was closed."""
        if _LONGEST is not None:
            timeout = _LONGEST if timeout is None else min(timeout, _LONGEST)
        self._waiting = True
        try:
            self._do_books()
            reading, writing, failing = [bell.fd], [], []
            for fd, watch in [*self._watches.items()]:  # copied in one step: others register meanwhile
                if watch.armed & READ:
                    reading.append(fd)
                if watch.armed & WRITE:
                    writing.append(fd)
                if watch.armed and watch.may_fail:
                    failing.append(fd)
            readable, writable, failed = select.select(reading, writing, failing, timeout)
            return _merged(readable, writable, [fd for fd in failed if self._has_failed(fd)])
        except OSError as error:
            here = error.__traceback__
            if error.errno not in _CLOSED or here is None or here.tb_next is not None:
                raise  # the last of these: by a signal handler, which has a frame of its own
            return None
        finally:
            self._waiting = False

    def _has_failed(self, fd: int) -> bool:
        """Tell whether it is a failed connect that shows in the third set. If it is urgent data, look no more."""
        watch = self._watches.get(fd)
        if watch is not None and _is_writable(fd):
            watch.may_fail = False
        return watch is not None and watch.may_fail

    def _choose(
        self, bell: Doorbell, ready: dict[int, int], max_events: int
    ) -> tuple[list[Pair], list[tuple[_Watch, int]]]:
        """Choose what to deliver: the batch, and what the books need to know of it."""
        rung: list[Pair] = []
        if ready.pop(bell.fd, 0):
            bell.clear()
            rung.append((bell.fd, READ))
        numbers = list(ready)
        if len(ready) > max_events:
            numbers.sort(key=lambda fd: (fd <= self._served, fd))
        batch: list[Pair] = []
        delivered: list[tuple[_Watch, int]] = []
        for fd in numbers:
            watch = self._watches.get(fd)
            bits = ready[fd] & watch.armed if watch is not None else 0
            if watch is None or not bits:
                continue  # deregistered or changed while select looked
            batch.append((fd, bits))
            if watch.mode is not Mode.LEVEL:
                delivered.append((watch, bits))
            if len(batch) == max_events:
                self._served = fd
                break
        return batch + rung, delivered

    def _pass_over_closed(self, bell: Doorbell) -> None:
        """Find what was closed, and watch it for nothing. The number stays known until it is deregistered."""
        for fd, watch in [(bell.fd, None), *self._watches.items()]:
            try:
                select.select([fd], [], [], 0)
            except OSError as error:
                if error.errno not in _CLOSED:
                    raise
                if watch is None:
                    raise OSError(errno.EBADF, "somebody else closed the socket by which this poll is woken") from None
                watch.watched = watch.armed = 0


def _check(fd: int) -> None:
    """Refuse what select cannot watch, with the errors that a backend owes, whatever select says of it.

    Raises:
        OSError: EBADF: it is closed. EPERM: a regular file or a directory; on Windows, whatever is no socket.
        UnsupportedError: The number is too large.
    """
    try:
        select.select([fd], [], [], 0)
    except ValueError:
        raise UnsupportedError(f"descriptor {fd} is too large: select() ends at FD_SETSIZE, usually 1024") from None
    except OSError as error:
        if error.errno not in _NO_SOCKET:
            raise
        os.fstat(fd)  # EBADF if it is nothing at all
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from None
    if not _WINDOWS:  # where a socket's number is nothing to fstat
        kind = os.fstat(fd).st_mode
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _is_writable(fd: int) -> bool:
    """Tell whether there is room to send: there is none before a connect has gone well."""
    try:
        return bool(select.select([], [fd], [], 0)[1])
    except OSError as error:
        if error.errno not in _CLOSED:
            raise
        return False


def _merged(readable: list[int], writable: list[int], failed: list[int]) -> dict[int, int]:
    """Make one entry a number of what select gives in three lists."""
    ready = dict.fromkeys(readable, READ)
    for fd in writable:
        ready[fd] = ready.get(fd, 0) | WRITE
    for fd in failed:
        ready[fd] = READ | WRITE
    return ready
