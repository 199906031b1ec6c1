"""EVT, MRG: what an event says about data, ends, resets and errors, and that it says it once."""

from __future__ import annotations

import socket

from polling import Interest, Poll
from polling_conformance.harness import Ends, Harness, recv, reset, send

__all__ = ["EventRules"]


class EventRules(Harness):
    """``readable`` and ``writable`` are enough to live by: whatever happens to a source shows up in them.

    The hints are never asserted to be there; where one is given, its condition must hold.
    """

    def test_EVT_03_the_end_of_the_peers_data_is_readable(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        poll.register(near, "near", Interest.READABLE)
        self.expect_silence(poll)
        far.shutdown(socket.SHUT_WR)
        self.expect_events(poll, {"near": "r"})
        assert recv(near) == b""

    def test_EVT_10_a_reset_is_readable_and_writable_and_raised_by_the_read(self, poll: Poll[object]) -> None:
        for near, far in self.tcp_pair(), self.net_tcp_pair():
            poll.register(near, "near", Interest.READ_WRITE)
            reset(far)
            self.expect_events(poll, {"near": "rw"})
            self.expect_error(ConnectionResetError, recv, near)
            poll.deregister(near)

    def test_MRG_01_one_wait_reports_a_source_once_with_all_its_bits(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        poll.register(near, "near", Interest.READ_WRITE)
        send(far, b"x")
        self.expect_events(poll, {"near": "rw"})
        batch = poll.poll(0)
        self.check(
            [(event.token, event.readable, event.writable) for event in batch] == [("near", True, True)],
            "one event, readable and writable",
            repr(batch),
        )

    def test_EVT_15_a_reader_whose_writer_closed_is_readable_to_the_end(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE)
        send(writer, b"last")
        writer.close()
        self.expect_events(poll, {"reader": "r"})
        assert recv(reader) == b"last"
        self.expect_events(poll, {"reader": "r"})
        assert recv(reader) == b""
