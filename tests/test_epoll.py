"""Ghosts: what epoll goes on watching under a number that was closed or means another file by now."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Generator, Iterator

import pytest

from polling import Interest, Mode, Poll

if sys.platform != "linux":
    pytest.skip("epoll is part of Linux", allow_module_level=True)

Sockets = tuple[socket.socket, socket.socket]
LOOKS = 600
"""Waits after which a ghost must be gone: more than the poll's slow pulse takes twice."""


@pytest.fixture
def poll() -> Iterator[Poll[object]]:
    with Poll[object]("epoll") as poll:
        yield poll


@pytest.fixture
def sockets() -> Generator[Sockets]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def last_of_many(poll: Poll[object]) -> list[object]:
    for _ in range(LOOKS):
        events = poll.poll(0)
    return [event.token for event in events]


def test_the_events_of_a_source_closed_while_a_duplicate_lives_come_to_an_end(
    poll: Poll[object], sockets: Sockets
) -> None:
    near, far = sockets
    with near.dup():
        poll.register(near, "near")
        near.close()
        far.send(b"x")
        assert last_of_many(poll) == []


def test_a_number_used_again_beside_a_ghost_reports_what_it_means_now(poll: Poll[object], sockets: Sockets) -> None:
    near, far = sockets
    with near.dup() as duplicate, socket.create_server(("127.0.0.1", 0)) as listener:
        number = near.fileno()
        poll.register(near, "near")
        near.close()
        with listener.dup() as again:
            assert again.fileno() == number, "the lowest number that is free"
            poll.register(again, "again")
            far.send(b"x")
            assert last_of_many(poll) == []
            with socket.create_connection(listener.getsockname()):
                assert last_of_many(poll) == ["again"]
                poll.deregister(again)
            assert duplicate.recv(1) == b"x"


@pytest.mark.parametrize("way", ["reregister", "rearm"])
def test_a_number_that_dup2_gave_to_another_file_reports_that_file_alone(
    poll: Poll[object], sockets: Sockets, way: str
) -> None:
    near, far = sockets
    other, far_of_other = socket.socketpair()
    with near.dup(), other, far_of_other:
        poll.register(near, "near")
        os.dup2(other.fileno(), near.fileno())
        if way == "reregister":
            poll.reregister(near, "near", Interest.READABLE, Mode.LEVEL)
        else:
            poll.rearm(near)
        far.send(b"x")
        assert last_of_many(poll) == []
        far_of_other.send(b"x")
        assert last_of_many(poll) == ["near"]


def test_a_fired_oneshot_stays_silent_in_a_new_instance_and_comes_back_when_armed(
    poll: Poll[object], sockets: Sockets
) -> None:
    near, far = sockets
    ghost, far_of_ghost = socket.socketpair()
    far.send(b"x")
    poll.register(near, "near", mode=Mode.ONESHOT)
    assert [event.token for event in poll.poll(0)] == ["near"]
    with ghost.dup(), far_of_ghost:
        poll.register(ghost, "ghost")
        ghost.close()
        far_of_ghost.send(b"x")
        far.close()  # a hangup, about which nothing in epoll is silent
        assert last_of_many(poll) == []
        poll.rearm(near)
        assert [event.token for event in poll.poll(0)] == ["near"]


def test_a_number_taken_over_from_a_ghost_is_reported_for_its_owner_alone() -> None:
    with Poll("epoll") as poll:
        near, far = socket.socketpair()
        far.close()
        poll.register(near, "old", Interest.READABLE)
        assert [event.token for event in poll.poll(0)] == ["old"]
        duplicate = near.dup()
        near.close()
        new, peer = socket.socketpair()
        poll.register(new, "new", Interest.READ_WRITE, Mode.ONESHOT)
        (event,) = poll.poll(0)
        assert (event.token, event.readable, event.writable) == ("new", False, True)
        assert poll.poll(0) == []
        for sock in (duplicate, new, peer):
            sock.close()
