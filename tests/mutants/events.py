"""Wrong in what events say: EVT and MRG."""

from __future__ import annotations

import os
import socket
import stat
import sys
from contextlib import suppress

from polling import Capability, Event, Interest, Readiness
from polling.backend import Wait
from polling_backends._flags import ERR, HUP, IN, OUT, PRI, RDHUP
from polling_backends.epoll import EpollBackend

from . import Decoding, Fetching, Front, Pairs

assert sys.platform != "win32", "these derive from backends that Windows does not have"

TCP_INFO = 11  # Linux, where alone the mutants run; type checkers look elsewhere, too


class HangupIsNotReadable(Decoding):
    """A hangup without data is not readable, as a table of flags has it that was copied from the manual."""

    breaks = ("EVT-15", "EVT-21")

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(readable=bool(interest & Interest.READABLE and bits & IN))


class ErrorIsNotWritable(Decoding):
    """An error is left to the hint: a writer is told only of room."""

    breaks = ("EVT-16",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(writable=right.writable and bool(bits & OUT))


class ErrorIsNoPriority(Decoding):
    """Who asked for urgent data alone is not told of errors and hangups."""

    breaks = ("EVT-10",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(priority=right.priority and bool(bits & PRI))


class EndHidesData(Decoding):
    """Once the peer has ended, the event says that it has ended, and no longer that there is something to read."""

    breaks = ("EVT-02", "EVT-03")

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(readable=right.readable and not bits & RDHUP)


class EndDiscardsData(Fetching):
    """What was not read when the end comes is thrown away."""

    breaks = ("EVT-02",)

    def kept(self, fd: int, bits: int) -> bool:
        if bits & RDHUP and bits & IN:
            with suppress(OSError):
                os.read(fd, 4096)
        return True


class HangupClosesReading(Decoding):
    """Every hangup is taken for the peer's end."""

    breaks = ("EVT-04",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(read_closed=bool(bits & (HUP | RDHUP)))


class EndOfPeerIsClaimed(Decoding):
    """It claims to know when the peer has ended, and never says so."""

    breaks = ("EVT-04",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(read_closed=False)


class EndOfPeerIsHidden(EpollBackend):
    """It says when the peer has ended, and does not declare it."""

    breaks = ("EVT-04",)
    capabilities = EpollBackend.capabilities & ~Capability.READ_CLOSED


class HalfCloseEndsWriting(Decoding):
    """A peer that ends its own direction is taken for gone: there is no writing to it."""

    breaks = ("EVT-05",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(writable=right.writable and not bits & RDHUP)


class HalfCloseClosesWriting(Decoding):
    """The hint that writing is over comes with the peer's half-close."""

    breaks = ("EVT-06",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(write_closed=bool(bits & RDHUP))


class ErrorIsNotReadable(Decoding):
    """A reader is told of data only: the error that a read would raise is not reported."""

    breaks = ("EVT-10",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(readable=right.readable and not bits & ERR)


class OwnEndIsTheEnd(Fetching):
    """A connection that is not established any more is taken for ended, also when only the own end is."""

    breaks = ("EVT-07",)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        return [(fd, bits if _is_established(fd) else bits | RDHUP) for fd, bits in wait(timeout, limit)]


class EndOfTheEstablishedIsDoubted(Fetching):
    """An end of stream on a connection that is established is left out: the peer cannot have ended it."""

    breaks = ("EVT-08",)

    def kept(self, fd: int, bits: int) -> bool:
        return not (bits & RDHUP and _is_established(fd))


class OverIsForgotten(Fetching):
    """A connection that is over in both directions leaves the set, and is not reported first."""

    breaks = ("EVT-09",)

    def kept(self, fd: int, bits: int) -> bool:
        is_over = bits & (HUP | RDHUP | ERR) == HUP | RDHUP
        if is_over:
            self._epoll.unregister(fd)
        return not is_over


class ErrorIsForWriters(Decoding):
    """A hangup with an error is taken for a connect that failed, of which writers are told."""

    breaks = ("EVT-18",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(readable=right.readable and bits & (ERR | HUP) != ERR | HUP)


class DeafIsGone(Fetching):
    """It asks by sending nothing whether the peer is there, and reports one that does not receive as a hangup."""

    breaks = ("EVT-19",)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        return [(fd, HUP) for fd in self._masks if not _receives(fd)][:limit] or wait(timeout, limit)


class ErrorIsTaken(Fetching):
    """It asks for the pending error, to see what it is; the caller finds none any more."""

    breaks = ("EVT-11",)

    def kept(self, fd: int, bits: int) -> bool:
        if bits & ERR:
            with suppress(OSError), socket.socket(fileno=os.dup(fd)) as duplicate:
                duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return True


class ConnectedIsNoNews(Fetching):
    """Room alone is left out where nothing else is asked for: so the end of a connect is."""

    breaks = ("EVT-12",)

    def kept(self, fd: int, bits: int) -> bool:
        return not (bits == OUT and self._masks.get(fd, 0) & (IN | OUT) == OUT)


class FailedConnectIsDropped(Fetching):
    """A connect that fails leaves the set without a word."""

    breaks = ("EVT-13",)

    def kept(self, fd: int, bits: int) -> bool:
        return not (bits & ERR and bits & HUP)


class HangupIsAnError(Decoding):
    """The hint of an error comes with every hangup."""

    breaks = ("EVT-14",)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        return right._replace(error=bool(bits & (ERR | HUP)))


class EqualTokensAreOne(Front):
    """Tokens are looked up by value, and an equal one comes back."""

    breaks = ("EVT-22",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        events = super().poll(timeout, max_events)
        known = self.__dict__.setdefault("known", {})
        for event in events:
            with suppress(TypeError):  # a token without a hash
                object.__setattr__(event, "token", known.setdefault(event.token, event.token))
        return events


class DirectionsComeApart(Front):
    """Readable and writable are two events."""

    breaks = ("MRG-01",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        events: list[Event[object]] = []
        for event in super().poll(timeout, max_events):
            if event.readable and event.writable:
                events += [Event(event.token, Readiness(readable=True)), Event(event.token, Readiness(writable=True))]
            else:
                events.append(event)
        return events


class FullBatchLosesADirection(Fetching):
    """In a batch that is full, writable is cut off where readable is said."""

    breaks = ("MRG-02",)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        batch = wait(timeout, limit)
        if len(batch) < limit:
            return batch
        return [(fd, bits & ~OUT if fd in self._masks and bits & IN else bits) for fd, bits in batch]


class DirectionsCountTwice(Fetching):
    """A source that is ready both ways takes up the room of two."""

    breaks = ("MRG-03",)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        batch = wait(timeout, limit)
        both = sum(bits & (IN | OUT) == IN | OUT for _, bits in batch)
        return batch[: max(1, len(batch) - both // 2)]


def _is_established(fd: int) -> bool:
    """Tell of a TCP socket whether it is, and say so of all others."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return True
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        if duplicate.family != socket.AF_INET or duplicate.type != socket.SOCK_STREAM:
            return True
        return duplicate.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 1) == b"\1"


def _receives(fd: int) -> bool:
    """Tell of a Unix stream whether its peer does."""
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        if duplicate.family != socket.AF_UNIX or duplicate.type != socket.SOCK_STREAM:
            return True
        try:
            duplicate.send(b"", socket.MSG_DONTWAIT)
        except BrokenPipeError:
            return False
        return True
