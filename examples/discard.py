"""A server that throws away what it is sent: accepting and reading.

    python examples/discard.py --port 8080
    echo hello | nc -N 127.0.0.1 8080

The least that is a server: one listener, many connections, one thread. In level mode, the default, a source is
reported by every wait for as long as it is ready. So each event needs one call, and what that leaves, the next
wait reports again.
"""

from __future__ import annotations

from typing import Literal

from serving import announce, listen, on_signals, options

from polling import Poll
from polling.net import TcpListener, TcpStream

Token = TcpStream | Literal["listener", "stop"]


def serve(poll: Poll[Token], listener: TcpListener) -> None:
    """Accept everybody, read everything, until "stop" is reported. A connection is the token of its own events."""
    poll.register(listener, "listener")
    connections = set[TcpStream]()  # poll holds nobody's socket open
    buffer = bytearray(64 * 1024)
    running = True
    while running:
        for event in poll.poll():
            if isinstance(event.token, TcpStream):
                if not read(event.token, buffer):
                    connections.remove(event.token)
                    poll.deregister(event.token)
                    event.token.close()
            elif event.token == "listener":
                try:
                    stream, _ = listener.accept()
                except (BlockingIOError, ConnectionError):
                    continue  # it was gone before it was accepted
                connections.add(stream)
                poll.register(stream, stream)
            else:
                running = False
    for stream in connections:
        stream.close()


def read(stream: TcpStream, buffer: bytearray) -> bool:
    """Read once; tell whether there may be more to come."""
    try:
        return stream.recv_into(buffer) > 0
    except BlockingIOError:
        return True  # an event is a hint: whoever was ready may not be any more
    except OSError:  # a reset, for one: no concern of the other clients
        return False


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    arguments = options("Throw away whatever comes.").parse_args()
    poll: Poll[Token] = Poll(arguments.backend)
    with poll, listen(arguments) as listener:
        on_signals(poll, "stop")
        announce(poll, listener)
        serve(poll, listener)


if __name__ == "__main__":
    main()
