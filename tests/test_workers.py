"""The server of many threads, under HTTP and under WebSocket, on every backend."""

from __future__ import annotations

import errno
import hashlib
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from select import select
from threading import Event, Semaphore, Thread, current_thread
from time import sleep
from typing import Any

import drive
import pytest
import workers_connection
from in_thread import serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from workers_connection import MAIL, STEPS, Connection, Protocol
from workers_http import BODY, Http, Request, Response, hash_body
from workers_websocket import Echo, Post, Session, WebSocket

import polling
from polling import Poll
from polling.net import TcpListener, TcpStream

EXAMPLES = Path(__file__).parents[1] / "examples"
PATIENCE = 30.0  # seconds to wait for what must come
SILENCE = 0.3  # seconds in which nothing must happen
RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # for SO_LINGER: closing resets
NAMES = ("127.0.0.1", "localhost")

Factory = Callable[[Connection], Protocol]


@pytest.fixture(params=sorted(polling.available_backends()))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Counted(Http):
    """Tells of its end."""

    over = Semaphore(0)

    def closed(self) -> None:
        self.over.release()


def dial(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=PATIENCE)


def receive_all(stream: socket.socket) -> bytes:
    """Read up to the end."""
    data = bytearray()
    while more := stream.recv(1 << 16):
        data += more
    return bytes(data)


def post(body: bytes, *headers: str) -> bytes:
    """Make a request."""
    lines = ["POST / HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def reset(stream: socket.socket) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stream.close()


def say_back(request: Request) -> Response:
    return Response(request.body)


def http(application: Callable[[Request], Response] = say_back) -> Factory:
    return partial(Http, application=application)


# HTTP.


def test_a_posted_body_is_hashed(backend: str) -> None:
    body = bytes(range(256)) * 4096
    with serving(backend, http(partial(hash_body, times=10))) as address:
        client = HTTPConnection(*address, timeout=PATIENCE)
        for sent in (body, iter([body[:1000], body[1000:]])):  # with its length, and in chunks
            client.request("POST", "/", sent, encode_chunked=not isinstance(sent, bytes))
            assert client.getresponse().read().decode() == hashlib.blake2b(body * 10).hexdigest() + "\n"
        client.request("HEAD", "/")
        assert (client.getresponse().status, client.sock is not None) == (405, True)
        client.close()


def test_the_work_is_done_by_the_workers_at_the_same_time(backend: str) -> None:
    together = [Event(), Event()]
    names = []

    def work(request: Request) -> Response:
        mine = int(request.body)
        together[mine].set()
        assert together[1 - mine].wait(PATIENCE), "one worker waits for the other, which never came"
        names.append(current_thread().name)
        return Response(b"")

    with serving(backend, http(work), 2) as address, dial(address) as first, dial(address) as second:
        first.sendall(post(b"0"))
        second.sendall(post(b"1"))
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        assert second.recv(100).startswith(b"HTTP/1.1 200")
    assert sorted(names) == ["worker 0", "worker 1"]


def test_who_works_does_not_keep_others_waiting(backend: str) -> None:
    begun, end = Event(), Event()

    def work(request: Request) -> Response:
        if request.body == b"long":
            begun.set()
            assert end.wait(PATIENCE)
        return Response(request.body)

    with serving(backend, http(work), 2) as address, dial(address) as long:
        long.sendall(post(b"long"))
        assert begun.wait(PATIENCE)
        for _ in range(3):
            with dial(address) as short:
                short.sendall(post(b"short", "Connection: close"))
                assert receive_all(short).endswith(b"short")
        end.set()
        assert long.recv(1000).endswith(b"long")


def test_requests_at_once_are_answered_in_their_order(backend: str) -> None:
    bodies = [b"<%d>" % number for number in range(3 * STEPS)]
    with serving(backend, http()) as address, dial(address) as client:
        client.sendall(b"".join(map(post, bodies)))
        client.shutdown(socket.SHUT_WR)
        answers = receive_all(client)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == len(bodies)
    positions = [answers.index(body) for body in bodies]
    assert positions == sorted(positions)


def test_who_does_not_read_is_not_read_from(backend: str) -> None:
    large = bytes(range(256)) * 4096
    request = post(b"x")
    with serving(backend, http(lambda _: Response(large))) as address, dial(address) as client:
        client.setblocking(False)
        sent = 0
        while select([], [client], [], SILENCE)[1]:
            sent += client.send((request * 1000)[sent % len(request) :])
            assert sent < 64 << 20, "the server takes in requests without end"
        client.settimeout(PATIENCE)
        client.shutdown(socket.SHUT_WR)
        data = bytearray()
        while len(data) < 3 * len(large):
            data += client.recv(1 << 20)
        assert data.count(large) >= 2
        reset(client)


def test_an_error_in_a_worker_costs_one_answer(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(request: Request) -> Response:
        if request.body == b"fail":
            raise RuntimeError("as it was told")
        return Response(b"ok")

    with serving(backend, http(fail), 1) as address, dial(address) as client:
        for body in (b"fail", b"go on", b"fail"):
            client.sendall(post(body))
            status = b"500" if body == b"fail" else b"200"
            assert client.recv(1000).split()[1] == status
    assert capfd.readouterr().err.count("RuntimeError: as it was told") == 2


def test_a_mistake_in_a_protocol_costs_one_connection(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    class Wrong(Counted):
        over = Semaphore(0)

        def receive(self, data: bytes) -> None:
            if data == b"wrong":
                raise LookupError("a mistake")
            super().receive(data)

    with serving(backend, partial(Wrong, application=say_back), 1) as address:
        with dial(address) as client:
            client.sendall(b"wrong")
            assert client.recv(1) == b""
        with dial(address) as client:
            client.sendall(post(b"right", "Connection: close"))
            assert receive_all(client).endswith(b"right")
        for _ in range(2):
            assert Wrong.over.acquire(timeout=PATIENCE), "a protocol was not told of its end"
        assert not Wrong.over.acquire(blocking=False)
    assert "LookupError: a mistake" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (1 << 17), 431),
        (post(b"")[:-2], 400),  # and no more: it ends in the middle
    ],
)
def test_a_wrong_request_is_the_last_one(backend: str, request_: bytes, status: int) -> None:
    with serving(backend, http()) as address, dial(address) as client:
        client.sendall(post(b"right") + request_)
        client.shutdown(socket.SHUT_WR)
        answers = receive_all(client)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b"rightHTTP/1.1 %d " % status in answers
    assert b"\r\nConnection: close\r\n" in answers


