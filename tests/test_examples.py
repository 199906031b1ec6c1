"""The examples beside http_hello, each as a process of its own, on every backend."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from select import select

import drive
import proxy
import pytest
from serving import announce

import polling
from polling.net import TcpListener

EXAMPLES = Path(__file__).parents[1] / "examples"
SERVERS = ["discard", "count", "http_hello", "http_hello_edge", "multi_echo", "proxy", "workers_http", "chat"]
PATIENCE = 20.0  # seconds to wait for what must come
ON_WINE = "WINEPREFIX" in os.environ and sys.platform == "win32"
RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # for SO_LINGER: closing resets


@pytest.fixture(params=sorted(polling.available_backends()))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def listener(clients: ExitStack) -> socket.socket:
    """A listener, for the proxy to connect to or to be in the way."""
    listener = clients.enter_context(socket.create_server(("127.0.0.1", 0)))
    listener.settimeout(PATIENCE)
    return listener


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serve(stack: ExitStack, script: str, backend: str, *arguments: str) -> tuple[str, int]:
    """Start one of the examples, and say where it listens. A warning would be an error there."""
    server = drive.Server("-W", "error", EXAMPLES / f"{script}.py", "--backend", backend, *arguments)
    return stack.enter_context(server).address


def connect(stack: ExitStack, address: tuple[str, int]) -> socket.socket:
    return stack.enter_context(socket.create_connection(address, timeout=PATIENCE))


def receive_all(stream: socket.socket) -> bytes:
    """Read up to the end."""
    data = bytearray()
    while more := stream.recv(1 << 16):
        data += more
    return bytes(data)


def test_discard_takes_everything_and_answers_nothing(backend: str, clients: ExitStack) -> None:
    address = serve(clients, "discard", backend, "--port", "0")
    streams = [connect(clients, address) for _ in range(3)]
    for stream in streams:
        stream.sendall(bytes(4 << 20))
        stream.shutdown(socket.SHUT_WR)
    assert [receive_all(stream) for stream in streams] == [b""] * 3


def test_discard_outlives_a_client_that_resets(backend: str, clients: ExitStack) -> None:
    address = serve(clients, "discard", backend, "--port", "0")
    rude = connect(clients, address)
    rude.sendall(b"x")
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    rude.close()
    polite = connect(clients, address)
    polite.sendall(b"x")
    polite.shutdown(socket.SHUT_WR)
    assert receive_all(polite) == b""


def test_count_counts_all_of_it(backend: str, clients: ExitStack) -> None:
    address = serve(clients, "count", backend, "--port", "0")
    with connect(clients, address) as stream, stream.makefile("rb") as answers:
        for message in (b"hello", b"x" * 3, b"!"):
            stream.sendall(message)
            assert answers.readline() == b"Received %d bytes\n" % len(message)
        stream.sendall(bytes(1 << 20))  # comes in pieces, and each is counted once
        stream.shutdown(socket.SHUT_WR)
        assert sum(int(line.split()[1]) for line in answers) == 1 << 20


def test_count_answers_the_last_words_of_a_client_that_half_closes(backend: str, clients: ExitStack) -> None:
    stream = connect(clients, serve(clients, "count", backend, "--port", "0"))
    stream.sendall(b"bye")
    stream.shutdown(socket.SHUT_WR)
    assert receive_all(stream) == b"Received 3 bytes\n"


# The proxy.


def through(stack: ExitStack, listener: socket.socket, backend: str) -> tuple[socket.socket, socket.socket]:
    """Connect through a new proxy; give both ends."""
    host, port = listener.getsockname()
    address = serve(stack, "proxy", backend, "--port", "0", "--to", f"{host}:{port}")
    near = connect(stack, address)
    far = stack.enter_context(listener.accept()[0])
    far.settimeout(PATIENCE)
    return near, far


def send_and_hash(stream: socket.socket, seed: int, megabytes: int) -> str:
    block = hashlib.shake_128(bytes([seed])).digest(1 << 20)
    sent = hashlib.blake2b()
    for turn in range(megabytes):
        piece = block[turn:] + block[:turn]
        sent.update(piece)
        stream.sendall(piece)
    stream.shutdown(socket.SHUT_WR)
    return sent.hexdigest()


def receive_and_hash(stream: socket.socket) -> str:
    received = hashlib.blake2b()
    while data := stream.recv(1 << 18):
        received.update(data)
    return received.hexdigest()


@pytest.mark.parametrize("megabytes", [16, pytest.param(1024, marks=pytest.mark.slow)])
def test_the_proxy_carries_every_byte_both_ways_at_once(
    backend: str, clients: ExitStack, listener: socket.socket, megabytes: int
) -> None:
    near, far = through(clients, listener, backend)
    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(send_and_hash, stream, seed, megabytes) for seed, stream in enumerate((near, far))]
        received = [threads.submit(receive_and_hash, stream) for stream in (far, near)]
        assert [job.result() for job in sent] == [job.result() for job in received]


def test_the_proxy_passes_on_a_half_close_and_goes_on(
    backend: str, clients: ExitStack, listener: socket.socket
) -> None:
    near, far = through(clients, listener, backend)
    near.sendall(b"that is all")
    near.shutdown(socket.SHUT_WR)
    assert receive_all(far) == b"that is all"
    far.sendall(b"not yet")
    assert near.recv(100) == b"not yet"
    far.close()
    assert near.recv(100) == b""


@pytest.mark.xfail(ON_WINE, reason="Wine's recv makes an end of a reset, and the proxy passes that on", strict=True)
@pytest.mark.parametrize("breaks", ["client", "server"])
def test_the_proxy_passes_on_a_reset(backend: str, clients: ExitStack, listener: socket.socket, breaks: str) -> None:
    near, far = through(clients, listener, backend)
    ends = (near, far) if breaks == "client" else (far, near)
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    ends[0].close()
    with pytest.raises(ConnectionError):
        meet_a_reset(ends[1])


def test_the_proxy_resets_clients_of_a_server_that_is_not_there(backend: str, clients: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    address = serve(clients, "proxy", backend, "--port", "0", "--to", f"127.0.0.1:{port}")
    for _ in range(2):  # and is still there for the next
        with pytest.raises(ConnectionError):
            meet_a_reset(connect(clients, address))


def meet_a_reset(sock: socket.socket) -> None:
    """Wait for the end and send, which raises after a reset alone. Wine's recv cannot tell it from an end in order."""
    assert select([sock], [], [], PATIENCE)[0]
    sock.send(b"x")


