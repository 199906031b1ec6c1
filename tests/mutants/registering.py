"""Wrong in registering: REG."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Collection, Sequence
from typing import ClassVar
from weakref import WeakValueDictionary

from polling import (
    AlreadyRegisteredError,
    Backend,
    Capability,
    Event,
    Interest,
    InvalidSourceError,
    Mode,
    NotRegisteredError,
    UserSource,
)
from polling._registry import AnyRegistration, number_of
from polling.backend import Pair, Source
from polling_backends.epoll import MASKS, EpollBackend
from polling_backends.poll import PollBackend

from . import Front

assert sys.platform != "win32", "these derive from backends that Windows does not have"


class SecondRegistrationReplaces(Front):
    """A second registration of a source replaces the first."""

    breaks = ("REG-01",)

    def register(
        self, source: Source, token: object, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        try:
            super().register(source, token, interest, mode)
        except AlreadyRegisteredError:
            self.reregister(source, token, interest, mode)


class DeregisteringForgives(Front):
    """Deregistering what is not registered is no error."""

    breaks = ("REG-02",)

    def deregister(self, source: Source) -> None:
        try:
            super().deregister(source)
        except NotRegisteredError:
            pass


class ReregisteringRegisters(Front):
    """Reregistering what is not registered registers it."""

    breaks = ("REG-03",)

    def reregister(self, source: Source, token: object, interest: Interest, mode: Mode) -> None:
        try:
            super().reregister(source, token, interest, mode)
        except NotRegisteredError:
            self.register(source, token, interest, mode)


class NumbersAreGuessed(Front):
    """What ``int()`` makes a number of is taken for a descriptor."""

    breaks = ("REG-04",)

    def register(
        self, source: Source, token: object, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        super().register(int(source) if isinstance(source, (str, float)) else source, token, interest, mode)


class ClosedSourceIsTaken(Front):
    """Registering a closed source goes unnoticed."""

    breaks = ("REG-05",)

    def register(
        self, source: Source, token: object, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        try:
            super().register(source, token, interest, mode)
        except InvalidSourceError:
            pass


class ChangeIsHalfApplied(Front):
    """A reregistering that is cut off leaves the new mask in the kernel, and the former token in the table."""

    breaks = ("REG-06",)

    def _unchanged(self, registration: AnyRegistration, mode: Mode, error: BaseException) -> BaseException:
        return error

    def _look_again(self, pairs: Sequence[Pair]) -> None:
        pass  # which would put it right


class InterruptedIsRepeated(EpollBackend):
    """A registering during which a signal came is made once more, as if it had not taken effect."""

    breaks = ("REG-07",)

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        mask = MASKS[mode][interest]
        former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            self._epoll.register(fd, mask)
            if signal.sigpending():
                self._epoll.register(fd, mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
        self._masks[fd] = mask


class ClosedSourceCannotBeDeregistered(Front):
    """Deregistering asks the source for its number, which a closed one has not."""

    breaks = ("REG-09",)

    def deregister(self, source: Source) -> None:
        if not isinstance(source, UserSource) and number_of(source) < 0:
            raise InvalidSourceError(f"{source!r} is closed")
        super().deregister(source)


class TokenStaysWithTheNumber(Front):
    """The token of a source that was closed goes on under its number, for whoever has that next."""

    breaks = ("REG-10",)

    def __init__(self, backend: type[Backend]) -> None:
        super().__init__(backend)
        self._tokens: dict[int, object] = {}

    def register(
        self, source: Source, token: object, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        super().register(source, self._tokens.setdefault(number_of(source), token), interest, mode)

    def deregister(self, source: Source) -> None:
        super().deregister(source)
        if not isinstance(source, UserSource):
            self._tokens.pop(number_of(source), None)


class ClosedNumberStaysInTheSet(PollBackend):
    """A closed number is not taken out of poll's set, and ends every wait at once."""

    breaks = ("REG-11",)

    def _drop(self, fd: int, watch: object) -> None:
        pass


class DuplicatesAreOne(EpollBackend):
    """A second descriptor of a file that is watched already is taken for the same source."""

    breaks = ("REG-12",)

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        if any(os.path.sameopenfile(fd, other) for other in self._masks):
            return
        super().register(fd, interest, mode)


class ForgetfulnessIsAssumed(EpollBackend):
    """A closed source is left to epoll, which goes on reporting it while a duplicate is open."""

    breaks = ("REG-13",)

    def _lay_ghosts(self) -> bool:
        return True

    def deregister(self, fd: int) -> None:
        self._masks.pop(fd, None)
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass


