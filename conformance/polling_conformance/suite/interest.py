"""INT: events stay within what was asked for, and nothing asked for means nothing said."""

from __future__ import annotations

import socket

from polling import Interest, Poll
from polling_conformance.harness import Harness, send

__all__ = ["InterestRules"]


class InterestRules(Harness):
    """Interest is a filter in both directions: asked for and true is reported, all else is not, hangups included."""

    def test_INT_05_an_idle_connected_socket_is_writable_and_not_readable(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        poll.register(near, "near", Interest.READ_WRITE)
        self.expect_events(poll, {"near": "w"})
        send(far, b"x")
        self.expect_events(poll, {"near": "rw"})
