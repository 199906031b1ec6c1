"""What can happen to poll(2) between the kernel's answer and our reading it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Generator
from typing import Any

import pytest

from polling import Interest, Mode, Poll

if sys.platform == "win32":
    pytest.skip("this system has no poll(2)", allow_module_level=True)

from polling_backends.poll import PollBackend

Sockets = tuple[socket.socket, socket.socket]
SILENT = 0.05
"""Seconds after which a poll that has nothing to say is believed."""


class Between:
    """Stands before ``select.poll`` and does something once, after the kernel has answered."""

    def __init__(self, poll: Any, do: Callable[[], object]) -> None:
        self._poll = poll
        self._left = [do]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poll, name)

    def poll(self, timeout: float | None) -> Any:
        ready = self._poll.poll(timeout)
        if self._left:
            self._left.pop()()
        return ready


@pytest.fixture
def backend() -> PollBackend:
    return PollBackend()


@pytest.fixture
def poll(backend: PollBackend) -> Generator[Poll[object]]:
    with Poll[object](backend) as poll:
        yield poll


@pytest.fixture
def sockets() -> Generator[Sockets]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_a_number_that_is_registered_again_as_it_is_found_closed_is_watched(
    poll: Poll[object], backend: PollBackend, sockets: Sockets
) -> None:
    near, far = sockets
    gone, other = socket.socketpair()
    number = gone.fileno()
    poll.register(gone, "gone")
    gone.close()
    other.close()
    again: list[socket.socket] = []

    def reuse() -> None:
        again.append(near.dup())
        assert again[0].fileno() == number, "the lowest number that is free"
        poll.register(again[0], "again")

    backend._poll = Between(backend._poll, reuse)
    poll.poll(0)
    far.send(b"x")
    assert [event.token for event in poll.poll(SILENT)] == ["again"]
    again[0].close()


def test_an_answer_to_the_former_interest_does_not_disarm_the_new_oneshot(
    poll: Poll[object], backend: PollBackend, sockets: Sockets
) -> None:
    near, far = sockets
    poll.register(near, "near", Interest.WRITABLE, Mode.ONESHOT)
    backend._poll = Between(backend._poll, lambda: poll.reregister(near, "near", Interest.READABLE, Mode.ONESHOT))
    assert poll.poll(0) == []
    far.send(b"x")
    [event] = poll.poll(SILENT)
    assert event.readable


def test_a_would_block_of_the_former_registration_does_not_arm_a_oneshot_again(
    backend: PollBackend, sockets: Sockets
) -> None:
    near, far = sockets
    fd = near.fileno()
    backend.register(fd, Interest.READABLE, Mode.EDGE)

    def change() -> None:
        backend.rearm(fd, Interest.READABLE)  # another thread reads until it would block, and changes the mode
        backend.reregister(fd, Interest.READABLE, Mode.ONESHOT)

    far.send(b"x")
    backend._poll = Between(backend._poll, change)
    wait = backend.waiter()
    assert fd in [fd for fd, _ in wait(0, 8)]
    assert fd not in [fd for fd, _ in wait(0, 8)]
    backend.close()
