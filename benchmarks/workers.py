"""What a second worker is worth: the time that the same requests take with one and with two, side by side.

    python benchmarks/workers.py --rounds 7 --requests 100

The work is that of examples/workers_http.py: a posted megabyte is hashed ten times, which lets go of the interpreter
lock. Four clients see to it that there is always a next request. Every round serves both ways in turn, and the ratio is
taken within a round. So is that of the same hashing in one bare thread and in two: what this machine has to give just
then, for a second thread needs a second core that has nothing else to do. Where there is always something, Linux gives
a few short rounds both cores by ``chrt -r 1 python benchmarks/workers.py --rounds 1``.

    python benchmarks/workers.py --size 10 --requests 4000 --workers 8

Here the requests are small, and what is left is the work of Python, which the interpreter lock gives to one thread at a
time.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from drive import Server

SERVER = Path(__file__).parents[1] / "examples" / "workers_http.py"
TIMES = 10
CLIENTS = 4


def post(address: tuple[str, int], body: bytes, requests: int, expected: bytes) -> None:
    """Be one client."""
    client = HTTPConnection(*address)
    for _ in range(requests):
        client.request("POST", "/", body)
        if client.getresponse().read() != expected:
            raise RuntimeError("the server answered wrongly")
    client.close()


def serve(workers: int, body: bytes, requests: int) -> float:
    """Give the seconds that a server takes for so many requests."""
    expected = hashlib.blake2b(body * TIMES).hexdigest().encode() + b"\n"
    with Server(SERVER, "--port", "0", "--workers", str(workers), "--times", str(TIMES)) as server:
        return timed(CLIENTS, lambda: post(server.address, body, requests // CLIENTS, expected))


def hash_only(threads: int, body: bytes, requests: int) -> float:
    """Give the seconds that the hashing takes in bare threads."""

    def work() -> None:
        for _ in range(requests // threads):
            digest = hashlib.blake2b()
            for _ in range(TIMES):
                digest.update(body)

    return timed(threads, work)


def timed(threads: int, work: Callable[[], None]) -> float:
    """Do it in so many threads at once, and give the seconds."""
    with ThreadPoolExecutor(threads) as pool:
        begun = perf_counter()
        for job in [pool.submit(work) for _ in range(threads)]:
            job.result()
        return perf_counter() - begun


def main() -> None:
    """Print each round, and the medians."""
    parser = argparse.ArgumentParser(description="The same requests with one worker and with several.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=100, help="a server and round (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1 << 20, help="bytes of a body (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="to compare with one (default: %(default)s)")
    arguments = parser.parse_args()
    body = bytes(arguments.size)
    gains: dict[str, list[float]] = {"server": [], "hashing alone": []}
    for number in range(arguments.rounds):
        seconds: dict[tuple[str, int], float] = {}
        for threads in (1, arguments.workers)[:: -1 if number % 2 else 1]:  # neither is always first
            seconds["server", threads] = serve(threads, body, arguments.requests)
            seconds["hashing alone", threads] = hash_only(threads, body, arguments.requests)
        for name, gained in gains.items():
            gained.append(seconds[name, 1] / seconds[name, arguments.workers])
        told = ", ".join(f"{name} {gained[-1]:.2f}" for name, gained in gains.items())
        print(f"round {number + 1}: with {arguments.workers} threads so many times as fast: {told}", flush=True)
    for name, gained in gains.items():
        print(f"{name}: median {median(gained):.2f}, best {max(gained):.2f}")


if __name__ == "__main__":
    main()
