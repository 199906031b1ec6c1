"""Wrong in what is asked for, and in level mode: INT and LVL."""

from __future__ import annotations

import threading
from typing import ClassVar

from polling import Interest, Mode, Readiness
from polling.backend import Pair, Wait
from polling_backends._flags import ERR, HUP, IN, OUT, PRI, RDHUP
from polling_backends.epoll import ET, ONESHOT, EpollBackend
from polling_backends.poll import GONE, PollBackend

from . import Decoding, Masking, Pairs


class ParkedStaysInTheSet(EpollBackend):
    """A parked source stays in the kernel's set with no flags, where its hangup ends every wait."""

    breaks = ("INT-02", "EVT-20")

    def deregister(self, fd: int) -> None:
        self._epoll.modify(fd, 0)


class ParkingIsForgotten(EpollBackend):
    """A source without interest stays armed as it was."""

    breaks = ("INT-01", "CAP-06")

    def deregister(self, fd: int) -> None:
        pass


class HangupSetsEveryBit(Decoding):
    """A hangup is readable and writable, whatever was asked for."""

    breaks = ("INT-04",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(readable=True, writable=True) if bits & (ERR | HUP) else right


class EveryEventIsReadable(Decoding):
    """Whatever happens is called readable, since a read would tell."""

    breaks = ("INT-05",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(readable=bool(interest & Interest.READABLE))


class ListenerIsWritable(PollBackend):
    """A connection to accept is reported as writable, too."""

    breaks = ("INT-06",)

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        asked = {fd: watch.watched for fd, watch in self._watches.items()}
        return [(fd, bits | asked.get(fd, 0) & OUT) for fd, bits in super()._wait(timeout, max_events)]


class ConnectInProgressIsNoEdge(PollBackend):
    """A connect that would block does not arm the report of its end."""

    breaks = ("INT-07",)

    def rearm(self, fd: int, interest: Interest) -> None:
        if interest is not Interest.WRITABLE:
            super().rearm(fd, interest)


class UrgentDataIsReadable(Masking, Decoding):
    """Urgent data is reported to whoever asks for data."""

    breaks = ("INT-08",)

    def mask(self, right: int, interest: Interest, mode: Mode) -> int:
        return right | PRI

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(readable=right.readable or bool(interest & Interest.READABLE and bits & PRI))


class UrgentDataIsWatched(Masking):
    """Whoever reads is woken for urgent data, too, and what is not asked for is left out of the event."""

    breaks = ("INT-09",)

    def mask(self, right: int, interest: Interest, mode: Mode) -> int:
        return right | PRI if interest & Interest.READABLE else right


class DroppingOneInterestDropsBoth(EpollBackend):
    """When writing is no longer asked for, reading goes with it."""

    breaks = ("INT-10",)

    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None:
        was = self._masks.get(fd, 0)
        super().reregister(fd, interest, mode)
        if was & IN and was & OUT and interest is Interest.READABLE:
            self._epoll.modify(fd, 0)


class RoomIsAssumed(PollBackend):
    """What has once been writable is writable for good."""

    breaks = ("INT-11", "LVL-02")

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        writers = [fd for fd, watch in self._watches.items() if watch.armed & OUT]
        batch = super()._wait(0 if writers else timeout, max_events)
        return [*batch, *((fd, OUT) for fd in writers if fd not in dict(batch))]


class LevelForgets(Masking):
    """Level mode reports a condition when it arises, and then no more."""

    breaks = ("LVL-01",)

    def mask(self, right: int, interest: Interest, mode: Mode) -> int:
        return right | ET if mode is Mode.LEVEL else right


class LevelRepeatsItself(PollBackend):
    """Level mode reports once more what was reported last, without another look."""

    breaks = ("LVL-02",)
    _last: Pairs = ()

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        last, self._last = self._last, ()
        if again := [pair for pair in last if pair[0] in self._watches]:
            return again
        self._last = batch = super()._wait(timeout, max_events)
        return batch


class ArrivalsAreQueued(EpollBackend):
    """A thread of its own queues what arrives, and that is reported even if it has gone again."""

    breaks = ("LVL-03",)

    def __init__(self) -> None:
        super().__init__()
        self._arrivals = EpollBackend()
        self._queue: list[Pair] = []
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    def _collect(self) -> None:
        wait, bell = self._arrivals.waiter(), self._arrivals.internal
        while True:
            arrived = wait(None, 1024)
            if any(fd in bell for fd, _ in arrived):
                return
            self._queue += arrived

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        super().register(fd, interest, mode)
        self._arrivals.register(fd, interest, Mode.EDGE)

    def waiter(self) -> Wait:
        wait = super().waiter()

        def fetch(timeout: float | None, limit: int) -> Pairs:
            queue, self._queue = self._queue, []
            return [*dict(queue).items()] or wait(timeout, limit)

        return fetch

    def close(self) -> None:
        self._arrivals.wake()
        self._thread.join()
        self._arrivals.close()
        super().close()

    abandon = close


class ModeIsKept(Masking):
    """Reregistering keeps the mode's flags of the former registration."""

    breaks = ("LVL-04",)

    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None:
        was = self._masks.get(fd, 0) & (ET | ONESHOT)
        super().reregister(fd, interest, mode)
        self._ask(fd, self._masks[fd] | was)

    def mask(self, right: int, interest: Interest, mode: Mode) -> int:
        return right


class SecondPollIsDeaf(EpollBackend):
    """Several polls can share a source, it says; but only the first of them is told."""

    breaks = ("LVL-05",)
    owners: ClassVar[dict[int, EpollBackend]] = {}

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        if self.owners.setdefault(fd, self) is self:
            super().register(fd, interest, mode)

    def deregister(self, fd: int) -> None:
        if self.owners.get(fd) is self:
            del self.owners[fd]
        super().deregister(fd)

    def close(self) -> None:
        for fd in [fd for fd, owner in self.owners.items() if owner is self]:
            del self.owners[fd]
        super().close()


class EndIsToldOnce(PollBackend):
    """In level mode an end of stream is reported once, and then the source leaves the set."""

    breaks = ("LVL-06",)

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        batch = super()._wait(timeout, max_events)
        for fd, bits in batch:
            if fd in self._watches and bits & (GONE | RDHUP):
                self._leave_set(fd)
        return batch
