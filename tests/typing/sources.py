# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""A user's code, checked and never run: what can be registered, and what the library's own sources give."""

import os
import socket
import subprocess
from typing import assert_type

from polling import Interest, IoSource, Mode, Poll, Source, UserSource, Waker
from polling.net import TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream


class Device:
    """Anything with a descriptor will do."""

    def fileno(self) -> int:
        return 7


def foreign(poll: Poll[str], sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
    poll.register(sock, "a socket")
    poll.register(3, "a descriptor")
    poll.register(Device(), "an object of one's own")
    if process.stdout is not None:
        poll.register(process.stdout, "a file object")
    source: Source = sock
    poll.rearm(source)
    poll.deregister(source)
    poll.register("stdin", "a string")  # type: ignore[arg-type]  # must be refused: has no descriptor
    poll.register(os.devnull, "a path")  # type: ignore[arg-type]  # must be refused: has no descriptor


def net(poll: Poll[str]) -> None:
    listener = TcpListener.open(("127.0.0.1", 0), backlog=16)
    assert_type(listener, TcpListener)
    accepted, _ = listener.accept()
    assert_type(accepted, TcpStream)
    assert_type(accepted.recv(16), bytes)
    stream = TcpStream.open(("127.0.0.1", 80))
    assert_type(stream, TcpStream)
    assert_type(UdpSocket.open(("127.0.0.1", 0)), UdpSocket)
    left, right = UnixStream.pair()
    assert_type(left, UnixStream)
    assert_type(UnixListener.open("/tmp/s").accept()[0], UnixStream)
    plain: socket.socket = stream
    assert_type(TcpStream.adopt(plain), TcpStream)
    poll.register(listener, "listener")
    poll.register(right, "right", Interest.READ_WRITE)


def bridged(poll: Poll[str], fd: int) -> None:
    source = IoSource(Device())
    poll.register(source, "device")
    assert_type(source.do_io(Interest.READABLE, os.read, fd, 16), bytes)
    source.do_io(Interest.READABLE, os.read, "fd", 16)  # type: ignore[arg-type]  # must be refused: the call's own type
    source.drained(Interest.READABLE)


def user_space(poll: Poll[str]) -> None:
    source = UserSource()
    poll.register(source, "user space", Interest.READ_WRITE, Mode.EDGE)
    source.set()
    source.clear(Interest.WRITABLE)
    assert_type(source.readiness, Interest)
    any_kind: Source = source
    poll.deregister(any_kind)
    IoSource(source)  # type: ignore[arg-type]  # must be refused: has no descriptor
    source.set(1)  # type: ignore[arg-type]  # must be refused: no Interest


def woken(poll: Poll[str]) -> None:
    waker = Waker(poll, "wake")
    assert_type(waker, Waker[str])
    poll.deregister(waker)
