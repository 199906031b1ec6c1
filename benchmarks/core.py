"""What the library costs over bare epoll, and spares over selectors: dispatch, changes, imports.

    python benchmarks/core.py [--rounds 300]

All contenders do the same work in turn, a burst of some hundred microseconds each, round after round, so that what
else goes on in the machine meets them alike. The ratio is taken from the fastest bursts: the work is the
same each time, so whatever is slower was disturbed. "Bar" is what the project holds itself to.
Linux only, since bare epoll is the measure.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter

from polling import Interest, Mode, Poll

assert sys.platform == "linux", "the measure is bare epoll"

Burst = Callable[[], object]
Pairs = list[tuple[socket.socket, socket.socket]]


def fastest(bursts: dict[str, Burst], rounds: int) -> dict[str, float]:
    """Seconds of the fastest burst of each, taken in turn."""
    best = dict.fromkeys(bursts, float("inf"))
    for _ in range(rounds):
        for name, burst in bursts.items():
            began = perf_counter()
            burst()
            best[name] = min(best[name], perf_counter() - began)
    return best


def show(what: str, ratio: float, bar: str) -> None:
    print(f"  {what:<58} {ratio:6.2f}    bar: {bar}")


def ready_pairs(count: int) -> Pairs:
    pairs = [socket.socketpair() for _ in range(count)]
    for _, writer in pairs:
        writer.send(b"x")
    return pairs


def close(pairs: Pairs) -> None:
    for pair in pairs:
        for sock in pair:
            sock.close()


def dispatch(count: int, rounds: int) -> None:
    """Read token and readable of *count* events a wait."""
    pairs = ready_pairs(count)
    times = range(max(1, 500 // count))
    bare, tokens = select.epoll(), {}
    selector = selectors.EpollSelector()
    with Poll("epoll") as poll:
        for source, _ in pairs:
            bare.register(source, select.EPOLLIN)
            tokens[source.fileno()] = source
            selector.register(source, selectors.EVENT_READ, source)
            poll.register(source, source)

        def by_epoll() -> None:
            wait, readable = bare.poll, select.EPOLLIN
            for _ in times:
                for fd, bits in wait(None, 1024):
                    _ = tokens[fd], bits & readable

        def by_selectors() -> None:
            wait, readable = selector.select, selectors.EVENT_READ
            for _ in times:
                for key, bits in wait(None):
                    _ = key.data, bits & readable

        def by_polling() -> None:
            wait = poll.poll
            for _ in times:
                for event in wait():
                    _ = event.token, event.readable

        best = fastest({"bare": by_epoll, "selectors": by_selectors, "ours": by_polling}, rounds)
    selector.close()
    bare.close()
    close(pairs)
    show(f"dispatch, {count} ready: ours / bare", best["ours"] / best["bare"], "1.35" if count > 1 else "1.60")
    if count > 1:
        show(f"dispatch, {count} ready: selectors / ours", best["selectors"] / best["ours"], "at least 1.35")


def changes(rounds: int) -> None:
    """Register, reregister and deregister one source."""
    pairs = ready_pairs(1)
    source = pairs[0][0]
    times = range(200)
    bare, selector = select.epoll(), selectors.EpollSelector()
    reading, both, level = Interest.READABLE, Interest.READ_WRITE, Mode.LEVEL
    with Poll("epoll") as poll:

        def by_epoll() -> None:
            for _ in times:
                bare.register(source, select.EPOLLIN)
                bare.modify(source, select.EPOLLIN | select.EPOLLOUT)
                bare.unregister(source)

        def by_selectors() -> None:
            for _ in times:
                selector.register(source, selectors.EVENT_READ, source)
                selector.modify(source, selectors.EVENT_READ | selectors.EVENT_WRITE, source)
                selector.unregister(source)

        def by_polling() -> None:
            for _ in times:
                poll.register(source, source, reading, level)
                poll.reregister(source, source, both, level)
                poll.deregister(source)

        best = fastest({"bare": by_epoll, "selectors": by_selectors, "ours": by_polling}, rounds)
    selector.close()
    bare.close()
    close(pairs)
    show("register + reregister + deregister: ours / bare", best["ours"] / best["bare"], "2.20")
    show("register + reregister + deregister: ours / selectors", best["ours"] / best["selectors"], "0.90")


def rearming(rounds: int) -> None:
    """Wait for one oneshot source and arm it again."""
    pairs = ready_pairs(1)
    source = pairs[0][0]
    times = range(300)
    bare, mask = select.epoll(), select.EPOLLIN | select.EPOLLONESHOT
    bare.register(source, mask)
    tokens = {source.fileno(): source}
    with Poll("epoll") as poll:
        poll.register(source, source, Interest.READABLE, Mode.ONESHOT)

        def by_epoll() -> None:
            for _ in times:
                for fd, bits in bare.poll(None, 1024):
                    if bits & select.EPOLLIN:
                        bare.modify(tokens[fd], mask)

        def by_polling() -> None:
            for _ in times:
                for event in poll.poll():
                    if event.readable:
                        poll.rearm(event.token)

        best = fastest({"bare": by_epoll, "ours": by_polling}, rounds)
    bare.close()
    close(pairs)
    show("wait + rearm of a oneshot source: ours / bare", best["ours"] / best["bare"], "2.20")


def idle(rounds: int) -> None:
    """What 9,000 idle registrations cost the 128 that are ready."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 18_500:
        print(f"  idle registrations: not measured, the limit of descriptors is {hard}")
        return
    ready = ready_pairs(128)
    crowds = {count: [socket.socketpair() for _ in range(count // 2)] for count in (100, 9000)}
    bursts: dict[str, Burst] = {}
    polls = []
    for count, crowd in crowds.items():
        poll: Poll[socket.socket] = Poll("epoll")
        polls.append(poll)
        for pair in crowd:
            for sock in pair:
                poll.register(sock, sock)
        for source, _ in ready:
            poll.register(source, source)

        def by_polling(poll: Poll[socket.socket] = poll) -> None:
            for event in poll.poll():
                _ = event.token, event.readable

        bursts[str(count)] = by_polling
    best = fastest(bursts, rounds * 5)
    for poll in polls:
        poll.close()
    for crowd in (ready, *crowds.values()):
        close(crowd)
    show("dispatch, 128 ready: 9,000 idle / 100 idle", best["9000"] / best["100"], "0.80 to 1.20")


def emulated(rounds: int) -> None:
    """What the emulated completion port costs, which serves tests: against epoll, and with idle sources.

    It asks poll(2) about every source that waits, so what idle ones add is set against that call itself.
    """
    ready = ready_pairs(128)
    crowd = [socket.socketpair() for _ in range(1000)]
    asked = select.poll()
    bursts: dict[str, Burst] = {"asked": lambda: asked.poll(0)}
    with Poll("epoll") as epoll, Poll("iocp") as few, Poll("iocp") as many:
        polls: dict[str, Poll[socket.socket]] = {"epoll": epoll, "few": few, "many": many}
        for sock in (sock for pair in crowd for sock in pair):
            many.register(sock, sock)
            asked.register(sock, select.POLLIN)
        for name, poll in polls.items():
            for source, _ in ready:
                poll.register(source, source)

            def by_polling(poll: Poll[socket.socket] = poll) -> None:
                for event in poll.poll():
                    _ = event.token, event.readable

            bursts[name] = by_polling
        best = fastest(bursts, rounds * 3)
    close(ready)
    close(crowd)
    show("dispatch, 128 ready: emulated completion port / epoll", best["few"] / best["epoll"], "6.00")
    show("what 2,000 idle add to it / poll(2) of them", (best["many"] - best["few"]) / best["asked"], "1.50")


def imports(rounds: int) -> None:
    """Milliseconds of CPU that ``import polling`` and the first ``Poll()`` take."""
    # The site module is left out, since what other packages hang into it is not ours; hence the path.
    roots = ("polling", "backends", "site-packages")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p.endswith(roots))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled already
    programs = {
        "bare": "pass",
        "import": "import polling",
        "poll": "import polling; polling.Poll('epoll').close()",
        "asyncio": "import asyncio",
    }
    best = dict.fromkeys(programs, float("inf"))
    for _ in range(rounds):
        for name, program in programs.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-S", "-c", program], check=True, env=environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            best[name] = min(best[name], took * 1000)
    show("import polling, milliseconds", best["import"] - best["bare"], "10")
    show("the first Poll() after it, milliseconds", best["poll"] - best["import"], "5")
    show("import asyncio, milliseconds", best["asyncio"] - best["bare"], "none, to compare")


def main() -> None:
    """Measure everything and print the ratios."""
    parser = argparse.ArgumentParser(description="Compare polling with bare epoll and with selectors.")
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    print(f"Python {sys.version.split()[0]}, {rounds} rounds")
    dispatch(128, rounds)
    dispatch(1, rounds)
    changes(rounds)
    rearming(rounds)
    idle(rounds)
    emulated(rounds)
    imports(max(10, rounds // 15))


if __name__ == "__main__":
    main()
