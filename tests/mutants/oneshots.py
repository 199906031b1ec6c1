"""Wrong in the oneshot modes: ONE."""

from __future__ import annotations

import errno
import os
import select
import sys

from polling import Interest, Mode
from polling.backend import Pair
from polling_backends._flags import IN, OUT, PRI, RDHUP
from polling_backends.epoll import ET, ONESHOT, EpollBackend
from polling_backends.poll import GONE, PollBackend, _Watch

from . import Masking, Pairs

assert sys.platform != "win32", "these derive from backends that Windows does not have"

SHOTS = (Mode.ONESHOT, Mode.EDGE_ONESHOT)


class OneshotFiresAgain(Masking):
    """Oneshot is not handed to the kernel: it fires at every wait."""

    breaks = ("ONE-01",)

    def mask(self, right: int, interest: Interest, mode: Mode) -> int:
        return right & ~ONESHOT


class FiredStaysInTheSet(PollBackend):
    """A fired oneshot stays in poll's set with no flags, where a hangup is still reported."""

    breaks = ("ONE-01",)

    def _set(self, fd: int, watch: _Watch) -> None:
        self._poll.register(fd, watch.armed)


class OneDirectionIsDisarmed(PollBackend):
    """A oneshot that fired for reading is still armed for writing."""

    breaks = ("ONE-02",)

    def _do_books(self) -> None:
        for fd, watch, flags in self._delivered:
            if watch.mode in SHOTS and not flags & GONE:
                watch.armed &= ~(flags & (IN | OUT | PRI))
                if flags & IN:
                    watch.armed &= ~RDHUP
                if self._watches.get(fd) is watch:
                    self._set(fd, watch)
        self._delivered = [entry for entry in self._delivered if entry[1].mode is Mode.EDGE or entry[2] & GONE]
        super()._do_books()


class OneshotHasRoomForOneBit(PollBackend):
    """The one event of a oneshot says readable, and leaves out that it is writable, too."""

    breaks = ("ONE-03",)

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        batch = super()._wait(timeout, max_events)
        shots = {fd for fd, watch in self._watches.items() if watch.mode in SHOTS}
        return [(fd, bits & ~OUT if fd in shots and bits & IN else bits) for fd, bits in batch]


class RearmingWaitsForNews(EpollBackend):
    """Rearmed, a oneshot fires at the next change, and not for what holds."""

    breaks = ("ONE-04",)

    def rearm(self, fd: int, interest: Interest) -> None:
        if self._masks.get(fd, 0) & ONESHOT:
            self._epoll.modify(fd, self._masks[fd] & ~ONESHOT | ET)
            self._epoll.poll(0, 1000)


class FiredIsDeleted(PollBackend):
    """A fired oneshot is gone from the facility, as one-shot filters of other systems are, and cannot be rearmed."""

    breaks = ("ONE-05",)

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        batch = super()._wait(timeout, max_events)
        for fd, watch, _ in self._delivered:
            if watch.mode in SHOTS:
                del self._watches[fd]
                self._leave_set(fd)
        return batch

    def deregister(self, fd: int) -> None:
        if fd not in self._watches:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().deregister(fd)


class EachArmingIsAnEvent(PollBackend):
    """Armings are counted: armed twice, a oneshot fires twice."""

    breaks = ("ONE-07",)

    def __init__(self) -> None:
        super().__init__()
        self._owed: dict[int, int] = {}

    def rearm(self, fd: int, interest: Interest) -> None:
        self._owed[fd] = self._owed.get(fd, 0) + 1
        super().rearm(fd, interest)

    def _do_books(self) -> None:
        fired = [(fd, watch) for fd, watch, _ in self._delivered if watch.mode in SHOTS]
        super()._do_books()
        for fd, watch in fired:
            self._owed[fd] = max(0, self._owed.get(fd, 0) - 1)
            if self._owed[fd]:
                watch.armed = watch.watched
                self._set(fd, watch)


class DisarmedOneWaitLate(PollBackend):
    """The books of a oneshot are done one wait too late."""

    breaks = ("ONE-01",)
    _older: tuple[tuple[int, _Watch, int], ...] = ()

    def _do_books(self) -> None:
        now, older = self._delivered, self._older
        self._older = tuple(entry for entry in now if entry[1].mode in SHOTS)
        self._delivered = [*older, *(entry for entry in now if entry[1].mode is Mode.EDGE)]
        super()._do_books()


class EdgeOneshotIsEdge(Masking):
    """Of edge and oneshot together only the edge is handed to the kernel."""

    breaks = ("ONE-09",)

    def mask(self, right: int, interest: Interest, mode: Mode) -> int:
        return right & ~ONESHOT if mode is Mode.EDGE_ONESHOT else right


class MeanwhileIsKept(PollBackend):
    """A source that has fired is watched on, and what came meanwhile is handed out when it is armed again."""

    breaks = ("ONE-06",)

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, int] = {}
        self._due: list[Pair] = []

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        due, self._due = self._due, []
        if due:
            return due
        batch = super()._wait(timeout, max_events)
        for fd, watch in self._watches.items():
            if watch.mode in SHOTS and not watch.armed:
                look = select.poll()
                look.register(fd, watch.watched)
                self._kept.update(look.poll(0))
        return batch

    def rearm(self, fd: int, interest: Interest) -> None:
        if fd in self._kept:
            self._due.append((fd, self._kept.pop(fd)))
        super().rearm(fd, interest)


class OneDisarmsItsDuplicate(PollBackend):
    """A oneshot that fires disarms every descriptor of the same file."""

    breaks = ("ONE-10",)

    def _do_books(self) -> None:
        for fd, watch, _ in self._delivered:
            for other, its in self._watches.items():
                if watch.mode in SHOTS and other != fd and os.path.sameopenfile(fd, other):
                    its.armed = 0
                    self._set(other, its)
        super()._do_books()
