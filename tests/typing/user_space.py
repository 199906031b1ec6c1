# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""A user's code, checked and never run: what stands on user space keeps the types of messages, states and values."""

import signal
from typing import Literal, assert_type

from polling import Channel, Event, EventLoop, Handler, Poll, Signals, Slab, Timeout, Timer


def channel(poll: Poll[str]) -> None:
    link = Channel[int](16)
    poll.register(link.receiver, "messages")
    link.sender.send(1)
    assert_type(link.receiver.drain(), list[int])
    link.sender.send("1")  # type: ignore[arg-type]  # must be refused: not a message of this channel


def timer(poll: Poll[str]) -> None:
    clock = Timer[bytes]()
    poll.register(clock, "time")
    assert_type(clock.set_timeout(1, b"state", every=0.5), Timeout)
    assert_type(clock.set_timeout(0.5, b"state").cancel(), bool)
    assert_type(clock.expired(), list[bytes])
    clock.set_timeout(1, "state")  # type: ignore[arg-type]  # must be refused: not a state of this timer


def signals(poll: Poll[str]) -> None:
    with Signals([signal.SIGINT]) as received:
        poll.register(received, "signals")
        assert_type(received.receive(), list[signal.Signals])


def slab() -> None:
    store = Slab[str](10)
    assert_type(store.insert("value"), int)
    assert_type(store.insert_with(str), int)
    assert_type(store.pop(0), str)
    assert_type(store.get(0), str | None)
    assert_type(list(store.items()), list[tuple[int, str]])


Loop = EventLoop[Literal["source"], int, bytes]


class Mine(Handler[Literal["source"], int, bytes]):
    def ready(self, loop: Loop, token: Literal["source"], event: Event[Literal["source"]]) -> None:
        assert_type(loop.channel().try_send(1), None)

    def notify(self, loop: Loop, message: int) -> None:
        assert_type(loop.timeout(1, b"state"), Timeout)

    def timeout(self, loop: Loop, state: bytes) -> None:
        loop.shutdown()


def run(loop: Loop) -> None:
    assert_type(loop.poll, Poll[Literal["source"]])
    loop.run(Mine())
    loop.run(Handler[str, int, bytes]())  # type: ignore[arg-type]  # must be refused: another kind of token
