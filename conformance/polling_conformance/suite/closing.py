"""CLS, FRK, GCL: how a poll ends: closed, forked, or forgotten."""

from __future__ import annotations

from polling import ForkedPollError, Poll, PollClosedError
from polling_conformance.harness import Harness, send

__all__ = ["ClosingRules"]


class ClosingRules(Harness):
    """The end of a poll is the end of what it owns, in this process only, and of nothing else."""

    def test_CLS_03_closing_ends_the_wait_of_another_thread(self, poll: Poll[object]) -> None:
        waiter = self.in_thread(poll.poll).blocked()
        poll.close()
        self.expect_error(PollClosedError, waiter.result)

    def test_FRK_01_a_forked_child_is_told_and_the_parents_poll_is_intact(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near")

        def in_the_child() -> None:
            for call in (lambda: poll.poll(0)), (lambda: poll.deregister(near)), (lambda: poll.register(far, "far")):
                self.expect_error(ForkedPollError, call)

        self.in_child(in_the_child)
        send(far, b"x")
        self.expect_events(poll, {"near": "r"})
