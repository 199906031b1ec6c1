"""EDG: edge mode reports that a condition arises, and again after the source was drained to would-block."""

from __future__ import annotations

from polling import Interest, Mode, Poll
from polling_conformance.harness import Ends, Harness, drain, fill, send

__all__ = ["EdgeRules"]


class EdgeRules(Harness):
    """The contract: after an event do I/O until it would block; then the next readiness is reported, never zero times.

    The rules run on ``edge_pair`` and ``edge_duplex``: the hooked types of ``polling.net`` on every backend, and plain
    sources, which only native edges can watch. They drain and fill on purpose, since an emulation that samples
    misses what happens between two waits.
    """

    def test_EDG_05_data_after_a_drain_is_reported(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        for data in b"a", b"b", b"c":
            send(writer, data)
            self.expect_events(poll, {"reader": "r"})
            assert drain(reader) == data
        # Drained and filled again without a wait in between: a sampler sees readiness that never went away.
        send(writer, b"d")
        self.expect_events(poll, {"reader": "r"})
        assert drain(reader) == b"d"
        send(writer, b"e")
        self.expect_events(poll, {"reader": "r"})

    def test_EDG_07_room_after_a_fill_is_reported(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        poll.register(writer, "writer", Interest.WRITABLE, Mode.EDGE)
        for _ in range(3):
            self.expect_events(poll, {"writer": "w"})
            left = fill(writer)
            while left:
                left -= len(drain(reader))
