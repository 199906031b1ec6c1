"""SRC, UDP: kinds of source, and which of them every backend takes or refuses."""

from __future__ import annotations

import tempfile

from polling import Interest, Poll, UnsupportedSourceError
from polling_conformance.harness import Harness, recv, send

__all__ = ["SourceRules"]


class SourceRules(Harness):
    """Sockets of every kind are watched, pipes and terminals where declared, and files nowhere."""

    def test_SRC_01_a_regular_file_is_refused(self, poll: Poll[object]) -> None:
        with tempfile.TemporaryFile() as file:
            self.expect_error(UnsupportedSourceError, poll.register, file, "file")

    def test_UDP_01_an_empty_datagram_is_readable_and_read_once(self, poll: Poll[object]) -> None:
        for near, far in self.udp_pair(), self.net_udp_pair():
            poll.register(near, "near", Interest.READABLE)
            send(far, b"")
            self.expect_events(poll, {"near": "r"})
            assert recv(near) == b""
            self.expect_silence(poll)
            poll.deregister(near)
