"""What the lines of a script may say: the sources and the I/O with which the machines drive a poll.

The machines of ``suite.machine`` run line after line of Python, and a failure prints them as a script. The names
that those lines use, besides ``polling``'s own, stand here, and ``standing_alone`` copies them into the script. So
it runs wherever ``polling`` and the backend do, and each of these stands on nothing but the standard library,
``polling`` and the others.

I/O never raises here: its ``Outcome`` says how much went, and how it ended.
"""

from __future__ import annotations

import inspect
import os
import re
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from polling import Event, Interest, IoSource, Poll, net
from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.ends import reset
from polling_conformance.running import sleep_of, until_blocked

__all__ = ["NAMES", "Outcome", "Waiting", "ready", "standing_alone"]


class Outcome(NamedTuple):
    """How I/O went: the number of bytes, and "", "would block", "end of stream" or the name of an error."""

    amount: int
    ending: str


def read(end: Any, size: int) -> Outcome:
    """Read once."""
    try:
        data = end.recv(size) if hasattr(end, "recv") else end.read(size)
    except BlockingIOError:
        return Outcome(0, "would block")
    except OSError as error:
        return Outcome(0, type(error).__name__)
    if data is None:  # so say unbuffered files
        return Outcome(0, "would block")
    return Outcome(len(data), "" if data else "end of stream")


def write(end: Any, size: int) -> Outcome:
    """Write *size* bytes, once."""
    try:
        sent = end.send(bytes(size)) if hasattr(end, "send") else end.write(bytes(size))
    except BlockingIOError:
        return Outcome(0, "would block")
    except OSError as error:
        return Outcome(0, type(error).__name__)
    return Outcome(0, "would block") if sent is None else Outcome(sent, "")


def urge(end: Any) -> Outcome:
    """Send an urgent byte."""
    try:
        return Outcome(end.send(b"!", socket.MSG_OOB), "")
    except BlockingIOError:
        return Outcome(0, "would block")
    except OSError as error:
        return Outcome(0, type(error).__name__)


def drain(end: Any) -> Outcome:
    """Read until it would block, has ended, or fails."""
    total = 0
    while True:
        amount, ending = read(end, 65536)
        total += amount
        if ending:
            return Outcome(total, ending)


def fill(end: Any) -> Outcome:
    """Write until it would block, and stays so: for a moment TCP still makes room behind our back."""
    total = 0
    while True:
        amount, ending = write(end, 65536)
        total += amount
        if ending == "would block" and ready(end, "writable", 0.01):
            continue
        if ending:
            return Outcome(total, ending)


def knock(listener: socket.socket) -> Outcome:
    """Make a connection for *listener* to accept."""
    socket.create_connection(listener.getsockname()).close()
    return Outcome(1, "")


def accept(listener: socket.socket) -> Outcome:
    """Accept one connection."""
    try:
        accepted, _ = listener.accept()
    except BlockingIOError:
        return Outcome(0, "would block")
    accepted.close()
    return Outcome(1, "")


def accept_all(listener: socket.socket) -> Outcome:
    """Accept until it would block."""
    total = 0
    while True:
        amount, ending = accept(listener)
        total += amount
        if ending:
            return Outcome(total, ending)


def ready(end: Any, bit: str, seconds: float) -> bool:
    """Ask the operating system, by another way than the backend, whether *end* is what *bit* says."""
    if sys.platform == "win32":
        read, written, urgent = ([end] if bit == which else [] for which in ("readable", "writable", "priority"))
        return any(select.select(read, written, urgent, seconds))
    flags = {"readable": select.POLLIN, "writable": select.POLLOUT, "priority": select.POLLPRI}
    poll = select.poll()
    poll.register(end, flags[bit])
    return bool(poll.poll(seconds * 1000))


def attempt(call: Callable[..., object], *args: object) -> str:
    """Call, and give the name of the error that it raised, or ""."""
    try:
        call(*args)
    except Exception as error:
        return type(error).__name__
    return ""


def tcp() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets with small buffers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for end in near, far:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setblocking(False)
    return near, far


def net_tcp() -> tuple[net.TcpStream, net.TcpStream]:
    """Two connected TCP streams of ``polling.net``."""
    near, far = tcp()
    return net.TcpStream.adopt(near), net.TcpStream.adopt(far)


