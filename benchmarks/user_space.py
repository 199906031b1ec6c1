"""What messages, wakes and timers cost, beside what the standard library has for the same.

    python benchmarks/user_space.py [--rounds 7] [--backend epoll]

The contenders take turns within each round, so that what else goes on in the machine meets them alike, and the ratio is
the median of the rounds'. What takes microseconds is done in many short bursts, of which the fastest counts: it was not
disturbed. What is done once is measured in processor time. "Bar" is what the project holds itself to.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import selectors
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import median
from time import perf_counter, process_time

from polling import Channel, Poll, Timer, Waker

Contender = Callable[[], float]


def compare(ours: Contender, theirs: Contender, rounds: int) -> float:
    """The median of ours / theirs, each in turn."""
    return median(ours() / theirs() for _ in range(rounds))


def show(what: str, figure: float, bar: str) -> None:
    print(f"  {what:<66} {figure:8.2f}    bar: {bar}", flush=True)


# -- messages ------------------------------------------------------------------------------------------------

SENDERS = 4


def channel(backend: str | None, messages: int) -> float:
    """Seconds until *messages* of four threads are drained; each is checked to be the next of its thread."""
    link = Channel[tuple[int, int]]()

    def send(sender: int) -> None:
        for number in range(messages // SENDERS):
            link.sender.send((sender, number))

    with Poll(backend) as poll:
        poll.register(link.receiver, None)
        threads = [threading.Thread(target=send, args=(sender,)) for sender in range(SENDERS)]
        began = perf_counter()
        for thread in threads:
            thread.start()
        expected = [0] * SENDERS
        while sum(expected) < messages:
            poll.poll()
            for sender, number in link.receiver.drain():
                assert number == expected[sender], "a message is lost, or out of order"
                expected[sender] += 1
        took = perf_counter() - began
        for thread in threads:
            thread.join()
    return took


def call_soon_threadsafe(messages: int) -> float:
    """The same through asyncio."""
    loop = asyncio.new_event_loop()
    expected = [0] * SENDERS
    left = messages

    def receive(message: tuple[int, int]) -> None:
        nonlocal left
        sender, number = message
        assert number == expected[sender]
        expected[sender] += 1
        left -= 1
        if not left:
            loop.stop()

    def send(sender: int) -> None:
        for number in range(messages // SENDERS):
            loop.call_soon_threadsafe(receive, (sender, number))

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(SENDERS)]
    began = perf_counter()
    for thread in threads:
        thread.start()
    loop.run_forever()
    took = perf_counter() - began
    for thread in threads:
        thread.join()
    loop.close()
    return took


# -- wakes ---------------------------------------------------------------------------------------------------

RALLY = 100
"""Exchanges that are timed together."""

Side = tuple[Callable[[], None], Callable[[], object]]
"""What waits until it was woken, and what wakes it."""


class Rally:
    """Two threads that wake each other in turn. The second is started once, and waits for its cue between bursts."""

    def __init__(self, here: Side, there: Side) -> None:
        self._here, self._there = here, there
        self._cue = threading.Semaphore(0)
        threading.Thread(target=self._return, daemon=True).start()

    def _return(self) -> None:
        wait, wake = self._there[0], self._here[1]
        while True:
            self._cue.acquire()
            for _ in range(RALLY + 1):
                wait()
                wake()

    def __call__(self) -> float:
        """Seconds from one thread to the other, on average. The first exchange is not timed."""
        wait, wake = self._here[0], self._there[1]
        self._cue.release()
        wake()
        wait()
        began = perf_counter()
        for _ in range(RALLY):
            wake()
            wait()
        return (perf_counter() - began) / RALLY / 2


def waker(backend: str | None) -> Side:
    poll = Poll[str](backend)
    woken = Waker(poll, "wake")

    def wait() -> None:
        for event in poll.poll():
            assert event.token == "wake"

    return wait, woken.wake


def self_pipe(kind: type[selectors.BaseSelector]) -> Side:
    """The same by a pipe in a selector, as programs without a waker do it."""
    reader, writer = os.pipe()
    selector = kind()
    selector.register(reader, selectors.EVENT_READ, "wake")

    def wait() -> None:
        for key, _ in selector.select():
            assert key.data == "wake"
            os.read(reader, 4096)

    def wake() -> None:
        os.write(writer, b"x")

    return wait, wake


def wakes(backend: str | None, rounds: int) -> float:
    """Waker / self-pipe: the median of the rounds' ratios, each of the fastest rallies of sixty that took turns.

    On one processor, where the system lets it be chosen. There a thread's turn comes when the other waits, each time
    alike; across two it may take five times as long, or not, by what else goes on.
    """
    chosen: set[int] = set()
    if sys.platform == "linux":
        chosen = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(chosen)})
    kind = getattr(selectors, "PollSelector") if backend == "poll" else selectors.DefaultSelector  # noqa: B009  # on Unix
    ours, theirs = Rally(waker(backend), waker(backend)), Rally(self_pipe(kind), self_pipe(kind))
    ratios = []
    for _ in range(rounds):
        pairs = [(ours(), theirs()) for _ in range(60)]
        ratios.append(min(one for one, _ in pairs) / min(other for _, other in pairs))
    if sys.platform == "linux":
        os.sched_setaffinity(0, chosen)
    return median(ratios)


# -- timers --------------------------------------------------------------------------------------------------


def waits(backend: str | None, count: int, rounds: int) -> tuple[float, float]:
    """What a wait with so many ready takes while a timer runs / without one, and / with a timeout of its own."""
    with Poll[None](backend) as poll, Poll[None](backend) as timed:
        pairs = [socket.socketpair() for _ in range(count)]
        for reader, writer in pairs:
            writer.send(b"x")
            poll.register(reader, None)
            timed.register(reader, None)
        timer = Timer[None]()
        timed.register(timer, None)
        timer.set_timeout(3600, None)
        contenders: list[Callable[[], object]] = [timed.poll, poll.poll, partial(poll.poll, 3600)]
        best = [float("inf")] * 3
        for _ in range(rounds):
            for number, wait in enumerate(contenders):
                began = perf_counter()
                for _ in range(20):
                    wait()
                best[number] = min(best[number], perf_counter() - began)
    for pair in pairs:
        for sock in pair:
            sock.close()
    return best[0] / best[1], best[0] / best[2]


def set_and_cancel(pending: int, times: int) -> tuple[Contender, Contender]:
    """Give what sets and cancels a timeout so often, with so many others pending: ours, and asyncio's."""
    timer, loop = Timer[None](), asyncio.new_event_loop()
    for number in range(pending):
        timer.set_timeout(1000 + number, None)
        loop.call_later(1000 + number, print)

    def ours() -> float:
        began = perf_counter()
        for _ in range(times):
            timer.set_timeout(60, None).cancel()
        return perf_counter() - began

    def theirs() -> float:
        began = perf_counter()
        for _ in range(times):
            loop.call_later(60, print).cancel()
        took = perf_counter() - began
        loop.call_soon(loop.stop)
        loop.run_forever()  # which is when asyncio drops what was cancelled: not counted
        return took

    return ours, theirs


