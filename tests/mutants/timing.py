"""Wrong in what expires: TIM."""

from __future__ import annotations

import time

from polling import Event, Timeout, Timer
from polling.timer import _OVER

from . import Front


class TimersEndTheWait(Front):
    """Time is looked at after the wait, and does not shorten it."""

    breaks = ("TIM-01",)

    def _sooner(self, timeout: float | None) -> float | None:
        nearest, self._table.nearest = self._table.nearest, float("inf")
        try:
            return super()._sooner(timeout)
        finally:
            self._table.nearest = nearest


class TimersAreEarly(Timer[object]):
    """Timeouts count in whole hundredths of a second, rounded down."""

    breaks = ("TIM-01",)

    def set_timeout(self, seconds: float, state: object, *, every: float | None = None) -> Timeout:
        if type(seconds) is float and 0 < seconds < 1000:
            seconds = int(seconds * 100) / 100
        return super().set_timeout(seconds, state, every=every)


class TimersReplaceTheTimeout(Front):
    """While a timer runs, the wait's own timeout is forgotten."""

    breaks = ("TIM-02",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        running = any((user.source._deadline or 0) < float("inf") for user in self._table.timed)
        return super().poll(None if running else timeout, max_events)


class LatestComesFirst(Timer[object]):
    """What has expired comes with the latest first."""

    breaks = ("TIM-03",)

    def expired(self) -> list[object]:
        return super().expired()[::-1]


class CancelledIsKept(Timer[object]):
    """What is cancelled stays in the heap until it is due."""

    breaks = ("TIM-04",)

    def _forget_cancelled(self) -> None:
        pass


class CancelledExpires(Timer[object]):
    """What is cancelled after it was due expires all the same."""

    breaks = ("TIM-04",)

    def set_timeout(self, seconds: float, state: object, *, every: float | None = None) -> Timeout:
        timeout = super().set_timeout(seconds, state, every=every)
        if not seconds and every is None:
            timeout._entry = [0.0, 0, object(), None]
        return timeout


class StatesAreKept(Timer[object]):
    """The state of what is cancelled is kept until its time."""

    breaks = ("TIM-04",)

    def set_timeout(self, seconds: float, state: object, *, every: float | None = None) -> Timeout:
        self.__dict__.setdefault("states", []).append(state)
        return super().set_timeout(seconds, state, every=every)


class MissedBeatsAreMadeUpFor(Timer[object]):
    """Each deadline that passed unnoticed expires on its own."""

    breaks = ("TIM-05",)

    def expired(self) -> list[object]:
        before = {id(entry): (entry[0], entry[3], entry[2]) for entry in self._heap}
        states = super().expired()
        for deadline, every, state in before.values():
            if every is not None and state is not _OVER and every < 1000:
                states += [state] * max(0, int((time.monotonic() - deadline) / every))
        return states


class LateIsTheNextBeat(Timer[object]):
    """A repeated timeout is set anew when it has been seen, so that lateness adds up."""

    breaks = ("TIM-05",)

    def expired(self) -> list[object]:
        states = super().expired()
        for entry in self._heap:
            if entry[3] is not None and entry[2] in states:
                entry[0] = time.monotonic() + entry[3]
                self._deadline = entry[0]
        return states


class NearerTimeoutIsForTheNextWait(Timer[object]):
    """A timeout set in another thread does not reach the wait in progress."""

    breaks = ("TIM-06",)

    def _hasten(self, deadline: float) -> None:
        self._deadline = min(deadline, self._deadline)
        if self._registration is not None:
            self._registration.table.alert = True


class ExpiredCrossesACall(Timer[object]):
    """What has expired is handed on by another function: a signal handler that raises there loses it."""

    breaks = ("TIM-06",)

    def expired(self) -> list[object]:
        return list(super().expired())