def test_the_proxy_slows_a_sender_down(backend: str, clients: ExitStack, listener: socket.socket) -> None:
    near, far = through(clients, listener, backend)
    sent = 0
    near.setblocking(False)
    while select([], [near], [], 0.5)[1]:
        sent += near.send(bytes(1 << 16))
        assert sent < 256 << 20, "the proxy takes in bytes without end"
    near.shutdown(socket.SHUT_WR)
    assert len(receive_all(far)) == sent


def test_a_flow_never_holds_more_than_its_buffer() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(TcpListener.open(("127.0.0.1", 0)))
        feed = connect(stack, listener.getsockname())
        source = stack.enter_context(listener.accept()[0])
        sink = connect(stack, listener.getsockname())
        target = stack.enter_context(listener.accept()[0])
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        feed.setblocking(False)
        flow = proxy.Flow(source, target)
        for _ in range(200):
            try:
                feed.send(bytes(1 << 17))
            except BlockingIOError:
                pass
            flow.move()
            assert len(flow.unsent) <= proxy.BUFFER == 64 << 10
        assert flow.unsent, "the target was never full: nothing was tested"
        assert not flow.receives()
        assert sink.recv(1)


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be sent a SIGINT of its own there")
@pytest.mark.parametrize(
    ("script", "number"), [*((script, signal.SIGINT) for script in SERVERS), ("discard", signal.SIGTERM)]
)
def test_a_signal_ends_a_server_cleanly(
    script: str, number: signal.Signals, clients: ExitStack, listener: socket.socket, capfd: pytest.CaptureFixture[str]
) -> None:
    to = ["--to", f"127.0.0.1:{listener.getsockname()[1]}"] if script == "proxy" else []
    with drive.Server("-W", "error", EXAMPLES / f"{script}.py", "--port", "0", *to) as server:
        connect(clients, server.address)
        server.process.send_signal(number)
        assert server.process.wait(PATIENCE) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("script", "option", "said"),
    [
        *((script, "--port={taken}", "cannot listen on 127.0.0.1:{taken}: ") for script in SERVERS),
        ("discard", "--port=70000", "cannot listen on 127.0.0.1:70000: bind(): port must be 0-65535"),
        ("discard", "--backend=nonsense", "there is no backend 'nonsense'; there are: "),
        ("ticker", "--backend=nonsense", "there is no backend 'nonsense'; there are: "),
        *(("ticker", f"--every={wrong}", "--every takes more than 0 seconds") for wrong in ("0", "nan", "inf")),
    ],
)
def test_an_example_that_cannot_start_says_why_in_a_line(
    script: str, option: str, said: str, listener: socket.socket
) -> None:
    taken = listener.getsockname()[1]
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{script}.py"), option.format(taken=taken)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert said.format(taken=taken) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert (done.stdout, done.returncode > 0) == ("", True)


