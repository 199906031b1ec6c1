# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Code of a backend's author, checked and never run: the abstract class from outside, and how one is chosen."""

from collections.abc import Collection
from typing import ClassVar, assert_type

from polling import Backend, Capability, Interest, Mode, Poll, available_backends, backend_names
from polling.backend import Pair, Wait
from polling.event import Readiness


class MyBackend(Backend):
    name = "mine"
    capabilities: ClassVar[Capability] = Capability.NATIVE_EDGE | Capability.PIPES

    @property
    def internal(self) -> Collection[int]:
        return ()

    def register(self, fd: int, interest: Interest, mode: Mode) -> None: ...
    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None: ...
    def deregister(self, fd: int) -> None: ...
    def rearm(self, fd: int, interest: Interest) -> None: ...

    def waiter(self) -> Wait:
        def wait(timeout: float | None, max_events: int) -> list[Pair]:
            return [(3, 1)][:max_events] if timeout is None else []

        return wait

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return Readiness(readable=bool(bits & 1), writable=Interest.WRITABLE in interest)

    def wake(self) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class Unfinished(Backend):
    name = "unfinished"
    capabilities: ClassVar[Capability] = Capability(0)


def choose() -> None:
    Poll(MyBackend)
    Poll(MyBackend())
    assert_type(Poll[int]("epoll"), Poll[int])
    assert_type(Poll("epoll").backend, Backend)
    assert_type(Poll().backend.name, str)
    assert_type(backend_names(), tuple[str, ...])
    assert_type(available_backends(), dict[str, type[Backend]])
    Poll(7)  # type: ignore[arg-type]  # must be refused: no name, class or instance
    Unfinished()  # type: ignore[abstract]  # must be refused: nothing is implemented
