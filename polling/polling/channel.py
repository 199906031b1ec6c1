"""Messages to the thread that waits: a queue whose receiving end is a source.

The queue is a list, and to drain it is to put another in its place. So a message costs an append, and a batch of any
size one assignment. The list also says whose turn it is to ring: the first message in it rings, and the list is noted
as rung for. A receiver clears its readiness first, then changes the list, and looks then at what it has taken; so
whoever finds the present list noted knows that the receiver has yet to come. The worst that can happen is one ring
too many, and an empty batch.

What ``user`` says of calls holds here: neither a thread nor a signal handler comes between the looks whether the
channel is open and has room and the append, nor between the two halves of a drain. The lock is for those who wait
for room, and nobody else.

Rules: THR-02 to THR-05.
"""

from __future__ import annotations

from threading import Condition, RLock

from polling._closing import Closing
from polling._typing import TYPE_CHECKING, Generic, T
from polling.errors import ChannelClosedError, ChannelFullError
from polling.user import UserSource

if TYPE_CHECKING:
    from typing import Final

__all__ = ["Channel", "Receiver", "Sender"]


class Channel(Generic[T]):
    """A queue from any number of threads to a poll.

        channel = Channel[str]()
        poll.register(channel.receiver, token)
        channel.sender.send("from any thread")

    A message arrives once, and those of one thread arrive in the order in which it sent them. Any number of them that
    wait to be drained are one event.

    Args:
        bound: How many messages may wait to be drained, from 1. ``None``: any number.

    Attributes:
        sender: The end for all who send.
        receiver: The end for whoever waits, to be registered like any source.

    Raises:
        ValueError: *bound* is less than 1.
        TypeError: It is no int.

    Rules: THR-02 to THR-05.
    """

    __slots__ = ("receiver", "sender")

    def __init__(self, bound: int | None = None) -> None:
        if bound is not None:
            if not isinstance(bound, int):
                raise TypeError(f"bound must be an int or None, not {bound!r}")
            if bound < 1:
                raise ValueError(f"bound must be at least 1, not {bound}")
        self.receiver: Final[Receiver[T]] = Receiver(bound)
        self.sender: Final[Sender[T]] = Sender(self.receiver)


class Receiver(UserSource, Closing, Generic[T]):
    """The end of a channel at which messages arrive: readable while there are any, and for good after the last."""

    __slots__ = ("_bound", "_closed", "_ended", "_lock", "_messages", "_room", "_rung_for")

    def __init__(self, bound: int | None) -> None:
        super().__init__()
        self._messages: list[T] = []
        self._rung_for: list[T] | None = None
        self._closed = False
        self._ended = False  # the sender is closed
        self._bound = bound
        self._lock = RLock()  # entered by itself: the condition's own way in is a function, where a handler may raise
        self._room = Condition(self._lock)

    def drain(self) -> list[T]:
        """Take all messages that are there, in their order. There may be none, after an event too.

        Raises:
            ChannelClosedError: This end is closed, or the sender is and every message was taken.

        Threads: Any; a message goes to one of them. Whoever waits for room is woken.
        Rules: THR-02, THR-04.
        """
        if self._closed:
            raise ChannelClosedError("this receiver is closed")
        if not self._ended:
            self.clear()
            if self._ended:
                self._set(1)  # it was closed just now, and that was not to be cleared
        # From here on there is no call.
        taken = self._messages
        self._messages = []
        if self._bound is None and not self._ended:
            return taken
        if self._ended and not taken:
            raise ChannelClosedError("the sender is closed, and every message was taken")
        try:
            if self._ended:
                self._set(1)  # so that an edge tells of the end, too
            if self._bound is not None:
                self._tell_senders()
        except BaseException:  # a signal handler's: what was taken is not lost
            self._messages[:0] = taken
            self._set(1)
            raise
        return taken

    def close(self) -> None:
        """Receive no more. What was not drained is dropped, and whoever sends, or waits for room, is told.

        Closing again does nothing. The receiver stays registered until it is deregistered.
        """
        self._closed = True
        self._messages = []
        self._tell_senders()

    def _put(self, message: T) -> bool:
        """Add a message, unless there is no room, and ring if nobody has."""
        bound = self._bound
        if self._closed or self._ended:
            raise ChannelClosedError("the receiver is closed" if self._closed else "this sender is closed")
        if bound is not None and self._messages[bound - 1 :]:
            return False
        try:
            self._messages.append(message)  # the first call since those looks
            messages = self._messages
            if self._rung_for is not messages:
                self._set(1)
                self._rung_for = messages
        except BaseException:  # a signal handler's, after the append: nobody else might ring
            self._set(1)
            raise
        return True

    def _wait_for_room(self) -> None:
        """Wait until somebody may have made room, or closed the channel."""
        bound = self._bound
        with self._lock:
            if bound is not None and self._messages[bound - 1 :] and not (self._closed or self._ended):
                self._room.wait()

    def _tell_senders(self) -> None:
        with self._lock:
            self._room.notify_all()

    def __repr__(self) -> str:
        return f"<Receiver: {'closed' if self._closed else f'{len(self._messages)} messages'}>"


class Sender(Closing, Generic[T]):
    """The end of a channel for all who send."""

    __slots__ = ("_receiver",)

    def __init__(self, receiver: Receiver[T]) -> None:
        self._receiver = receiver

    def send(self, message: T) -> None:
        """Send, and wait for room if the channel is full.

        Raises:
            ChannelClosedError: One of the two ends is closed, before or meanwhile. The message was not sent.

        If a signal handler raises in here the message may have been sent or not.

        Threads: Any. The one that drains must not, if there is a bound: nobody would make room.
        Rules: THR-02 to THR-05.
        """
        receiver = self._receiver
        while not receiver._put(message):
            receiver._wait_for_room()

    def try_send(self, message: T) -> None:
        """Send, if there is room.

        Raises:
            ChannelFullError: There is none. The message was not sent.
            ChannelClosedError: As ``send``.

        Threads: Any, also inside a signal handler. Never blocks.
        Rules: THR-02 to THR-05.
        """
        if not self._receiver._put(message):
            raise ChannelFullError(f"{self._receiver._bound} messages wait to be drained")

    def close(self) -> None:
        """Send no more, from any thread. The receiver drains what was sent, and is told then.

        Closing again does nothing.
        """
        receiver = self._receiver
        receiver._ended = True
        receiver._set(1)
        receiver._tell_senders()

    def __repr__(self) -> str:
        return f"<Sender to {self._receiver!r}>"
