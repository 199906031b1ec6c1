"""What the kqueue backend adds to a dispatch: turning the filters' events into pairs, and bringing them together.

    python benchmarks/kqueue_dispatch.py [--rounds 1000]

Kernels are replaced by the answer that they would give, ready made, so that what stands above them is measured and
nothing else: for epoll that is the front object alone, for kqueue also the backend, over the tuples of its façade. All
dispatch the same sources in turn, a burst of some hundred microseconds each, and the fastest bursts are compared.
Runs on every system.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from operator import itemgetter
from time import perf_counter

from polling import Backend, Capability, Interest, Mode, Poll, Readiness
from polling.backend import Pair, Wait
from polling_backends import _flags
from polling_backends._kqueue_kernel import Kernel, Kevent
from polling_backends.kqueue import ADD, KqueueBackend

COUNT = 128
WAITS = range(4)
"""In a burst."""


class ReadyKernel:
    """A kqueue in which every filter that was added is ready, at each wait, and goes to the end of the queue then.

    Those for writing come first: there is room from the beginning, and data later.
    """

    user_filter: int | None = -11

    def __init__(self) -> None:
        self._queue: list[Kevent] = []
        self._twice: list[Kevent] = []
        self._next = 0

    def control(self, changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        if not changes:
            size, first = len(self._queue), self._next
            self._next = (first + most) % size if most < size else first
            return self._twice[first : first + min(most, size)]
        added = [change for change in changes if change[2] & ADD and change[0] != self.fileno()]
        self._queue += [(fd, which, ADD, 0, 4096 + fd) for fd, which, *_ in added]
        self._queue.sort(key=itemgetter(1))
        self._twice = self._queue * 2
        return [(fd, which, 0x4000, 0, 0) for fd, which, *_ in changes[:most]]

    def fileno(self) -> int:
        return 1 << 20

    def close(self) -> None:
        pass


class ReadyKqueue(KqueueBackend):
    """kqueue, as we serve it."""

    @classmethod
    def unavailable_reason(cls) -> str | None:
        return None

    def _open_kernel(self) -> Kernel:
        return ReadyKernel()


class ReadyEpoll(Backend):
    """epoll, as we serve it: what the kernel says is what the front object gets."""

    name = "epoll"
    capabilities = Capability.NATIVE_EDGE
    forgets_closed = True
    internal: Collection[int] = ()

    def __init__(self) -> None:
        self._answer: list[Pair] = []

    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        self._answer.append((fd, interest & _flags.IN | (_flags.OUT if interest & Interest.WRITABLE else 0)))

    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None: ...
    def deregister(self, fd: int) -> None: ...
    def rearm(self, fd: int, interest: Interest) -> None: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...

    def waiter(self) -> Wait:
        return lambda timeout, max_events: self._answer

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return _flags.readiness(bits, interest)


def burst(poll: Poll[int], limit: int) -> None:
    """Wait some times, and look at what each event says."""
    for _ in WAITS:
        for event in poll.poll(None, limit):
            _ = event.token, event.readable


def measure(reading: int, both: int, limit: int, rounds: int) -> dict[type[Backend], float]:
    """Give nanoseconds an event for so many sources that are ready for reading, or in both directions.

    *limit* is the size of a batch, of which all find room.
    """
    numbers = [os.dup(0) for _ in range(reading + both)]
    polls = {kind: Poll[int](kind) for kind in (ReadyEpoll, ReadyKqueue)}
    for poll in polls.values():
        for place, fd in enumerate(numbers):
            poll.register(fd, fd, Interest.READABLE if place < reading else Interest.READ_WRITE)
    best = dict.fromkeys(polls, float("inf"))
    for _ in range(rounds):
        for kind, poll in polls.items():
            began = perf_counter()
            burst(poll, limit)
            best[kind] = min(best[kind], perf_counter() - began)
    for poll in polls.values():
        poll.close()
    for fd in numbers:
        os.close(fd)
    return {kind: seconds * 1e9 / len(numbers) / len(WAITS) for kind, seconds in best.items()}


def main() -> None:
    """Print nanoseconds an event."""
    parser = argparse.ArgumentParser(description="Compare the kqueue backend's dispatch with epoll's.")
    parser.add_argument("--rounds", type=int, default=1000)
    rounds = parser.parse_args().rounds
    print(f"Python {sys.version.split()[0]}, {rounds} rounds, {COUNT} ready; nanoseconds an event")
    for what, reading, both, limit, bar in (
        ("all for reading alone", COUNT, 0, 1024, "a change of notation"),
        ("one of them in both directions", COUNT - 1, 1, 1024, "250"),
        ("all of them in both directions", 0, COUNT, 1024, "250"),
        ("the same, with room for half as many", 0, COUNT, COUNT * 3 // 2, "250, and the kernel's answers"),
        ("the same, with room for some more", 0, COUNT, COUNT + COUNT // 8, "250, and the kernel's answers"),
        ("the same, with room for one more", 0, COUNT, COUNT + 1, "250"),
        ("the same, with room for no more", 0, COUNT, COUNT, "250"),
    ):
        best = measure(reading, both, limit, rounds)
        print(
            f"  {what:<38} epoll {best[ReadyEpoll]:5.0f}  kqueue {best[ReadyKqueue]:5.0f}"
            f"  more {best[ReadyKqueue] - best[ReadyEpoll]:5.0f}    bar: {bar}"
        )


if __name__ == "__main__":
    main()