def unix() -> tuple[socket.socket, socket.socket]:
    """Two connected Unix sockets."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def net_unix() -> tuple[net.UnixStream, net.UnixStream]:
    """Two connected Unix streams of ``polling.net``."""
    return net.UnixStream.pair()


def pipe() -> tuple[Any, Any]:
    """The end to read from and the end to write to of a pipe, as unbuffered files."""
    reader, writer = os.pipe()
    if sys.platform != "win32":  # which has no pipes to watch
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
    return open(reader, "rb", 0), open(writer, "wb", 0)


def net_pipe() -> tuple[net.PipeReader, net.PipeWriter]:
    """The same, of ``polling.net``."""
    return net.pipe()


def udp() -> tuple[socket.socket, socket.socket]:
    """Two UDP sockets connected to each other."""
    near, far = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    for end in near, far:
        end.bind(("127.0.0.1", 0))
        end.setblocking(False)
    near.connect(far.getsockname())
    far.connect(near.getsockname())
    return near, far


def net_udp() -> tuple[net.UdpSocket, net.UdpSocket]:
    """The same, of ``polling.net``."""
    near, far = udp()
    return net.UdpSocket.adopt(near), net.UdpSocket.adopt(far)


class Wrapped(IoSource):
    """A socket that was wrapped to say when it would block."""

    __slots__ = ("_socket",)

    def __init__(self, wrapped: socket.socket) -> None:
        super().__init__(wrapped)
        self._socket = wrapped

    def recv(self, size: int) -> bytes:
        return self.do_io(Interest.READABLE, self._socket.recv, size)

    def send(self, data: bytes) -> int:
        return self.do_io(Interest.WRITABLE, self._socket.send, data)

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()


def io_unix() -> tuple[Wrapped, Wrapped]:
    """Two connected Unix sockets in ``IoSource``."""
    near, far = unix()
    return Wrapped(near), Wrapped(far)


def listener() -> socket.socket:
    """A TCP socket that listens."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setblocking(False)
    return listener


def net_listener() -> net.TcpListener:
    """The same, of ``polling.net``."""
    return net.TcpListener.open(("127.0.0.1", 0))


def duplicate(end: Any) -> socket.socket:
    """Open another descriptor of the same socket, without the library's hooks."""
    return socket.fromfd(end.fileno(), end.family, end.type)


class Waiting:
    """A wait in a thread of its own, which blocks in it when the constructor returns, or has ended already."""

    def __init__(self, poll: Poll[Any]) -> None:
        self._poll = poll
        self._result: list[Event[Any]] | Exception = TimeoutError("the wait does not end")
        self._thread = threading.Thread(target=self._run, name="the waiting thread", daemon=True)
        self._thread.start()
        with suppress(TimeoutError):  # it has ended
            until_blocked(self._thread)

    def _run(self) -> None:
        try:
            self._result = self._poll.poll(SIGNAL_WAIT)
        except Exception as error:  # raised where the result is asked for
            self._result = error

    def ends(self, seconds: float) -> bool:
        """Tell whether the wait ends within so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> list[Event[Any]]:
        """Join the thread and give what the wait returned, or raise what it raised."""
        self._thread.join(2 * SIGNAL_WAIT)
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


_DEFINED: Final = (
    *(Outcome, read, write, urge, drain, fill, knock, accept, accept_all, ready, attempt, reset),
    *(sleep_of, until_blocked, Waiting, Wrapped),
    *(tcp, net_tcp, unix, net_unix, io_unix, pipe, net_pipe, udp, net_udp, listener, net_listener, duplicate),
)

NAMES: Final[dict[str, Any]] = {thing.__name__: thing for thing in _DEFINED}
"""What lines may use besides ``polling``."""

_HEAD: Final = """\
from __future__ import annotations
import os, select, socket, struct, sys, threading, time
from contextlib import suppress
from typing import Any, NamedTuple
from polling import Interest, IoSource, Mode, Poll, Waker, net
"""


def standing_alone(lines: Iterable[str]) -> str:
    """Make a script of *lines*: with the imports before them, and the definitions that they need and no others."""
    body = "\n".join(lines)
    needed: set[str] = set()
    found = _names_in(body)
    while found - needed:
        needed |= found
        found = set().union(*(_names_in(inspect.getsource(NAMES[name])) for name in needed))
    definitions = [inspect.getsource(thing) for thing in _DEFINED if thing.__name__ in needed]
    constants = [f"SIGNAL_WAIT = {SIGNAL_WAIT:g}"] if "Waiting" in needed else []
    return "\n\n".join([_HEAD + "\n".join(constants), *definitions, body])


def _names_in(text: str) -> set[str]:
    return NAMES.keys() & set(re.findall(r"\b\w+\b", text))
