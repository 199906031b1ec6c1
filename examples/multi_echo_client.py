"""Says what is typed, and prints what is heard: a client of multi_echo.py, and of any server that speaks in lines.

    python examples/multi_echo_client.py --port 8080
    printf 'one\\ntwo\\n' | python examples/multi_echo_client.py --port 8080

A client waits for two things at once: what its server says, and what its user types. A terminal can be watched like a
socket on most systems, but a file cannot (it is always ready), and on Windows neither can. What works everywhere is a
thread that reads, and sends what it has read through a ``Channel``, which is a source. The channel is bounded: when the
server is slow the thread waits, and whoever writes to our standard input with it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Literal

from serving import on_signals, options

from polling import Channel, ChannelClosedError, Interest, Mode, Poll, Sender
from polling.net import TcpStream

PIECE = 64 * 1024  # bytes read at once
PIECES = 4  # wait to be sent, at most

Token = Literal["server", "input", "stop"]


def read_input(sender: Sender[bytes]) -> None:
    """Send what standard input gives, from a thread of its own.

    By ``os.read``: a thread that is inside ``sys.stdin`` when the program ends has its lock, which Python then needs.
    """
    try:
        while data := os.read(0, PIECE):
            sender.send(data)
    except ChannelClosedError:
        return  # nobody listens any more
    sender.close()


class Client:
    """A connection, and what waits to be sent on it."""

    def __init__(self, poll: Poll[Token], stream: TcpStream, channel: Channel[bytes]) -> None:
        self._poll = poll
        self._stream = stream
        self._channel = channel
        self._unsent = memoryview(b"")
        self._finished = False  # with speaking
        poll.register(stream, "server", Interest.WRITABLE)  # which it is when it is connected, well or not

    def run(self) -> bool:
        """Talk; tell whether we had finished before the server did, or were stopped. OSError: the connection broke."""
        connected = False
        while True:
            for event in self._poll.poll():
                if event.token == "stop":
                    return True
                if event.token == "input":
                    self._take_input()
                elif not connected:
                    connected = True
                    self._begin()
                elif event.readable and not self._print():
                    return self._finished
                elif event.writable:
                    self._send()
            if connected:
                self._watch()

    def _begin(self) -> None:
        """Go on from being connected."""
        if error := self._stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        self._poll.register(self._channel.receiver, "input")
        threading.Thread(target=read_input, args=(self._channel.sender,), daemon=True).start()

    def _watch(self) -> None:
        """Take nothing in while something waits to be sent. (A client has the time to say so each time.)"""
        waits = bool(self._unsent)
        self._poll.reregister(self._stream, "server", Interest.READ_WRITE if waits else Interest.READABLE, Mode.LEVEL)
        takes = Interest.NONE if waits or self._finished else Interest.READABLE
        self._poll.reregister(self._channel.receiver, "input", takes, Mode.LEVEL)

    def _take_input(self) -> None:
        """Take what was typed, or learn that this was all; the server is told then, and may go on."""
        try:
            self._unsent = memoryview(b"".join(self._channel.receiver.drain()))
        except ChannelClosedError:
            self._finished = True
            self._stream.shutdown(socket.SHUT_WR)

    def _send(self) -> None:
        """Send what there is room for."""
        try:
            self._unsent = self._unsent[self._stream.send(self._unsent) :]
        except BlockingIOError:
            pass

    def _print(self) -> bool:
        """Print what was heard; tell whether there may be more."""
        try:
            data = self._stream.recv(PIECE)
        except BlockingIOError:
            return True
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return bool(data)


def main() -> None:
    """Talk until standard input ends and the server has answered, or SIGINT, or SIGTERM."""
    arguments = options("Say what is typed, and print what is heard.").parse_args()
    server = f"{arguments.host}:{arguments.port}"
    channel = Channel[bytes](PIECES)
    poll: Poll[Token] = Poll(arguments.backend)
    try:
        with poll, channel.receiver, TcpStream.open((arguments.host, arguments.port)) as stream:
            on_signals(poll, "stop")
            if not Client(poll, stream, channel).run():
                sys.exit(f"{server} has ended the conversation")
    except OSError as error:
        sys.exit(f"{server}: {error.strerror}")


if __name__ == "__main__":
    main()