def due_at_once(backend: str | None, count: int) -> float:
    """Milliseconds until so many that are due at once have come, which is checked to be in order of their deadlines."""
    timer = Timer[int]()
    ranks = [*range(count)]
    random.Random(1).shuffle(ranks)
    with Poll(backend) as poll:
        poll.register(timer, None)
        for rank in ranks:
            timer.set_timeout(1 + rank * 1e-2, rank)
        for entry in timer._heap:
            entry[0] -= 1e7  # time passes
        timer._deadline -= 1e7
        began = process_time()
        poll.poll(0)
        states = timer.expired()
        took = process_time() - began
    swapped = sum(one > other + 100 for one, other in pairwise(states))  # a second apart
    assert len(states) == count, f"{len(states)} of {count} have expired"
    assert not swapped, "out of order"
    return took * 1000


def turnover(pending: int) -> tuple[float, float]:
    """Nanoseconds to cancel one of so many pending timeouts and set another; and entries kept for each pending one."""
    timer = Timer[None]()
    timeouts = [timer.set_timeout(1000 + number % 1000, None) for number in range(pending)]
    began = process_time()
    for number, timeout in enumerate(timeouts):
        timeout.cancel()
        timeouts[number] = timer.set_timeout(1000 + number % 1000, None)
    took = process_time() - began
    return took / pending * 1e9, len(timer._heap) / pending


def main() -> None:
    """Measure everything and print the ratios."""
    parser = argparse.ArgumentParser(description="Compare what stands on user space with the standard library's.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backend", help="the poll's backend (default: the best one here)")
    parser.add_argument("--messages", type=int, default=1_000_000, help="for the channel (default: %(default)s)")
    arguments = parser.parse_args()
    rounds, backend = arguments.rounds, arguments.backend
    print(f"Python {sys.version.split()[0]}, {rounds} rounds")
    ratio = compare(lambda: call_soon_threadsafe(arguments.messages), lambda: channel(backend, arguments.messages), 3)
    show(f"{arguments.messages} messages of 4 threads: call_soon_threadsafe / Channel", ratio, "at least 3")
    show("wake from another thread: Waker / self-pipe in a selector", wakes(backend, rounds), "1.05")
    for count in 1, 128:
        running, bounded = waits(backend, count, rounds * 100)
        show(f"wait with {count} ready: a timer runs / no timer", running, "none")
        show("... / no timer, but a timeout", bounded, "1.30")
    for pending in 0, 1000, 100_000:
        ratio = compare(*set_and_cancel(pending, 5000), rounds)
        show(f"timer set + cancel, {pending} pending: ours / call_later + cancel", ratio, "0.80")
    show("100000 timeouts due at once, milliseconds", due_at_once(backend, 100_000), "in order")
    few, _ = turnover(1000)
    many, kept = turnover(1_000_000)
    show("cancel + set with 1000000 pending, nanoseconds", many, "none")
    show("... / with 1000 pending", many / few, "none")
    show("... entries kept for each that is pending", kept, "2")


if __name__ == "__main__":
    main()
