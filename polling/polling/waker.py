"""Ending a wait from elsewhere."""

from __future__ import annotations

from polling._typing import TYPE_CHECKING, Generic, T
from polling.errors import ForkedPollError
from polling.event import Interest, Mode
from polling.user import UserSource

if TYPE_CHECKING:
    from typing import Final

    from polling.poll import Poll

__all__ = ["Waker"]

_EDGE: Final = Mode.EDGE


class Waker(UserSource, Generic[T]):
    """Makes ``poll()`` return, with a readable event under *token*.

    It is a user-space source that is registered for edges when it is made, so that each wake is reported once.
    A poll may have several; each wakes under its own token. The poll holds it until
    ``poll.deregister(waker)`` or ``close``; it does not hold the poll.

    Raises:
        PollClosedError, ForkedPollError: *poll* is no longer usable.

    Rules: WAK-01 to WAK-11.
    """

    __slots__ = ("_table", "_token")

    def __init__(self, poll: Poll[T], token: T) -> None:
        super().__init__()
        self._table = poll._table
        self._token = token
        poll.register(self, token, Interest.READABLE, Mode.EDGE)

    def wake(self) -> None:
        """End the wait in progress, or else the next one at once.

        Wakes that come before a wait has reported them become one event. It does nothing once the poll
        is closed or the waker deregistered.

        Raises:
            ForkedPollError: This process was forked off the poll's.

        Threads: Any, also inside a signal handler. Takes no lock and never blocks.
        """
        registration = self._registration
        if registration is not None:
            # What _set and stir do, without a call: somebody waits for this.
            self._ready = 1
            if registration.mode is _EDGE:
                registration.armed |= registration.interest & 1
            if registration.armed & 1:
                table = registration.table
                table.pending[registration] = None
                table.alert = True
                registration.ring()
        elif self._table.refusal is ForkedPollError:
            raise ForkedPollError("this waker's poll belongs to the parent process")

    def __repr__(self) -> str:
        return f"<Waker {self._token!r}>"
