"""Wrong backends, each wrong in one way that a real author gets wrong, and a few that are right but unusual.

They prove that the conformance kit can fail: a rule whose test lets its mutant pass tests nothing. A mutant is a class
with a docstring of one line, which says what is wrong, and with ``breaks``, the rules that must find it. It derives
from one of our backends, or from ``Poll``, which then stands ``on`` one, or from a part that is made for
``Poll``. The modules are for the families of rules; what several mutants share stands here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from polling import Backend, Channel, EventLoop, Interest, Mode, Poll, Readiness, Signals, Timer
from polling.backend import Pair, Wait
from polling_backends import _flags
from polling_backends._completion_port import ABORTED, Packet
from polling_backends._emulated_port import EmulatedPort
from polling_backends.epoll import EpollBackend
from polling_backends.iocp import IocpBackend
from polling_backends.kqueue import KqueueBackend
from polling_backends.poll import PollBackend

if TYPE_CHECKING:
    from tests.kqueue_backends import OnFreeBSD
else:
    from kqueue_backends import OnFreeBSD

__all__ = [
    "FAMILIES",
    "PARTS",
    "Contrary",
    "Decoding",
    "Fetching",
    "Front",
    "Masking",
    "OnFreeBSD",
    "Pairs",
    "Wrong",
    "described",
    "right_for",
    "stands_on",
    "unusual",
    "wrong_in",
]

FAMILIES = (
    *("registering", "modes", "edges", "oneshots", "events", "batches", "sources", "waits", "lifetimes"),
    *("filters", "completions"),
    "userspace",
    "messages",
    "timing",
    "receiving",
    "looping",
)
"""The modules of wrong ones."""

Pairs: TypeAlias = Sequence[Pair]


class Decoding(EpollBackend):
    """An epoll whose author writes the translation of flags anew."""

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return self.said(_flags.readiness(bits, interest), bits, interest)

    def said(self, right: Readiness, bits: int, interest: Interest) -> Readiness:
        """Change what would have been right."""
        raise NotImplementedError


class Fetching(EpollBackend):
    """An epoll with the author's own code around the kernel's call."""

    def waiter(self) -> Wait:
        wait = super().waiter()
        return lambda timeout, limit: self.fetch(wait, timeout, limit)

    def fetch(self, wait: Wait, timeout: float | None, limit: int) -> Pairs:
        """Wait, and leave out what ``kept`` leaves out."""
        return [pair for pair in wait(timeout, limit) if pair[0] in self.internal or self.kept(*pair)]

    def kept(self, fd: int, bits: int) -> bool:
        """Tell whether a pair is reported."""
        raise NotImplementedError


class Masking(EpollBackend):
    """An epoll whose author asks the kernel for something else."""

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        super().register(fd, interest, mode)
        self._ask(fd, self.mask(self._masks[fd], interest, mode))

    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None:
        super().reregister(fd, interest, mode)
        self._ask(fd, self.mask(self._masks[fd], interest, mode))

    def _ask(self, fd: int, mask: int) -> None:
        if mask != self._masks[fd]:
            self._masks[fd] = mask
            self._epoll.modify(fd, mask)

    def mask(self, right: int, interest: Interest, mode: Mode) -> int:
        """Change what would have been right."""
        raise NotImplementedError


class Contrary(EmulatedPort):
    """A port that does what a port may do, by a seed: packets out of order, late, for nothing, and of strangers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._chance = random.Random(seed)
        self._late: list[Packet] = []

    def _reclaim(self) -> None:
        # This comes before each look into the queue. What is held back goes by the next one.
        super()._reclaim()
        packets, bell = self._packets, self._bell
        late, self._late = self._late, []
        packets.extend(late)
        whim = self._chance.randrange(8)
        if whim == 0 and (pending := [*self._requests.values()]):
            self._end(self._chance.choice(pending), ABORTED)
        elif whim == 1:
            packets.append((0, 0, 0, 3))  # no operation's
        elif whim == 2 and bell is not None and all(packet[3] > 3 for packet in [*packets]):
            bell.ring()
            self._late = [*packets]
            packets.clear()
        elif whim == 3 and packets:
            packets.rotate(self._chance.randrange(len(packets)))


class Front(Poll[object]):
    """A front object of an author's, on one of our backends."""

    on: ClassVar[type[Backend]] = EpollBackend


PARTS: Mapping[str, type] = {"channel": Channel, "timer": Timer, "signals": Signals, "event_loop": EventLoop}
"""What stands on user space, by the name under which the suite makes it. A mutant of one is tried on epoll."""

Wrong: TypeAlias = type
"""A mutant: of a backend, of the front object, or of a part."""


def wrong_in(family: str) -> Iterator[tuple[Wrong, tuple[str, ...]]]:
    """Give the wrong ones of a module in their order, each with the rules it breaks."""
    for found in vars(import_module(f"{__name__}.{family}")).values():
        if isinstance(found, type) and "breaks" in vars(found):
            yield found, tuple(vars(found)["breaks"])


def unusual() -> Iterator[type[Backend]]:
    """Give those that are right, though unusual."""
    module = import_module(f"{__name__}.unusual")
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, Backend) and found.__module__ == module.__name__:
            yield found


def described(wrong: Wrong) -> str:
    """Give the line that says what is wrong."""
    return (wrong.__doc__ or "").strip()


def right_for(wrong: Wrong) -> type[Backend]:
    """Give the backend of ours that it would be, but for the mistake."""
    backend = stands_on(wrong)
    if issubclass(backend, KqueueBackend):
        return OnFreeBSD
    return next((ours for ours in (PollBackend, IocpBackend) if issubclass(backend, ours)), EpollBackend)


def stands_on(wrong: Wrong) -> type[Backend]:
    """Give the backend that it is, or is tried on."""
    if issubclass(wrong, Backend):
        return wrong
    return wrong.on if issubclass(wrong, Front) else EpollBackend
