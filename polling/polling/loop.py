"""An event loop in the shape that mio had until 0.5: one object of the caller's, whose methods are called.

It is a hundred lines on top of ``Poll``, for programs that want callbacks, and a pattern for those that want others.
What it adds is the answer to one question: whose fault is an exception? One that comes out of ``Handler.ready`` for
a connection is that connection's, which is reset while all others go on. Any other, a listener's above all, means
that the program cannot do its work: all connections are reset, since nobody would serve them, and ``run`` raises it.

Each turn takes a batch from the poll and works it off. What an exception cuts off stays for the next turn; so what was
taken from anywhere is stored, and removed again, without a call between: see ``user``.
"""

from __future__ import annotations

import socket
import struct
import sys

from polling._closing import Closing
from polling._typing import TYPE_CHECKING, Generic, T
from polling.channel import Channel
from polling.errors import ChannelClosedError, NotRegisteredError, PollClosedError
from polling.event import Interest, Mode
from polling.iosource import IoSource
from polling.poll import Poll
from polling.signals import Signals
from polling.timer import Timer
from polling.waker import Waker

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any, Final

    from typing_extensions import TypeVar

    from polling.backend import Backend, Source
    from polling.channel import Sender
    from polling.event import Event
    from polling.timer import Timeout

    M = TypeVar("M", default=Any)
    S = TypeVar("S", default=Any)
else:
    M, S = "M", "S"

__all__ = ["EventLoop", "Handler"]

_RESET: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # linger for no time


class Handler(Generic[T, M, S]):
    """What an ``EventLoop`` calls. Each method does nothing unless it is overridden, but for ``error``.

    The type arguments are those of the loop: tokens, messages, states of timeouts.
    """

    def ready(self, loop: EventLoop[T, M, S], token: T, event: Event[T]) -> None:
        """A source that was registered under *token* is ready."""

    def notify(self, loop: EventLoop[T, M, S], message: M) -> None:
        """A message came through the loop's channel."""

    def timeout(self, loop: EventLoop[T, M, S], state: S) -> None:
        """A timeout has expired."""

    def signal(self, loop: EventLoop[T, M, S], number: signal.Signals) -> None:
        """A signal has arrived, at a ``Signals`` that is registered with the loop."""

    def interrupted(self, loop: EventLoop[T, M, S]) -> None:
        """A signal handler raised InterruptedError during the wait, which is over therefore. Nothing is lost."""

    def tick(self, loop: EventLoop[T, M, S]) -> None:
        """A turn is over: everything that the last wait reported has been seen to."""

    def error(self, loop: EventLoop[T, M, S], token: T, source: Source, error: Exception) -> None:
        """``ready`` raised *error* for a source that is no listener. Resets it, unless overridden.

        What this raises ends the loop.
        """
        loop.reset(source)


