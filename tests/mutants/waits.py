"""Wrong in how a wait goes: TMO, SIG, WAK and THR."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import ClassVar

from polling import Backend, Capability, Event, Readiness
from polling.backend import Wait
from polling.user import UserRegistration
from polling_backends._flags import IN
from polling_backends.epoll import ET, EpollBackend
from polling_backends.poll import PollBackend

from . import Fetching, Front, Pairs

assert sys.platform != "win32", "these derive from backends that Windows does not have"


class NoLimitIsALongTime(Front):
    """A wait without limit ends after a moment."""

    breaks = ("TMO-01",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        return super().poll(0.001 if timeout is None else timeout, max_events)


class ZeroBlocks(Front):
    """A timeout of 0 is taken for none at all."""

    breaks = ("TMO-02",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        return super().poll(timeout or None, max_events)


class TimeoutIsRoundedDown(Front):
    """The timeout is cut to whole milliseconds, and the wait ends early."""

    breaks = ("TMO-03",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        return super().poll(None if timeout is None else int(timeout * 1000) / 1000, max_events)


class FractionsAreRoundedDown(Fetching):
    """The kernel is asked for whole milliseconds, rounded down: what is left of the timeout is spun away."""

    breaks = ("TMO-04",)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        return wait(None if timeout is None else int(timeout * 1000) / 1000, limit)


class FineGrainIsClaimed(EpollBackend):
    """It claims to keep timeouts below a millisecond, and rounds up to one."""

    breaks = ("TMO-05",)
    capabilities = EpollBackend.capabilities | Capability.SUB_MS


class TimeoutWrapsRound(Front):
    """A large timeout loses what does not fit into 31 bits of milliseconds."""

    breaks = ("TMO-06",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        try:
            timeout = None if timeout is None else timeout % (2**31 / 1000)
        except (OverflowError, ValueError):
            pass
        return super().poll(timeout, max_events)


class NegativeIsForEver(Front):
    """A negative timeout waits without limit, as it does in poll(2)."""

    breaks = ("TMO-07",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        return super().poll(None if timeout is not None and timeout < 0 else timeout, max_events)


class NotANumberIsZero(Front):
    """A timeout that is not a number does not wait, and is no error."""

    breaks = ("TMO-08",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        return super().poll(0 if timeout != timeout else timeout, max_events)


class _Kicked(Exception):  # not an error: the kernel's wait ended without an event
    pass


class _Breaking(Front):
    """Its wait comes to a stop whenever the kernel's does."""

    def _sort_out(self, events: list[Event[object] | None]) -> list[Event[object] | None]:
        sorted_out = super()._sort_out(events)
        if not sorted_out:
            raise _Kicked
        return sorted_out


class ChangeEndsTheWait(_Breaking):
    """A wait that has to begin again, for a change by another thread, ends empty-handed instead."""

    breaks = ("REG-19", "TMO-09", "WIN-02")
    on = PollBackend

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        try:
            return super().poll(timeout, max_events)
        except _Kicked:
            return []


class DeadlineBeginsAgain(_Breaking):
    """A wait that has to begin again, for a wake or a change, does so with the whole timeout."""

    breaks = ("TMO-09",)
    on = PollBackend

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        while True:
            try:
                return super().poll(timeout, max_events)
            except _Kicked:
                pass


class DeadlineIsWallClock(Front):
    """The deadline is kept by the time of day, which can be set."""

    breaks = ("TMO-10",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        deadline = None if timeout is None else time.time() + timeout
        while True:
            events = super().poll(0.001, max_events)
            if events or (deadline is not None and time.time() >= deadline):
                return events


class BatchCrossesACall(Fetching):
    """A function of the author's own hands the batch on: a signal handler that raises there loses it."""

    breaks = ("SIG-02",)

    def kept(self, fd: int, bits: int) -> bool:
        return True


class _RungBySignals(PollBackend):
    """Has a second doorbell, which signals ring."""

    def __init__(self) -> None:
        super().__init__()
        self.ear, self.mouth = socket.socketpair()
        for end in self.ear, self.mouth:
            end.setblocking(False)
        self._internal = (*self._internal, self.ear.fileno(), self.mouth.fileno())
        self._poll.register(self.ear.fileno(), IN)

    def _answer(self, flags: int) -> None:
        try:
            self.ear.recv(100)
        except BlockingIOError:
            super()._answer(flags)

    def close(self) -> None:
        super().close()
        self.ear.close()
        self.mouth.close()

    abandon = close


class SignalEndsTheWait(_Breaking):
    """Signals ring the doorbell, so that none is missed; and a wait that is rung and finds nothing ends."""

    breaks = ("SIG-01",)
    on = _RungBySignals

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        assert isinstance(self.backend, _RungBySignals)
        if threading.current_thread() is not threading.main_thread():
            return super().poll(timeout, max_events)
        former = signal.set_wakeup_fd(self.backend.mouth.fileno(), warn_on_full_buffer=False)
        try:
            return super().poll(timeout, max_events)
        except _Kicked:
            return []
        finally:
            signal.set_wakeup_fd(former)


class WakeupDescriptorIsTaken(Front):
    """The wait has its own descriptor for signals to write to, and the program's gets nothing meanwhile."""

    breaks = ("SIG-03", "SIG-04")

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        if threading.current_thread() is not threading.main_thread():
            return super().poll(timeout, max_events)
        former = signal.set_wakeup_fd(-1)
        try:
            return super().poll(timeout, max_events)
        finally:
            signal.set_wakeup_fd(former)


class SignalsWaitToo(Fetching):
    """Signals are blocked during a wait, and handled after it."""

    breaks = ("SIG-06",)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        # All but the one by which a test that hangs is ended.
        former = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGALRM})
        try:
            return wait(timeout, limit)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)


