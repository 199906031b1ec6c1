"""epoll: readiness on Linux.

Some facts about epoll:

  * It has all four modes. EPOLLET reports a condition when it arises, and at registration and at each change if
    it holds then. EPOLLONESHOT disables the whole registration, both directions, until it is changed;
    the registration stays.
  * A wait returns one entry for a descriptor with all its flags, and takes turns when more are ready than asked
    for. A change made by another thread holds for a wait in progress.
  * It keys what it watches by number *and* open file. When the last descriptor of a file is closed, the kernel
    forgets it; closing one of several descriptors does not count. Then events go on under a number that is
    closed, or means something else by now, and the number can no longer be removed: EPOLL_CTL_DEL finds
    the file by the number. Trackers call these ghosts.
  * ``select.epoll.poll`` takes seconds, rounds up to milliseconds, retries on EINTR and releases the interpreter
    lock.

What follows: there is almost nothing to translate, and the waiter is the C method itself, with no code of ours
around it. Interest and mode index a table of masks.

The doorbell is an eventfd watched with EPOLLET and never read: each write is a new edge, so a wake costs one
write and nothing on the waiter's side.

Ghosts cost nothing until there is ground for suspicion: the kernel says ENOENT or EBADF when a number is
removed or changed, as it does for each source that was closed first. Then the next time the waiting thread asks
for its waiter, which is after such a removal, after an event that is nobody's, or some hundred waits later, we
read what the kernel watches from ``/proc/self/fdinfo``. A number that stands there twice, or that we do not
watch, is a ghost, and the only way to be rid of it is a new epoll instance. ``dup2`` puts it under the old
number, and because the waiting thread itself does it, nobody is left waiting on the old one. Whoever watches
this poll by another would be, and so what ``fileno`` gives is an epoll of its own that watches ours, made when
it is first asked for. Oneshots that have fired are left out of the new instance, since nothing in epoll is
silent about hangups, and come back when they are rearmed. The reading takes about half a microsecond a
registration; it is not done again before ten times what it took has passed, so that a server that closes
without deregistering spends a tenth of its time on it at most.

Without /proc there is no telling, and such a ghost stays: deregister before closing while a duplicate may live.

References: epoll(7), epoll_ctl(2), eventfd(2), proc(5) on fdinfo; the rules REG-12, REG-13.
"""

from __future__ import annotations

import os
import select
from time import monotonic, thread_time

from polling import Backend, Capability, Interest, Mode, Readiness
from polling_backends import _flags
from polling_backends._doorbell import Doorbell

TYPE_CHECKING = False  # the module typing takes longer to import than all this

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Final, Protocol

    from polling.backend import Pair, Wait
else:
    Protocol = object

__all__ = ["EpollBackend"]

ET: Final = 1 << 31
ONESHOT: Final = 1 << 30

MASKS: Final = tuple(tuple(watched | how for watched in _flags.WATCHED) for how in (0, ET, ONESHOT, ET | ONESHOT))
"""What to tell the kernel, by mode and interest."""


