"""Sources that no kernel knows of: readiness that is set and cleared by calls, from any thread.

A fact about CPython carries this module: threads change, and signal handlers run, only after a call, at the
beginning of a function and at a jump back. What stands between those is done as a whole. So there is no lock in
``set`` and ``clear``, which may be called from inside a signal handler, where a lock could be one's own; there is a
row of plain stores instead, and the words "no call" where it matters. The bits are plain ints, since the operators
of an ``IntFlag`` are calls.

What is to be reported is worked out by the wait, when it hands out its batch: of the bits that are armed, those that
are set then. All four modes differ only in what happens to the armed ones:

    LEVEL           always the whole interest
    EDGE            a bit is armed by being set, also if it was set already, and used up by being reported
    the oneshots    the whole interest is armed by ``register``, ``reregister`` and ``rearm``, and used up as a whole

A registration never changes its token, interest or mode: ``reregister`` puts another in its place. So an event is
current as long as its registration is in the table.

Rules: USR-01 to USR-09, and through ``Waker`` WAK.
"""

from __future__ import annotations

from polling._typing import TYPE_CHECKING
from polling.event import Event, Interest, Mode, Readiness

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from polling._registry import Table

__all__ = ["UserSource"]

NEVER: Final = float("inf")

_EDGE: Final = Mode.EDGE


class UserRegistration:
    """A user-space source that is watched, and all that was said of it: what ``Registration`` is for descriptors."""

    __slots__ = ("armed", "events", "interest", "mode", "ring", "source", "table", "token")

    def __init__(
        self, source: UserSource, token: Any, interest: Interest, mode: Mode, table: Table, ring: Callable[[], None]
    ) -> None:
        self.source = source
        self.token = token
        self.interest = self.armed = int(interest)
        self.mode = mode
        self.events: list[Event[Any] | None] = [None] * 8  # by what they report; made once each
        self.table = table
        self.ring = ring

    def stir(self, bits: int) -> bool:
        """Have the next look of a wait include this source, if *bits*, which have just been set, concern it."""
        # What there is to say comes before the alert, and that before any ring: a waiter that has looked already is
        # woken, one that has not sees it. The bell rings each time, since no flag can tell whether an earlier ring
        # was heard before or after the waiter looked.
        if self.mode is _EDGE:
            self.armed |= bits & self.interest
        if not self.armed & bits:
            return False
        self.table.pending[self] = None
        self.table.alert = True
        return True

    def make_event(self, ready: int) -> Event[Any]:
        """Make the event that reports these bits, and keep it for the next time."""
        readiness = Readiness(bool(ready & 1), bool(ready & 2), bool(ready & 4))
        event = self.events[ready] = Event(self.token, readiness, self)
        return event


class UserSource:
    """Something that becomes ready by a call: the state of an object, a future, a queue.

    Registered like any source, with every interest and mode on every backend, at one poll at a time. A poll holds
    it until it is deregistered or the poll is closed. Its events come on top of ``max_events``.

    Rules: USR-01 to USR-09.
    """

    __slots__ = ("_deadline", "_ready", "_registration")

    def __init__(self) -> None:
        self._ready = 0  # bits of Interest
        self._deadline: float | None = None  # when it becomes readable by itself, on the monotonic clock: for timers
        self._registration: UserRegistration | None = None

    @property
    def readiness(self) -> Interest:
        """What is set now."""
        return Interest(self._ready)

    def set(self, interest: Interest = Interest.READABLE) -> None:
        """Set these bits. The wait in progress, or else the next one, reports those it is registered for.

        In EDGE each call is a report, also for a bit that was set; those that come before a wait has reported
        them become one. Setting ``Interest.NONE`` does nothing.

        Raises:
            TypeError: *interest* is no Interest.

        Threads: Any, also inside a signal handler. Takes no lock and never blocks.
        """
        if type(interest) is not Interest:
            raise TypeError(f"interest must be an Interest, not {interest!r}")
        self._set(int(interest))

    def clear(self, interest: Interest = Interest.READABLE) -> None:
        """Clear these bits. A wait that begins after this does not report them.

        Clear first and look then at what there is to do: what arrives in between is reported again. The other way
        round it is lost.

        Raises:
            TypeError: *interest* is no Interest.

        Threads: As ``set``.
        """
        if type(interest) is not Interest:
            raise TypeError(f"interest must be an Interest, not {interest!r}")
        others = ~int(interest)
        self._ready &= others

    def _is_due(self, now: float) -> bool:
        """Tell whether it is readable from now on, or its deadline is another than it was."""
        return True

    def _set(self, bits: int) -> None:
        self._ready |= bits
        registration = self._registration
        if registration is not None and registration.stir(bits):
            registration.ring()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.readiness!r}>"
