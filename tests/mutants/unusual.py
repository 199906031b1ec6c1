"""Right, though unusual: what the contract allows and no backend of ours does. These must pass everything."""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from typing import ClassVar

from polling import Capability, Interest, Mode, Readiness, UnsupportedError
from polling.backend import Pair
from polling_backends._flags import IN, OUT
from polling_backends.epoll import EpollBackend
from polling_backends.iocp import IocpBackend
from polling_backends.poll import PollBackend, _Poll

from . import Contrary

HINTS = Capability.READ_CLOSED | Capability.WRITE_CLOSED | Capability.ERROR


class _Facade:
    """A ``select.poll`` that answers otherwise. In the backend a step more would cost the batch, see SIG-02."""

    def __init__(self, real: _Poll) -> None:
        self._real = real

    def register(self, fd: int, eventmask: int, /) -> None:
        self._real.register(fd, eventmask)

    def unregister(self, fd: int, /) -> None:
        self._real.unregister(fd)

    def poll(self, timeout: float | None, /) -> list[Pair]:
        return self._real.poll(timeout)


class _InAnyOrder(_Facade):
    def poll(self, timeout: float | None, /) -> list[Pair]:
        ready = super().poll(timeout)
        random.shuffle(ready)
        return ready


class _Guessing(_Facade):
    waits: ClassVar[int] = 0  # of the whole process, since its last guess

    def __init__(self, real: _Poll) -> None:
        super().__init__(real)
        self._masks: dict[int, int] = {}
        self._changed = False

    def register(self, fd: int, eventmask: int, /) -> None:
        super().register(fd, eventmask)
        self._masks[fd] = eventmask
        self._changed = True

    def unregister(self, fd: int, /) -> None:
        super().unregister(fd)
        del self._masks[fd]
        self._changed = True

    def poll(self, timeout: float | None, /) -> list[Pair]:
        _Guessing.waits += 1
        changed, self._changed = self._changed, False
        if _Guessing.waits >= 25 and not changed:  # or a wait that others change all the time would hardly go on
            for fd, mask in self._masks.items():
                if mask & (IN | OUT):
                    _Guessing.waits = 0
                    return [(fd, mask & (IN | OUT))]
        return super().poll(timeout)


class _Late(_Facade):
    def poll(self, timeout: float | None, /) -> list[Pair]:
        time.sleep(0.02)
        return super().poll(timeout)


class _Single(_Facade):
    def __init__(self, real: _Poll, bell: int) -> None:
        super().__init__(real)
        self._bell = bell
        self._last = -1

    def poll(self, timeout: float | None, /) -> list[Pair]:
        ready = super().poll(timeout)
        rung = [pair for pair in ready if pair[0] == self._bell]
        others = sorted(pair for pair in ready if pair[0] != self._bell)
        others = [pair for pair in others if pair[0] > self._last][:1] or others[:1]
        if others:
            self._last = others[0][0]
        return rung + others


# The slow one first: it takes longest, and others can be tried meanwhile.
class Slow(PollBackend):
    """Begins each wait 20 ms late."""

    def __init__(self) -> None:
        super().__init__()
        self._poll = _Late(self._poll)


class AnyOrder(PollBackend):
    """Reports what is ready in random order."""

    def __init__(self) -> None:
        super().__init__()
        self._poll = _InAnyOrder(self._poll)


class SeldomSpurious(PollBackend):
    """Every 25th wait reports something that is asked for, and not so."""

    def __init__(self) -> None:
        super().__init__()
        self._poll = _Guessing(self._poll)


class NoHints(EpollBackend):
    """Gives no hints at all."""

    capabilities = EpollBackend.capabilities & ~HINTS

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return super().decode(bits, interest)._replace(error=False, read_closed=False, write_closed=False)


class OneAtATime(PollBackend):
    """Reports one event a wait, however many are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._poll = _Single(self._poll, self._internal[0])


class Modest(PollBackend):
    """Has no capability that it can do without."""

    capabilities = PollBackend.capabilities & ~HINTS & ~Capability.PRIORITY

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        if Interest.PRIORITY in interest:
            raise UnsupportedError("urgent data is not reported")
        super().register(fd, interest, mode)

    reregister = register

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


class Contradicted(IocpBackend):
    """Stands on a completion port whose packets are late, out of order, for nothing, and of strangers."""

    open_port = Contrary
