"""ONE: oneshot modes report once for each arming, and disarm the whole registration."""

from __future__ import annotations

from polling import Interest, Mode, Poll
from polling_conformance.harness import Ends, Harness, send

__all__ = ["OneshotRules"]


class OneshotRules(Harness):
    """One arming, one event, whichever direction it came from; then silence until ``rearm`` or ``reregister``."""

    def test_ONE_01_after_its_event_a_source_is_silent_until_it_is_armed_again(
        self, poll: Poll[object], pair: Ends
    ) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, Mode.ONESHOT)
        send(writer, b"a")
        self.expect_events(poll, {"reader": "r"})
        self.expect_silence(poll)
        send(writer, b"b")
        self.expect_silence(poll)
        writer.close()
        self.expect_silence(poll)
        poll.rearm(reader)
        self.expect_events(poll, {"reader": "r"})
        self.expect_silence(poll)
