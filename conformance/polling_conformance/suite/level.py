"""LVL: level mode reports a condition at every wait while it holds, and not after."""

from __future__ import annotations

from polling import Interest, Mode, Poll
from polling_conformance.harness import Ends, Harness, drain, recv, send

__all__ = ["LevelRules"]


class LevelRules(Harness):
    """A level is a state. Whoever asks is told the present one, not a remembered one, however often it is asked."""

    def test_LVL_01_each_wait_reports_what_still_holds(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, Mode.LEVEL)
        send(writer, b"abc")
        for _ in range(3):
            self.expect_events(poll, {"reader": "r"})
            recv(reader, 1)
        self.expect_silence(poll)

    def test_LVL_02_what_was_drained_is_not_reported(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, Mode.LEVEL)
        for data in b"a", b"bc":
            send(writer, data)
            self.expect_events(poll, {"reader": "r"})
            assert drain(reader) == data
            self.expect_silence(poll)
