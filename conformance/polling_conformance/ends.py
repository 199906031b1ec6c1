"""One way to read, write, fill, empty and duplicate all kinds of sources, and to see what is open."""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import struct
import sys
from contextlib import suppress
from typing import Final, Protocol, TypeAlias, runtime_checkable

from polling_conformance.durations import SIGNAL_WAIT, SILENCE

__all__ = [
    "CHUNK",
    "Descriptor",
    "End",
    "Ends",
    "arrived",
    "drain",
    "duplicate",
    "fill",
    "has_ipv6",
    "open_descriptors",
    "ready",
    "recv",
    "reset",
    "send",
]

CHUNK: Final = 4096
"""Bytes that are read or written at once."""

_NO_FAMILY: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""What a system says of an address of a family that it does not have."""


@runtime_checkable
class End(Protocol):
    """One end of a connection or pipe: what a rule registers, feeds, empties and closes."""

    def fileno(self) -> int:
        """Give the descriptor, or -1 once closed."""

    def close(self) -> None:
        """Close it; once more does nothing."""


Ends: TypeAlias = tuple[End, End]


@runtime_checkable
class _Reads(Protocol):
    def read(self, size: int, /) -> bytes: ...


@runtime_checkable
class _Writes(Protocol):
    def write(self, data: bytes, /) -> int: ...


class Descriptor:
    """A non-blocking descriptor of the operating system, with none of the library's hooks, and an owner.

    Rules about bare numbers register ``end.fileno()``; rules about owners register the object.
    """

    def __init__(self, fd: int) -> None:
        if sys.platform != "win32":  # where only sockets can be watched, and no rule gets this far
            os.set_blocking(fd, False)
        self._fd = fd

    def fileno(self) -> int:
        """Give the number, or -1 once closed."""
        return self._fd

    def read(self, size: int, /) -> bytes:
        """Read at most *size* bytes; ``b""`` at the end."""
        return os.read(self._fd, size)

    def write(self, data: bytes, /) -> int:
        """Write, and say how much of it went."""
        return os.write(self._fd, data)

    def close(self) -> None:
        """Close the number, once: it may be somebody else's afterwards."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def send(end: End, data: bytes) -> int:
    """Write once to an end of any kind; ``BlockingIOError`` if there is no room."""
    if isinstance(end, socket.socket):
        return end.send(data)
    assert isinstance(end, _Writes), f"{end!r} cannot be written"
    return end.write(data)


def recv(end: End, size: int = CHUNK) -> bytes:
    """Read once from an end of any kind; ``b""`` at the end, ``BlockingIOError`` if there is nothing."""
    if isinstance(end, socket.socket):
        return end.recv(size)
    assert isinstance(end, _Reads), f"{end!r} cannot be read"
    return end.read(size)


def drain(end: End) -> bytes:
    """Read until it would block or has ended, which is what re-arms an edge; give what was read."""
    chunks: list[bytes] = []
    with suppress(BlockingIOError):
        while chunk := recv(end):
            chunks.append(chunk)
    return b"".join(chunks)


def fill(end: End) -> int:
    """Write until it would block, and stays so; give the number of bytes.

    TCP moves what was sent from one buffer to the other behind our back, and for a moment a full socket
    has room again. So the writing goes on until no room appears for the time that silence is watched.
    There may still be some by then, but too little to be called writable, and that is filled as well.
    The last call is always one that would have blocked, which is what re-arms an edge.
    """
    sent = 0
    is_full = False
    while True:
        with suppress(BlockingIOError):
            while True:
                sent += send(end, bytes(CHUNK))
        if is_full:
            return sent
        is_full = not ready(end, selectors.EVENT_WRITE, SILENCE)


def arrived(end: End, bit: str = "r") -> None:
    """Return once *end* has something to read, or ``"w"`` can be written, seen by another way than the backend's.

    TCP delivers when it likes, on the loopback too: a rule that begins with readiness, or has it come and go, waits
    for it here.
    """
    events = selectors.EVENT_READ if bit == "r" else selectors.EVENT_WRITE
    assert ready(end, events, SIGNAL_WAIT), f"nothing arrived at {end!r}"


def duplicate(end: End) -> End:
    """Open a second descriptor of the same file, without the library's hooks; the caller closes it."""
    if isinstance(end, socket.socket):
        return socket.fromfd(end.fileno(), end.family, end.type)
    if sys.platform == "win32":  # where an end of a pipe is a TCP socket
        return socket.fromfd(end.fileno(), socket.AF_INET, socket.SOCK_STREAM)
    return Descriptor(os.dup(end.fileno()))


def has_ipv6() -> bool:
    """Tell whether this machine has IPv6, if only on its loopback: many containers have not."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        if error.errno not in _NO_FAMILY:
            raise
        return False
    return True


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that its peer gets a reset: with a linger time of zero, nothing is said goodbye to."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0))
    sock.close()


def ready(end: End, events: int, seconds: float) -> bool:
    """Ask the operating system, by another way than the backend under test, whether *end* is ready."""
    if sys.platform == "win32":
        # A connect that failed is in the third set only, and neither readable nor writable.
        reading = [end] if events & selectors.EVENT_READ else []
        writing = [end] if events & selectors.EVENT_WRITE else []
        return any(select.select(reading, writing, [end], seconds))
    # Elsewhere select(2) ends at descriptor 1024, and some rules open thousands.
    with selectors.PollSelector() as selector:
        selector.register(end, events)
        return bool(selector.select(seconds))


def open_descriptors() -> dict[int, str]:
    """Give each open descriptor of this process and what it is; empty where the platform cannot say."""
    folder = next((path for path in ("/proc/self/fd", "/dev/fd") if os.path.isdir(path)), None)
    if folder is None or sys.platform == "win32":  # Wine shows the folder, which is of another platform
        return {}
    found: dict[int, str] = {}
    for name in os.listdir(folder):
        with suppress(OSError):  # ENOENT, EBADF: the listing's own descriptor, closed by now
            mode = os.fstat(int(name)).st_mode
            found[int(name)] = os.readlink(f"{folder}/{name}") if folder.startswith("/proc") else f"mode {mode:o}"
    return found
