"""The web server that says hello once more, in edge mode: told only of what is new.

    python examples/http_hello_edge.py --port 8080
    curl -i http://127.0.0.1:8080/

This is the way of most tutorials: read until it would block, register for writing; write until all is sent, register
for reading. Compare ``http_hello.py``, which answers at once and is watched for writability only if it must wait. That
is faster, as it saves two system calls a request, and simpler, as level mode forgets nothing. What edges are for: one
registration for both directions that is never changed, in servers that keep their own books of what is ready. See
``multi_echo.py``.

A server in edge mode has one more thing to get right. It may stop reading early, to be fair to others or because
answers wait, but then nobody tells it of what it left; it must come back by itself. Here registering anew does that: a
condition that holds at that moment is reported.

The listener and the loop are those of ``http_hello.py``: a program may have sources in different modes.
"""

from __future__ import annotations

import http_hello
from http_hello import RESPONSE, Server, Token
from serving import announce, listen, on_signals, options

from polling import Interest, Mode, Poll

AT_MOST = 16  # receives for one client before it is the next one's turn


class Connection(http_hello.Connection):
    """One client. It is watched for readability or for writability: never both."""

    __slots__ = ()
    mode = Mode.EDGE

    def on_readable(self) -> None:
        """Receive until it would block, or long enough, and schedule the answers."""
        complete = 0
        try:
            for _ in range(AT_MOST):
                size = self._stream.recv_into(self._server.buffer)
                if not size:
                    self._requests.finished = True
                else:
                    complete += self._requests.feed(self._server.buffer[:size].tobytes())
                if self._requests.finished:
                    break
        except BlockingIOError:
            pass
        except OSError:  # a reset, for one
            self.close()
            return
        self._unsent = memoryview(RESPONSE * complete)
        self._schedule()

    def on_writable(self) -> None:
        """Send until all is sent, or it would block."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._stream.send(self._unsent) :]
        except BlockingIOError:
            return  # and there will be an edge
        except OSError:
            self.close()
            return
        self._schedule()

    def _schedule(self) -> None:
        """Say what comes next. What is possible already counts as new."""
        if self._unsent:
            self._server.poll.reregister(self._stream, self.on_writable, Interest.WRITABLE, self.mode)
        elif self._requests.finished:
            self.close()
        else:
            self._server.poll.reregister(self._stream, self.on_readable, Interest.READABLE, self.mode)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    arguments = options("Answer every HTTP request with a hello, in edge mode.").parse_args()
    poll: Poll[Token] = Poll(arguments.backend)
    with poll, listen(arguments) as listener:
        server = Server(poll, listener, Connection)
        on_signals(poll, server.stop)
        announce(poll, listener, "http://")
        server.run()


if __name__ == "__main__":
    main()