def test_what_is_wrong_after_a_head_gets_a_body(backend: str) -> None:
    with serving(backend, http()) as address, dial(address) as client:
        client.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n")
        assert receive_all(client).endswith(b"\r\n\r\nBad Request\n")


def test_who_sends_too_much_is_told_so_and_may_finish(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_connection, "LINGER", PATIENCE)
    with serving(backend, http()) as address, dial(address) as client:
        client.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * BODY}\r\n\r\n".encode())
        client.sendall(bytes(BODY + 1))
        answer = client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert select([client], [], [], PATIENCE)[0], "the server does not finish"
        for _ in range(10):  # a server that has closed answers one of these with a reset
            client.sendall(bytes(1 << 12))
            sleep(SILENCE / 10)
        client.shutdown(socket.SHUT_WR)
        assert b"Connection: close\r\n" in answer + receive_all(client)


def test_who_waits_for_a_hundred_gets_it(backend: str) -> None:
    request = post(b"body", "Expect: 100-continue")
    with serving(backend, http()) as address, dial(address) as client:
        client.sendall(request[:-4])
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(request[-4:])
        assert client.recv(1000).endswith(b"body")


def test_clients_that_disconnect_at_any_moment_harm_nobody(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    class Mine(Counted):
        over = Semaphore(0)
        made = 0  # fewer than clients, perhaps: one that is reset early may never be seen

        def __init__(self, connection: Connection) -> None:
            super().__init__(connection, application=lambda _: Response(large))
            Mine.made += 1

    large = bytes(1 << 20)
    request = post(b"some body")
    with serving(backend, Mine) as address, dial(address) as polite:
        for end in (socket.socket.close, reset):
            for size in (0, 1, len(request) - 1, len(request), 3 * len(request)):
                for reads in (False, True):
                    client = dial(address)
                    client.sendall((request * 3)[:size])
                    if reads and size >= len(request):
                        assert client.recv(1000)
                    end(client)
        with dial(address) as last:
            last.sendall(post(b"", "Connection: close"))
            assert receive_all(last).endswith(large)
        for _ in range(Mine.made - 1):  # all but the polite one
            assert Mine.over.acquire(timeout=PATIENCE), "a connection is left over"
        polite.sendall(post(b"", "Connection: close"))
        assert receive_all(polite).endswith(large)
    assert capfd.readouterr().err == ""


def test_who_rests_too_long_is_given_up(backend: str) -> None:
    class Impatient(Http):
        patience = 0.05

    with serving(backend, partial(Impatient, application=say_back)) as address:
        with dial(address) as silent:
            assert silent.recv(1) == b""
        with dial(address) as slow:
            slow.sendall(post(b"body")[:-1])
            try:
                assert slow.recv(1) == b""
            except ConnectionResetError:
                pass  # it was given up before all that it had sent was read


def test_a_server_without_descriptors_waits_for_some(backend: str) -> None:
    class Exhausted(TcpListener):
        __slots__ = ("asked",)
        asked: bool

        def accept(self) -> tuple[TcpStream, Any]:
            if not hasattr(self, "asked"):
                self.asked = True
                raise OSError(errno.EMFILE, "no descriptor is free")
            return super().accept()

    with serving(backend, http(), listener_type=Exhausted) as address, dial(address) as client:
        client.sendall(post(b"at last"))
        assert client.recv(1000).endswith(b"at last")


def test_a_client_that_has_reset_before_it_is_accepted_harms_nobody(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "what macOS says of a stream that its peer has reset")

    monkeypatch.setattr(TcpStream, "setsockopt", refuse)
    with serving(backend, http()) as address, dial(address) as client:
        client.sendall(post(b"served"))
        assert client.recv(1000).endswith(b"served")


def test_the_listener_sleeps_when_all_rest_and_when_all_work(backend: str) -> None:
    waits = []
    begun, end = Event(), Event()

    class Watched(Poll[Any]):
        def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[polling.Event[Any]]:
            waits.append(timeout)
            return super().poll(timeout, max_events)

    def work(request: Request) -> Response:
        if request.body == b"work":
            begun.set()
            assert end.wait(PATIENCE)
        return Response(b"done")

    def is_quiet() -> bool:
        before = len(waits)
        sleep(SILENCE)
        return len(waits) == before

    with serving(backend, http(work), poll_type=Watched) as address, dial(address) as resting, dial(address) as working:
        working.sendall(post(b"warm up"))
        assert working.recv(1000).endswith(b"done")
        working.sendall(post(b"work"))
        assert begun.wait(PATIENCE)
        working.sendall(post(b"more"))  # which nobody reads now, nor is told of
        resting.sendall(b"POST")
        assert any(is_quiet() for _ in range(20)), "the listener's thread does not sleep"
        end.set()
        assert working.recv(1000).endswith(b"done")
    assert set(waits) == {None}


def test_what_has_begun_is_finished_when_the_server_ends(backend: str) -> None:
    begun, end, done = Event(), Event(), Event()

    def work(request: Request) -> Response:
        begun.set()
        assert end.wait(PATIENCE)
        done.set()
        return Response(b"finished")

    with ExitStack() as stack:
        address = stack.enter_context(serving(backend, http(work)))
        client = stack.enter_context(dial(address))
        client.sendall(post(b""))
        assert begun.wait(PATIENCE)
        ending = Thread(target=stack.pop_all().close)
        ending.start()
        end.set()
        ending.join(PATIENCE)
        assert done.is_set()


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be sent a SIGINT of its own there")
@pytest.mark.parametrize("script", ["workers_http", "workers_websocket", "chat"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_server_cleanly(script: str, number: signal.Signals) -> None:
    with drive.Server("-W", "error", EXAMPLES / f"{script}.py", "--port", "0") as server:
        with dial(server.address) as idle, dial(server.address) as half:
            half.sendall(b"GET / ")
            server.process.send_signal(number)
            assert receive_all(idle) == b""
        assert server.process.wait(PATIENCE) == 0


# WebSocket.


def websocket(session: Callable[[Post], Session] = Echo, limit: int = 16 << 20) -> Factory:
    upgrade = partial(WebSocket, session=session, names=NAMES, limit=limit)
    return partial(Http, application=say_back, upgrade=upgrade)


@contextmanager
def conversation(
    backend: str, session: Callable[[Post], Session] = Echo, limit: int = 16 << 20
) -> Iterator[ClientConnection]:
    """A client that is not ours, connected."""
    with serving(backend, websocket(session, limit)) as address, call(address) as client:
        yield client


def call(address: tuple[str, int]) -> ClientConnection:
    return connect(
        f"ws://{address[0]}:{address[1]}/",
        open_timeout=PATIENCE,
        close_timeout=PATIENCE,
        ping_interval=None,
        max_size=None,
        proxy=None,
    )


def test_messages_come_back(backend: str) -> None:
    messages: Sequence[str | bytes] = [
        "",
        b"",
        "hello",
        b"\0\xff",
        "Grüße, 世界 🌍",
        "x" * 125,
        "x" * 126,
        b"x" * 65_536,
    ]
    with conversation(backend) as client:
        for message in messages:
            client.send(message)
        assert [client.recv(PATIENCE) for _ in messages] == messages


def test_fragments_make_one_message_also_with_a_ping_in_between(backend: str) -> None:
    with conversation(backend) as client:

        def pieces() -> Iterator[str]:
            yield "Gr"
            assert client.ping().wait(PATIENCE), "no pong in the midst of a message"
            yield "ü"
            yield ""
            yield "ße"

        client.send(pieces())
        assert client.recv(PATIENCE) == "Grüße"
        client.send([b"\xc3", b"\xbc"])
        assert client.recv(PATIENCE) == b"\xc3\xbc"
        client.send("Grüße".encode(), text=True)
        assert client.recv(PATIENCE) == "Grüße"


def test_a_burst_of_small_messages_is_no_flood(backend: str) -> None:
    number = 4 * MAIL
    with conversation(backend) as client:
        with client.send_context():
            for count in range(number):
                client.protocol.send_text(b"%d" % count)
        assert [client.recv(PATIENCE) for _ in range(number)] == [str(count) for count in range(number)]


def test_ten_megabytes_come_back(backend: str) -> None:
    message = hashlib.shake_128(b"ten").digest(10_000_000)
    with conversation(backend) as client:
        client.send(message)
        assert client.recv(PATIENCE) == message


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (3000, "Grüße"), (4999, "x" * 123)])
def test_a_close_is_answered_in_kind(backend: str, code: int, reason: str) -> None:
    with conversation(backend) as client:
        client.close(code, reason)
        assert client.protocol.close_rcvd is not None
        assert (client.protocol.close_rcvd.code, client.protocol.close_rcvd.reason) == (code, reason)


def closed_with(client: ClientConnection) -> int:
    """Give the code with which the server closes."""
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(PATIENCE)
    assert caught.value.rcvd is not None, f"no close frame: {caught.value}"
    return caught.value.rcvd.code


def send_raw(client: ClientConnection, data: bytes) -> None:
    client.socket.sendall(data)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([b"\x81\x82\0\0\0\0\xc3\x28"], 1007),
        ([b"\x01\x81\0\0\0\0\xc3", b"\x80\x81\0\0\0\0\x28"], 1007),  # split between fragments
        ([b"\x81\x81\0\0\0\0\xc3"], 1007),  # cut off
        ([b"\x81\x01x"], 1002),  # not masked
        ([b"\x83\x80\0\0\0\0"], 1002),  # no such opcode
        ([b"\xc1\x80\0\0\0\0"], 1002),  # a reserved bit
        ([b"\x80\x80\0\0\0\0"], 1002),  # a continuation of nothing
        ([b"\x09\x80\0\0\0\0"], 1002),  # a ping in fragments
        ([b"\x88\x82\0\0\0\0\x03\xed"], 1002),  # closed with a code that must not be sent
    ],
)
def test_nonsense_is_refused(backend: str, frames: list[bytes], code: int) -> None:
    with conversation(backend) as client:
        for frame in frames:
            send_raw(client, frame)
        assert closed_with(client) == code


