"""Sockets and pipes, most of them apart from any poll."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from select import select

import pytest

from polling import Interest, Mode, Poll, available_backends
from polling.net import PipeReader, TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream, pipe
from polling_conformance.ends import has_ipv6, reset


def test_a_pipe_dropped_unclosed_is_closed_even_if_the_warning_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    reader, writer = pipe()
    with writer:
        del reader
        assert unraisable == [ResourceWarning]
        with pytest.raises(BrokenPipeError):
            writer.write(b"x")


def test_a_pipe_carries_what_is_written_and_then_the_end() -> None:
    reader, writer = pipe()
    with reader, writer:
        with pytest.raises(BlockingIOError):
            reader.read()
        written = 0
        with suppress(BlockingIOError):
            while True:
                written += writer.write(bytes(65_536))
        writer.close()
        while piece := read_soon(reader):
            written -= len(piece)
        assert written == 0
        reader.close()
        with pytest.raises(OSError, match=r"Bad file descriptor|10038"):  # EBADF, ENOTSOCK
            reader.read()


def test_a_connection_reset_before_it_is_accepted_is_accepted_or_called_aborted() -> None:
    with TcpListener.open(("127.0.0.1", 0)) as listener:
        reset(socket.create_connection(listener.getsockname()))
        select([listener], [], [], 10)
        with suppress(ConnectionAbortedError):
            listener.accept()[0].close()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_a_listener_that_cannot_listen_leaves_nothing_behind(tmp_path: Path) -> None:
    for backlog in 2**40, "many":
        with pytest.raises((OverflowError, TypeError)):
            UnixListener.open(tmp_path / "socket", backlog=backlog)  # type: ignore[arg-type]  # that is what is wrong
        with pytest.raises((OverflowError, TypeError)):
            TcpListener.open(("127.0.0.1", 0), backlog=backlog)  # type: ignore[arg-type]  # the same
    assert [*tmp_path.iterdir()] == []


def test_a_connect_that_cannot_begin_says_why() -> None:
    with pytest.raises(OSError, match=r"address|Network|10049|10051"):
        TcpStream.open(("255.255.255.255", 9))


@pytest.mark.parametrize("kind", [TcpListener, TcpStream, UdpSocket])
@pytest.mark.parametrize("port", [-1, 65536 + 80])
def test_a_port_that_is_none_is_refused_and_not_cut_to_one(
    kind: type[TcpListener | TcpStream | UdpSocket], port: int
) -> None:
    with pytest.raises(OverflowError, match="port"):
        kind.open(("127.0.0.1", port))


def read_soon(reader: PipeReader) -> bytes:
    """Read what is there or, where a pipe is a TCP connection, under way."""
    while True:
        with suppress(BlockingIOError):
            return reader.read()


class Subclass(TcpStream):
    """A stream whose method stands before those that report."""

    __slots__ = ()

    def receive(self) -> bytes:
        return super().recv(10)


@pytest.mark.parametrize("backend", available_backends())
def test_what_a_subclass_reads_by_super_is_reported(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = Subclass.adopt(socket.create_connection(listener.getsockname()))
        far, _ = listener.accept()
    with Poll(backend) as poll, near, far:
        poll.register(near, "near", Interest.READABLE, Mode.EDGE)
        for _ in range(3):
            far.send(b"x")
            assert [event.token for event in poll.poll(10)] == ["near"]
            assert near.receive() == b"x"
            with pytest.raises(BlockingIOError):
                near.receive()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
@pytest.mark.parametrize("backend", available_backends())
def test_a_connect_begins_the_edges_anew(backend: str, tmp_path: Path) -> None:
    place = tmp_path / "socket"
    with UnixListener.open(place) as listener, Poll(backend) as poll, UnixStream.adopt(unconnected()) as near:
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        poll.poll(0)  # on some systems what is not connected counts as hung up
        near.connect(str(place))
        far, _ = listener.accept()
        with far:
            far.send(b"x")
            deadline = time.monotonic() + 10
            while not any(event.readable for event in poll.poll(10)):
                assert time.monotonic() < deadline


def unconnected() -> socket.socket:
    if sys.platform == "win32":
        raise NotImplementedError("it has no Unix sockets")
    return socket.socket(socket.AF_UNIX)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_every_interface_of_ipv6_is_not_every_one_of_ipv4() -> None:
    with TcpListener.open(("", 0, 0, 0)) as listener:
        assert listener.family == socket.AF_INET6
