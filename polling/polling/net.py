"""Non-blocking sockets and pipes, made to be watched.

They are ``socket.socket`` with two things more: constructors that leave nothing half open, and the report that
``Mode.EDGE`` needs at a backend without edges of its own (see ``polling.Mode``). Plain sockets serve as well
in every other mode, and in every mode where edges are native.

The report costs nothing where nobody asked for it. While a socket is watched so, and only then, its class is a
subclass whose I/O methods report a would-block; no code stands in the way otherwise. What is duplicated or detached
from it reports nothing, nor does a bound method that was taken before it was registered, or ``os.sendfile`` on its
number: use ``polling.IoSource`` for that. What is adopted is the socket alone, without what its class adds,
such as TLS.

Rules: EDG-05, EDG-07, EDG-11 to EDG-13, EDG-17.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from polling._closing import Closing
from polling._report import ReportingSource
from polling.errors import UnsupportedError
from polling.event import Interest

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from typing_extensions import Buffer

    from polling.backend import Backend

__all__ = [
    "PipeReader",
    "PipeWriter",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
    "pipe",
]

InetAddress = tuple[str, int] | tuple[str, int, int, int]
"""Host and port, for IPv6 also flow and scope. A host that is a name is looked up, which may block."""

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_UNIX: Final[int | None] = getattr(socket, "AF_UNIX", None)
_INET: Final = (socket.AF_INET, socket.AF_INET6)

_GONE: Final = (errno.ECONNRESET, errno.ENOTCONN)  # what Windows and Wine say for ECONNABORTED
_AT_ONCE: Final = b"\1\0\0\0"  # Windows' struct linger: on, for 0 seconds
_READING: Final = Interest.READABLE | Interest.PRIORITY  # what reading until it would block has used up
_READS: Final = ("_accept", "recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into")
_WRITES: Final = ("send", "sendall", "sendmsg", "sendto")


class _Socket(ReportingSource, socket.socket):
    """What the socket types have in common."""

    __slots__ = ("_watcher",)  # like socket.socket itself no __dict__, which costs time at each method call

    _families: ClassVar[tuple[int, ...]]
    _kind: ClassVar[socket.SocketKind]

    @classmethod
    def adopt(cls, sock: socket.socket) -> Self:
        """Take over an open socket: the result has its descriptor, and *sock* is left without (``detach``).

        Raises:
            ValueError: *sock* is closed, or of another family or kind. It stays as it was.
        """
        if sock.fileno() < 0:
            raise ValueError(f"{sock!r} is closed")
        if sock.family not in cls._families or sock.type != cls._kind:
            raise ValueError(f"{sock!r} cannot be a {cls.__name__}: its family or kind is another")
        return cls._take(sock.family, sock.proto, sock.detach())

    @classmethod
    def _take(cls, family: int, proto: int, fd: int) -> Self:
        taken = cls(family, cls._kind, proto, fileno=fd)
        taken.setblocking(False)
        return taken

    @classmethod
    def _fresh(cls, family: int) -> Self:
        fresh = cls(family, cls._kind)
        fresh.setblocking(False)
        return fresh

    def _report_to(self, backend: Backend | None, fd: int) -> None:
        super()._report_to(backend, fd)
        plain = _PLAIN.get(type(self), type(self))
        self.__class__ = plain if backend is None else _reporting_type(plain)


class _StreamListener(_Socket):
    __slots__ = ()

    _kind = socket.SOCK_STREAM

    def _accept_as(self, stream: type[_StreamT]) -> tuple[_StreamT, Any]:
        try:
            fd, address = self._accept()  # type: ignore[attr-defined]  # what socket.accept itself stands on
        except OSError as error:
            if error.errno in _GONE:
                raise ConnectionAbortedError(errno.ECONNABORTED, "the peer reset the connection") from error
            raise
        return stream._take(self.family, self.proto, fd), address


class TcpStream(_Socket):
    """One end of a TCP connection."""

    __slots__ = ()

    _families = _INET
    _kind = socket.SOCK_STREAM

    @classmethod
    def open(cls, address: InetAddress) -> Self:
        """Begin to connect. The stream becomes writable when that is done, well or not.

        After the event, ``getsockopt(SOL_SOCKET, SO_ERROR)`` is 0 or says what went wrong.

        Raises:
            OSError: It failed at once, or the host is not known. Nothing stays open.
            OverflowError: The port is none. Likewise for every constructor here that takes one.
        """
        family, resolved = _resolve(address, cls._kind)
        stream = cls._fresh(family)
        try:
            stream.connect(resolved)
        except BlockingIOError:
            pass  # it has begun
        except BaseException:
            stream.close()
            raise
        return stream


class TcpListener(_StreamListener):
    """Accepts TCP connections."""

    __slots__ = ()

    _families = _INET

    @classmethod
    def open(cls, address: InetAddress, *, backlog: int = 1024, reuse_port: bool = False) -> Self:
        """Bind and listen. Port 0 takes any that is free; ``getsockname()`` says which.

        Args:
            address: Host and port; the host ``""`` means every IPv4 interface.
            backlog: How many connections the kernel may hold ready, at most.
            reuse_port: Let several listeners, in several processes, share the port (SO_REUSEPORT).

        Raises:
            UnsupportedError: This system has no SO_REUSEPORT.
            OSError: The address is in use, or not this machine's. Nothing stays open.
        """
        family, resolved = _resolve(address, cls._kind)
        listener = cls._fresh(family)
        try:
            if sys.platform == "win32":
                # SO_REUSEADDR means something else there: that others may take the port away.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                option: int | None = getattr(socket, "SO_REUSEPORT", None)
                if option is None:
                    raise UnsupportedError("this system has no SO_REUSEPORT")
                listener.setsockopt(socket.SOL_SOCKET, option, 1)
            listener.bind(resolved)
            listener.listen(backlog)
        except BaseException:
            listener.close()
            raise
        return listener

    def accept(self) -> tuple[TcpStream, Any]:
        """Accept a connection: the stream, non-blocking, and the peer's address.

        Raises:
            BlockingIOError: There is none.
            ConnectionAbortedError: There was one, and the peer has reset it in the meantime.
            OSError: EMFILE, ENFILE: no descriptor is free, and the connection stays where it is.
        """
        return self._accept_as(TcpStream)


class UdpSocket(_Socket):
    """Sends and receives UDP datagrams."""

    __slots__ = ()

    _families = _INET
    _kind = socket.SOCK_DGRAM

    @classmethod
    def open(cls, address: InetAddress) -> Self:
        """Bind to *address*. Port 0 takes any that is free.

        Raises:
            OSError: The address is in use, or not this machine's. Nothing stays open.
        """
        family, resolved = _resolve(address, cls._kind)
        return _bound(cls._fresh(family), resolved)


class _UnixSocket(_Socket):
    __slots__ = ()

    _families = (_UNIX,) if _UNIX is not None else ()

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Make two sockets that are connected to each other.

        Raises:
            UnsupportedError: This system has no Unix sockets.
        """
        one, other = socket.socketpair(_unix_family(), cls._kind)
        return cls.adopt(one), cls.adopt(other)


