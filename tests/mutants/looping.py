"""Wrong in calling handlers: LOP."""

from __future__ import annotations

from typing import Any

from polling import Event, EventLoop, Handler
from polling.backend import Source

_Loop = EventLoop[Any, Any, Any]
_Handler = Handler[Any, Any, Any]


class TickComesFirst(_Loop):
    """The tick comes when the wait is over, before its events."""

    breaks = ("LOP-01",)

    def run_once(self, handler: _Handler, timeout: float | None = None) -> None:
        handler.tick(self)
        super().run_once(handler, timeout)


class ConnectionsEndTheLoop(_Loop):
    """What a connection's handler raises ends the loop."""

    breaks = ("LOP-02",)

    def _take_event(self, handler: _Handler, events: list[Event[Any]]) -> None:
        event = events[-1]
        if self._poll.is_current(event) and event.token is not self._own:
            handler.ready(self, event.token, events.pop())
        else:
            super()._take_event(handler, events)


class FailedIsClosed(_Loop):
    """A connection that failed is closed as if all had been said."""

    breaks = ("LOP-02",)

    def reset(self, source: Source) -> None:
        self._poll.deregister(source)
        close = getattr(source, "shutdown", None)
        if close is not None:
            source.recv(1)  # type: ignore[union-attr]  # a socket, as the test has
            source.close()  # type: ignore[union-attr]  # the same


class ConnectionsOutliveTheLoop(_Loop):
    """A loop that fails leaves its connections open."""

    breaks = ("LOP-03",)

    def _reset_connections(self) -> None:
        pass


class RestIsForgotten(_Loop):
    """What was not seen to when the turn was cut off is forgotten."""

    breaks = ("LOP-03",)

    def run_once(self, handler: _Handler, timeout: float | None = None) -> None:
        self._left.clear()
        super().run_once(handler, timeout)


class ShutdownIsForgotten(_Loop):
    """A shutdown before the loop runs is forgotten when it does."""

    breaks = ("LOP-04",)

    def run(self, handler: _Handler) -> None:
        self._stopping = False
        super().run(handler)


class RemovedIsCalled(_Loop):
    """Each event is handed on, whatever became of its source meanwhile."""

    breaks = ("LOP-05",)

    def _take_event(self, handler: _Handler, events: list[Event[Any]]) -> None:
        event = events[-1]
        if event.token is self._own:
            super()._take_event(handler, events)
        else:
            handler.ready(self, event.token, events.pop())


class WaitsAreFailures(_Loop):
    """What the wait raises resets all connections, even if it is that somebody else waits."""

    breaks = ("LOP-03",)

    def run_once(self, handler: _Handler, timeout: float | None = None) -> None:
        try:
            super().run_once(handler, timeout)
        except Exception:
            self._reset_connections()
            raise