class _Epoll(Protocol):
    """``select.epoll``, as far as it is used here, for type checkers of systems that have none."""

    def register(self, fd: int, eventmask: int, /) -> None: ...
    def modify(self, fd: int, eventmask: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...
    def poll(self, timeout: float | None, maxevents: int, /) -> list[Pair]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def _open_epoll() -> _Epoll:
    opened: _Epoll = getattr(select, "epoll")()  # noqa: B009  # an attribute that type checkers see on Linux only
    return opened


class EpollBackend(Backend):
    """Linux epoll."""

    name = "epoll"
    capabilities = (
        Capability.NATIVE_EDGE
        | Capability.DUP_CLOSE
        | Capability.SHARED_SOURCE
        | Capability.NESTED
        | Capability.PRIORITY
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
        return None if hasattr(select, "epoll") else "this system has no epoll; it is part of Linux"

    def __init__(self) -> None:
        self._epoll = _open_epoll()
        self._bell: Doorbell | None = Doorbell()
        self._count: Callable[[int, int], None] = getattr(os, "eventfd_write")  # noqa: B009  # as above
        self._internal = (self._epoll.fileno(), *self._bell.fds)
        self._epoll.register(self._bell.fd, _flags.IN | ET)
        self._masks: dict[int, int] = {}  # what was asked for, by number: for rearming, and to tell ghosts
        self._suspicious = False
        self._next_look = 0.0  # on the monotonic clock
        self._outer: _Epoll | None = None  # what others watch this one by, once somebody asked

    @property
    def internal(self) -> Collection[int]:
        return self._internal

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        mask = MASKS[mode][interest]
        try:
            self._epoll.register(fd, mask)
        except FileExistsError:
            # The same file under the same number, though its former owner gave it up: detach() does that.
            self._epoll.modify(fd, mask)
        self._masks[fd] = mask

    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None:
        mask = MASKS[mode][interest]
        try:
            self._epoll.modify(fd, mask)
        except FileNotFoundError:
            # The number means another file by now (dup2), or a fired oneshot was left out of a new instance.
            self._epoll.register(fd, mask)
            self._suspicious = True
        self._masks[fd] = mask

    def deregister(self, fd: int) -> None:
        try:
            del self._masks[fd]
        except KeyError:
            pass  # a number that turned up, and is nobody's
        try:
            self._epoll.unregister(fd)
        except OSError:
            self._suspicious = True
            raise

    def rearm(self, fd: int, interest: Interest) -> None:
        try:
            mask = self._masks[fd]
            try:
                self._epoll.modify(fd, mask)
            except FileNotFoundError:
                self._epoll.register(fd, mask)  # as in reregister
                self._suspicious = True
        except (KeyError, OSError):
            pass  # deregistered, or closed: nothing to look at

    def waiter(self) -> Wait:
        if self._suspicious and monotonic() >= self._next_look:
            spent = thread_time()  # on a clock that stands still while others have the processor
            self._suspicious = not self._lay_ghosts()
            self._next_look = monotonic() + 10 * (thread_time() - spent)
        return self._epoll.poll

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return _flags.readiness(bits, interest)

    def wake(self) -> None:
        bell = self._bell  # held, so that the number stays its own until it has rung
        if bell is not None:
            self._count(bell.fd, 1)  # what bell.ring() does, less what a pipe needs that is full

    def fileno(self) -> int:
        if self._outer is None:
            outer = _open_epoll()
            outer.register(self._epoll.fileno(), _flags.IN)
            self._outer = outer
        return self._outer.fileno()

    def close(self) -> None:
        self._bell = None
        self._masks.clear()
        self._epoll.close()
        if self._outer is not None:
            self._outer.close()

    # Closing the child's numbers takes nothing from the parent, whose own numbers keep the files open.
    abandon = close

    def _lay_ghosts(self) -> bool:
        """Compare what the kernel watches with what we do, and if it watches more, begin anew without that.

        False if there was no descriptor or memory to spare. An exception from a signal handler leaves it to be done
        again, too.
        """
        try:
            armed = self._watched_by_kernel()
        except OSError:
            return True  # no /proc, and so no telling
        if armed is None:
            self._show_to_outer()
            return True
        try:
            fresh = _open_epoll()
        except OSError:
            return False
        try:
            bell = self._bell
            if bell is not None:
                fresh.register(bell.fd, _flags.IN | ET)
            for fd in armed:
                try:
                    fresh.register(fd, self._masks[fd])
                except OSError:
                    pass  # EBADF: closed, and not deregistered yet
            os.dup2(fresh.fileno(), self._epoll.fileno(), inheritable=False)
            self._show_to_outer()
        finally:
            fresh.close()
        return True

    def _show_to_outer(self) -> None:
        """Have the epoll that others watch watch ours, which it does not any more if ours is a new one."""
        if self._outer is not None:
            try:
                self._outer.register(self._epoll.fileno(), _flags.IN)
            except FileExistsError:
                pass

    def _watched_by_kernel(self) -> list[int] | None:
        """Give our numbers that are armed in the kernel, if it watches anything beside them; else None."""
        lines: dict[int, list[list[bytes]]] = {}
        with open(f"/proc/self/fdinfo/{self._epoll.fileno()}", "rb") as info:
            for line in info:
                if line.startswith(b"tfd:"):
                    # tfd: 5 events: 4000201d data: 5 pos:0 ino:2a61 sdev:8
                    fields = line.replace(b":", b" ").split()
                    lines.setdefault(int(fields[1]), []).append(fields)
        for own in self._internal:
            lines.pop(own, None)
        if all(fd in self._masks and len(found) == 1 for fd, found in lines.items()):
            return None
        armed = []
        for fd, found in lines.items():
            if fd in self._masks:
                if len(found) > 1:
                    try:
                        status = os.fstat(fd)
                    except OSError:
                        continue
                    ours = [fields for fields in found if int(fields[9], 16) == status.st_ino]
                    found = ours or found
                asked = _flags.IN | _flags.OUT | _flags.PRI
                if any(int(fields[3], 16) & asked for fields in found):
                    armed.append(fd)
        return armed