class UnixStream(_UnixSocket):
    """One end of a Unix stream connection."""

    __slots__ = ()

    _kind = socket.SOCK_STREAM

    @classmethod
    def open(cls, path: PathLike) -> Self:
        """Begin to connect to the listener at *path*.

        Raises:
            UnsupportedError: This system has no Unix sockets.
            OSError: Nobody listens there, or (EAGAIN) its backlog is full. Nothing stays open.
        """
        stream = cls._fresh(_unix_family())
        try:
            stream.connect(os.fspath(path))
        except BaseException:
            stream.close()
            raise
        return stream


class UnixListener(_StreamListener):
    """Accepts Unix stream connections."""

    __slots__ = ()

    _families = _UnixSocket._families

    @classmethod
    def open(cls, path: PathLike, *, backlog: int = 1024) -> Self:
        """Make a socket file at *path* and listen. The file is the caller's to remove.

        Raises:
            UnsupportedError: This system has no Unix sockets.
            OSError: The path exists already, or cannot. Nothing stays open.
        """
        listener = _bound(cls._fresh(_unix_family()), os.fspath(path))
        try:
            listener.listen(backlog)
        except BaseException:
            listener.close()
            try:
                os.unlink(path)
            except (OSError, ValueError):
                pass  # Linux has names that are no files
            raise
        return listener

    def accept(self) -> tuple[UnixStream, Any]:
        """Accept a connection, as ``TcpListener.accept`` does."""
        return self._accept_as(UnixStream)


class UnixDatagram(_UnixSocket):
    """Sends and receives Unix datagrams."""

    __slots__ = ()

    _kind = socket.SOCK_DGRAM

    @classmethod
    def open(cls, path: PathLike) -> Self:
        """Make a socket file at *path* and receive there. The file is the caller's to remove.

        Raises:
            UnsupportedError: This system has no Unix sockets.
            OSError: The path exists already, or cannot. Nothing stays open.
        """
        return _bound(cls._fresh(_unix_family()), os.fspath(path))


class _PipeEnd(ReportingSource, Closing):
    """What both ends of a pipe have in common. On Windows they are sockets."""

    _watcher: tuple[Backend, int] | None = None

    def __init__(self, fd: int) -> None:
        if sys.platform == "win32":
            self._socket = socket.socket(fileno=fd)
            self._socket.setblocking(False)
        self._fd = fd

    def fileno(self) -> int:
        """Give the descriptor, -1 once closed."""
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether this end was closed."""
        return self._fd < 0

    def close(self) -> None:
        """Close this end. Closing again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            if sys.platform == "win32":
                self._socket.close()
            else:
                os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            finally:  # the warning may be an error
                self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self._fd}>"


