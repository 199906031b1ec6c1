"""The first program of mio's announcement: an event loop that reads "hello" from a pipe.

python examples/hello_pipe.py
"""

from __future__ import annotations

from polling import Event, EventLoop, Handler
from polling.net import PipeReader, pipe


class Reader(Handler):
    """Prints what comes through the pipe."""

    def __init__(self, reader: PipeReader) -> None:
        self._reader = reader

    def ready(self, loop: EventLoop, token: str, event: Event) -> None:
        """Read until the other end is closed."""
        data = self._reader.read(4096)
        if data:
            print(f"{token}: {data.decode()}")
        else:
            loop.shutdown()


def main() -> None:
    """Write to the pipe, and run the loop."""
    reader, writer = pipe()
    with reader, EventLoop() as loop:
        loop.register(reader, "pipe")
        with writer:
            writer.write(b"hello")
        loop.run(Reader(reader))


if __name__ == "__main__":
    main()
