"""Wrong in how much a wait reports: CAP and SPU."""

from __future__ import annotations

from collections.abc import Sequence

from polling import Event, Interest, Readiness
from polling.backend import Pair, Wait
from polling_backends import _flags
from polling_backends._flags import HUP, IN, OUT, RDHUP
from polling_backends.poll import PollBackend

from . import Fetching, Front, Pairs


class RestOfABatchIsLost(Fetching):
    """The kernel is always asked for a large batch, and what does not fit is cut off."""

    breaks = ("CAP-01",)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        return wait(timeout, 65_536)[:limit]


class LimitIsIgnored(Fetching):
    """The limit of a batch is not handed to the kernel."""

    breaks = ("CAP-01",)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        return wait(timeout, 65_536)


class FirstComeFirst(PollBackend):
    """A small batch always begins with the lowest number: the others starve."""

    breaks = ("CAP-02",)

    def _in_turn(self, ready: list[Pair]) -> list[Pair]:
        return sorted(ready)


class LimitOfZeroIsOne(Front):
    """A limit below one is rounded up to one, instead of refused."""

    breaks = ("CAP-03",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        return super().poll(timeout, max(1, max_events))


class LastOfManyIsLost(Fetching):
    """Of a batch with more than ten the last is dropped, by a range that is one too short."""

    breaks = ("CAP-04",)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        batch = wait(timeout, limit)
        return batch[:-1] if len(batch) > 10 else batch


class BatchNamesOneTwice(Fetching):
    """A batch may hold the same source twice."""

    breaks = ("CAP-04",)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        batch = wait(timeout, limit)
        return [*batch, batch[0]] if 1 < len(batch) < limit else batch


class ListIsReused(Front):
    """Each wait returns the same list, filled anew."""

    breaks = ("CAP-05",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        events: list[Event[object]] = self.__dict__.setdefault("events", [])
        events[:] = super().poll(timeout, max_events)
        return events


class LargeBatchesOverlap(Fetching):
    """The last of a large batch comes again with the next, as if it had not been counted."""

    breaks = ("CAP-07",)
    _last: Pairs = ()

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        last, batch = self._last, wait(timeout, limit)
        self._last = batch[-1:] if len(batch) > 500 else ()
        return [*last, *batch] if len(last) + len(batch) <= limit else batch


class _Guessing(Fetching):
    """Reports, every so many waits, a source that nobody looked at."""

    every: int
    flags: int
    _waits = 0

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Sequence[Pair]:
        self._waits += 1
        if self._waits % self.every == 0 and self._masks:
            numbers = [*self._masks]
            fd = numbers[self._waits % len(numbers)]
            return [(fd, self._masks[fd] & (IN | OUT) | self.flags)]
        return wait(timeout, limit)


class EveryTenthWaitGuesses(_Guessing):
    """Every tenth wait reports a source that is quiet."""

    breaks = ("SPU-01",)
    every, flags = 10, 0


class GuessesHaveHints(_Guessing):
    """Its spurious events, though seldom, say that the source has ended."""

    breaks = ("SPU-02",)
    every, flags = 25, HUP | RDHUP


class GuessesAreNotAskedFor(_Guessing):
    """Its spurious events, though seldom, say both readable and writable, whatever was asked for."""

    breaks = ("SPU-02",)
    every, flags = 25, 1 << 20

    def decode(self, bits: int, interest: Interest) -> Readiness:
        right = _flags.readiness(bits, interest)
        return right._replace(readable=True, writable=True) if bits & self.flags else right
