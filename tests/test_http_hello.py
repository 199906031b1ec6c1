"""The web servers of examples/: their protocol part byte by byte, and the whole of them on every backend."""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from select import select
from time import monotonic

import drive
import http_hello
import pytest
from http_hello import RESPONSE
from http_requests import MAX_HEAD, Requests
from serving import raise_limit

import polling

ROOT = Path(__file__).parents[1]
PATIENCE = 20.0  # seconds to wait for what must come
SILENCE = 0.5  # seconds to watch for what must not


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1\r\n\r\n2345"
CLOSE = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"


# The protocol part.


@pytest.mark.parametrize("request_", [GET, POST, b"\r\n" + GET], ids=["get", "post", "empty line first"])
def test_a_request_cut_anywhere_counts_once_and_only_when_complete(request_: bytes) -> None:
    for cut in range(1, len(request_)):
        requests = Requests()
        assert [requests.feed(request_[:cut]), requests.feed(request_[cut:])] == [0, 1]
        assert not requests.finished


def test_requests_that_come_byte_by_byte_count_with_their_last_byte() -> None:
    requests = Requests()
    stream = GET + POST + GET
    ends = {len(GET), len(GET + POST), len(stream)}
    for position, byte in enumerate(stream, 1):
        assert requests.feed(bytes([byte])) == (position in ends)


@pytest.mark.parametrize("request_", [GET, POST], ids=["get", "post"])
def test_pipelined_requests_cut_anywhere_all_count(request_: bytes) -> None:
    stream = request_ * 64
    assert Requests().feed(stream) == 64
    for cut in range(len(stream)):
        requests = Requests()
        first = requests.feed(stream[:cut])
        assert first == cut // len(request_)
        assert requests.feed(stream[cut:]) == 64 - first


@pytest.mark.parametrize(
    ("head", "goes_on"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET / HTTP/1.1\r\nConnection: close", False),
        (b"GET / HTTP/1.1\r\nCONNECTION:Close", False),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive", True),
        (b"GET /close HTTP/1.1\r\nX-Connection: close", True),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive", True),
        (b"GET /", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", False),
        (b"POST / HTTP/1.1\r\nContent-Length: -1", False),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000, False),
    ],
)
def test_the_conversation_goes_on_as_the_client_wishes(head: bytes, goes_on: bool) -> None:
    requests = Requests()
    assert requests.feed(head + b"\r\n\r\n" + GET) == 1 + goes_on
    assert requests.finished is not goes_on


def test_the_last_request_is_finished_with_its_body() -> None:
    requests = Requests()
    assert requests.feed(b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nabcd") == 0
    assert not requests.finished
    assert requests.feed(b"e" + GET) == 1
    assert requests.finished


def test_a_body_is_not_kept() -> None:
    requests = Requests()
    assert requests.feed(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n") == 0
    assert [requests.feed(b"\r\n\r\n " * 10_000) for _ in range(20)] == [0] * 19 + [1]
    assert not requests.finished


@pytest.mark.parametrize("piece", [1000, 65536, 70_000])
def test_a_head_without_end_ends_the_conversation(piece: int) -> None:
    requests = Requests()
    fed = 0
    while not requests.finished:
        assert fed <= MAX_HEAD
        assert requests.feed(b"x" * piece) == 0
        fed += piece
    assert fed > MAX_HEAD


# The whole server.

BACKENDS = sorted(polling.available_backends())


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["http_hello", "http_hello_edge"])
def address(request: pytest.FixtureRequest, backend: str) -> Iterator[tuple[str, int]]:
    """Where a server on the backend listens, which must end by itself when it is told to."""
    script = ROOT / "examples" / f"{request.param}.py"
    with drive.Server("-W", "error", script, "--backend", backend, "--port", "0") as server:
        yield server.address
    assert server.status == 0 or sys.platform == "win32"


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=PATIENCE)


def receive(stream: socket.socket, size: int) -> bytes:
    """Read that many bytes, or up to the end."""
    data = bytearray()
    while len(data) < size and (more := stream.recv(min(size - len(data), 1 << 16))):
        data += more
    return bytes(data)


def ask(stream: socket.socket, request: bytes = GET) -> None:
    """Ask once, and have the right answer."""
    stream.sendall(request)
    assert receive(stream, len(RESPONSE)) == RESPONSE


def test_a_stock_client_understands_the_answer(address: tuple[str, int]) -> None:
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/", timeout=PATIENCE) as answer:
        assert (answer.status, answer.headers["Content-Type"], answer.read()) == (200, "text/html", b"hello\n")


def test_four_kinds_of_clients_get_every_answer(address: tuple[str, int]) -> None:
    assert drive.drive(address, 4000, 32) == 0


