"""Time as a source: a heap of deadlines, of which the poll is told the nearest.

A poll that has a timer registered never waits beyond the nearest deadline, and reports the timer once that has passed.
What has expired is taken from here; the poll knows nothing of it but the one number.

Some facts about the heap:

  * Its entries are lists, ``[deadline, number, state, every]``, compared by C code: by deadline, and in order of
    setting where that is equal. A timeout that is cancelled or over has ``_OVER`` for its state, so that the
    caller's own is let go at once.
  * A cancelled entry stays until it comes to the top, or until more than half of the heap are such: then the heap
    is built anew without them. So a cancel costs no search, and what is dead is never more than what lives, plus
    a few.
  * What ``user`` says of calls holds here: from the look at the top of the heap to its removal there is none but the
    removal itself, which is C code like the insertion. So setting and cancelling need no lock. That is for what takes
    several steps: taking what has expired, and building anew.

Rules: TIM-01 to TIM-06.
"""

from __future__ import annotations

from _thread import RLock  # importing threading takes a millisecond
from heapq import heapify, heappop, heappush, heapreplace
from time import monotonic

from polling._typing import TYPE_CHECKING, Generic, T
from polling.poll import checked_seconds
from polling.user import NEVER, UserSource

if TYPE_CHECKING:
    from typing import Any, Final

    Entry = list[Any]

__all__ = ["Timeout", "Timer"]

_OVER: Final = object()

_DEADLINE, _NUMBER, _STATE, _EVERY = range(4)

FEW: Final = 64
"""So many cancelled timeouts are never too many."""

JUST_ABOVE: Final = 1 + 2**-50
"""The factor to the next floats above one."""

LONG: Final = 1e15
"""Seconds beyond which a number is looked at more closely: it may be an int too large for a float."""


