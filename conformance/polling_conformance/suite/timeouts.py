"""TMO: a wait ends no earlier than asked, whatever the number."""

from __future__ import annotations

import time

from polling import Poll
from polling_conformance.harness import SILENCE, Harness

__all__ = ["TimeoutRules"]


class TimeoutRules(Harness):
    """Timeouts are seconds, rounded up and never down. "Not early" is asserted always, "not late" hardly ever."""

    def test_TMO_03_a_wait_without_events_does_not_end_early(self, poll: Poll[object]) -> None:
        for timeout in 0.0001, 0.001, 0.0015, 0.01, SILENCE:
            start = time.monotonic()
            events = poll.poll(timeout)
            elapsed = time.monotonic() - start
            self.check(
                not events and elapsed >= timeout, f"no event for {timeout} s", f"{events} after {elapsed:.6f} s"
            )
