"""Smoke: what must work before any rule is worth trying."""

from __future__ import annotations

import socket

from polling import Interest, Poll, PollClosedError, Waker
from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.ends import send
from polling_conformance.harness import Harness

__all__ = ["Smoke"]


class Smoke(Harness):
    """The backend can be made, sees a readable socket, is woken, and is closed. Needs nothing of the other families."""

    def test_smoke_the_backend_can_run_here(self) -> None:
        poll = self.make_poll()
        self.check(poll.backend.unavailable_reason() is None, "no reason against", poll.backend.unavailable_reason())
        self.check(
            poll.backend.name == self.backend_name, f"a backend named {self.backend_name!r}", repr(poll.backend.name)
        )

    def test_smoke_a_socket_with_data_is_readable(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near", Interest.READABLE)
        send(far, b"x")
        events = poll.poll(SIGNAL_WAIT)
        self.check(
            [(event.token, event.readable) for event in events] == [("near", True)], "near is readable", repr(events)
        )

    def test_smoke_a_wake_ends_the_wait(self, poll: Poll[object]) -> None:
        Waker(poll, "waker").wake()
        events = poll.poll(SIGNAL_WAIT)
        self.check([event.token for event in events] == ["waker"], "an event of the waker", repr(events))

    def test_smoke_a_closed_poll_says_so_and_leaves_the_source_alone(self) -> None:
        near, far = socket.socketpair()
        with near, far:
            poll = self.make_poll()
            poll.register(near, "near")
            poll.close()
            self.expect_error(PollClosedError, poll.poll, 0)
            send(far, b"x")
            assert near.recv(1) == b"x"
