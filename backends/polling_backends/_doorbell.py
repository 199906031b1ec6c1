"""A descriptor to be woken by: an eventfd where there is one, a pipe elsewhere.

The number is released when the last reference to the bell goes, not when somebody calls ``close``. Whoever rings
holds a reference while ringing, so a ring can never land in a stranger's descriptor that got the number.
"""

from __future__ import annotations

import os
import sys

__all__ = ["Doorbell"]


class Doorbell:
    """Rings from any thread and from signal handlers; readable from the first ring until cleared."""

    __slots__ = ("_write", "fd")

    fd: int
    _write: int

    def __init__(self) -> None:
        if sys.platform == "linux":
            self.fd = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        elif sys.platform != "win32":  # which has neither epoll nor poll(2), the backends that ring this
            self.fd, self._write = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._write, False)

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors it has: for a pipe both ends."""
        return (self.fd,) if self._write == self.fd else (self.fd, self._write)

    def ring(self) -> None:
        """Make the bell readable, anew if it is already: who watches it for edges sees one.

        Raises:
            OSError: EBADF: somebody else closed the descriptor.
        """
        while True:
            try:
                os.write(self._write, _ONE)
            except BlockingIOError:
                self.clear()  # full, so there is no room for an edge
            else:
                return

    def clear(self) -> None:
        """Make the bell unreadable. Not needed where it is watched for edges.

        Raises:
            OSError: EBADF: somebody else closed the descriptor.
        """
        try:
            while len(os.read(self.fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def __del__(self) -> None:
        try:
            fd, write = self.fd, self._write
        except AttributeError:
            return  # it could not be made
        os.close(fd)
        if write != fd:
            os.close(write)


_ONE = (1).to_bytes(8, sys.byteorder)  # an eventfd adds it up, a pipe takes it as eight bytes
