"""LVL: level mode reports a condition at every wait while it holds, and not after."""

from __future__ import annotations

import socket

import pytest

from polling import Capability, Interest, IoSource, Mode, Poll
from polling_conformance.durations import SILENCE
from polling_conformance.ends import Ends, arrived, drain, fill, recv, send
from polling_conformance.harness import Harness

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

    def test_LVL_01_each_wait_reports_room(self, poll: Poll[object], pair: Ends) -> None:
        _, writer = pair
        poll.register(writer, "writer", Interest.WRITABLE, Mode.LEVEL)
        for _ in range(3):
            self.expect_events(poll, {"writer": "w"})
            send(writer, b"x")

    @pytest.mark.parametrize("kind", ["tcp", "net-tcp"])
    def test_LVL_01_each_wait_reports_a_listener_until_all_are_accepted(self, poll: Poll[object], kind: str) -> None:
        listener = self.listener() if kind == "tcp" else self.net_listener()
        poll.register(listener, "listener", Interest.READABLE, Mode.LEVEL)
        with (
            socket.create_connection(listener.getsockname()),
            socket.create_connection(listener.getsockname()),
        ):
            for _ in range(2):
                self.expect_events(poll, {"listener": "r"})
                self.expect_events(poll, {"listener": "r"})
                listener.accept()[0].close()
            self.expect_silence(poll)

    @pytest.mark.parametrize("kind", ["tcp", "net-tcp"])
    def test_LVL_01_a_connection_that_comes_during_a_wait_is_there_to_accept(
        self, poll: Poll[object], kind: str
    ) -> None:
        listener = self.listener() if kind == "tcp" else self.net_listener()
        poll.register(listener, "listener", Interest.READABLE, Mode.LEVEL)
        for _ in range(3):
            waiter = self.in_thread(self.expect_events, poll, {"listener": "r"}).blocked()
            with socket.create_connection(listener.getsockname()):
                waiter.result()
                self.expect_events(poll, {"listener": "r"})
                listener.accept()[0].close()
        self.expect_silence(poll)

    @pytest.mark.parametrize("kind", ["udp", "net-udp"])
    def test_LVL_01_each_wait_reports_datagrams_until_all_are_received(self, poll: Poll[object], kind: str) -> None:
        near, far = self.udp_pair() if kind == "udp" else self.net_udp_pair()
        poll.register(near, "near", Interest.READABLE, Mode.LEVEL)
        for datagram in b"one", b"two":
            far.send(datagram)
        for datagram in b"one", b"two":
            self.expect_events(poll, {"near": "r"})
            self.expect_events(poll, {"near": "r"})
            assert near.recv(100) == datagram
        self.expect_silence(poll)

    def test_LVL_02_what_was_drained_is_not_reported(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, Mode.LEVEL)
        for data in b"a", b"bc":
            send(writer, data)
            self.expect_events(poll, {"reader": "r"})
            assert drain(reader) == data
            self.expect_silence(poll)
            poll.rearm(reader)  # in this mode nothing comes of it, nor of the other direction
            self.expect_silence(poll)

    def test_LVL_02_what_was_filled_is_not_reported(self, poll: Poll[object], pair: Ends) -> None:
        _, writer = pair
        poll.register(writer, "writer", Interest.WRITABLE, Mode.LEVEL)
        self.expect_events(poll, {"writer": "w"})
        for _ in range(10):
            fill(writer)
            events = poll.poll(SILENCE)
            if not events:
                return
        raise self.failure("no event once the source is full", str(events))  # TCP makes room since, but not ten times

    def test_LVL_03_what_came_and_went_between_two_waits_is_not_reported(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, Mode.LEVEL)
        self.expect_silence(poll)
        for data in b"a", b"b":
            send(writer, data)
            arrived(reader)
            assert drain(reader) == data
        self.expect_silence(poll)

    def test_LVL_03_a_connection_that_was_accepted_elsewhere_is_not_reported(self, poll: Poll[object]) -> None:
        listener = self.listener()
        poll.register(listener, "listener", Interest.READABLE, Mode.LEVEL)
        self.expect_silence(poll)
        with socket.create_connection(listener.getsockname()):
            arrived(listener)
            listener.accept()[0].close()
            self.expect_silence(poll)

    def test_LVL_04_a_ready_source_that_becomes_level_is_reported_at_every_wait(
        self, poll: Poll[object], pair: Ends
    ) -> None:
        send(pair[1], b"x")
        for mode in Mode.EDGE, Mode.ONESHOT, Mode.EDGE_ONESHOT:
            for fired in True, False:
                reader, writer = map(IoSource, pair) if mode is Mode.EDGE else pair
                poll.register(reader, f"reader, {mode.name}", Interest.READABLE, mode)
                poll.register(writer, f"writer, {mode.name}", Interest.WRITABLE, mode)
                if fired:
                    self.expect_events(poll, {f"reader, {mode.name}": "r", f"writer, {mode.name}": "w"})
                before = f"level, {'fired' if fired else 'silent'} as {mode.name} before"
                poll.reregister(reader, f"reader, {before}", Interest.READABLE, Mode.LEVEL)
                poll.reregister(writer, f"writer, {before}", Interest.WRITABLE, Mode.LEVEL)
                for _ in range(3):
                    self.expect_events(poll, {f"reader, {before}": "r", f"writer, {before}": "w"})
                poll.deregister(reader)
                poll.deregister(writer)

    def test_LVL_05_two_polls_both_report_one_source_until_it_is_drained(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        other = self.make_poll()
        poll.register(reader, "first", Interest.READABLE, Mode.LEVEL)
        self.needs(Capability.SHARED_SOURCE, refused=lambda: other.register(reader, "second", Interest.READABLE))
        other.register(reader, "second", Interest.READABLE, Mode.LEVEL)
        send(writer, b"x")
        for _ in range(3):
            self.expect_events(poll, {"first": "r"})
            self.expect_events(other, {"second": "r"})
        drain(reader)
        self.expect_silence(poll)
        self.expect_silence(other)

    def test_LVL_06_the_end_is_readable_at_every_wait(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, Mode.LEVEL)
        send(writer, b"last")
        writer.close()
        self.expect_events(poll, {"reader": "r"})
        assert drain(reader) == b"last"
        for _ in range(3):
            self.expect_events(poll, {"reader": "r"})
            assert recv(reader) == b""
        self.expect_events(poll, {"reader": "r"})

    def test_LVL_06_the_end_of_one_direction_is_readable_at_every_wait(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        poll.register(near, "near", Interest.READABLE, Mode.LEVEL)
        far.shutdown(socket.SHUT_WR)
        for _ in range(3):
            self.expect_events(poll, {"near": "r"})
            assert near.recv(1) == b""
