"""THR: threads work on a poll while one of them waits."""

from __future__ import annotations

from polling import Interest, Poll
from polling_conformance.harness import Harness, send

__all__ = ["ThreadRules"]


class ThreadRules(Harness):
    """A wait holds no lock that another call needs, the interpreter's included."""

    def test_THR_01_registering_does_not_wait_for_the_wait(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        waiter = self.in_thread(poll.poll).blocked()
        self.in_thread(poll.register, near, "near", Interest.READABLE).result()
        send(far, b"x")
        events = waiter.result()
        self.check(
            [(event.token, event.readable) for event in events] == [("near", True)], "near is readable", repr(events)
        )
