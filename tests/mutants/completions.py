"""Wrong with completions: what readiness over a completion port invites to. On the emulated port."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence

from polling import Interest, Mode
from polling.backend import Pair
from polling_backends._completion_port import READ, Kind, Operation, describe
from polling_backends._emulated_port import EmulatedPort, _Request
from polling_backends.iocp import IocpBackend, _Socket, _Watch

from . import Contrary


class _Believing(Contrary):
    """Says that what it was told of is ready, whatever a look would show."""

    def __init__(self) -> None:
        super().__init__()
        self.believed: dict[int, int] = {}

    def sample(self, asked: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        found = dict(super().sample(asked))
        for fd, bits in asked:
            found[fd] = found.get(fd, 0) | self.believed.pop(fd, 0) & bits
        return found.items()


class PacketsAreBelieved(IocpBackend):
    """A packet is reported as readiness, with no look whether it is still so."""

    breaks = ("SPU-01",)
    open_port = _Believing
    _port: _Believing

    def _heat(self, operation: Operation) -> None:
        super()._heat(operation)
        self._port.believed[operation.fd] = operation.bit


class CancelledIsReported(IocpBackend):
    """The packet of a cancelled operation is taken for one of whoever has the number next."""

    breaks = ("REG-16", "WIN-02")
    open_port = _Believing
    _port: _Believing

    def _heat(self, operation: Operation) -> None:
        super()._heat(operation)
        watch = self._watches.get(operation.fd)
        if watch is not None and watch.socket is not operation.owner:
            self._port.believed[operation.fd] = operation.bit


class CancelledIsForgotten(IocpBackend):
    """An operation is let go of when it is cancelled, so that the next may have its address before its packet came."""

    breaks = ("REG-16",)

    def _cancel(self, socket: _Socket) -> None:
        super()._cancel(socket)
        for operation in socket.operations.values():
            self._operations.pop(operation.address, None)
        socket.operations.clear()


class OneCancelsAll(IocpBackend):
    """To cancel an operation ends those of all sockets, and only the one that was meant is begun again."""

    breaks = ("WIN-01",)

    def __init__(self) -> None:
        super().__init__()
        self._ended_along: set[int] = set()

    def _cancel(self, socket: _Socket) -> None:
        super()._cancel(socket)
        for operation in self._operations.values():
            if operation.owner is not socket:
                self._ended_along.add(operation.address)
                self._port.cancel(operation)

    def _heat(self, operation: Operation) -> None:
        if operation.address not in self._ended_along:
            super()._heat(operation)


class _Eating(EmulatedPort):
    def receive(self, fd: int, peek: bool, owner: object) -> Operation:
        return super().receive(fd, False, owner)


class DatagramsAreEaten(IocpBackend):
    """Datagrams are waited for by a receive of no bytes, which takes one, and does not peek."""

    breaks = ("UDP-01",)
    open_port = _Eating


class KindIsRemembered(IocpBackend):
    """What kind of socket a number means is asked once, and not each time that an operation begins."""

    breaks = ("REG-28",)

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[_Socket, Kind | None] = {}

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        super().register(fd, interest, mode)
        self._kinds[self._watches[fd].socket] = describe(fd)

    def _prepare(self, socket: _Socket, bit: int, receive_from: Kind | None = None) -> Operation:
        return super()._prepare(socket, bit, receive_from and self._kinds.get(socket))


class _Accepting(_Believing):
    """Accepts on its own, as AcceptEx does."""

    def __init__(self) -> None:
        super().__init__()
        self._accepted: list[socket.socket] = []

    def _end(self, request: _Request, error: int) -> None:
        super()._end(request, error)
        if not error and request.bit == READ and describe(request.fd) is Kind.LISTENER:
            listener = socket.socket(fileno=request.fd)
            self._accepted.append(listener.accept()[0])
            listener.detach()
            self.believed[request.fd] = READ

    def close(self, outstanding: dict[int, Operation]) -> None:
        super().close(outstanding)
        for accepted in self._accepted:
            accepted.close()


class AcceptIsStolen(IocpBackend):
    """Connections are waited for by accepting them, and whoever is told finds none."""

    breaks = ("LVL-01",)
    open_port = _Accepting


class LevelIsReportedOnce(IocpBackend):
    """A source that was reported in level mode is not looked at again."""

    breaks = ("LVL-01",)

    def _look(self, max_events: int) -> tuple[list[Pair], list[tuple[_Watch, int]]]:
        batch, delivered = super()._look(max_events)
        for fd, _ in batch:
            if self._hot[fd].mode is Mode.LEVEL:
                del self._hot[fd]
        return batch, delivered


class EachLookReceives(IocpBackend):
    """Each look that finds nothing begins a receive, whether or not one is outstanding."""

    breaks = ("INT-10",)

    def _begin(self, socket: _Socket, bit: int) -> bool:
        socket.operations.pop(bit, None)
        return super()._begin(socket, bit)


class WakesPostNull(IocpBackend):
    """The packet of a wake has no address, which is how the system says that it failed."""

    breaks = ("WAK-01",)

    def wake(self) -> None:
        self._port.post(0)
