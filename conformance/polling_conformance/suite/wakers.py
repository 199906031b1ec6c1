"""WAK: a wake ends the wait, the present one or the next, once, whatever else is going on."""

from __future__ import annotations

from polling import Poll, Waker
from polling_conformance.harness import Harness

__all__ = ["WakerRules"]


class WakerRules(Harness):
    """A wake is an event with the waker's token. It is never lost, never sticky, and takes nobody's place."""

    def test_WAK_01_a_wake_from_another_thread_ends_a_wait_without_limit(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")
        for _ in range(3):
            waiter = self.in_thread(poll.poll).blocked()
            waker.wake()
            events = waiter.result()
            self.check(
                [(event.token, event.readable) for event in events] == [("waker", True)],
                "one readable event of the waker",
                repr(events),
            )
            self.expect_silence(poll)
