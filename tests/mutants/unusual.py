"""Right, though unusual: what the contract allows and no backend of ours does. These must pass everything."""

from __future__ import annotations

import errno
import os
import random
import stat
import time

from polling import Capability, Interest, Mode, Readiness
from polling_backends._flags import IN, OUT
from polling_backends.epoll import EpollBackend
from polling_backends.poll import PollBackend

from . import Pairs

HINTS = Capability.READ_CLOSED | Capability.WRITE_CLOSED | Capability.ERROR


class AnyOrder(PollBackend):
    """Reports what is ready in random order."""

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        batch = [*super()._wait(timeout, max_events)]
        random.shuffle(batch)
        return batch


class SeldomSpurious(PollBackend):
    """Every 25th wait reports something that is asked for, and not so."""

    _waits = 0

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        self._waits += 1
        if self._waits % 25 == 0:
            for fd, watch in self._watches.items():
                if watch.mode is Mode.LEVEL and watch.armed & (IN | OUT):
                    return [(fd, watch.armed & (IN | OUT))]
        return super()._wait(timeout, max_events)


class NoHints(EpollBackend):
    """Gives no hints at all."""

    capabilities = EpollBackend.capabilities & ~HINTS

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return super().decode(bits, interest)._replace(error=False, read_closed=False, write_closed=False)


class Slow(PollBackend):
    """Begins each wait 20 ms late."""

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        time.sleep(0.02)
        return super()._wait(timeout, max_events)


class OneAtATime(PollBackend):
    """Reports one event a wait, however many are asked for."""

    def _wait(self, timeout: float | None, max_events: int) -> Pairs:
        return super()._wait(timeout, 1)


class Modest(PollBackend):
    """Has no capability that it can do without."""

    capabilities = PollBackend.capabilities & ~HINTS & ~Capability.PRIORITY

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return super().decode(bits, interest)._replace(error=False, read_closed=False, write_closed=False)


class SocketsOnly(EpollBackend):
    """Refuses whatever is no socket."""

    capabilities = EpollBackend.capabilities & ~(Capability.PIPES | Capability.TTY)

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        kind = os.fstat(fd).st_mode
        if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        super().register(fd, interest, mode)
