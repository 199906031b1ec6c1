"""What waits to be sent on one connection: how much, since when, and whether the kernel takes any of it now.

``sendall`` cannot do this on a non-blocking socket: it raises when the kernel's buffer is full, and does not say how
much of the data it had sent by then. So what is to be sent has to stand somewhere until the kernel has room for it, in
order, and somebody has to know how much that is. That is all there is here; what to do about a queue that is full is
for the server to say.
"""

from __future__ import annotations

from collections import deque
from time import monotonic

from polling.net import TcpStream


class SendQueue:
    """For a stream that is watched for edges.

    Attributes:
        blocked: The kernel takes no more. To be cleared when an edge tells that it does.
        size: Bytes that wait.
    """

    def __init__(self, stream: TcpStream) -> None:
        self.blocked = False
        self.size = 0
        self._stream = stream
        self._pieces: deque[tuple[float, memoryview]] = deque()  # since when each waits, and what is left of it

    def put(self, data: memoryview) -> None:
        """Have *data* wait to be sent. It is not copied: the same bytes may wait in any number of queues."""
        self._pieces.append((monotonic(), data))
        self.size += len(data)

    def send(self) -> None:
        """Send until nothing waits, or it would block. OSError: the connection is broken."""
        try:
            while self._pieces and not self.blocked:
                since, data = self._pieces[0]
                sent = self._stream.send(data)
                self.size -= sent
                if sent < len(data):
                    self._pieces[0] = since, data[sent:]
                else:
                    self._pieces.popleft()
        except BlockingIOError:
            self.blocked = True

    @property
    def delay(self) -> float:
        """Seconds that what is next has waited; 0 if nothing waits."""
        return monotonic() - self._pieces[0][0] if self._pieces else 0.0