class TokenIsKept(Front):
    """Reregistering changes interest and mode, and keeps the token."""

    breaks = ("REG-14",)

    def reregister(self, source: Source, token: object, interest: Interest, mode: Mode) -> None:
        registration = self._registrations.get(number_of(source))
        super().reregister(source, registration.token if registration else token, interest, mode)


class HandsOutLater(Front):
    """Asks the kernel for a large batch, and hands out the rest later without looking who is still registered."""

    breaks = ("REG-15",)

    def __init__(self, backend: type[Backend]) -> None:
        super().__init__(backend)
        self._rest: list[Event[object]] = []

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        events = self._rest or super().poll(timeout)
        self._rest = events[max_events:]
        return events[:max_events]


class TokenIsCached(Front):
    """A number has the token that it was first registered under, for good."""

    breaks = ("REG-16",)

    def register(
        self, source: Source, token: object, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        tokens: dict[int, object] = self.__dict__.setdefault("tokens", {})
        super().register(source, tokens.setdefault(number_of(source), token), interest, mode)


class EveryEventIsCurrent(Front):
    """Every event counts as current, also one of a registration that is over."""

    breaks = ("REG-17",)

    def is_current(self, event: Event[object]) -> bool:
        return True


class ChangesAreForTheNextWait(PollBackend):
    """What another thread changes is not taken up by the wait in progress."""

    breaks = ("REG-18",)

    def _kick(self) -> None:
        pass


class _NoLock:
    """A lock that is none."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *error: object) -> None:
        pass


class TableIsNotLocked(Front):
    """The table of registrations has no lock: every single change of a dict is atomic, after all."""

    breaks = ("REG-20",)

    def __init__(self, backend: type[Backend]) -> None:
        super().__init__(backend)
        self._table.lock = _NoLock()  # type: ignore[assignment]  # that is the mistake


class BooksAreNotLocked(PollBackend):
    """The books of the last batch are done without regard to other threads, which may be changing the same."""

    breaks = ("REG-20",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = _NoLock()  # type: ignore[assignment]  # that is the mistake


class SecondWaitQueues(Front):
    """A second thread that waits is not refused: it stands in line, for ever."""

    breaks = ("REG-21",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        turn = self.__dict__.setdefault("turn", threading.Lock())
        with turn:
            return super().poll(timeout, max_events)


class SharingIsHidden(EpollBackend):
    """A second poll can watch the same source, and that is not declared."""

    breaks = ("REG-22",)
    capabilities = EpollBackend.capabilities & ~Capability.SHARED_SOURCE


class SourceGoesToTheLast(EpollBackend):
    """A source belongs to the poll that registered it last, and those before hear no more of it."""

    breaks = ("REG-22",)
    owners: ClassVar[WeakValueDictionary[int, EpollBackend]] = WeakValueDictionary()

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        former = self.owners.get(fd)
        super().register(fd, interest, mode)
        if former is not None and former is not self and fd in former._masks:
            former._epoll.unregister(fd)
        self.owners[fd] = self


class OwnDescriptorsAreAnybodys(EpollBackend):
    """The descriptor of the facility itself is not named among its own."""

    breaks = ("REG-23",)

    @property
    def internal(self) -> Collection[int]:
        return self._internal[1:]


class DoorbellStandsForAll(EpollBackend):
    """To be watched by another poll, it gives its doorbell, which tells of wakes only."""

    breaks = ("REG-24",)

    def fileno(self) -> int:
        return self._internal[1]


class SourcesAreMadeNonBlocking(EpollBackend):
    """Sources are set to non-blocking as they are registered."""

    breaks = ("REG-25",)

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        super().register(fd, interest, mode)
        os.set_blocking(fd, False)


class PriorityIsClaimed(EpollBackend):
    """It claims to report urgent data, takes the interest, and never does."""

    breaks = ("REG-26",)

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        super().register(fd, interest & Interest.READ_WRITE, mode)


class EdgesAreHidden(EpollBackend):
    """It has edges of its own, and does not declare it."""

    breaks = ("REG-26",)
    capabilities = EpollBackend.capabilities & ~Capability.NATIVE_EDGE


class PriorityIsHidden(EpollBackend):
    """It reports urgent data, and does not declare it."""

    breaks = ("REG-26",)
    capabilities = EpollBackend.capabilities & ~Capability.PRIORITY


class RegistrationsLeak(EpollBackend):
    """Every so many registrations leave a descriptor behind, to be closed with the poll."""

    breaks = ("REG-27",)

    def __init__(self) -> None:
        super().__init__()
        self._registered = 0
        self._left: list[int] = []

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        super().register(fd, interest, mode)
        self._registered += 1
        if self._registered % 64 == 0:
            self._left.append(os.dup(fd))

    def close(self) -> None:
        super().close()
        while self._left:
            os.close(self._left.pop())
