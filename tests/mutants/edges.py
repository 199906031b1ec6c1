"""Wrong in edge mode: EDG."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import sys
import termios
import time
from typing import Any

from polling import AlreadyRegisteredError, Capability, Interest, Mode, Readiness, net
from polling._registry import number_of
from polling.backend import Source, Wait
from polling_backends._flags import HUP, IN, OUT, RDHUP
from polling_backends.epoll import ET, MASKS, ONESHOT, EpollBackend
from polling_backends.poll import PollBackend

from . import Decoding, Fetching, Front, Masking, Pairs

assert sys.platform != "win32", "these derive from backends that Windows does not have"


class EdgeIsLevel(Masking):
    """Edge mode is taken for a hint, and reports at every wait."""

    breaks = ("EDG-03", "EDG-04")

    def mask(self, right: int, interest: Interest, mode: Mode) -> int:
        return right & ~ET if mode is Mode.EDGE else right


class EmulatedEdgeIsLevel(PollBackend):
    """Edge mode on a facility without edges is simply level."""

    breaks = ("EDG-03", "EDG-04")

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        super().register(fd, interest, Mode.LEVEL if mode is Mode.EDGE else mode)

    reregister = register


class RegistrationIsNoEdge(EpollBackend):
    """What holds at registration is no edge: only what comes later counts."""

    breaks = ("EDG-01", "CAP-06")

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        super().register(fd, interest, mode)
        if mode is Mode.EDGE:
            self._epoll.poll(0, 1000)


class SameAgainIsNoChange(EpollBackend):
    """Reregistering with the same interest and mode is saved the kernel's call, which would have armed it."""

    breaks = ("EDG-02",)

    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None:
        if self._masks.get(fd) != MASKS[mode][interest]:
            super().reregister(fd, interest, mode)


class EdgesAreNotRearmed(EpollBackend):
    """Rearming does nothing but for oneshots."""

    breaks = ("EDG-02",)

    def rearm(self, fd: int, interest: Interest) -> None:
        if self._masks.get(fd, 0) & ONESHOT:
            super().rearm(fd, interest)


class NobodyReportsWouldBlock(PollBackend):
    """A read or write that would block does not arm the next edge."""

    breaks: tuple[str, ...] = ("EDG-05", "EDG-11", "EDG-12", "EDG-15")

    def rearm(self, fd: int, interest: Interest) -> None:
        watch = self._watches.get(fd)
        if watch is None or watch.mode is not Mode.EDGE:
            super().rearm(fd, interest)


class EdgesAreSampled(NobodyReportsWouldBlock):
    """An edge is armed when a look finds the source idle: drained and refilled between two looks, it is lost."""

    breaks = ("EDG-05", "EDG-07")

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            for fd, watch in list(self._watches.items()):
                if watch.mode is Mode.EDGE:
                    look = select.poll()
                    look.register(fd, watch.watched)
                    watch.armed |= watch.watched & ~dict(look.poll(0)).get(fd, 0)
                    with self._lock:
                        self._set(fd, watch)
            left = 0.005 if end is None else max(0.0, min(0.005, end - time.monotonic()))
            batch = super()._wait(left, max_events)
            if batch or (end is not None and time.monotonic() >= end):
                return batch


class OnlyReadingIsReported(PollBackend):
    """The hook of the writing calls is forgotten: room after a fill is not reported."""

    breaks = ("EDG-07",)

    def rearm(self, fd: int, interest: Interest) -> None:
        watch = self._watches.get(fd)
        if interest is not Interest.WRITABLE or watch is None or watch.mode is not Mode.EDGE:
            super().rearm(fd, interest)


class EdgeComesTwice(Fetching):
    """Every second edge is reported twice."""

    breaks = ("EDG-06",)
    _edges = 0
    _again: Pairs = ()

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        again, self._again = self._again, ()
        if again := [pair for pair in again if pair[0] in self._masks]:
            return again
        batch = wait(timeout, limit)
        edges = [(fd, bits) for fd, bits in batch if self._masks.get(fd, 0) & ET and bits & IN]
        self._edges += len(edges)
        if self._edges % 2 == 0:
            self._again = edges
        return batch