def test_a_message_beyond_the_limit_is_refused(backend: str) -> None:
    with conversation(backend, limit=1000) as client:
        client.send("x" * 1000)
        assert client.recv(PATIENCE) == "x" * 1000
        client.send([b"x" * 500, b"x" * 500])
        assert client.recv(PATIENCE) == b"x" * 1000
        with client.send_context():
            client.protocol.send_text(b"x" * 500, fin=False)
            client.protocol.send_continuation(b"x" * 501, fin=False)  # it is not whole yet, and too much already
        assert closed_with(client) == 1009


def test_an_error_in_a_session_ends_it(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    class Failing(Echo):
        def received(self, message: str | bytes) -> None:
            if message == "fail":
                raise RuntimeError("as it was told")
            super().received(message)

    with serving(backend, websocket(Failing)) as address, call(address) as other:
        with call(address) as client:
            client.send("fail")
            assert closed_with(client) == 1011
        other.send("go on")
        assert other.recv(PATIENCE) == "go on"
    assert "RuntimeError: as it was told" in capfd.readouterr().err


def test_clients_are_told_that_the_server_ends(backend: str) -> None:
    with ExitStack() as stack:
        address = stack.enter_context(serving(backend, websocket()))
        client = call(address)
        stack.pop_all().close()
        with client:
            assert closed_with(client) == 1001


def test_who_does_not_fetch_its_mail_is_given_up(backend: str) -> None:
    class Crowd(Session):
        """Everything that one says is told to all."""

        posts: list[Post] = []  # noqa: RUF012  # it is what all have in common
        gone = Event()

        def __init__(self, post: Post) -> None:
            self.posts.append(post)
            post("welcome")

        def received(self, message: str | bytes) -> None:
            for tell in list(self.posts):
                tell(message)

        def closed(self) -> None:
            self.gone.set()

    message = "x" * 60_000
    with serving(backend, websocket(Crowd)) as address, call(address) as client, dial(address) as deaf:
        assert client.recv(PATIENCE) == "welcome"
        deaf.sendall(HANDSHAKE)
        said = 0
        while not Crowd.gone.is_set():
            client.send(message)
            assert client.recv(PATIENCE) == message
            said += 1
            assert said < 20 * MAIL, "mail is kept without end"
        client.send("bye")
        assert client.recv(PATIENCE) == "bye"


HANDSHAKE = (
    b"GET /there HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def test_what_comes_with_the_request_is_not_lost(backend: str) -> None:
    with serving(backend, websocket()) as address, dial(address) as client:
        client.sendall(post(b"before") + HANDSHAKE + b"\x81\x82\0\0\0\0hi\x88\x80\0\0\0\0")
        answers = receive_all(client)
    assert b"beforeHTTP/1.1 101 " in answers
    assert answers.endswith(b"\r\n\r\n\x81\x02hi\x88\x00")


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 12", b"400"),
        (b"Sec-WebSocket-Key", b"X-Key", b"400"),
        (b"Host: localhost", b"Host: \xff", b"400"),
        (b"1.1\r\nHost: localhost", b"1.0", b"400"),  # HTTP/1.0 knows no Host, and so no WebSocket
        (b"GET", b"PUT", b"200"),  # an upgrade that is not taken up, which is no error
        (b"websocket", b"h2c", b"200"),
    ],
)
def test_other_requests_stay_http(backend: str, old: bytes, new: bytes, status: bytes) -> None:
    with serving(backend, websocket()) as address, dial(address) as client:
        client.sendall(HANDSHAKE.replace(old, new, 1))
        assert client.recv(1000).split()[1] == status


@pytest.mark.parametrize(
    ("origin", "host", "is_welcome"),
    [
        ("http://127.0.0.1:{port}", None, True),
        ("http://127.0.0.1:1", None, False),
        ("http://evil.example:{port}", None, False),
        ("http://evil.example:{port}", "evil.example:{port}", False),  # a name that points here
        ("http://127.0.0.1.evil.example:{port}", None, False),
        ("null", None, False),
        ("http://[", None, False),
    ],
)
def test_a_page_from_elsewhere_is_refused(backend: str, origin: str, host: str | None, is_welcome: bool) -> None:
    with serving(backend, websocket()) as address:
        request = HANDSHAKE.replace(b"localhost", (host or "127.0.0.1:{port}").encode())
        request = request.replace(b"\r\nUp", b"\r\nOrigin: %s\r\nUp" % origin.encode(), 1)
        with dial(address) as client:
            client.sendall(request.replace(b"{port}", b"%d" % address[1]))
            assert client.recv(1000).split()[1] == (b"101" if is_welcome else b"403")