class WakeIsLost(Front):
    """A wake that comes before the wait is forgotten when it begins."""

    breaks = ("WAK-02", "USR-01")

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        self._table.pending.clear()
        return super().poll(timeout, max_events)


class WakeIsSticky(Front):
    """A wake is reported by each wait, until somebody takes it back."""

    breaks = ("WAK-02",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        events = super().poll(timeout, max_events)
        for event in events:
            if isinstance(event._key, UserRegistration):
                event._key.stir(1)
        return events


class EachWakeIsCounted(Front):
    """The first wake of a waker is reported, and later ones are merged into it for good."""

    breaks = ("WAK-03",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        known = self.__dict__.setdefault("known", set())
        events = super().poll(timeout, max_events)
        fresh = [event for event in events if event._key not in known]
        known.update(event._key for event in events if isinstance(event._key, UserRegistration))
        return fresh


class BellBlocks(PollBackend):
    """The doorbell is a pipe, and blocks when it is full."""

    breaks = ("WAK-04",)

    def __init__(self) -> None:
        super().__init__()
        self._pipe = os.pipe()

    def wake(self) -> None:
        if self._bell is not None:
            os.write(self._pipe[1], b"x")
        super().wake()

    def close(self) -> None:
        super().close()
        for end in self._pipe:
            os.close(end)

    abandon = close


class WakeTakesALock(EpollBackend):
    """Waking takes a lock, which the same thread has when a signal handler wakes within a wake."""

    breaks = ("WAK-05", "USR-07")

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()

    def wake(self) -> None:
        with self._turn:
            super().wake()


class WakeAfterCloseWrites(EpollBackend):
    """Waking writes to the number of the doorbell, also when that is somebody else's."""

    breaks = ("WAK-06",)

    def wake(self) -> None:
        try:
            os.write(self._internal[1], (1).to_bytes(8, "little"))
        except OSError:
            pass


class BrokenBellIsCleared(PollBackend):
    """A doorbell that is closed is answered like one that was rung, and the wait goes round."""

    breaks = ("WAK-10",)

    def _answer(self, flags: int) -> None:
        with suppress(OSError):
            super()._answer(flags & IN)


class BellIsNeverRead(EpollBackend):
    """The doorbell is a socket that nobody reads, since each byte is an edge; it is full after some hundred."""

    breaks = ("WAK-11",)

    def __init__(self) -> None:
        super().__init__()
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._internal = (*self._internal, self._ear.fileno(), self._mouth.fileno())
        self._epoll.register(self._ear.fileno(), IN | ET)

    def wake(self) -> None:
        with suppress(BlockingIOError):  # it has been rung already
            self._mouth.send(b"x")

    def close(self) -> None:
        super().close()
        self._ear.close()
        self._mouth.close()

    abandon = close


class WakesAreShared(Front):
    """What wakes have to say stands in one place for all polls, and whoever waits next takes it."""

    breaks = ("WAK-08",)
    all: ClassVar[dict[UserRegistration, None]] = {}

    def __init__(self, backend: type[Backend]) -> None:
        super().__init__(backend)
        self._table.pending = self.all

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        self._table.alert = True
        return super().poll(timeout, max_events)


class FirstWakerStandsForAll(Front):
    """A poll has one waker, and those made after the first are other names for it."""

    breaks = ("WAK-08",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        events = super().poll(timeout, max_events)
        first = next(iter(self._table.users), None)
        for event in events:
            if isinstance(event._key, UserRegistration) and first is not None:
                object.__setattr__(event, "token", first.token)
        return events


class WakeIsNoEvent(Front):
    """A wake ends the wait, and that it is over early is all that there is to be seen."""

    breaks = ("WAK-09",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        return [event for event in super().poll(timeout, max_events) if isinstance(event._key, tuple)]


class WakeSaysEverything(Front):
    """The event of a wake says both readable and writable, so that nobody overlooks it."""

    breaks = ("WAK-09",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        both = Readiness(readable=True, writable=True)
        return [
            Event(event.token, both, event._key) if isinstance(event._key, UserRegistration) else event
            for event in super().poll(timeout, max_events)
        ]


class WaitKeepsTheLock(Front):
    """The lock of the registrations is held during the wait: other threads cannot register."""

    breaks = ("THR-01",)

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        with self._table.lock:
            return super().poll(timeout, max_events)
