"""Sockets and pipes apart from any poll."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from pathlib import Path
from select import select

import pytest

from polling.net import PipeReader, TcpListener, TcpStream, UdpSocket, UnixListener, pipe
from polling_conformance.ends import reset


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
