"""ONE: oneshot modes report once for each arming, and disarm the whole registration."""

from __future__ import annotations

import socket
from contextlib import suppress
from operator import attrgetter
from threading import Barrier

import pytest

from polling import AlreadyRegisteredError, Event, Interest, Mode, NotRegisteredError, Poll
from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.ends import End, Ends, arrived, drain, duplicate, fill, recv, reset, send
from polling_conformance.harness import Harness

__all__ = ["OneshotRules"]

both_modes = pytest.mark.parametrize("mode", [Mode.ONESHOT, Mode.EDGE_ONESHOT], ids=attrgetter("name"))


class OneshotRules(Harness):
    """One arming, one event, whichever direction it came from; then silence until ``rearm`` or ``reregister``.

    ``EDGE_ONESHOT`` is a oneshot mode, so what is said of oneshot registrations is said of both.
    """

    @both_modes
    def test_ONE_01_after_its_event_a_source_is_silent_until_it_is_armed_again(
        self, poll: Poll[object], pair: Ends, mode: Mode
    ) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, mode)
        send(writer, b"a")
        self.expect_events(poll, {"reader": "r"})
        send(writer, b"b")
        self.expect_silence(poll)
        writer.close()
        self.expect_silence(poll)
        poll.rearm(reader)
        self.expect_events(poll, {"reader": "r"})
        self.expect_silence(poll)

    @both_modes
    def test_ONE_01_a_fired_source_is_silent_about_a_reset(self, poll: Poll[object], mode: Mode) -> None:
        pairs = {"tcp": self.tcp_pair(), "net-tcp": self.net_tcp_pair()}
        for kind, (near, _) in pairs.items():
            poll.register(near, kind, Interest.READ_WRITE, mode)
        self.expect_events(poll, {"tcp": "w", "net-tcp": "w"})
        for _, far in pairs.values():
            reset(far)
        self.expect_silence(poll)
        for near, _ in pairs.values():
            poll.rearm(near)
        self.expect_events(poll, {"tcp": "rw", "net-tcp": "rw"})
        self.expect_silence(poll)

    @both_modes
    def test_ONE_01_a_fired_writer_is_silent_about_its_reader_leaving(
        self, poll: Poll[object], pair: Ends, mode: Mode
    ) -> None:
        reader, writer = pair
        poll.register(writer, "writer", Interest.WRITABLE, mode)
        self.expect_events(poll, {"writer": "w"})
        reader.close()
        self.expect_silence(poll)

    @both_modes
    def test_ONE_01_a_read_that_would_block_does_not_arm(self, poll: Poll[object], edge_pair: Ends, mode: Mode) -> None:
        reader, writer = edge_pair
        poll.register(reader, "edge", Interest.READABLE, Mode.EDGE)
        send(writer, b"a")
        self.expect_events(poll, {"edge": "r"})
        poll.reregister(reader, "oneshot", Interest.READABLE, mode)
        self.expect_events(poll, {"oneshot": "r"})
        assert drain(reader) == b"a"  # what is owed in edge mode counts for nothing here
        send(writer, b"b")
        self.expect_silence(poll)

    @both_modes
    def test_ONE_02_an_event_for_writing_disarms_reading(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket], mode: Mode
    ) -> None:
        near, far = duplex
        poll.register(near, "near", Interest.READ_WRITE, mode)
        self.expect_events(poll, {"near": "w"})
        send(far, b"x")
        self.expect_silence(poll)
        poll.rearm(near)
        self.expect_events(poll, {"near": "rw"})

    @both_modes
    def test_ONE_02_an_event_for_reading_disarms_writing(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket], mode: Mode
    ) -> None:
        near, far = duplex
        left = fill(near)
        send(far, b"x")
        arrived(near)
        poll.register(near, "near", Interest.READ_WRITE, mode)
        self.expect_events(poll, {"near": "r"}, also={"near": "w"})  # TCP may have made room since
        while left:
            left -= len(drain(far))
        self.expect_silence(poll)
        poll.rearm(near)
        self.expect_events(poll, {"near": "rw"})

    @both_modes
    def test_ONE_03_the_one_event_carries_both_bits(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket], mode: Mode
    ) -> None:
        near, far = duplex
        send(far, b"x")
        arrived(near)
        poll.register(near, "near", Interest.READ_WRITE, mode)
        for _ in range(3):
            self._one_event(poll, "near", "rw")
            poll.rearm(near)

    def _one_event(self, poll: Poll[object], token: str, bits: str) -> None:
        """Expect that one event says it all."""
        events = self.expect_events(poll, {token: bits})
        self.check(len(events) == 1, f"one event for {token!r} with all its bits", events)

    @both_modes
    def test_ONE_03_a_bit_for_which_the_batch_had_no_room_comes_after_rearming(
        self, poll: Poll[object], mode: Mode
    ) -> None:
        nears: dict[str, socket.socket] = {}
        for token in "first", "second", "third":
            nears[token], far = self.tcp_pair()
            send(far, b"x")
            arrived(nears[token])
            poll.register(nears[token], token, Interest.READ_WRITE, mode)
        events: list[Event[object]] = []
        while len(events) < len(nears):
            batch = poll.poll(SIGNAL_WAIT, 1)
            events += batch
            self.check(
                len(batch) == 1 and len({event.token for event in events}) == len(events),
                f"one event at a wait, one for each of {list(nears)}",
                events,
            )
        for event in events:
            missing = [bit for bit in ("readable", "writable") if not getattr(event, bit)]
            if missing:
                poll.rearm(nears[str(event.token)])
                self.expect_events(poll, {event.token: missing}, also={event.token: "rw"})
        self.expect_silence(poll)

    @both_modes
    def test_ONE_04_armed_again_a_source_reports_what_still_holds(
        self, poll: Poll[object], pair: Ends, mode: Mode
    ) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, mode)
        poll.register(writer, "writer", Interest.WRITABLE, mode)
        send(writer, b"x")
        for turn in range(3):
            self.expect_events(poll, {"reader": "r", "writer": "w"} if not turn else {"again": "r", "writer": "w"})
            poll.reregister(reader, "again", Interest.READABLE, mode)
            poll.rearm(writer)
        self.expect_events(poll, {"again": "r", "writer": "w"})

    @both_modes
    def test_ONE_04_armed_again_a_source_reports_what_came_meanwhile(
        self, poll: Poll[object], pair: Ends, mode: Mode
    ) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, mode)
        for data in b"a", b"b", b"c":
            send(writer, data)
            self.expect_events(poll, {"reader": "r"})
            assert drain(reader) == data
            send(writer, b"meanwhile")
            poll.rearm(reader)
            self.expect_events(poll, {"reader": "r"})
            assert drain(reader) == b"meanwhile"
            poll.rearm(reader)
        send(writer, b"last")
        self.expect_events(poll, {"reader": "r"})
        assert drain(reader) == b"last"
        writer.close()
        poll.rearm(reader)
        self.expect_events(poll, {"reader": "r"})
        assert recv(reader) == b""

    @both_modes
    @pytest.mark.parametrize("ended", [False, True], ids=["by-data", "by-end"])
    def test_ONE_05_a_fired_source_is_still_registered(
        self, poll: Poll[object], pair: Ends, mode: Mode, ended: bool
    ) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, mode)
        send(writer, b"x")
        if ended:
            writer.close()
        self.expect_events(poll, {"reader": "r"})
        self.expect_error(AlreadyRegisteredError, poll.register, reader, "second", Interest.READABLE, mode)
        poll.rearm(reader)
        self.expect_events(poll, {"reader": "r"})
        poll.reregister(reader, "renamed", Interest.READABLE, mode)
        self.expect_events(poll, {"renamed": "r"})
        poll.deregister(reader)
        self.expect_error(NotRegisteredError, poll.deregister, reader)
        poll.register(reader, "new", Interest.READABLE, mode)
        self.expect_events(poll, {"new": "r"})

    @both_modes
    def test_ONE_06_what_came_and_went_while_disarmed_is_not_reported(
        self, poll: Poll[object], pair: Ends, mode: Mode
    ) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, mode)
        send(writer, b"a")
        self.expect_events(poll, {"reader": "r"})
        assert drain(reader) == b"a"
        send(writer, b"b")
        arrived(reader)
        self.expect_silence(poll)  # and it is there for a wait to see
        assert drain(reader) == b"b"
        poll.rearm(reader)
        self.expect_silence(poll)
        send(writer, b"c")
        self.expect_events(poll, {"reader": "r"})

    @both_modes
    def test_ONE_07_arming_several_times_makes_one_event(self, poll: Poll[object], pair: Ends, mode: Mode) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, mode)
        poll.register(writer, "writer", Interest.WRITABLE, mode)
        for _ in range(3):
            poll.rearm(reader)
            poll.rearm(writer)
            poll.reregister(reader, "last reader", Interest.READABLE, mode)
            poll.reregister(writer, "last writer", Interest.WRITABLE, mode)
            poll.rearm(reader)
            poll.rearm(writer)
        self._one_event(poll, "last writer", "w")
        self.expect_silence(poll)
        send(writer, b"x")
        self._one_event(poll, "last reader", "r")
        self.expect_silence(poll)

    @both_modes
    def test_ONE_08_threads_that_feed_at_once_make_one_event_per_arming(
        self, poll: Poll[object], pair: Ends, mode: Mode
    ) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, mode)
        feeders, pieces = 4, 25
        for _ in range(2):
            together = Barrier(feeders)

            def feed(together: Barrier = together) -> None:
                together.wait(SIGNAL_WAIT)
                for _ in range(pieces):
                    while True:
                        with suppress(BlockingIOError):  # Windows may take the bytes of one thread at a time
                            send(writer, b"x")
                            break

            running = [self.in_thread(feed) for _ in range(feeders)]
            events = self.expect_events(poll, {"reader": "r"})
            while any(feeder.thread.is_alive() for feeder in running):
                events += poll.poll(0)
            for feeder in running:
                feeder.result()
            self.check(len(events) == 1, "one event, however many threads wrote", events)
            self.expect_silence(poll)
            left = feeders * pieces
            while left:
                left -= len(drain(reader))
            poll.rearm(reader)

    def test_ONE_09_edge_oneshot_takes_any_descriptor_and_looks_afresh_at_each_arming(
        self, poll: Poll[object], pair: Ends
    ) -> None:
        reader, writer = pair[0].fileno(), pair[1].fileno()
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE_ONESHOT)
        poll.register(writer, "writer", Interest.WRITABLE, Mode.EDGE_ONESHOT)
        send(pair[1], b"xyz")
        for _ in range(3):
            self.expect_events(poll, {"reader": "r", "writer": "w"})
            recv(pair[0], 1)
            poll.rearm(reader)
            poll.rearm(writer)
        self.expect_events(poll, {"writer": "w"})
        self.expect_silence(poll)
        send(pair[1], b"more")
        self.expect_events(poll, {"reader": "r"})
        send(pair[1], b"and more")  # a new edge, but no new arming
        self.expect_silence(poll)

    def test_ONE_09_edge_oneshot_takes_listeners_and_datagrams(self, poll: Poll[object]) -> None:
        listener = self.listener()
        near, far = self.udp_pair()
        poll.register(listener, "listener", Interest.READABLE, Mode.EDGE_ONESHOT)
        poll.register(near, "datagrams", Interest.READABLE, Mode.EDGE_ONESHOT)
        with socket.create_connection(listener.getsockname()):
            far.send(b"x")
            for _ in range(3):
                self.expect_events(poll, {"listener": "r", "datagrams": "r"})
                self.expect_silence(poll)
                poll.rearm(listener)
                poll.rearm(near)

    @both_modes
    @pytest.mark.parametrize("other", [Mode.LEVEL, Mode.ONESHOT, Mode.EDGE_ONESHOT], ids=attrgetter("name"))
    def test_ONE_10_the_event_of_one_leaves_a_duplicate_armed(
        self, poll: Poll[object], pair: Ends, mode: Mode, other: Mode
    ) -> None:
        reader, writer = pair
        second: End = duplicate(reader)
        self._keep(second)
        poll.register(reader, "first", Interest.READABLE, mode)
        poll.register(second, "second", Interest.READABLE, other)
        send(writer, b"x")
        arrived(reader)
        # One at a time, so that the first is disarmed before the other has been reported, whichever that is.
        self.expect_events(poll, {"first": "r", "second": "r"}, max_events=1)
        poll.rearm(second)
        self.expect_events(poll, {"second": "r"})
        poll.rearm(reader)
        self.expect_events(poll, {"first": "r"}, also={"second": "r"} if other is Mode.LEVEL else None)
