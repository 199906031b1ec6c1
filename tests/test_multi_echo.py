"""Multi-echo, server and client, each as a process of its own, on every backend."""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from select import select
from time import monotonic

import drive
import pytest
from multi_echo import FULL, LONGEST_LINE
from serving import raise_limit, reset_on_close

import polling

EXAMPLES = Path(__file__).parents[1] / "examples"
BACKENDS = sorted(polling.available_backends())
PATIENCE = 30.0  # seconds to wait for what must come
SILENCE = 0.5  # seconds to watch for what must not

Address = tuple[str, int]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serve(stack: ExitStack, backend: str, *arguments: str) -> Address:
    server = drive.Server("-W", "error", EXAMPLES / "multi_echo.py", "--backend", backend, "--port", "0", *arguments)
    return stack.enter_context(server).address


def connect(stack: ExitStack, address: Address, window: int | None = None) -> socket.socket:
    """Connect, with a receive buffer of *window* bytes if it is not to be the system's choice."""
    client = stack.enter_context(socket.socket())
    if window is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.settimeout(PATIENCE)
    client.connect(address)
    return client


def hear(clients: list[socket.socket], lines: bytes) -> None:
    """Have each of *clients* receive *lines*, and nothing else."""
    heard = dict.fromkeys(clients, 0)
    deadline = monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ, client)
        while selector.get_map():
            assert monotonic() < deadline, f"{len(selector.get_map())} of {len(clients)} clients miss something"
            for key, _ in selector.select(1):
                client = key.data
                data = client.recv(len(lines) - heard[client])
                assert data, "a client was disconnected"
                assert lines.startswith(data, heard[client])
                heard[client] += len(data)
                if heard[client] == len(lines):
                    selector.unregister(client)


def speak_without_end(client: socket.socket) -> None:
    while True:
        client.sendall(b"x\n" * 10_000)


def receive_all(client: socket.socket) -> bytes:
    """Read up to the end. ConnectionError: there was none, but a reset."""
    data = bytearray()
    while more := client.recv(1 << 16):
        data += more
    return bytes(data)


def meet_a_reset(client: socket.socket) -> None:
    """Read up to the end and send, which raises after a reset alone. Wine's recv cannot tell it from a proper end."""
    receive_all(client)
    client.send(b"x")


# The server.