class EventLoop(Closing, Generic[T, M, S]):
    """Waits, and calls a handler, until it is shut down.

    Args:
        backend: As for ``Poll``.

    Threads: ``run`` and ``run_once`` one at a time; everything else from any thread meanwhile.
    Rules: LOP-01 to LOP-05.
    """

    def __init__(self, backend: str | type[Backend] | Backend | None = None) -> None:
        self._poll: Final[Poll[Any]] = Poll(backend)
        # What is left of this turn, the next thing last: what takes one of a list, of which the next is the last, too.
        self._left: list[tuple[Callable[[Handler[T, M, S], Any], None], list[Any]]] = []
        self._stopping = False
        self._timer: Final[Timer[S]] = Timer()
        self._channel: Final[Channel[M]] = Channel()
        # What is the loop's own has a token that no caller has.
        self._own: Final = object()
        self._waker: Final[Waker[Any]] = Waker(self._poll, self._own)
        self._poll.register(self._timer, self._own)
        self._poll.register(self._channel.receiver, self._own)

    @property
    def poll(self) -> Poll[T]:
        """The poll beneath."""
        return self._poll

    # -- sources -------------------------------------------------------------------------------------------

    def register(
        self, source: Source, token: T, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        """As ``Poll.register``. What is ready goes to ``Handler.ready``; what a ``Signals`` receives to ``signal``."""
        self._poll.register(source, token, interest, mode)

    def reregister(self, source: Source, token: T, interest: Interest, mode: Mode) -> None:
        """As ``Poll.reregister``."""
        self._poll.reregister(source, token, interest, mode)

    def deregister(self, source: Source) -> None:
        """As ``Poll.deregister``."""
        self._poll.deregister(source)

    def reset(self, source: Source) -> None:
        """Deregister a source, and close it in a way that its peer takes for a failure, where it can be told.

        A TCP connection is reset, and what was not sent is dropped. What is wrapped in an ``IoSource`` is closed; a
        bare number is only deregistered. In a loop that is closed, too.
        """
        try:
            self._poll.deregister(source)
        except (NotRegisteredError, PollClosedError):
            pass
        inner = source._obj if isinstance(source, IoSource) else source
        if isinstance(inner, socket.socket):
            try:
                inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # it is closed, or knows no lingering
        close = getattr(inner, "close", None)
        if close is not None:
            try:
                close()
            except OSError:
                pass  # what could not be written (EIO, ENOSPC): it is closed all the same

    def timeout(self, seconds: float, state: S, *, every: float | None = None) -> Timeout:
        """Have ``Handler.timeout`` called with *state* after *seconds*: see ``Timer.set_timeout``."""
        return self._timer.set_timeout(seconds, state, every=every)

    def channel(self) -> Sender[M]:
        """Give what sends messages to ``Handler.notify``, from any thread, until it is closed."""
        return self._channel.sender

    # -- running -------------------------------------------------------------------------------------------

    def run(self, handler: Handler[T, M, S]) -> None:
        """Turn until ``shutdown``, or until an exception that is not a connection's.

        An Exception of a handler's has all connections reset, and is raised. What the wait raises is raised as it is.
        KeyboardInterrupt and what else is no Exception passes through and changes nothing: the loop can be run again,
        and goes on where it was.
        """
        try:
            while not self._stopping:
                self.run_once(handler)
        finally:
            self._stopping = False

    def run_once(self, handler: Handler[T, M, S], timeout: float | None = None) -> None:
        """Wait at most *timeout* seconds, and call *handler* for all that there is. Raises as ``run``.

        Called by a handler, it sees to what is left of the turn that this is a part of.
        """
        interrupted = False
        if not self._left:  # or else there is something left of a turn that was cut off
            try:
                events = self._poll.poll(timeout)
                self._left += [(self._take_event, events[::-1])]
            except InterruptedError:
                interrupted = True
        try:
            if interrupted:
                handler.interrupted(self)
            while self._left:
                take, items = self._left[-1]
                if items:
                    take(handler, items)
                else:
                    del self._left[-1]
            handler.tick(self)
        except Exception:
            self._reset_connections()
            raise

    def shutdown(self) -> None:
        """Have ``run`` return at the end of this turn, or if it is not running, at once when it is next called.

        Threads: Any, also inside a signal handler.
        """
        self._stopping = True
        self._waker.wake()

    def close(self) -> None:
        """Close the poll. Sources stay open. Closing again does nothing."""
        self._poll.close()

    # -- dispatch --------------------------------------------------------------------------------------------

    def _take_event(self, handler: Handler[T, M, S], events: list[Event[Any]]) -> None:
        """See to the next event, unless what was done for an earlier one of the batch has overtaken it."""
        event = events[-1]
        source = _source_of(self._poll, event) if self._poll.is_current(event) else None
        if source is None:
            del events[-1]
        elif event.token is self._own:
            if source is self._timer:
                states = self._timer.expired()
                self._left += [(self._take_timeout, states[::-1])]
            elif source is self._channel.receiver:
                try:
                    messages = self._channel.receiver.drain()
                except ChannelClosedError:  # the sender is closed, which ends the messages and not the loop
                    self.deregister(source)
                else:
                    self._left += [(self._take_message, messages[::-1])]
            del events[-1]
        elif isinstance(source, Signals):
            numbers = source.receive()
            self._left += [(self._take_signal, numbers[::-1])]
            del events[-1]
        else:
            ready = handler.ready
            del events[-1]
            try:
                ready(self, event.token, event)
            except Exception as error:
                if _listens(source):
                    raise
                handler.error(self, event.token, source, error)

    # Each of these begins the handler's method with no call after the removal.

    def _take_message(self, handler: Handler[T, M, S], messages: list[M]) -> None:
        notify, message = handler.notify, messages[-1]
        del messages[-1]
        notify(self, message)

    def _take_timeout(self, handler: Handler[T, M, S], states: list[S]) -> None:
        timeout, state = handler.timeout, states[-1]
        del states[-1]
        timeout(self, state)

    def _take_signal(self, handler: Handler[T, M, S], numbers: list[signal.Signals]) -> None:
        method, number = handler.signal, numbers[-1]
        del numbers[-1]
        method(self, number)

    def _reset_connections(self) -> None:
        del self._left[:]
        for registration in [*self._poll._registrations.values()]:
            source = registration()
            if isinstance(source, (socket.socket, IoSource)) and not _listens(source):
                self.reset(source)


def _source_of(poll: Poll[Any], event: Event[Any]) -> Any:
    """Give the source of an event that is current; None if it is gone just now."""
    key: Any = event._key
    if isinstance(key, tuple):
        registration = poll._registrations.get(key[0])
        return None if registration is None else registration()
    return key.source


def _listens(source: object) -> bool:
    """Tell whether a source takes connections, and is none."""
    inner = source._obj if isinstance(source, IoSource) else source
    if not isinstance(inner, socket.socket):
        return False
    try:
        return bool(inner.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False  # closed: then it was its own handler that closed it, and nothing of it is left to lose
