"""Wrong in what only a facility of two filters can get wrong: kqueue, on the model of its kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from polling import Interest, Mode, Readiness
from polling.backend import Wait
from polling_backends.kqueue import ADD, BOTH, CLEAR, DELETE, FLAGS, READ, READ_OVER, RECEIPT, WRITE

from . import OnFreeBSD

if TYPE_CHECKING:
    from polling_backends._kqueue_kernel import Kevent
    from tests.kqueue_kernel import SimulatedKqueue
else:
    from kqueue_kernel import SimulatedKqueue


class _LastOnly(SimulatedKqueue):
    def control(self, changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        answer = super().control(changes, most, timeout)
        return answer if changes else [*{event[0]: event for event in answer}.values()]


class LaterHalfReplaces(OnFreeBSD):
    """Events are brought together by number, and the later of two replaces the earlier."""

    breaks = ("MRG-01", "ONE-03")

    def _open_kernel(self) -> SimulatedKqueue:
        self._model = _LastOnly(self.flavour)
        return self._model


class HalvesAreEvents(OnFreeBSD):
    """The events of the two filters are handed out one by one."""

    breaks = ("MRG-01",)

    def waiter(self) -> Wait:
        self._both.clear()
        return super().waiter()


class HalfIsDropped(OnFreeBSD):
    """Fetches two events for each that is asked for, since that may be needed, and drops what is too much."""

    breaks = ("MRG-02", "CAP-01")

    def waiter(self) -> Wait:
        wait = super().waiter()
        return lambda timeout, limit: wait(timeout, 2 * limit)[:limit]


class HalvesTakeRoom(OnFreeBSD):
    """A batch that was full before its events were brought together is not filled up."""

    breaks = ("MRG-03",)

    def _open_kernel(self) -> SimulatedKqueue:
        self._model = _Unwilling(self.flavour)
        return self._model


class _Unwilling(SimulatedKqueue):
    """Gives nothing to who asks again at once."""

    _asked = 0

    def control(self, changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        again, self._asked = most < self._asked, most
        return [] if again and not changes else super().control(changes, most, timeout)


class OneshotFiresTwice(OnFreeBSD):
    """Each filter is a oneshot of its own, and with both interests there are two events."""

    breaks = ("ONE-01", "ONE-02")

    def waiter(self) -> Wait:
        self._shots.clear()
        return super().waiter()


class SpentIsSpentForGood(OnFreeBSD):
    """Armed again, a oneshot with both interests still counts as fired."""

    breaks = ("ONE-02",)

    def rearm(self, fd: int, interest: Interest) -> None:
        spent = fd in self._spent
        super().rearm(fd, interest)
        if spent:
            self._spent.add(fd)


class ArmedTooLate(OnFreeBSD):
    """The kernel arms a oneshot before it counts as armed, and what fires in between is dropped."""

    breaks = ("ONE-08",)

    def rearm(self, fd: int, interest: Interest) -> None:
        if fd in self._spent:
            filters, flags = self._watched[fd]
            self._change([(fd, which, flags, 0, 0) for which in filters])
            self._spent.discard(fd)
        else:
            super().rearm(fd, interest)


class FilterIsLeftBehind(OnFreeBSD):
    """Filters are removed if they are in the books, where those of a call that was cut off are not."""

    breaks = ("REG-06",)

    def _change(self, changes: list[Kevent]) -> list[int]:
        fd = changes[0][0]
        known, _ = self._watched.get(fd, ((), 0))
        errors = super()._change([change for change in changes if not change[2] & DELETE or change[1] in known])
        return errors if changes[0][2] & ADD else [0] * (len(changes) - len(errors)) + errors

    def deregister(self, fd: int) -> None:
        self._change([(fd, which, DELETE | RECEIPT, 0, 0) for which in BOTH])
        super().deregister(fd)


class FiltersKeepTheirFlags(OnFreeBSD):
    """A change of mode adds the filters over those that are there."""

    breaks = ("LVL-04",)

    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None:
        former, _ = self._watched.get(fd, ((), 0))
        self._spent.discard(fd)
        asked = [which for which in BOTH if -which & interest]
        errors = self._change(
            [
                *((fd, which, DELETE | RECEIPT, 0, 0) for which in former if which not in asked),
                *((fd, which, FLAGS[mode], 0, 0) for which in asked),
            ]
        )
        if any(error not in (0, errno.ENOENT) for error in errors):
            raise OSError(max(errors), os.strerror(max(errors)))
        self._watched[fd] = tuple(asked), FLAGS[mode]


class DroppedInterestStays(OnFreeBSD):
    """A change adds what is wanted, and leaves the filter that is wanted no more."""

    breaks = ("REG-14", "INT-10")

    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None:
        former, flags = self._watched.get(fd, ((), 0))
        super().reregister(fd, interest, mode)
        self._change([(fd, which, flags, 0, 0) for which in former if not -which & interest])


class RearmingAddsBoth(OnFreeBSD):
    """Rearming adds both filters, whichever were asked for."""

    breaks = ("LVL-02",)

    def rearm(self, fd: int, interest: Interest) -> None:
        filters, flags = self._watched.get(fd, ((), 0))
        if filters:
            self._watched[fd] = BOTH, flags
        super().rearm(fd, Interest.READ_WRITE)


class EndHidesData(OnFreeBSD):
    """EV_EOF is taken for the end, though there is something left to read."""

    breaks = ("EVT-01", "EVT-02", "EVT-03")

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return super().decode(bits, interest)._replace(readable=bool(bits & -READ and not bits & READ_OVER))


class HalfCloseIsHangup(OnFreeBSD):
    """EV_EOF of the filter for reading is taken for the end of both directions."""

    breaks = ("EVT-05", "EVT-06")

    def decode(self, bits: int, interest: Interest) -> Readiness:
        right = super().decode(bits, interest)
        return right._replace(write_closed=right.write_closed or right.read_closed)


class ReaderlessIsRefused(OnFreeBSD):
    """EPIPE of a pipe whose reader is gone is passed on."""

    breaks = ("REG-08",)

    def _change(self, changes: list[Kevent]) -> list[int]:
        return [receipt[4] for receipt in self._control(changes, len(changes), 0)]


class ReaderlessIsSilent(OnFreeBSD):
    """EPIPE of a pipe whose reader is gone is swallowed, and with it the report."""

    breaks = ("REG-08", "EVT-16")

    def _change(self, changes: list[Kevent]) -> list[int]:
        errors = [receipt[4] for receipt in self._control(changes, len(changes), 0)]
        return [0 if error == errno.EPIPE else error for error in errors]


class LastReportIsTheLast(OnFreeBSD):
    """That a filter for writing is gone with the pipe's reader goes unnoticed."""

    breaks = ("EVT-16",)

    def _over(self, fd: int, which: int, flags: int, fflags: int) -> int:
        return super()._over(fd, which, 0, fflags)