@pytest.mark.parametrize(
    ("backend", "crowd"),
    [(backend, 500 if backend == "epoll" else 50) for backend in BACKENDS]
    + [pytest.param(backend, 500, marks=pytest.mark.slow) for backend in BACKENDS if backend != "epoll"],
)
def test_nobody_misses_anything_by_those_who_never_read_or_reset(backend: str, crowd: int, stack: ExitStack) -> None:
    if missing := raise_limit(crowd + 100):
        pytest.skip(f"{missing} descriptors are missing")
    address = serve(stack, backend, "--patience", "0.3", "--clients", str(crowd))
    deaf = [connect(stack, address, window=4096) for _ in range(crowd // 5)]
    rude = [connect(stack, address) for _ in range(crowd // 10)]
    clients = [connect(stack, address) for _ in range(crowd - len(deaf) - len(rude))]
    clients[-1].sendall(b"all here?\n")  # who connected last is accepted last
    hear(clients, b"all here?\n")
    said = 0
    for number in range(24):
        # A line is heard by all before the next is said, so a client who reads is never full.
        line = b"%d:%s\n" % (number, bytes(FULL // 8))
        if number == 2:
            for client in rude:
                client.sendall(b"this is")
        if number == 4:
            for client in rude:
                reset_on_close(client)
                client.close()
        clients[number].sendall(line)
        hear(clients, line)
        said += len(line)
    for client in deaf:
        with suppress(ConnectionError):
            assert len(receive_all(client)) < said, "who never read was not disconnected"
    clients[0].sendall(b"still here?\n")
    hear(clients, b"still here?\n")


def test_who_does_not_read_for_a_while_holds_up_all_and_misses_nothing(backend: str, stack: ExitStack) -> None:
    address = serve(stack, backend, "--patience", "1000")
    slow = connect(stack, address)
    speaker = connect(stack, address)
    line = b"x" * 9_999 + b"\n"
    speaker.setblocking(False)
    sent = 0
    while select([], [speaker], [], SILENCE)[1]:
        sent += speaker.send(line[sent % len(line) :])
        assert sent < 64 << 20, "the server takes in lines without end"
    speaker.settimeout(PATIENCE)
    with ThreadPoolExecutor(2) as threads:
        heard = [threads.submit(receive_all, client) for client in (slow, speaker)]
        speaker.sendall(line[sent % len(line) :])
        speaker.shutdown(socket.SHUT_WR)
        said = line * (sent // len(line) + 1)
        assert heard[1].result() == said
        slow.shutdown(socket.SHUT_WR)
        assert heard[0].result() == said


def test_who_never_reads_is_reset_and_does_not_take_it_for_the_end(backend: str, stack: ExitStack) -> None:
    address = serve(stack, backend, "--patience", "0.1")
    deaf = connect(stack, address, window=4096)
    speaker = connect(stack, address)
    for _ in range(20):
        speaker.sendall(bytes(LONGEST_LINE - 1) + b"\n")
        hear([speaker], bytes(LONGEST_LINE - 1) + b"\n")
    with pytest.raises(ConnectionError):
        meet_a_reset(deaf)


def test_who_speaks_without_end_and_never_reads_is_disconnected(backend: str, stack: ExitStack) -> None:
    address = serve(stack, backend, "--patience", "0.1")
    rude = connect(stack, address)
    with pytest.raises(ConnectionError):
        speak_without_end(rude)
    client = connect(stack, address)
    client.sendall(b"still here?\n")
    hear([client], b"still here?\n")


def test_what_one_client_says_in_pieces_is_not_mixed_with_what_another_says(backend: str, stack: ExitStack) -> None:
    address = serve(stack, backend)
    one, other = connect(stack, address), connect(stack, address)
    one.sendall(b"one begins, ")
    other.sendall(b"other speaks\n")
    hear([one, other], b"other speaks\n")
    one.sendall(b"and ends\n")
    hear([one, other], b"one begins, and ends\n")


def test_a_line_without_end_ends_the_connection_and_is_heard_by_nobody(backend: str, stack: ExitStack) -> None:
    address = serve(stack, backend)
    endless, other = connect(stack, address), connect(stack, address)
    with suppress(ConnectionError):
        endless.sendall(bytes(4 * LONGEST_LINE))
        assert receive_all(endless) == b""
    other.sendall(b"alone\n")
    hear([other], b"alone\n")


def test_the_last_words_of_a_client_that_half_closes_are_heard(backend: str, stack: ExitStack) -> None:
    address = serve(stack, backend)
    other, client = connect(stack, address), connect(stack, address)
    client.sendall(b"one\ntwo\n")
    client.shutdown(socket.SHUT_WR)
    assert receive_all(client) == b"one\ntwo\n"
    hear([other], b"one\ntwo\n")


def test_who_finds_no_place_waits_for_one(backend: str, stack: ExitStack) -> None:
    address = serve(stack, backend, "--clients", "2")
    one, two = connect(stack, address), connect(stack, address)
    three = connect(stack, address)
    three.sendall(b"three\n")
    two.sendall(b"two\n")
    hear([one, two], b"two\n")
    two.close()
    hear([one, three], b"three\n")


LIMITED = """
import pathlib, resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
sys.argv[:2] = []
sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""  # the server, with 64 descriptors, and so many if it asks for them


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of descriptors can be set there")
def test_the_server_raises_its_limit_of_descriptors(backend: str, stack: ExitStack) -> None:
    script = EXAMPLES / "multi_echo.py"
    server = drive.Server("-c", LIMITED, "200", script, "--backend", backend, "--port", "0", "--clients", "100")
    address = stack.enter_context(server).address
    clients = [connect(stack, address) for _ in range(100)]
    clients[-1].sendall(b"all here?\n")
    hear(clients, b"all here?\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of descriptors can be set there")
def test_the_server_says_how_many_descriptors_are_missing() -> None:
    command = [sys.executable, "-c", LIMITED, "100", str(EXAMPLES / "multi_echo.py"), "--clients", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "for 100 clients 32 descriptors are missing" in done.stderr
    assert done.returncode > 0


# The client.


def talking(backend: str, address: Address) -> list[str]:
    host, port = address
    script = str(EXAMPLES / "multi_echo_client.py")
    return [sys.executable, "-W", "error", script, "--backend", backend, "--host", host, "--port", str(port)]


def test_two_clients_talk(backend: str, stack: ExitStack) -> None:
    address = serve(stack, backend)
    command = talking(backend, address)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        try:
            first.stdin.write(b"first\n")
            first.stdin.flush()
            assert first.stdout.readline() == b"first\n"
            second = subprocess.run(command, input=b"second\nand last\n", capture_output=True, timeout=60, check=False)
            assert (second.stdout, second.stderr, second.returncode) == (b"second\nand last\n", b"", 0)
            out, err = first.communicate(timeout=60)
            assert (out, err, first.returncode) == (b"second\nand last\n", b"", 0)
        finally:
            first.kill()


def test_a_client_sends_more_than_the_server_takes_at_once(backend: str, stack: ExitStack) -> None:
    lines = b"".join(b"%d\n" % number for number in range(300_000))
    done = subprocess.run(
        talking(backend, serve(stack, backend)), input=lines, capture_output=True, timeout=60, check=False
    )
    assert (done.stdout == lines, done.stderr, done.returncode) == (True, b"", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be sent a SIGINT of its own there")
@pytest.mark.parametrize("ends", ["client", "server"])
def test_a_client_ends_well_when_interrupted_and_complains_when_left(ends: str, stack: ExitStack) -> None:
    server = stack.enter_context(drive.Server(EXAMPLES / "multi_echo.py", "--port", "0"))
    command = talking("poll", server.address)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(b"here\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"here\n"
            (process if ends == "client" else server.process).send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == (0 if ends == "client" else 1)
            said = process.stderr.read().decode()
            host, port = server.address
            assert said == ("" if ends == "client" else f"{host}:{port} has ended the conversation\n")
        finally:
            process.kill()


def test_a_client_without_a_server_says_so(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    done = subprocess.run(talking(backend, address), input="", capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.startswith(f"127.0.0.1:{address[1]}: ")
    assert (done.stdout, done.stderr.count("\n"), done.returncode) == ("", 1, 1)
