"""Wrong with certain kinds of sources: SRC and UDP."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import sys
import termios
from contextlib import suppress

from polling import Capability, Interest, Mode, Readiness
from polling.backend import Wait
from polling_backends import _flags
from polling_backends._flags import ERR, HUP, IN, OUT
from polling_backends.epoll import EpollBackend
from polling_backends.poll import PollBackend, _Watch

from . import Decoding, Fetching, Pairs

assert sys.platform != "win32", "these derive from backends that Windows does not have"


class FilesAreTaken(PollBackend):
    """Regular files are registered, since poll(2) takes them, and are always ready."""

    breaks = ("SRC-01", "REG-06")

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        watch = _Watch(_flags.WATCHED[interest], mode)
        with self._lock:
            self._watches[fd] = watch
            self._poll.register(fd, watch.armed)
        self._kick()

    reregister = register


class DevicesAreHidden(PollBackend):
    """It takes character devices, and does not declare it."""

    breaks = ("SRC-02",)
    capabilities = PollBackend.capabilities & ~Capability.CHAR_DEVICES


class DevicesAreClaimed(EpollBackend):
    """It claims to take character devices, which epoll refuses."""

    breaks = ("SRC-02",)
    capabilities = EpollBackend.capabilities | Capability.CHAR_DEVICES


class TerminalsAreHidden(EpollBackend):
    """It takes terminals, and does not declare it."""

    breaks = ("SRC-03",)
    capabilities = EpollBackend.capabilities & ~Capability.TTY


class PipesAreHidden(EpollBackend):
    """It takes pipes, and does not declare it."""

    breaks = ("SRC-04",)
    capabilities = EpollBackend.capabilities & ~Capability.PIPES


class PipesAreTakenForSockets(Fetching):
    """It takes pipes, and asks what is ready in a way that only sockets answer."""

    breaks = ("SRC-04",)

    def kept(self, fd: int, bits: int) -> bool:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)


class PipesAreClaimed(EpollBackend):
    """It claims to take pipes, and refuses them."""

    breaks = ("SRC-04",)

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        super().register(fd, interest, mode)


class HangupIsRemembered(Fetching):
    """That the last writer of a pipe has gone is remembered, also when there is a new one."""

    breaks = ("EVT-17",)

    def __init__(self) -> None:
        super().__init__()
        self._over: set[int] = set()

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        batch = wait(0 if self._over else timeout, limit)
        self._over |= {fd for fd, bits in batch if bits & HUP and stat.S_ISFIFO(os.fstat(fd).st_mode)}
        return [*batch, *((fd, HUP) for fd in self._over if fd not in dict(batch) and fd in self._masks)]


class NamelessIsUnconnected(Fetching):
    """A stream whose peer has no name is taken for one that is not connected, and so is not writable."""

    breaks = ("SRC-05",)

    def kept(self, fd: int, bits: int) -> bool:
        if bits != OUT or not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return True
        with socket.socket(fileno=os.dup(fd)) as duplicate:
            try:
                return bool(duplicate.getpeername())
            except OSError:
                return False


class OnlyIPv4(EpollBackend):
    """It asks a socket for its address, with room for one of IPv4 only, and says what the system says."""

    breaks = ("SRC-06",)

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            with socket.socket(fileno=os.dup(fd)) as duplicate:
                if duplicate.family is socket.AF_INET6:
                    raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        super().register(fd, interest, mode)


class ReadinessIsBytes(Fetching):
    """It asks how many bytes there are, and an empty datagram has none."""

    breaks = ("UDP-01",)

    def kept(self, fd: int, bits: int) -> bool:
        if bits != IN or not _is_datagram(fd):
            return True
        (unread,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
        return bool(unread)


class LooksByReceiving(Fetching):
    """It receives to see whether there is something, and the datagram is gone."""

    breaks = ("UDP-02",)

    def kept(self, fd: int, bits: int) -> bool:
        if bits & IN and _is_datagram(fd):
            with suppress(OSError), socket.socket(fileno=os.dup(fd)) as duplicate:
                duplicate.recv(1, socket.MSG_DONTWAIT)
        return True


class UnreachablePortIsWritableOnly(Decoding):
    """The error that a datagram came back with is reported to writers alone."""

    breaks = ("UDP-03",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(readable=right.readable and bits != OUT | ERR)


class ErrorIsSticky(Fetching):
    """A datagram socket that once had an error is reported with it for good."""

    breaks = ("UDP-03",)

    def __init__(self) -> None:
        super().__init__()
        self._failed: set[int] = set()

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        batch = wait(0 if self._failed else timeout, limit)
        self._failed |= {fd for fd, bits in batch if bits & ERR and not bits & HUP}
        return [*batch, *((fd, ERR) for fd in self._failed if fd not in dict(batch) and fd in self._masks)]


class UnconnectedIsNotReady(Fetching):
    """A datagram socket without a peer is not writable, as a stream without one is not."""

    breaks = ("UDP-04",)

    def kept(self, fd: int, bits: int) -> bool:
        if not bits & OUT or not _is_datagram(fd):
            return True
        with socket.socket(fileno=os.dup(fd)) as duplicate:
            try:
                duplicate.getpeername()
            except OSError:
                return False
        return True


def _is_datagram(fd: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        return duplicate.type == socket.SOCK_DGRAM