class BellIsLevel(OnFreeBSD):
    """The bell is not cleared when it has been heard."""

    breaks = ("WAK-02",)

    def __init__(self) -> None:
        super().__init__()
        own, user = self._kernel.fileno(), self._kernel.user_filter or 0
        self._control([(own, user, DELETE, 0, 0), (own, user, ADD, 0, 0)], 0, 0)


class BellIsOneshot(OnFreeBSD):
    """The bell is a oneshot, and is rung once."""

    breaks = ("WAK-01", "WAK-03")

    def __init__(self) -> None:
        super().__init__()
        own, user = self._kernel.fileno(), self._kernel.user_filter or 0
        self._control([(own, user, DELETE, 0, 0), (own, user, ADD | CLEAR | 0x10, 0, 0)], 0, 0)


class FetchedIsForgotten(OnFreeBSD):
    """A batch that an exception cuts off while it is made is gone."""

    breaks = ("SIG-02",)

    def waiter(self) -> Wait:
        self._fetched.clear()
        return super().waiter()


class DiesInTheChild(OnFreeBSD):
    """In a forked child the kqueue's object is let go, and closes what has its number when it dies."""

    breaks = ("FRK-03",)

    def abandon(self) -> None:
        self._ring = None


class FilesAreWatched(OnFreeBSD):
    """Regular files are taken, since the kernel takes them."""

    breaks = ("SRC-01",)

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        self.reregister(fd, interest, mode)


class WritingIsForReading(OnFreeBSD):
    """The filters' numbers are mixed up."""

    breaks = ("INT-01",)

    def decode(self, bits: int, interest: Interest) -> Readiness:
        swapped = {-READ: -WRITE, -WRITE: -READ}.get(bits, bits)
        return super().decode(swapped, interest)
