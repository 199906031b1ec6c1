"""A server that throws away what it is sent: accepting and reading.

    python examples/discard.py --port 8080
    echo hello | nc -N 127.0.0.1 8080

The least that is a server: one listener, many connections, one thread. In level mode, the default, a source is
reported by every wait for as long as it is ready. So each event needs one call, and what that leaves, the next
wait reports again.
"""

from __future__ import annotations

import argparse
import signal

from polling import Poll
from polling.net import TcpListener, TcpStream


def serve(poll: Poll[TcpStream | None], listener: TcpListener) -> None:
    """Accept everybody, read everything, until interrupted. A connection is the token of its own events."""
    poll.register(listener, None)
    buffer = bytearray(64 * 1024)
    connections = set()  # poll holds nobody's socket open
    while True:
        for event in poll.poll():
            stream = event.token
            try:
                if stream is None:
                    stream, _ = listener.accept()
                    connections.add(stream)
                    poll.register(stream, stream)
                elif not stream.recv_into(buffer):
                    raise ConnectionError("the client has finished")
            except BlockingIOError:
                pass  # an event is a hint: whoever was ready may not be any more
            except ConnectionError:
                if stream is not None:  # else it was gone before it was accepted
                    connections.discard(stream)
                    poll.deregister(stream)
                    stream.close()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Throw away whatever comes.")
    parser.add_argument("--backend", help="the poll's backend (default: the best one here)")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free (default: %(default)s)")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # also where the shell had it ignored, as in the background
        signal.signal(number, signal.default_int_handler)
    poll: Poll[TcpStream | None] = Poll(arguments.backend)
    with poll, TcpListener.open(("127.0.0.1", arguments.port)) as listener:
        try:
            print(f"listening on 127.0.0.1:{listener.getsockname()[1]} (backend {poll.backend.name})", flush=True)
            serve(poll, listener)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
