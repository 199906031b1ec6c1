"""CAP, SPU: what happens when there is more, or less, than a batch holds."""

from __future__ import annotations

from polling import Interest, Mode, Poll
from polling_conformance.harness import Harness, send

__all__ = ["CapacityRules"]


class CapacityRules(Harness):
    """``max_events`` cuts a batch and loses nothing: the rest comes later, and nobody waits for ever.

    The order within a batch is never asserted.
    """

    def test_CAP_01_what_does_not_fit_into_a_batch_comes_later(self, poll: Poll[object]) -> None:
        for token in range(5):
            near, far = self.socketpair()
            poll.register(near, token, Interest.READABLE, Mode.ONESHOT)
            send(far, b"x")
        seen: list[object] = []
        while len(seen) < 5:
            batch = poll.poll(0, 2)
            self.check(1 <= len(batch) <= 2, "1 or 2 events while some are left", f"{batch} after {seen}")
            seen += [event.token for event in batch]
        self.check(set(seen) == set(range(5)), "each of 0 to 4 once", repr(seen))
        self.expect_silence(poll)
