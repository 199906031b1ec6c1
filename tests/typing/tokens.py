# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""A user's code, checked and never run: what type checkers know of tokens and events."""

import socket
from dataclasses import dataclass
from typing import Any, Literal, Never, assert_type

from polling import Event, Interest, Mode, Poll, Waker


@dataclass
class Connection:
    sock: socket.socket
    pending: bytes = b""


def any_token(sock: socket.socket) -> None:
    poll = Poll()
    assert_type(poll, Poll[Any])
    poll.register(sock, "a token")
    poll.register(sock, 2, Interest.READ_WRITE)
    with Poll() as scoped:
        assert_type(scoped, Poll[Any])
        assert_type(scoped.poll(), list[Event[Any]])


def one_type(connection: Connection) -> None:
    poll = Poll[Connection]()
    poll.register(connection.sock, connection)
    poll.reregister(connection.sock, connection, Interest.READABLE | Interest.WRITABLE, Mode.EDGE)
    for event in poll.poll(timeout=0.5, max_events=64):
        assert_type(event, Event[Connection])
        assert_type(event.token, Connection)
        assert_type(event.token.pending, bytes)
        assert_type(event.readable, bool)
        assert_type(event.writable, bool)
        assert_type(event.priority, bool)
        assert_type(event.error, bool)
        assert_type(event.read_closed, bool)
        assert_type(event.write_closed, bool)
        assert_type(poll.is_current(event), bool)
    poll.register(connection.sock, "name")  # type: ignore[arg-type]  # must be refused: not a Connection


def by_annotation(connection: Connection) -> None:
    poll: Poll[Connection] = Poll("poll")
    poll.register(connection.sock, connection)
    with poll as same:
        assert_type(same, Poll[Connection])


def mixed(connection: Connection) -> None:
    poll = Poll[Connection | Literal["wake"]]()
    waker = Waker(poll, "wake")
    assert_type(waker, Waker[Connection | Literal["wake"]])
    assert_type(waker.wake(), None)
    poll.register(connection.sock, connection)
    for event in poll.poll():
        if isinstance(event.token, Connection):
            assert_type(event.token, Connection)
        else:
            assert_type(event.token, Literal["wake"])
    _: Waker[Connection | Literal["wake"]] = Waker(poll, "woke")  # type: ignore[arg-type]  # must be refused: not a token of this poll


def settings(poll: Poll[int], sock: socket.socket) -> None:
    assert_type(Interest.READABLE | Interest.WRITABLE, Interest)
    poll.reregister(sock, 1)  # type: ignore[call-arg]  # must be refused: no defaults here
    poll.register(sock, 1, Mode.EDGE)  # type: ignore[arg-type]  # must be refused: a mode is no interest


def combined() -> None:
    assert_type(Mode.EDGE | Mode.ONESHOT, Never)  # it raises, and the message names EDGE_ONESHOT
