"""Drive examples/http_hello.py with clients of four kinds, and check every byte that comes back.

    python tools/drive.py --backend poll --requests 20000 --connections 128

Prints one line. The status is 0 only if every request was answered, rightly and in order, nothing else was sent, and
the server ended as it should. The clients stand on ``selectors``: they share nothing with what they judge.
"""

from __future__ import annotations

import argparse
import math
import selectors
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import NamedTuple

if sys.platform != "win32":
    import resource

SERVER = Path(__file__).parents[1] / "examples" / "http_hello.py"
REQUEST = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: keep-alive\r\nContent-Length: 6\r\n\r\nhello\n"
CHUNK = 64 * 1024  # bytes; the most that is sent or received at once
REQUESTS = REQUEST * (CHUNK // len(REQUEST) + 2)  # a chunk from any offset into a request, and likewise:
RESPONSES = RESPONSE * (CHUNK // len(RESPONSE) + 2)
TIME_LIMIT = 30.0  # seconds for all the clients


class Kind(NamedTuple):
    """How a client behaves."""

    batch: int  # requests that it sends before it wants the answers
    write: int  # bytes a send
    read: int  # bytes a receive
    weight: int  # its part of all requests, in proportion to the others'
    window: int = 0  # bytes of its receive buffer, if not the system's choice


PLAIN = Kind(batch=1, write=CHUNK, read=CHUNK, weight=4)
PIPELINED = Kind(batch=64, write=CHUNK, read=CHUNK, weight=8)
BYTEWISE = Kind(batch=1, write=1, read=CHUNK, weight=2)
SLOW = Kind(batch=1_000_000, write=CHUNK, read=2048, weight=80, window=4096)  # more than the server's kernel will hold
CREW = (SLOW, BYTEWISE, BYTEWISE, *[PIPELINED] * 8, *[PLAIN] * 21)  # over and over, for all the connections


class Client:
    """One connection. It writes while it can, reads when it cannot, and says that it is done before it has its answers.

    Attributes:
        failures: Requests not answered rightly, or 1 if more came than was asked for. Final once ``step`` returned 0.
    """

    def __init__(self, address: tuple[str, int], kind: Kind, requests: int) -> None:
        self._kind = kind
        self._requests = requests
        self._asked = min(kind.batch, requests)
        self._sent = 0  # bytes
        self._received = 0  # bytes, all of them right
        self.failures = requests
        self.socket = socket.socket()
        if kind.window:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kind.window)
            if sys.platform != "win32":  # small segments keep the server's send buffer small as well
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        self.socket.settimeout(TIME_LIMIT)
        self.socket.connect(address)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a byte written is a packet sent

    def step(self, ready: int) -> int:
        """Do what can be done at once, and return what to wait for next; 0 when it is over."""
        try:
            if ready & selectors.EVENT_WRITE:
                self._write()
            elif not self._read():
                return 0
        except BlockingIOError:
            pass
        except OSError:  # the server broke the connection off
            return 0
        writing = self._sent < self._asked * len(REQUEST)
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)

    def _write(self) -> None:
        start = self._sent % len(REQUEST)
        size = min(self._kind.write, CHUNK, self._asked * len(REQUEST) - self._sent)
        self._sent += self.socket.send(REQUESTS[start : start + size])
        if self._sent == self._requests * len(REQUEST):
            self.socket.shutdown(socket.SHUT_WR)  # the answers are owed all the same, and then the end

    def _read(self) -> bool:
        """Receive and check; tell whether the connection goes on."""
        data = self.socket.recv(self._kind.read)
        answered, start = divmod(self._received, len(RESPONSE))
        if not data:
            self.failures = self._requests - answered + (start > 0)
            return False
        self._received += len(data)
        owed = self._sent // len(REQUEST) * len(RESPONSE)
        if self._received > owed or not RESPONSES.startswith(data, start):
            self.failures = max(self._requests - answered, 1)
            return False
        if self._received == self._asked * len(RESPONSE) and self._asked < self._requests:
            self._asked = min(self._asked + self._kind.batch, self._requests)
            self._write()
        return True


def drive(address: tuple[str, int], requests: int, connections: int) -> int:
    """Send *requests* over *connections*, and return how many of them failed. Ends in bounded time."""
    crew = [CREW[index % len(CREW)] for index in range(connections)]
    deadline = monotonic() + TIME_LIMIT
    weights, weight, given = sum(kind.weight for kind in crew), 0, 0
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        clients: list[Client] = []
        for kind in crew:
            weight += kind.weight
            share = requests * weight // weights - given
            given += share
            client = Client(address, kind, share)
            stack.enter_context(client.socket)
            clients.append(client)
            selector.register(client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, client)
        while selector.get_map() and (left := deadline - monotonic()) > 0:
            for key, ready in selector.select(left):
                wanted = key.data.step(ready)
                if not wanted:
                    selector.unregister(key.fd)
                elif wanted != key.events:
                    selector.modify(key.fd, wanted, key.data)
    return sum(client.failures for client in clients)


class Server:
    """A server in a process of its own: started by entering, ended by leaving.

    Attributes:
        address: Where it listens.
        process: What was started.
        status: The exit status, once it ended.
        cpu: Seconds of CPU in user and in system mode from start to end; NaN where the system does not tell.
    """

    def __init__(self, *command: str | Path) -> None:
        self._command = [sys.executable, *map(str, command)]
        self.status: int | None = None
        self.cpu = (float("nan"), float("nan"))

    def __enter__(self) -> Server:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # listening on [http://]HOST:PORT (backend NAME)
        if not line.startswith("listening on "):
            self._end()
            raise RuntimeError(f"the server did not start: {line!r}, status {self.status}")
        host, _, port = line.split()[2].removeprefix("http://").rpartition(":")
        self.address = (host, int(port))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        before = _children_cpu()
        self.process.terminate()
        try:
            self.status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.status = self.process.wait()
        after = _children_cpu()
        self.cpu = (after[0] - before[0], after[1] - before[1])
        assert self.process.stdout is not None
        self.process.stdout.close()


def _children_cpu() -> tuple[float, float]:
    """Seconds in user and in system mode of all the children that have been waited for."""
    if sys.platform != "win32":
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime, usage.ru_stime
    return float("nan"), float("nan")


def main() -> int:
    """Run the server on one backend, drive it, and report."""
    parser = argparse.ArgumentParser(description="Drive http_hello on one backend and check its answers.")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=128)
    arguments = parser.parse_args()
    command = (str(SERVER), "--backend", arguments.backend, "--port", "0")
    with Server(*command) as idle:
        pass  # what it takes to start and to stop is not the requests'
    with Server(*command) as server:
        failures = drive(server.address, arguments.requests, arguments.connections)
    cpu = (sum(server.cpu) - sum(idle.cpu)) / arguments.requests * 1e6
    told = "unknown" if math.isnan(cpu) else f"{cpu:.1f} µs"
    print(
        f"{arguments.backend}: {arguments.requests} requests over {arguments.connections} connections, "
        f"{failures} failed, {told} CPU a request",
        flush=True,
    )
    ended_well = server.status == 0 or sys.platform == "win32"  # where terminate() leaves no choice
    if not ended_well:
        print(f"{arguments.backend}: the server ended with status {server.status}", file=sys.stderr)
    return 0 if failures == 0 and ended_well else 1


if __name__ == "__main__":
    sys.exit(main())
