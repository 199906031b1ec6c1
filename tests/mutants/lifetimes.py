"""Wrong in closing, forking, and in what is kept alive: CLS, FRK and GCL."""

from __future__ import annotations

import os
import socket
import sys
import time
import weakref
from contextlib import suppress
from typing import ClassVar

from polling import Backend, ForkedPollError, Interest, Mode, PollClosedError, PollingError, UserSource
from polling._registry import number_of
from polling.backend import Source
from polling_backends.epoll import EpollBackend
from polling_backends.poll import PollBackend

from . import Front

assert sys.platform != "win32", "these derive from backends that Windows does not have"


class ClosedPollTakesSources(Front):
    """After the close, registering does nothing, and does not say so."""

    breaks = ("CLS-02",)

    def register(
        self, source: Source, token: object, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        try:
            super().register(source, token, interest, mode)
        except PollClosedError:
            pass


class CloseWakesNobody(Front):
    """Closing leaves the wait of another thread where it is."""

    breaks = ("CLS-03",)

    def close(self) -> None:
        with self._table.lock:
            if self._table.refusal is None:
                self._shut(PollClosedError)
        self._leave()


class SecondCloseRaises(Front):
    """Closing what is closed is an error, as any other call after the close is."""

    breaks = ("CLS-01",)

    def close(self) -> None:
        if self._table.refusal is PollClosedError:
            raise PollClosedError("this poll is closed")
        super().close()


class BellIsANumber(EpollBackend):
    """Waking writes to the number of the doorbell, which the close of another thread has released meanwhile."""

    breaks = ("CLS-04",)

    def wake(self) -> None:
        number = self._internal[1]
        if self._bell is not None:
            time.sleep(0.01)  # as a thread does that has to give way just here
            os.write(number, (1).to_bytes(8, "little"))


class CloseUndoesNonBlocking(EpollBackend):
    """Closing sets the sources to blocking, as if they had been changed for the poll's sake."""

    breaks = ("CLS-05",)

    def close(self) -> None:
        for fd in self._masks:
            with suppress(OSError):
                os.set_blocking(fd, True)
        super().close()


class CloseShutsSourcesDown(EpollBackend):
    """Closing says goodbye to the peers of all sources."""

    breaks = ("CLS-05",)

    def close(self) -> None:
        for fd in self._masks:
            with suppress(OSError), socket.socket(fileno=os.dup(fd)) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)
        super().close()


class CloseReadsTheRest(EpollBackend):
    """Closing ends a read that is under way at each source, and what it has read is gone."""

    breaks = ("CLS-05",)

    def close(self) -> None:
        for fd in self._masks:
            with suppress(OSError), socket.socket(fileno=os.dup(fd)) as duplicate:
                duplicate.recv(1, socket.MSG_DONTWAIT)
        super().close()


class CloseLeaks(EpollBackend):
    """Closing lets go of the epoll instance, and not of the spare descriptor beside it."""

    breaks = ("CLS-06",)

    def __init__(self) -> None:
        super().__init__()
        self._spare = os.dup(self._internal[1])


class ConstructorLeaks(PollBackend):
    """A constructor that fails leaves open what it had opened before."""

    breaks = ("CLS-06",)

    def __init__(self) -> None:
        spare = os.dup(0)
        super().__init__()
        os.close(spare)


class ChildIsNotTold(Front):
    """A forked child goes on with the poll of its parent."""

    breaks = ("FRK-01",)

    def _after_fork(self) -> None:
        pass


class ChildEmptiesTheSet(EpollBackend):
    """A forked child takes its sources out of the kernel's set, which is the parent's, too."""

    breaks = ("FRK-01",)

    def abandon(self) -> None:
        for fd in self._masks:
            self._epoll.unregister(fd)
        super().abandon()


class ChildClosesStrangers(Front):
    """A forked child that closes the poll closes its numbers once more, whoever has them by then."""

    breaks = ("FRK-02",)

    def close(self) -> None:
        if self._table.refusal is ForkedPollError:
            for number in self.backend.internal:
                with suppress(OSError):
                    os.close(number)
        super().close()


class _KeptAtTheFork(EpollBackend):
    """Keeps everything in a forked child."""

    def abandon(self) -> None:
        pass

    def empty(self) -> None:
        for fd in self._masks:
            self._epoll.unregister(fd)
        super().close()


class ChildEmptiesTheSetFirst(Front):
    """Closing takes all sources out of the kernel's set first, which a forked child shares with the parent."""

    breaks = ("FRK-02",)
    on = _KeptAtTheFork

    def close(self) -> None:
        if self._table.refusal is ForkedPollError and isinstance(self.backend, _KeptAtTheFork):
            self.backend.empty()
        super().close()


class DroppedInSilence(Front):
    """A poll that was never closed is collected without a word."""

    breaks = ("GCL-01",)

    def __del__(self) -> None:
        self.close()


class ListedForEver(Front):
    """All polls are listed, for the sake of the fork, by references that keep them alive."""

    breaks = ("GCL-01",)
    listed: ClassVar[list[Front]] = []

    def __init__(self, backend: type[Backend]) -> None:
        super().__init__(backend)
        self.listed.append(self)


class SourcesAreHeld(Front):
    """The poll keeps its sources alive: one that is dropped stays open."""

    breaks = ("GCL-02",)

    def __init__(self, backend: type[Backend]) -> None:
        super().__init__(backend)
        self._held: list[Source] = []

    def register(
        self, source: Source, token: object, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        super().register(source, token, interest, mode)
        self._held.append(source)


class FinaliserKnowsTheNumber(Front):
    """Each source has a finaliser, which removes what is registered under its number."""

    breaks = ("GCL-03",)

    def register(
        self, source: Source, token: object, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        super().register(source, token, interest, mode)
        if not isinstance(source, (int, UserSource)):
            weakref.finalize(source, self._end_of, number_of(source)).atexit = False

    def _end_of(self, number: int) -> None:
        with suppress(PollingError):
            self.deregister(number)


class DescriptorsAreInherited(EpollBackend):
    """Its descriptors stay open in programs that this one starts."""

    breaks = ("GCL-04",)

    def __init__(self) -> None:
        super().__init__()
        os.set_inheritable(self._epoll.fileno(), True)
