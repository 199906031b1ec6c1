"""Ending a wait from elsewhere."""

from __future__ import annotations

from polling._typing import TYPE_CHECKING, Generic, T
from polling.errors import ForkedPollError
from polling.event import Event, Readiness

if TYPE_CHECKING:
    from polling.poll import Poll

__all__ = ["Waker"]


class Waker(Generic[T]):
    """Makes ``poll()`` return, with a readable event under *token*.

    A poll may have several; each wakes under its own token. The poll holds it until
    ``poll.deregister(waker)`` or ``close``; it does not hold the poll.

    Raises:
        PollClosedError, ForkedPollError: *poll* is no longer usable.

    Rules: WAK-01 to WAK-11.
    """

    __slots__ = ("_event", "_key", "_ring", "_table")

    def __init__(self, poll: Poll[T], token: T) -> None:
        self._table = poll._table
        self._ring = poll.backend.wake
        self._key = object()  # by which table and event know it: if they knew itself, it and its event were a cycle
        self._event: Event[T] = Event(token, Readiness(readable=True), self._key)
        with self._table.lock:
            if self._table.refusal is not None:
                raise poll._refused()
            self._table.wakers[self._key] = self

    def wake(self) -> None:
        """End the wait in progress, or else the next one at once.

        Wakes that come before a wait has reported them become one event. It does nothing once the poll
        is closed or the waker deregistered.

        Raises:
            ForkedPollError: This process was forked off the poll's.

        Threads: Any, also inside a signal handler. Takes no lock and never blocks.
        """
        # What it has to say comes before the flag, and the flag before the bell: a waiter that has looked already
        # is woken, one that has not sees it. The bell rings each time, since no flag can tell whether an
        # earlier ring was heard before or after the waiter looked.
        table = self._table
        if self._key in table.wakers:
            table.pending[self._key] = self._event
            table.alert = True
            self._ring()
        elif table.refusal is ForkedPollError:
            raise ForkedPollError("this waker's poll belongs to the parent process")

    def __repr__(self) -> str:
        return f"<Waker {self._event.token!r}>"
