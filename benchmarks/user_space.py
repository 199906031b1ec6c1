"""What messages, wakes and timers cost, beside what the standard library has for the same.

    python benchmarks/user_space.py [--rounds 7] [--backend epoll]

The contenders take turns within each round, so that what else goes on in the machine meets them alike, and the ratio is
the median of the rounds'. "Bar" is what the project holds itself to.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import selectors
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from time import perf_counter

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


def ping_pong(wait_here: Callable[[], object], wake_there: Callable[[], object], times: int) -> None:
    for _ in range(times):
        wait_here()
        wake_there()


def rally(
    wait: tuple[Callable[[], object], Callable[[], object]],
    wake: tuple[Callable[[], object], Callable[[], object]],
    times: int,
) -> float:
    """Seconds for two threads to wake each other so often."""
    other = threading.Thread(target=ping_pong, args=(wait[1], wake[0], times))
    other.start()
    began = perf_counter()
    wake[1]()
    ping_pong(wait[0], wake[1], times - 1)
    wait[0]()
    took = perf_counter() - began
    other.join()
    return took


def wakers(backend: str | None, times: int) -> float:
    with Poll(backend) as one, Poll(backend) as two:
        return rally((one.poll, two.poll), (Waker(one, 1).wake, Waker(two, 2).wake), times)


def self_pipes(times: int) -> float:
    """The same by a pipe in a selector, as programs without a waker do it."""
    ends = [os.pipe(), os.pipe()]
    selector = selectors.DefaultSelector(), selectors.DefaultSelector()
    for own, (reader, _) in zip(selector, ends, strict=True):
        own.register(reader, selectors.EVENT_READ)

    def wait(number: int) -> None:
        selector[number].select()
        os.read(ends[number][0], 4096)

    def wake(number: int) -> None:
        os.write(ends[number][1], b"x")

    took = rally((lambda: wait(0), lambda: wait(1)), (lambda: wake(0), lambda: wake(1)), times)
    for own in selector:
        own.close()
    for pair in ends:
        for end in pair:
            os.close(end)
    return took


# -- timers --------------------------------------------------------------------------------------------------


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
        began = perf_counter()
        poll.poll(0)
        states = timer.expired()
        took = perf_counter() - began
    swapped = sum(one > other + 100 for one, other in pairwise(states))  # a second apart
    assert len(states) == count, f"{len(states)} of {count} have expired"
    assert not swapped, "out of order"
    return took * 1000


def turnover(pending: int) -> tuple[float, float]:
    """Nanoseconds to cancel one of so many pending timeouts and set another; and entries kept for each pending one."""
    timer = Timer[None]()
    timeouts = [timer.set_timeout(1000 + number % 1000, None) for number in range(pending)]
    began = perf_counter()
    for number, timeout in enumerate(timeouts):
        timeout.cancel()
        timeouts[number] = timer.set_timeout(1000 + number % 1000, None)
    took = perf_counter() - began
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
    ratio = compare(lambda: wakers(backend, 5000), lambda: self_pipes(5000), rounds)
    show("wake from another thread: Waker / self-pipe in a selector", ratio, "1.05")
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
