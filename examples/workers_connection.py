"""One client of ``workers.py``: its socket, what waits to be sent to it, and whose turn it is."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from time import monotonic

from polling import Interest, Timeout
from polling.net import TcpStream

CHUNK = 64 * 1024  # bytes received at once
STEPS = 64  # of one turn, at most; then it is somebody else's
MAIL = 256  # messages that may wait for a client
LINGER = 2.0  # seconds that a client has to close its end after we have closed ours


class Protocol(ABC):
    """What the bytes mean. Called by one thread at a time, which may take as long as the work takes."""

    finished = False  # once ``answer`` has given None there is nothing more to say
    patience: float | None = None  # seconds that a client may neither send nor read anything; None: any time

    @abstractmethod
    def receive(self, data: bytes) -> None:
        """Take what was received; at the end of the stream it is empty."""

    @abstractmethod
    def answer(self) -> bytes | bytearray | None:
        """Give what is to be sent next. None: something has to come first."""

    def goodbye(self) -> bytes | bytearray:
        """Give what is to be sent when the whole server ends, and not this connection alone."""
        return b""

    def closed(self) -> None:  # noqa: B027  # not everybody has to do anything about it
        """The connection is over, whoever ended it. Called once, unless the whole server ends."""


class Connection:
    """One client.

    Attributes:
        stream, protocol: The protocol may put another in its own place.
        mail: What others have posted, for the protocol to send.
        busy: A worker has it, or is about to; and so it stays once it is closed. For the listener's thread to change.
        broken: To be given up.
        ended: All is said, and the client has to close.
        timeout: When it will have rested for too long.
    """

    def __init__(
        self,
        stream: TcpStream,
        protocol: Callable[[Connection], Protocol],
        tell: Callable[[Connection], None],
    ) -> None:
        self.stream = stream
        self.protocol = protocol(self)
        self.mail: deque[str | bytes] = deque()
        self.busy = False
        self.broken = False
        self.ended = False
        self.timeout: Timeout | None = None
        self._tell = tell  # the listener's thread, from any other, that there is something to do
        self._unsent = memoryview(b"")
        self._until = 0.0  # on the monotonic clock: then nothing more is received from a client that does not close

    @property
    def patience(self) -> float | None:
        """Seconds that it may rest."""
        return LINGER if self.ended else self.protocol.patience

    def post(self, message: str | bytes) -> None:
        """Leave a message for the protocol to send, from any thread. A client for whom too many wait is given up.

        First the message is there, then we look whether somebody has the connection. Whoever has it first lets go
        of it, and then looks at the mail. So at least one of the two sees what the other did.
        """
        if len(self.mail) < MAIL:
            self.mail.append(message)
        else:
            self.broken = True
        if not self.busy:
            self._tell(self)

    def has_news(self) -> bool:
        """Tell whether there is something to do of which no socket tells."""
        return self.broken or bool(self.mail and not self._unsent and not self.ended)

    def turn(self) -> Interest | None:
        """Do what can be done at once, but not without end. Gives what to wait for next; None: it is over."""
        wanted = None
        try:
            for _ in range(STEPS):
                if self.broken:
                    return None
                if self._unsent:
                    self._unsent = self._unsent[self.stream.send(self._unsent) :]
                elif self.ended:
                    # To close over data that nobody has read would take back what was sent last.
                    if not self.stream.recv(CHUNK) or monotonic() > self._until:
                        return None
                elif (answer := self.protocol.answer()) is not None:
                    self._unsent = memoryview(answer)
                elif self.protocol.finished:
                    self._end()
                    self.stream.shutdown(socket.SHUT_WR)
                else:
                    self.protocol.receive(self.stream.recv(CHUNK))
            wanted = Interest.WRITABLE  # as it nearly always is: so it comes back at once, behind the others
        except BlockingIOError:
            wanted = Interest.WRITABLE if self._unsent else Interest.READABLE
        except OSError:
            pass  # a reset, for one: no concern of anybody else's
        finally:
            if wanted is None:
                self._end()
        return wanted

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._until = monotonic() + LINGER
            self.protocol.closed()

    def leave(self) -> None:
        """Say goodbye, if nothing stands in front of it, and close."""
        try:
            if not self._unsent and not self.ended:
                self.stream.send(self.protocol.goodbye())
        except OSError:
            pass
        self.stream.close()
