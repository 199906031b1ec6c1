"""What the servers here have in common and is not about readiness: options, plain words for mistakes, and an end."""

from __future__ import annotations

import argparse
import signal
import socket
import struct
import sys
from typing import Final, TypeVar

from polling import Poll, PollingError, Waker
from polling.net import TcpListener

if sys.platform != "win32":
    import resource

T = TypeVar("T")
RESET: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # struct linger: on, for 0 seconds


def options(description: str, port: int = 8080) -> argparse.ArgumentParser:
    """Begin a command line: by which backend, and where."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--backend", type=usable, help="the poll's backend (default: the best one here)")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=port, help="0: any that is free (default: %(default)s)")
    return parser


def usable(backend: str) -> str:
    """Try a backend, so that one that is not here is an error like any other in a command line."""
    try:
        Poll(backend).close()
    except PollingError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return backend


def listen(arguments: argparse.Namespace, *, reuse_port: bool = False) -> TcpListener:
    """Listen where the options say, or end the program with the reason why not."""
    try:
        return TcpListener.open((arguments.host, arguments.port), reuse_port=reuse_port)
    except (OSError, OverflowError, PollingError) as error:
        sys.exit(f"cannot listen on {arguments.host}:{arguments.port}: {error}")


def announce(poll: Poll[T], listener: TcpListener, scheme: str = "") -> None:
    """Tell people, and programs that started this one, where it listens."""
    host, port = listener.getsockname()[:2]
    if ":" in host:
        host = f"[{host}]"  # of IPv6
    print(f"listening on {scheme}{host}:{port} (backend {poll.backend.name})", flush=True)


def on_signals(poll: Poll[T], token: T) -> None:
    """Have SIGINT and SIGTERM reported by the wait, under *token*: between two steps, and never in the midst of one."""
    waker = Waker(poll, token)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: waker.wake())


def raise_limit(wanted: int) -> int:
    """Raise the soft limit of descriptors to *wanted*, or as far as may be; give how many are missing then."""
    granted = wanted
    if sys.platform != "win32":  # where sockets are not counted
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    return wanted - granted


def reset_on_close(stream: socket.socket) -> None:
    """Let closing *stream* tell the peer that something broke: half of an answer must not look like the whole."""
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    except OSError:
        pass  # macOS, EINVAL: the peer has reset it already
