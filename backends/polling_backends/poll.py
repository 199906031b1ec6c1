"""poll(2): readiness on every Unix, and the plainest there is.

Some facts about poll(2):

  * It keeps nothing. Each call is given the whole set and looks at every member: level by nature, and its cost
    grows with the set.
  * ERR, HUP and NVAL come unasked, also for a member with no flags at all: silence means leaving the set.
  * It watches numbers. One that was closed says NVAL at every call; one that was used again is watched on as if
    nothing had happened (the front object asks the source, see ``Backend.forgets_closed``).
  * It says of regular files that they are always ready.
  * A change by another thread counts from the next call on.
  * ``select.poll.poll`` returns all that is ready, in the order in which the numbers were registered. It takes
    milliseconds, rounds fractions up, and retries on EINTR.

What follows, and what it costs:

  * Modes are ours to make. A registration has the flags it is *watched* for and those it is *armed* for now; what was
    delivered is taken from the latter, all of it for a oneshot, the flags in question for an edge, and
    all of it when ERR or HUP came, which cannot be masked.
  * An edge is armed again by a report that I/O would block: sampling cannot see "drained, then refilled" between two
    calls. ``rearm`` only notes it, without a lock, and rings if somebody waits.
  * The books of what was delivered are done when the next wait begins, and not when this one ends. So a batch
    that an exception cuts off was never marked as delivered, and a would-block that comes after the kernel was asked
    comes after the disarming, too, and wins.
  * The waiter says that it waits before it reads the notes, and whoever changes something changes first and looks
    then whether somebody waits. So one of the two sees the other.
  * When more is ready than asked for, the next wait goes on behind the number served last.
  * Regular files and directories are refused, by a look at what the number is.

A wake is a ring of the doorbell, which stands in the set like any other.

References: poll(2), POSIX.1-2017 poll(); the rules EDG-05, ONE-01, ONE-02, CAP-02, REG-18.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections import deque
from threading import RLock

from polling import Backend, Capability, Interest, Mode, Readiness
from polling_backends import _flags
from polling_backends._doorbell import Doorbell

TYPE_CHECKING = False  # the module typing takes longer to import than all this

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Final, Protocol

    from polling.backend import Pair, Wait
else:
    Protocol = object

__all__ = ["PollBackend"]

GONE: Final = _flags.ERR | _flags.HUP


class _Poll(Protocol):
    """``select.poll``, as far as it is used here, for type checkers of systems that have none."""

    def register(self, fd: int, eventmask: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...
    def poll(self, timeout: float | None, /) -> list[Pair]: ...


def _open_poll() -> _Poll:
    opened: _Poll = getattr(select, "poll")()  # noqa: B009  # an attribute that type checkers do not see on Windows
    return opened


class _Watch:
    """One registration: what it is watched for, and what of that is armed now."""

    __slots__ = ("armed", "mode", "watched")

    def __init__(self, watched: int, mode: Mode) -> None:
        self.watched = self.armed = watched
        self.mode = mode


class PollBackend(Backend):
    """POSIX poll(2)."""

    name = "poll"
    capabilities = (
        Capability.DUP_CLOSE
        | Capability.SHARED_SOURCE
        | Capability.PRIORITY
        | Capability.INTERRUPTIBLE
        | Capability.CHAR_DEVICES
        | Capability.TTY
        | Capability.PIPES
        | Capability.READ_CLOSED
        | Capability.WRITE_CLOSED
        | Capability.ERROR
    )

    @classmethod
    def unavailable_reason(cls) -> str | None:
        return None if hasattr(select, "poll") else "this system has no poll(2)"

    def __init__(self) -> None:
        self._bell: Doorbell | None = Doorbell()
        self._internal = self._bell.fds
        self._poll = _open_poll()
        self._poll.register(self._bell.fd, _flags.IN)
        self._lock = RLock()  # guards the two below and poll's own set; a leaf: nothing is called under it
        self._watches: dict[int, _Watch] = {}
        self._delivered: Sequence[tuple[int, _Watch, int]] = ()  # by the last wait; the books are not done yet
        self._notes: deque[tuple[int, _Watch, Interest]] = deque()  # what to arm again
        self._waiting = False
        self._served = -1  # the last number of a batch that had to leave some out

    @property
    def internal(self) -> Collection[int]:
        return self._internal

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        kind = os.fstat(fd).st_mode
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        watch = _Watch(_flags.WATCHED[interest], mode)
        with self._lock:
            self._watches[fd] = watch
            self._poll.register(fd, watch.armed)
        self._kick()

    reregister = register

    def deregister(self, fd: int) -> None:
        with self._lock:
            if self._watches.pop(fd, None) is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._leave_set(fd)
        self._kick()

    def rearm(self, fd: int, interest: Interest) -> None:
        watch = self._watches.get(fd)
        if watch is not None:
            self._notes.append((fd, watch, interest))
            self._kick()

    def waiter(self) -> Wait:
        return self._wait

    def _wait(self, timeout: float | None, max_events: int) -> Sequence[Pair]:
        self._waiting = True
        try:
            with self._lock:
                self._do_books()
            ready = self._poll.poll(None if timeout is None else timeout * 1000)
        finally:
            self._waiting = False
        internal = self._internal
        batch: list[Pair] = []
        delivered: list[tuple[int, _Watch, int]] = []
        rung: list[Pair] = []
        for pair in ready if len(ready) <= max_events else self._in_turn(ready):
            fd, flags = pair
            if fd in internal:
                self._answer(flags)
                rung.append(pair)
                continue
            watch = self._watches.get(fd)
            if watch is None:
                continue  # deregistered meanwhile
            if flags & _flags.NVAL:
                self._drop(fd, watch)
            elif len(batch) < max_events:
                batch.append(pair)
                if watch.mode is not Mode.LEVEL:
                    delivered.append((fd, watch, flags))
        if len(ready) > max_events and batch:
            self._served = batch[-1][0]
        batch += rung
        self._delivered = delivered
        return batch

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return _flags.readiness(bits, interest)

    def wake(self) -> None:
        bell = self._bell
        if bell is not None:
            bell.ring()

    def close(self) -> None:
        self._bell = None
        self._watches.clear()

    # Closing the child's numbers takes nothing from the parent, whose own numbers keep the bell open.
    abandon = close

    def _kick(self) -> None:
        """Have a wait in progress begin again, with what has just been changed."""
        if self._waiting:
            self.wake()

    def _do_books(self) -> None:
        """Disarm what was delivered, then arm what was noted since. An exception between leaves nothing out."""
        for fd, watch, flags in self._delivered:
            if watch.mode is not Mode.EDGE or flags & GONE:
                watch.armed = 0
            else:
                if flags & (_flags.IN | _flags.RDHUP):
                    watch.armed &= ~(_flags.IN | _flags.RDHUP)
                watch.armed &= ~(flags & (_flags.OUT | _flags.PRI))
            if self._watches.get(fd) is watch:
                self._set(fd, watch)
        self._delivered = ()
        while self._notes:
            fd, watch, interest = self._notes[0]
            watch.armed |= watch.watched & _flags.WATCHED[interest]
            if self._watches.get(fd) is watch:  # and not another, which a note from before must not arm
                self._set(fd, watch)
            self._notes.popleft()

    def _set(self, fd: int, watch: _Watch) -> None:
        if watch.armed:
            self._poll.register(fd, watch.armed)
        else:
            self._leave_set(fd)

    def _leave_set(self, fd: int) -> None:
        try:
            self._poll.unregister(fd)
        except KeyError:
            pass  # disarmed, and so out already

    def _drop(self, fd: int, watch: _Watch) -> None:
        """Take a closed number out of the set, unless it was opened and registered anew since the kernel was asked."""
        with self._lock:
            if self._watches.get(fd) is watch:
                try:
                    os.fstat(fd)
                except OSError:
                    del self._watches[fd]
                    self._leave_set(fd)

    def _answer(self, flags: int) -> None:
        """Clear the doorbell. One that is broken must not spin."""
        bell = self._bell
        if flags & _flags.NVAL or flags & GONE:
            raise OSError(errno.EBADF, "somebody else closed the descriptor by which this poll is woken")
        if bell is not None:
            bell.clear()

    def _in_turn(self, ready: list[Pair]) -> list[Pair]:
        """Order by number, beginning behind the one served last."""
        ready.sort()
        split = next((i for i, (fd, _) in enumerate(ready) if fd > self._served), 0)
        return ready[split:] + ready[:split]