class Timer(UserSource, Generic[T]):
    """Timeouts, each with a state of the caller's: a source that is readable while some have expired.

        timer = Timer[str]()
        poll.register(timer, token)
        timer.set_timeout(0.5, "half a second")
        ...
        if event.token is token:
            for state in timer.expired(): ...

    A poll at which it is registered waits no longer than until the nearest deadline. Never early; late by
    the grain of the backend's timeouts.

    Rules: TIM-01 to TIM-06.
    """

    __slots__ = ("_cancelled", "_due", "_heap", "_lock", "_number")

    _deadline: float

    def __init__(self) -> None:
        super().__init__()
        self._deadline = NEVER
        self._heap: list[Entry] = []
        self._due: list[Entry] = []  # out of the heap, or about to be, and not handed out yet
        self._cancelled = 0  # of those in the heap
        self._number = 0
        self._lock = RLock()

    def set_timeout(self, seconds: float, state: T, *, every: float | None = None) -> Timeout:
        """Have *state* expire after *seconds*, by the monotonic clock.

        Args:
            seconds: From now. 0 and less, a time that has passed, is due at once. ``math.inf`` never is.
            state: Any object; ``expired`` gives it back. It is let go when the timeout is over.
            every: Seconds, more than 0, after which it expires again, and so on until it is cancelled. They are
                counted from deadline to deadline, so lateness does not add up. Deadlines that passed
                unnoticed are not made up for: together they expire once.

        Returns:
            What it can be cancelled by. Need not be kept.

        Raises:
            ValueError: One of the two is NaN, or *every* is 0 or less.
            TypeError: One is no number.

        Threads: Any, also inside a signal handler. A wait in progress takes it up.
        Rules: TIM-01, TIM-03, TIM-05, TIM-06.
        """
        now = monotonic()
        if not ((seconds.__class__ is float or seconds.__class__ is int) and 0 <= seconds < LONG):
            seconds = max(checked_seconds(seconds, "seconds must be a number"), 0)
        if every is not None:
            every = checked_seconds(every, "every must be a number of seconds or None")
            if every <= 0:
                raise ValueError(f"every must be more than 0 seconds, not {every}")
        deadline = now + seconds
        self._number += 1
        timeout = Timeout(self, [deadline, self._number, state, every])
        try:
            heappush(self._heap, timeout._entry)
            if deadline < self._deadline:
                self._hasten(deadline)
        except BaseException:  # a signal handler's: as if it had never been set
            timeout.cancel()
            raise
        return timeout

    def expired(self) -> list[T]:
        """Take the states of all timeouts that have expired, in order of their deadlines.

        There may be none, after an event too. When a signal handler raises in here, nothing is lost.

        Threads: One at a time.
        Rules: TIM-01 to TIM-05.
        """
        taken: list[tuple[Entry, T]] = []
        try:
            self._ready &= ~1
            with self._lock:
                self._collect(monotonic())
            for entry in self._due:
                state = entry[_STATE]
                if state is not _OVER:
                    if entry[_EVERY] is None:
                        entry[_STATE] = _OVER
                    taken += [(entry, state)]
            states = [state for _, state in taken]
        except BaseException:  # a signal handler's
            for entry, state in taken:
                if entry[_EVERY] is None:  # what is repeated has its state still, unless it was cancelled
                    entry[_STATE] = state
            self._set(1)
            raise
        # From here on there is no call.
        self._due = []
        return states

    def _collect(self, now: float) -> None:
        """Move what is due from the heap to ``_due``; what is repeated is in both."""
        while True:
            # From here to the end of a turn there is one call, that takes the top away.
            heap = self._heap
            if not heap:
                self._deadline = NEVER
                return
            entry = heap[0]
            deadline, _, state, every = entry
            if state is _OVER:
                self._cancelled -= 1
                heappop(heap)
            elif deadline > now:
                self._deadline = NEVER
                break
            elif every is None:
                self._due += [entry]
                heappop(heap)
            else:
                following = now - (now - deadline) % every + every
                entry[_DEADLINE] = following if following > now else now * JUST_ABOVE
                self._due += [entry]
                heapreplace(heap, entry)
        self._hasten(deadline)

    def _is_due(self, now: float) -> bool:
        with self._lock:
            while True:
                # From here to the end of a turn there is one call, as above: what is on top now may be new.
                heap = self._heap
                if not heap or heap[0][_STATE] is not _OVER:
                    break
                self._cancelled -= 1
                heappop(heap)
            if self._due or (heap and heap[0][_DEADLINE] <= now):
                return True
            self._deadline = heap[0][_DEADLINE] if heap else NEVER  # it was of one that is cancelled
        return False

    def _hasten(self, deadline: float) -> None:
        """Tell the poll of a deadline that may be the nearest: a wait in progress takes it into account."""
        if deadline < self._deadline:
            self._deadline = deadline
            registration = self._registration
            if registration is not None:
                table = registration.table
                if deadline < table.nearest:
                    table.nearest = deadline
                table.alert = True
                if table.fetch is None:
                    registration.ring()

    def _forget_cancelled(self) -> None:
        """Build the heap anew without the cancelled ones."""
        with self._lock:
            heap = self._heap
            size = len(heap)
            fresh = [entry for entry in heap[:size] if entry[_STATE] is not _OVER]
            heapify(fresh)
            forgotten = size - len(fresh)
            # From here on there is no call.
            if self._heap is heap and not heap[size:]:  # or else something was set meanwhile: the next time will do
                self._heap = fresh
                self._cancelled -= forgotten

    def __repr__(self) -> str:
        return f"<Timer: {len(self._heap) - self._cancelled} pending>"


class Timeout:
    """A timeout that was set."""

    __slots__ = ("_entry", "_timer")

    def __init__(self, timer: Timer[Any], entry: Entry) -> None:
        self._timer = timer
        self._entry = entry

    def cancel(self) -> bool:
        """Call it off, for good if it is a repeated one.

        Returns:
            Whether it was pending. Then ``expired`` does not give its state any more. False: it was over.

        Threads: Any, as ``Timer.set_timeout``.
        Rules: TIM-04.
        """
        entry, timer = self._entry, self._timer
        if entry[_STATE] is _OVER:
            return False
        entry[_STATE] = _OVER
        timer._cancelled += 1
        if timer._cancelled > FEW and timer._cancelled * 2 > len(timer._heap):
            timer._forget_cancelled()
        return True

    def __repr__(self) -> str:
        if self._entry[_STATE] is _OVER:
            return "<Timeout: over>"
        return f"<Timeout {self._entry[_STATE]!r} in {self._entry[_DEADLINE] - monotonic():.3f} s>"
