"""What the library costs a web server: CPU a request of http_hello against the same server on bare epoll.

    python benchmarks/http_cpu.py --rounds 5 --seconds 3
    python benchmarks/http_cpu.py --rounds 24 --seconds 2 --processes 2

With ``--processes``, what it costs to share a port: so many processes against one, each with as many connections.

Every round serves each of the servers in turn, so that what else goes on in the machine meets all of them
alike, and the ratios are taken within a round. The load is wrk's, where it is installed, else tools/drive.py's.
CPU time, not requests a second: on a small machine the client is at its limit before the server is.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from drive import Server, drive

ROOT = Path(__file__).parents[1]
HELLO, BARE = str(ROOT / "examples" / "http_hello.py"), str(ROOT / "benchmarks" / "bare_epoll.py")


class Served(NamedTuple):
    """A server, and by how many processes it is one."""

    command: Sequence[str]
    processes: int = 1


class Cost(NamedTuple):
    """Microseconds of the server's CPU a request."""

    user: float
    total: float


def load(address: tuple[str, int], connections: int, seconds: int) -> int:
    """Put a server under load; return how many requests it answered."""
    if (wrk := shutil.which("wrk")) is None:
        requests = 20_000 * seconds
        failures = drive(address, requests, connections)
    else:
        url = f"http://{address[0]}:{address[1]}/"
        command = [wrk, "-t", "1", "-c", str(connections), "-d", f"{seconds}s", url]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.search(r"(\d+) requests in", report)
        failures = sum(map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", report)))
        requests = int(found[1]) if found else 0
    if failures or not requests:
        raise RuntimeError(f"{failures} of {requests} requests failed")
    return requests


def measure(command: Sequence[str], connections: int, seconds: int) -> Cost:
    """Serve once, and return what a request cost, without what it takes to start and stop."""
    with Server(*command, "--port", "0") as idle:
        pass
    with Server(*command, "--port", "0") as server:
        requests = load(server.address, connections, seconds)
    user, system = (busy - start for busy, start in zip(server.cpu, idle.cpu, strict=True))
    return Cost(user / requests * 1e6, (user + system) / requests * 1e6)


def main() -> None:
    """Print the medians over all rounds."""
    parser = argparse.ArgumentParser(description="CPU a request of http_hello, against bare epoll.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of load, a server and round")
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--processes", type=int, default=0, help="compare that many with one, and not backends")
    arguments = parser.parse_args()
    servers = {
        "bare epoll": Served((BARE,)),
        **{name: Served((HELLO, "--backend", name)) for name in ("epoll", "poll")},
    }
    if arguments.processes:
        shares = (1, arguments.processes)
        servers = {f"{n} at work": Served((HELLO, "--processes", str(n)), n) for n in shares}
    costs: dict[str, list[Cost]] = {name: [] for name in servers}
    for number in range(arguments.rounds):
        for name in list(servers)[:: -1 if number % 2 else 1]:  # nobody is always first
            command, processes = servers[name]
            costs[name].append(measure(command, arguments.connections * processes, arguments.seconds))
    print("server       user µs   total µs   user ratio   total ratio")
    for name, measured in costs.items():
        pairs = list(zip(measured, costs[next(iter(costs))], strict=True))
        print(
            f"{name:10} {median(cost.user for cost in measured):9.2f} {median(cost.total for cost in measured):10.2f}"
            f" {median(cost.user / bare.user for cost, bare in pairs):12.3f}"
            f" {median(cost.total / bare.total for cost, bare in pairs):13.3f}"
        )


if __name__ == "__main__":
    main()