def test_a_server_on_ipv6_says_where_as_browsers_write_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TcpListener, "getsockname", lambda _: ("::1", 8080, 0, 0))  # which not every machine has
    with polling.Poll[None]() as poll, TcpListener.open(("127.0.0.1", 0)) as listener:
        announce(poll, listener, "http://")
    assert capsys.readouterr().out.startswith("listening on http://[::1]:8080 (")


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda script: script.stem)
def test_an_example_is_short(script: Path) -> None:
    assert len(script.read_text("utf-8").splitlines()) <= 200


# The tutorial.

TUTORIAL = EXAMPLES.parent / "docs" / "tutorial.md"
BLOCKS = re.findall(r"^```(\w+) ?(.*)\n((?:.*\n)*?)```$", TUTORIAL.read_text("utf-8"), re.MULTILINE)
FRAGMENTS = [(name, code) for language, name, code in BLOCKS if language == "python" and name != "run"]
PROGRAMS = [(block[2], answer[2]) for block, answer in itertools.pairwise(BLOCKS) if block[:2] == ("python", "run")]
WATCH_PIPES = [
    name for name, kind in polling.available_backends().items() if polling.Capability.PIPES in kind.capabilities
]


@pytest.mark.parametrize(("name", "code"), FRAGMENTS, ids=[name for name, _ in FRAGMENTS])
def test_the_tutorial_shows_what_the_file_says(name: str, code: str) -> None:
    assert "\n" + code in (EXAMPLES.parent / name).read_text("utf-8")


@pytest.mark.parametrize("backend", WATCH_PIPES)
@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=["sendall", "modes"])
def test_the_tutorials_programs_print_what_it_says(
    program: str, output: str, backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLLING_BACKEND", backend)
    exec(program, {})
    assert capsys.readouterr().out == output


# User space.


def test_hello_comes_through_the_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "hello_pipe.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("pipe: hello\n", "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be sent a SIGINT of its own there")
def test_the_ticker_ticks_and_quits_on_sigint(backend: str) -> None:
    program = [sys.executable, "-W", "error", str(EXAMPLES / "ticker.py"), "--every", "0.01", "--backend", backend]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ticker:
        assert ticker.stdout is not None
        assert ticker.stderr is not None
        try:
            assert [ticker.stdout.readline() for _ in range(3)] == ["tick 1\n", "tick 2\n", "tick 3\n"]
            ticker.send_signal(signal.SIGINT)
            assert ticker.wait(60) == 0
        finally:
            ticker.kill()
        *_, last = ticker.stdout.read().splitlines()
        assert last.endswith(" ticks, and that is it")
        assert ticker.stderr.read() == ""