def test_keep_alive_serves_on_and_close_closes(address: tuple[str, int]) -> None:
    with connect(address) as stream:
        for request in (GET, POST, b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", CLOSE):
            ask(stream, request)
        assert stream.recv(1) == b""


def test_a_half_closed_client_gets_its_answers(address: tuple[str, int]) -> None:
    with connect(address) as stream:
        stream.sendall(GET * 3)
        stream.shutdown(socket.SHUT_WR)
        assert receive(stream, 4 * len(RESPONSE)) == RESPONSE * 3


def test_a_head_without_end_is_cut_off(address: tuple[str, int]) -> None:
    with connect(address) as stream:
        try:
            stream.sendall(b"x" * 200_000)
            assert stream.recv(1) == b""
        except ConnectionError:
            pass  # closed with unread data, which the peer learns as a reset


def test_peers_that_reset_disturb_nobody(address: tuple[str, int]) -> None:
    linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # closing resets
    with connect(address) as witness:
        for sent in (b"", GET[:5], GET, GET * 20_000):
            with connect(address) as stream:
                stream.setblocking(False)
                stream.send(sent)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            ask(witness)


COUNTING = """
import pathlib, runpy, sys
import polling

def poll(self, *arguments, wait=polling.Poll.poll):
    global waits
    waits += 1
    return wait(self, *arguments)

waits = 0
polling.Poll.poll = poll
_, limit, out, *sys.argv = sys.argv
if limit != "none":
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
pathlib.Path(out).write_text(str(waits))
"""  # the server, with few descriptors perhaps, and how often it waited


def test_a_client_that_does_not_read_is_not_read_from(backend: str, tmp_path: Path) -> None:
    out = tmp_path / "waits"
    block = GET * 1000
    asked = 0
    with (
        drive.Server("-c", COUNTING, "none", out, drive.SERVER, "--backend", backend, "--port", "0") as server,
        connect(server.address) as witness,
        connect(server.address) as stream,
    ):
        while select([], [stream], [], SILENCE)[1]:  # until the buffers are full, its own and the server's
            asked += stream.send(block[asked % len(GET) : len(GET) * 100])
            assert asked < 100 << 20, "the server takes in requests without end"
        ask(witness)
        complete, begun = divmod(asked, len(GET))
        assert receive(stream, complete * len(RESPONSE)) == RESPONSE * complete
        ask(stream, GET[begun:])
    if sys.platform != "win32":  # where the server is ended before it can tell
        assert int(out.read_text()) < complete // 10, "the server span"


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of descriptors can be set there")
def test_a_server_without_descriptors_parks_its_listener_and_serves_again(backend: str, tmp_path: Path) -> None:
    out = tmp_path / "waits"
    clients: list[socket.socket] = []
    begin = monotonic()
    with (
        ExitStack() as stack,
        drive.Server("-c", COUNTING, "64", out, drive.SERVER, "--backend", backend, "--port", "0") as server,
    ):
        for _ in range(90):
            clients.append(stack.enter_context(connect(server.address)))
            clients[-1].sendall(GET)
        served: list[socket.socket] = []
        while ready := select(clients, [], [], SILENCE if served else PATIENCE)[0]:
            for client in ready:
                assert receive(client, len(RESPONSE)) == RESPONSE
                clients.remove(client)
                served.append(client)
        assert len(clients) > 90 - 64, "there were descriptors enough: nothing was tested"
        for client in served:
            client.close()
        for client in clients:
            assert receive(client, len(RESPONSE)) == RESPONSE
    parked = (monotonic() - begin) / http_hello.PARKED
    assert int(out.read_text()) < 4 * 90 + 4 * parked, "the server span"


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no port can be shared there")
@pytest.mark.parametrize(
    ("backend", "processes", "clients"),
    [
        *((backend, 3, 300) for backend in BACKENDS),
        pytest.param(next(iter(polling.available_backends())), 4, 10_000, marks=pytest.mark.slow),
    ],
)
def test_processes_share_the_connections_and_end_together(backend: str, processes: int, clients: int) -> None:
    if missing := raise_limit(clients + 100):
        pytest.skip(f"{missing} descriptors are missing")
    command = (drive.SERVER, "--backend", backend, "--port", "0", "--processes", str(processes))
    with drive.Server("-W", "error", *command) as server, ExitStack() as stack:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        others = children.read_text().split() if children.exists() else []
        for _ in range(clients):
            ask(stack.enter_context(connect(server.address)))
        if others:
            assert len(others) == processes - 1
            for pid in (server.process.pid, *others):
                sockets = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
                shared = sum(name.startswith("socket:") for name in sockets)
                assert shared > clients / processes / 2, "not half its share"
    assert server.status == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in others)
    with pytest.raises(ConnectionRefusedError):
        connect(server.address)


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be sent a SIGINT of its own there")
def test_an_interrupt_ends_the_server_cleanly(backend: str) -> None:
    with drive.Server(drive.SERVER, "--backend", backend, "--port", "0") as server, connect(server.address) as stream:
        ask(stream)
        server.process.send_signal(signal.SIGINT)
        assert stream.recv(1) == b""
        assert server.process.wait(PATIENCE) == 0