class EventSaysAllThatWasAsked(Decoding):
    """Whatever the event is about, it says both directions, if both were asked for."""

    breaks = ("EDG-09",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(writable=bool(interest & Interest.WRITABLE))


class KnownRoomMustBeData(Fetching):
    """Room that was reported before is no news, so an edge that says it again is taken to be about data."""

    breaks = ("EDG-10",)

    def __init__(self) -> None:
        super().__init__()
        self._have_room: set[int] = set()

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        batch = [
            (fd, bits | IN if bits == OUT and self._masks.get(fd, 0) & ET and fd in self._have_room else bits)
            for fd, bits in wait(timeout, limit)
        ]
        self._have_room |= {fd for fd, bits in batch if bits & OUT}
        return batch


class PeeksAreLetPass(Front):
    """The hook of the reading calls lets a peek pass, since it reads nothing."""

    breaks = ("EDG-13",)
    on = PollBackend

    def _check(self, source: object, fd: int, interest: Interest, mode: Mode) -> None:
        super()._check(source, fd, interest, mode)
        if mode is Mode.EDGE and isinstance(source, (net.TcpStream, net.UnixStream)):
            source.__class__ = _letting_peeks_pass(type(source))


class RoomIsLookedForOnce(PollBackend):
    """After a write that would block it looks for room once, and gives up if there is none yet."""

    breaks = ("EDG-08",)

    def _do_books(self) -> None:
        super()._do_books()
        for fd, watch in self._watches.items():
            if watch.mode is Mode.EDGE and watch.armed & OUT:
                look = select.poll()
                look.register(fd, OUT)
                if not look.poll(0):
                    watch.armed &= ~OUT
                    self._set(fd, watch)


class EveryReadArms(PollBackend):
    """Any read arms the edge again, also one that leaves data behind."""

    breaks = ("EDG-04",)

    def __init__(self) -> None:
        super().__init__()
        self._unread: dict[int, int] = {}

    def _do_books(self) -> None:
        super()._do_books()
        for fd, watch in self._watches.items():
            if watch.mode is Mode.EDGE and watch.watched & IN:
                now = _unread(fd)
                if now < self._unread.get(fd, 0):
                    watch.armed |= watch.watched & (IN | RDHUP)
                    self._set(fd, watch)
                self._unread[fd] = now


class EdgesAreClaimed(PollBackend):
    """It claims to have edges of its own, and has none for sources that report nothing."""

    breaks = ("EDG-05", "EDG-14", "EDG-17")
    capabilities = PollBackend.capabilities | Capability.NATIVE_EDGE


class EndNeedsData(Fetching):
    """An end of stream counts as an edge only together with data."""

    breaks = ("EDG-15",)

    def kept(self, fd: int, bits: int) -> bool:
        ended = self._masks.get(fd, 0) & ET and bits & (RDHUP | HUP)
        return not (ended and _unread(fd) == 0)


class DirectionsShareOneFlag(PollBackend):
    """A read that would block cancels what a write was waiting for, and the other way round."""

    breaks = ("EDG-16",)

    def rearm(self, fd: int, interest: Interest) -> None:
        watch = self._watches.get(fd)
        if watch is not None and watch.mode is Mode.EDGE:
            watch.armed = 0
            for note in [note for note in self._notes if note[0] == fd]:
                self._notes.remove(note)
        super().rearm(fd, interest)


class RefusedRegistrationChangesTheMode(Front):
    """A second registration is refused, but not before its mode has been handed to the kernel."""

    breaks = ("EDG-18",)

    def register(
        self, source: Source, token: object, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        try:
            super().register(source, token, interest, mode)
        except AlreadyRegisteredError:
            self._change(number_of(source), interest, mode)
            raise


def _letting_peeks_pass(reporting: type[socket.socket]) -> Any:
    class Reporting(reporting):  # type: ignore[misc, valid-type]  # a class that is a variable
        __slots__ = ()

        def recv(self, size: int, flags: int = 0) -> bytes:
            return (socket.socket if flags & socket.MSG_PEEK else reporting).recv(self, size, flags)

        def recvfrom(self, size: int, flags: int = 0) -> object:
            return (socket.socket if flags & socket.MSG_PEEK else reporting).recvfrom(self, size, flags)

    return Reporting


def _unread(fd: int) -> int:
    """Tell how many bytes there are to read."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    except OSError:
        return 1  # a listener, which has no bytes
    return int(count)
