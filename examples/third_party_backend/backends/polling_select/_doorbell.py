"""A descriptor to be woken by that select can watch everywhere: on Windows only a socket will do."""

from __future__ import annotations

import errno
import socket

__all__ = ["Doorbell"]


class Doorbell:
    """Rings from any thread and from signal handlers; readable from the first ring until cleared.

    The sockets are closed when the last reference goes. Whoever rings holds one, so ``SelectBackend.close`` in
    another thread cannot close them under a ring, which would then go to whoever got the number next.
    """

    def __init__(self) -> None:
        self._listening, self._ringing = socket.socketpair()
        self._listening.setblocking(False)
        self._ringing.setblocking(False)
        self.fd = self._listening.fileno()
        self.numbers = (self.fd, self._ringing.fileno())

    def ring(self) -> None:
        """Make the bell readable. It is already when there is no room for another ring."""
        try:
            self._ringing.send(b"\0")
        except BlockingIOError:
            pass

    def clear(self) -> None:
        """Make the bell unreadable.

        Raises:
            OSError: It is broken. Then it must not be watched any further: it would be readable for ever.
        """
        try:
            while rings := self._listening.recv(4096):
                if len(rings) < 4096:
                    return
        except BlockingIOError:
            return
        raise OSError(errno.EBADF, "somebody else closed the socket by which this poll is woken")

    def close(self) -> None:
        """Close it now: only for a bell that nobody has got hold of yet."""
        self._listening.close()
        self._ringing.close()

    def __del__(self) -> None:
        self.close()  # sockets that are merely dropped warn of it