class PipeReader(_PipeEnd):
    """The end of a pipe to read from."""

    def read(self, size: int = 65_536, /) -> bytes:
        """Read up to *size* bytes. Empty: every writer is gone.

        Raises:
            BlockingIOError: There is nothing to read.
            OSError: EBADF, on Windows ENOTSOCK: this end is closed.
        """
        try:
            if sys.platform == "win32":
                return self._socket.recv(size)
            return os.read(self._fd, size)
        except BlockingIOError:
            self._would_block(Interest.READABLE)
            raise


class PipeWriter(_PipeEnd):
    """The end of a pipe to write to."""

    def write(self, data: Buffer, /) -> int:
        """Write what there is room for, and say how many bytes that was.

        Raises:
            BlockingIOError: There is no room.
            BrokenPipeError: Every reader is gone.
            OSError: EBADF, on Windows ENOTSOCK: this end is closed.
        """
        try:
            if sys.platform == "win32":
                return self._socket.send(data)
            return os.write(self._fd, data)
        except BlockingIOError:
            self._would_block(Interest.WRITABLE)
            raise
        except (ConnectionAbortedError, ConnectionResetError) as error:  # Windows' words for it
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error


def pipe() -> tuple[PipeReader, PipeWriter]:
    """Make a pipe with two non-blocking ends.

    Windows watches sockets only, so there it is a TCP connection over the loopback, which behaves alike.

    Raises:
        OSError: EMFILE, ENFILE: no descriptor is free.
    """
    if sys.platform == "win32":
        one, other = socket.socketpair()
        # The reader's close resets the connection, so that the next write fails, as that to a pipe does.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return PipeReader(one.detach()), PipeWriter(other.detach())
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return PipeReader(reading), PipeWriter(writing)


_StreamT = TypeVar("_StreamT", TcpStream, UnixStream)
_SocketT = TypeVar("_SocketT", bound=_Socket)


def _resolve(address: InetAddress, kind: socket.SocketKind) -> tuple[int, Any]:
    """Give family and socket address for host and port."""
    host, port = address[0], address[1]
    if len(address) == 4:
        return socket.AF_INET6, address
    if not host:
        return socket.AF_INET, ("", port)
    # Without the port, which some resolvers cut to 16 bits; bind and connect refuse what is none.
    family, _, _, _, resolved = socket.getaddrinfo(host, None, type=kind)[0]
    return family, (resolved[0], port, *resolved[2:])


def _unix_family() -> int:
    if _UNIX is None:
        raise UnsupportedError("this Python has no Unix sockets (AF_UNIX)")
    return _UNIX


def _bound(sock: _SocketT, address: Any) -> _SocketT:
    try:
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _reporting(name: str, interest: Interest) -> Callable[..., Any]:
    """Give the method of that name that reports when it would block."""
    method = getattr(socket.socket, name)

    def call(self: _Socket, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except BlockingIOError:
            self._would_block(interest)
            raise

    call.__name__ = call.__qualname__ = name
    call.__doc__ = method.__doc__
    return call


class _ReportingCalls(socket.socket):
    """The calls that report. It stands right before ``socket.socket``, so that ``super()`` in a subclass finds it."""

    __slots__ = ()

    # What is not connected may count as hung up, which has used up the edges of both directions.

    def connect(self, address: Any) -> None:
        try:
            super().connect(address)
        finally:
            self._would_block(_READING | Interest.WRITABLE)  # type: ignore[attr-defined]  # the other base has it

    def connect_ex(self, address: Any) -> int:
        try:
            return super().connect_ex(address)
        finally:
            self._would_block(_READING | Interest.WRITABLE)  # type: ignore[attr-defined]

    def dup(self) -> Any:
        copy = super().dup()
        copy.__class__ = _PLAIN[type(self)]
        return copy


for _name in (*_READS, *_WRITES):
    if hasattr(socket.socket, _name):  # not every system has all
        setattr(_ReportingCalls, _name, _reporting(_name, _READING if _name in _READS else Interest.WRITABLE))

_REPORTING: Final[dict[type[_Socket], type[_Socket]]] = {}
_PLAIN: Final[dict[type[Any], type[Any]]] = {}


def _reporting_type(plain: type[_Socket]) -> type[_Socket]:
    """Give the subclass of *plain* whose I/O reports would-blocks, under the same name."""
    made = _REPORTING.get(plain)
    if made is None:
        members = {"__slots__": (), "__module__": plain.__module__, "__doc__": plain.__doc__}
        made = type(plain.__name__, (plain, _ReportingCalls), members)
        made.__qualname__ = plain.__qualname__
        _REPORTING[plain] = made
        _PLAIN[made] = plain
    return made
