"""EDG: edge mode reports that a condition arises, and again after the source was drained to would-block."""

from __future__ import annotations

import gc
import io
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import pytest

from polling import AlreadyRegisteredError, Capability, Event, Interest, IoSource, Mode, Poll, net
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import End, Ends, arrived, drain, duplicate, fill, recv, send
from polling_conformance.harness import Harness

__all__ = ["EdgeRules"]

RECEIVES: Final[dict[str, Callable[[Any], object]]] = {
    "recv": lambda sock: sock.recv(100),
    "recv_into": lambda sock: sock.recv_into(bytearray(100)),
    "recvfrom": lambda sock: sock.recvfrom(100),
    "recvfrom_into": lambda sock: sock.recvfrom_into(bytearray(100)),
    "recvmsg": lambda sock: sock.recvmsg(100),
    "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(100)]),
}
"""Every way in which a socket receives."""

SENDS: Final[dict[str, Callable[[Any], object]]] = {
    "send": lambda sock: sock.send(b"x"),
    "sendall": lambda sock: sock.sendall(b"x"),
    "sendmsg": lambda sock: sock.sendmsg([b"x"]),
}
"""Every way in which a connected socket sends."""

if not hasattr(socket.socket, "sendmsg"):  # Windows
    del RECEIVES["recvmsg"], RECEIVES["recvmsg_into"], SENDS["sendmsg"]


class EdgeRules(Harness):
    """The contract: after an event do I/O until it would block; then the next readiness is reported, never zero times.

    The rules run on ``edge_pair`` and ``edge_duplex``: the hooked types of ``polling.net`` on every backend, and plain
    sources, which only native edges can watch. They drain and fill on purpose, since an emulation that samples
    misses what happens between two waits. Where a rule is about one call, everything else goes past the hooks,
    through a duplicate, so that no other call can have done what that one must do.
    """

    def _past_hooks(self, end: End) -> End:
        """A duplicate of *end*, closed after the test, whose I/O the library does not see."""
        other = duplicate(end)
        self._keep(other)
        return other

    def _in_silence(self, poll: Poll[object]) -> list[Event[object]]:
        """What comes while silence is watched: for rules that allow some."""
        events: list[Event[object]] = []
        end = time.monotonic() + SILENCE
        while (left := end - time.monotonic()) > 0:
            events += poll.poll(left)
        return events

    # -- what holds is reported, once -------------------------------------------------------------

    def test_EDG_01_what_holds_at_registration_is_reported(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        send(writer, b"x")
        arrived(reader)
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        poll.register(writer, "writer", Interest.WRITABLE, Mode.EDGE)
        self.expect_events(poll, {"reader": "r", "writer": "w"})

    def test_EDG_01_both_directions_that_hold_at_registration_are_reported(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        send(far, b"x")
        arrived(near)
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        self.expect_events(poll, {"near": "rw"})

    def test_EDG_01_an_end_that_came_before_the_registration_is_reported(
        self, poll: Poll[object], edge_pair: Ends
    ) -> None:
        reader, writer = edge_pair
        writer.close()
        arrived(reader)
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        self.expect_events(poll, {"reader": "r"})

    def test_EDG_02_reregistering_and_rearming_report_what_holds(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        poll.register(writer, "writer", Interest.WRITABLE, Mode.EDGE)
        send(writer, b"x")
        self.expect_events(poll, {"reader": "r", "writer": "w"})
        for _ in range(2):
            poll.reregister(reader, "reader", Interest.READABLE, Mode.EDGE)
            poll.reregister(writer, "writer", Interest.WRITABLE, Mode.EDGE)
            self.expect_events(poll, {"reader": "r", "writer": "w"})
            poll.rearm(reader)
            poll.rearm(writer)
            self.expect_events(poll, {"reader": "r", "writer": "w"})

    def test_EDG_02_rearming_reports_both_directions(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        send(far, b"x")
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        for _ in range(2):
            self.expect_events(poll, {"near": "rw"})
            poll.rearm(near)
            self.expect_events(poll, {"near": "rw"})
            poll.reregister(near, "near", Interest.READ_WRITE, Mode.EDGE)

    def test_EDG_03_what_was_reported_and_left_alone_is_not_reported_again(
        self, poll: Poll[object], edge_pair: Ends
    ) -> None:
        reader, writer = edge_pair
        send(writer, b"x")
        arrived(reader)
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        poll.register(writer, "writer", Interest.WRITABLE, Mode.EDGE)
        self.expect_events(poll, {"reader": "r", "writer": "w"})
        self.expect_silence(poll)
        # A change must leave the registration an edge.
        poll.reregister(reader, "reader", Interest.READABLE, Mode.EDGE)
        poll.rearm(writer)
        self.expect_events(poll, {"reader": "r", "writer": "w"})
        self.expect_silence(poll)

    def test_EDG_03_both_directions_left_alone_are_not_reported_again(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        send(far, b"x")
        arrived(near)
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        self.expect_events(poll, {"near": "rw"})
        self.expect_silence(poll)

    def test_EDG_04_reading_a_part_is_not_reported(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        send(writer, b"abc")
        self.expect_events(poll, {"reader": "r"})
        for part in b"a", b"b":
            assert recv(reader, 1) == part
            self.expect_silence(poll)

    # -- drained, then ready ----------------------------------------------------------------------

    def test_EDG_05_data_after_a_drain_is_reported(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        for data in b"a", b"b", b"c":
            send(writer, data)
            self.expect_events(poll, {"reader": "r"})
            assert drain(reader) == data
            self.expect_silence(poll)

    def test_EDG_05_data_between_a_drain_and_the_next_wait_is_reported(
        self, poll: Poll[object], edge_pair: Ends
    ) -> None:
        reader, writer = edge_pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        send(writer, b"first")
        # No wait falls between draining and filling again: a sampler sees readiness that never went away.
        for turn in range(50):
            self.expect_events(poll, {"reader": "r"})
            drain(reader)
            send(writer, b"turn %d" % turn)
            arrived(reader)

    def test_EDG_05_a_drain_during_the_wait_counts(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        for _ in range(5):
            send(writer, b"x")
            self.expect_events(poll, {"reader": "r"})
            waiter = self.in_thread(self.expect_events, poll, {"reader": "r"}).blocked()
            assert drain(reader) == b"x"
            send(writer, b"y")
            waiter.result()
            assert drain(reader) == b"y"

    def test_EDG_05_a_strict_consumer_in_another_thread_misses_nothing(
        self, poll: Poll[object], edge_pair: Ends
    ) -> None:
        reader, writer = edge_pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        turns = 200
        reported: SimpleQueue[bool] = SimpleQueue()

        def consume() -> None:
            # It reads only when told of an event, until it would block, and only then is the next piece sent: one
            # event that is missed ends it all. The wait goes on beside it, and neither knows how far the other is.
            send(writer, b"x")
            got = 0
            while got < turns:
                assert reported.get(timeout=SIGNAL_WAIT)
                if drain(reader):
                    got += 1
                    send(writer, b"x")

        consumer = self.in_thread(consume)
        while consumer.thread.is_alive():
            if poll.poll(SILENCE):
                reported.put(True)
        consumer.result()

    def test_EDG_05_every_receiving_call_that_would_block_counts(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        other = self._past_hooks(near)
        for name, receive in RECEIVES.items():
            send(far, b"x")
            poll.register(near, f"near, for {name}", Interest.READABLE, Mode.EDGE)
            self.expect_events(poll, {f"near, for {name}": "r"})
            assert drain(other) == b"x"
            self.expect_error(BlockingIOError, receive, near)
            send(far, b"y")
            self.expect_events(poll, {f"near, for {name}": "r"})
            assert drain(other) == b"y"
            poll.deregister(near)

    def test_EDG_05_a_drain_by_do_io_counts(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        source = IoSource(reader)
        poll.register(source, "reader", Interest.READABLE, Mode.EDGE)
        send(writer, b"first")
        for turn in range(10):
            self.expect_events(poll, {"reader": "r"})
            with suppress(BlockingIOError):
                while source.do_io(Interest.READABLE, recv, reader):
                    pass
            send(writer, b"turn %d" % turn)
            arrived(reader)

    def test_EDG_05_a_drain_said_to_be_one_counts(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        source = IoSource(reader.fileno())
        poll.register(source, "reader", Interest.READABLE, Mode.EDGE)
        send(writer, b"first")
        for turn in range(10):
            self.expect_events(poll, {"reader": "r"})
            drain(reader)
            source.drained(Interest.READABLE)
            send(writer, b"turn %d" % turn)
            arrived(reader)

    def test_EDG_05_a_raw_files_none_counts(self, poll: Poll[object]) -> None:
        reader, writer = self.pipe()
        raw = io.FileIO(reader.fileno(), closefd=False)
        source = IoSource(raw)
        poll.register(source, "reader", Interest.READABLE, Mode.EDGE)
        send(writer, b"first")
        for turn in range(10):
            self.expect_events(poll, {"reader": "r"})
            while source.do_io(Interest.READABLE, raw.read, 100) is not None:
                pass
            send(writer, b"turn %d" % turn)

    def test_EDG_05_a_tls_read_that_wants_more_counts(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        tls = self._tls(near)
        source = IoSource(tls)
        poll.register(source, "near", Interest.READABLE, Mode.EDGE)
        self.expect_error(OSError, source.do_io, Interest.WRITABLE, tls.do_handshake)
        # A record that arrives byte by byte: TLS takes each, and wants more, whatever direction the call went.
        for byte in b"\x16\x03\x03\x00\x10" + bytes(5):
            send(far, bytes([byte]))
            self.expect_events(poll, {"near": "r"})
            error = self.expect_error(OSError, source.do_io, Interest.WRITABLE, tls.do_handshake)
            self.check(type(error).__name__ == "SSLWantReadError", "SSLWantReadError, passed on", repr(error))

    def test_EDG_07_a_tls_write_that_wants_room_counts(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        tls = self._tls(near)
        source = IoSource(tls)
        poll.register(source, "near", Interest.WRITABLE, Mode.EDGE)
        for _ in range(2):
            self.expect_events(poll, {"near": "w"})
            left = fill(self._past_hooks(tls))
            error = self.expect_error(OSError, source.do_io, Interest.READABLE, tls.do_handshake)
            self.check(type(error).__name__ == "SSLWantWriteError", "SSLWantWriteError, passed on", repr(error))
            while left > 0:
                left -= len(drain(far))
        self.expect_events(poll, {"near": "w"})

    def _tls(self, sock: socket.socket) -> Any:
        """A TLS client over *sock*, before its handshake."""
        ssl = pytest.importorskip("ssl", reason="this Python has no TLS")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        tls = context.wrap_socket(sock, do_handshake_on_connect=False)
        self._keep(tls)
        return tls

    def test_EDG_06_data_on_top_of_data_is_reported_once_or_not(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        send(writer, b"a")
        self.expect_events(poll, {"reader": "r"})
        send(writer, b"b")
        events = self._in_silence(poll)
        self.check(
            [(event.token, event.readable, event.writable) for event in events] in ([], [("reader", True, False)]),
            "no event, or one that says readable",
            events,
            unasked=True,
        )
        assert drain(reader) == b"ab"
        send(writer, b"c")
        self.expect_events(poll, {"reader": "r"})

    def test_EDG_07_room_after_a_fill_is_reported(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        poll.register(writer, "writer", Interest.WRITABLE, Mode.EDGE)
        for _ in range(3):
            self.expect_events(poll, {"writer": "w"})
            left = fill(writer)
            while left:
                left -= len(drain(reader))

    def test_EDG_07_every_sending_call_that_would_block_counts(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        other = self._past_hooks(near)
        for name, transmit in SENDS.items():
            poll.register(near, f"near, for {name}", Interest.WRITABLE, Mode.EDGE)
            self.expect_events(poll, {f"near, for {name}": "w"})
            left = fill(other)
            with suppress(BlockingIOError):
                while True:
                    transmit(near)  # TCP may have made room since
            while left > 0:
                left -= len(drain(far))
            self.expect_events(poll, {f"near, for {name}": "w"})
            poll.deregister(near)

    def test_EDG_07_a_fill_by_do_io_and_one_said_to_be_one_count(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        source = IoSource(writer)
        poll.register(source, "writer", Interest.WRITABLE, Mode.EDGE)
        other = self._past_hooks(writer)

        def by_do_io() -> None:
            with suppress(BlockingIOError):
                while True:
                    source.do_io(Interest.WRITABLE, send, other, b"x")  # TCP may have made room since

        def by_word() -> None:
            source.drained(Interest.WRITABLE)

        for say in by_do_io, by_word:
            self.expect_events(poll, {"writer": "w"})
            left = fill(other)
            say()
            while left > 0:
                left -= len(drain(reader))
        self.expect_events(poll, {"writer": "w"})

    def test_EDG_08_room_that_comes_in_small_steps_is_reported(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        poll.register(writer, "writer", Interest.WRITABLE, Mode.EDGE)
        self.expect_events(poll, {"writer": "w"})
        left = fill(writer)
        # A look after each of the first steps, and after each of some larger ones, may find too little room.
        events: list[Event[object]] = []
        steps = [100] * 5 + [left // 10 + 1] * 10
        while left:
            step = steps.pop(0) if steps else left
            while step > 0 and left:
                with suppress(BlockingIOError):
                    got = len(recv(reader, step))
                    step -= got
                    left -= got
            events += poll.poll(0)
        if not events:
            self.expect_events(poll, {"writer": "w"})

    # -- what an edge may say besides -------------------------------------------------------------

    def test_EDG_09_an_event_for_data_may_mention_room(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        self.expect_events(poll, {"near": "w"})
        for data in b"a", b"b":
            send(far, data)
            self.expect_events(poll, {"near": "r"}, also={"near": "w"})
            assert drain(near) == data

    def test_EDG_09_an_event_for_data_does_not_mention_room_that_is_not_there(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        self.expect_events(poll, {"near": "w"})
        fill(near)
        send(far, b"x")
        events = self.expect_events(poll, {"near": "r"}, also={"near": "w"})
        if any(event.writable for event in events):  # TCP may have made room since
            with suppress(BlockingIOError):
                send(near, b"x")
                return
            raise self.failure("writable only where there is room", f"{events}, and a send would block")

    def test_EDG_10_a_peer_that_reads_makes_nothing_but_room(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        self.expect_events(poll, {"near": "w"})
        send(near, b"x")
        arrived(far)
        assert drain(far) == b"x"
        events = self._in_silence(poll)
        self.check(
            [(event.token, event.readable, event.writable) for event in events] in ([], [("near", False, True)]),
            "no event, or one that says writable",
            events,
            unasked=True,
        )

    # -- listeners and datagrams ------------------------------------------------------------------

    def _accept_all(
        self, poll: Poll[object], listener: socket.socket, accept: Callable[[], tuple[socket.socket, Any]]
    ) -> None:
        """Let some connect, and then some more, right after the accept that would have blocked."""
        for number in 3, 1, 2:
            for _ in range(number):
                client = socket.socket(listener.family)
                self._keep(client)
                client.connect(listener.getsockname())
            while number:
                self.expect_events(poll, {"listener": "r"})
                with suppress(BlockingIOError):
                    while True:
                        accept()[0].close()
                        number -= 1

    @pytest.mark.parametrize("kind", ["tcp", "net-tcp"])
    def test_EDG_11_connections_after_the_last_accept_are_reported(self, poll: Poll[object], kind: str) -> None:
        listener = self.listener() if kind == "tcp" else self.net_listener()

        def register() -> None:
            poll.register(listener, "listener", Interest.READABLE, Mode.EDGE)

        if kind == "tcp":
            self.needs(Capability.NATIVE_EDGE, refused=register)
        register()
        self._accept_all(poll, listener, listener.accept)

    def test_EDG_11_connections_after_the_last_accept_are_reported_on_unix(
        self, poll: Poll[object], tmp_path: Path
    ) -> None:
        if not hasattr(socket, "AF_UNIX"):
            pytest.skip("this platform has no Unix sockets")
        with net.UnixListener.open(tmp_path / "listener") as listener:
            poll.register(listener, "listener", Interest.READABLE, Mode.EDGE)
            self._accept_all(poll, listener, listener.accept)

    def test_EDG_11_connections_after_the_last_accept_by_do_io_are_reported(self, poll: Poll[object]) -> None:
        listener = self.listener()
        source = IoSource(listener)
        poll.register(source, "listener", Interest.READABLE, Mode.EDGE)
        self._accept_all(poll, listener, lambda: source.do_io(Interest.READABLE, listener.accept))

    @pytest.mark.parametrize("kind", ["udp", "net-udp", "net-unix"])
    def test_EDG_12_datagrams_after_the_last_receive_are_reported(self, poll: Poll[object], kind: str) -> None:
        near, far = self._datagrams(poll, kind)
        for name, receive in RECEIVES.items():
            poll.register(near, f"near, for {name}", Interest.READABLE, Mode.EDGE)
            for number in 3, 1, 2:
                for _ in range(number):
                    far.send(b"datagram")
                while number:
                    self.expect_events(poll, {f"near, for {name}": "r"})
                    with suppress(BlockingIOError):
                        while True:
                            receive(near)
                            number -= 1
            poll.deregister(near)

    def _datagrams(self, poll: Poll[object], kind: str) -> tuple[socket.socket, socket.socket]:
        if kind == "udp":
            near, far = self.udp_pair()
            self.needs(
                Capability.NATIVE_EDGE, refused=lambda: poll.register(near, "near", Interest.READABLE, Mode.EDGE)
            )
            return near, far
        if kind == "net-udp":
            return self.net_udp_pair()
        if not hasattr(socket, "AF_UNIX"):
            pytest.skip("this platform has no Unix sockets")
        ends = net.UnixDatagram.pair()
        self._keep(*ends)
        return ends

    def test_EDG_13_a_peek_that_would_block_counts(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        other = self._past_hooks(near)
        poll.register(near, "near", Interest.READABLE, Mode.EDGE)
        for peek in near.recv, near.recvfrom:
            for data in b"a", b"b":
                send(far, data)
                self.expect_events(poll, {"near": "r"})
                peek(1, socket.MSG_PEEK)
                assert drain(other) == data
                self.expect_error(BlockingIOError, peek, 1, socket.MSG_PEEK)
        send(far, b"c")
        self.expect_events(poll, {"near": "r"})

    # -- ends, directions, other ways in ----------------------------------------------------------

    def test_EDG_14_a_short_read_counts_where_edges_are_native(self, poll: Poll[object], pair: Ends) -> None:
        plain, _ = self.tcp_pair()
        self.needs(Capability.NATIVE_EDGE, refused=lambda: poll.register(plain, "plain", Interest.READABLE, Mode.EDGE))
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        for data in b"a", b"bc", b"d":
            send(writer, data)
            self.expect_events(poll, {"reader": "r"})
            assert recv(reader) == data

    def test_EDG_15_an_end_after_drained_data_is_reported(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        send(writer, b"last")
        self.expect_events(poll, {"reader": "r"})
        assert drain(reader) == b"last"
        writer.close()
        self.expect_events(poll, {"reader": "r"})
        assert recv(reader) == b""

    def test_EDG_15_an_end_of_one_direction_after_drained_data_is_reported(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        send(far, b"last")
        self.expect_events(poll, {"near": "rw"})
        assert drain(near) == b"last"
        self.expect_silence(poll)
        far.shutdown(socket.SHUT_WR)
        self.expect_events(poll, {"near": "r"}, also={"near": "w"})
        assert near.recv(1) == b""

    def test_EDG_16_reading_to_the_end_leaves_the_report_of_room(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        self.expect_events(poll, {"near": "w"})
        send(far, b"x")
        self.expect_events(poll, {"near": "r"}, also={"near": "w"})
        left = fill(near)
        while left:
            left -= len(drain(far))
        # There is room, and nobody has been told; reading until it would block must not use that up.
        assert drain(near) == b"x"
        self.expect_events(poll, {"near": "w"})

    def test_EDG_16_writing_until_full_leaves_the_report_of_data(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        send(far, b"a")
        self.expect_events(poll, {"near": "rw"})
        assert drain(near) == b"a"
        send(far, b"b")
        arrived(near)
        # There is data, and nobody has been told; writing until it would block must not use that up.
        left = fill(near)
        self.expect_events(poll, {"near": "r"}, also={"near": "w"})
        # Nor must reading forget that room is waited for.
        left += fill(near)
        assert drain(near) == b"b"
        while left:
            left -= len(drain(far))
        self.expect_events(poll, {"near": "w"})

    def test_EDG_17_any_descriptor_is_taken_where_edges_are_native_and_refused_elsewhere(
        self, poll: Poll[object], pair: Ends
    ) -> None:
        reader, writer = pair[0].fileno(), pair[1]
        self.needs(
            Capability.NATIVE_EDGE, refused=lambda: poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        )
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        for read_by in pair[0], self._past_hooks(pair[0]), pair[0]:
            send(writer, b"x")
            self.expect_events(poll, {"reader": "r"})
            assert drain(read_by) == b"x"

    def test_EDG_17_io_through_a_duplicate_counts_where_edges_are_native(
        self, poll: Poll[object], edge_pair: Ends
    ) -> None:
        reader, writer = edge_pair
        plain, _ = self.tcp_pair()
        self.needs(Capability.NATIVE_EDGE, refused=lambda: poll.register(plain, "plain", Interest.READABLE, Mode.EDGE))
        poll.register(writer, "writer", Interest.WRITABLE, Mode.EDGE)
        others = self._past_hooks(reader), self._past_hooks(writer)
        for _ in range(3):
            self.expect_events(poll, {"writer": "w"})
            left = fill(others[1])
            while left:
                left -= len(drain(others[0]))

    def test_EDG_17_io_elsewhere_followed_by_drained_counts(self, poll: Poll[object], pair: Ends) -> None:
        source = IoSource(pair[0])
        other = self._past_hooks(pair[0])
        poll.register(source, "reader", Interest.READABLE, Mode.EDGE)
        for data in b"a", b"b", b"c":
            send(pair[1], data)
            self.expect_events(poll, {"reader": "r"})
            assert drain(other) == data
            send(pair[1], b"before the word")
            arrived(pair[0])
            source.drained(Interest.READABLE)
            self.expect_events(poll, {"reader": "r"})
            drain(other)
            source.drained(Interest.READABLE)

    def test_EDG_17_a_duplicate_of_a_watched_source_has_edges_of_its_own(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        poll.register(near, "near", Interest.READABLE, Mode.EDGE)
        with near.dup() as other:
            poll.register(other, "other", Interest.READABLE, Mode.EDGE)
            send(far, b"x")
            self.expect_events(poll, {"near": "r", "other": "r"})
            assert drain(other) == b"x"
            self.expect_error(BlockingIOError, near.recv, 1)
            send(far, b"y")
            self.expect_events(poll, {"near": "r", "other": "r"})
            poll.deregister(other)
        # The duplicate and its reports are gone; the first one's go on.
        assert drain(near) == b"y"
        send(far, b"z")
        self.expect_events(poll, {"near": "r"})

    @pytest.mark.parametrize("mode", Mode, ids=attrgetter("name"))
    def test_EDG_18_a_second_registration_is_refused_whatever_its_mode(
        self, poll: Poll[object], edge_pair: Ends, mode: Mode
    ) -> None:
        reader, writer = edge_pair
        poll.register(reader, "edge", Interest.READABLE, Mode.EDGE)
        for second in reader.fileno(), IoSource(reader), IoSource(reader.fileno()):
            self.expect_error(AlreadyRegisteredError, poll.register, second, "second", Interest.READABLE, mode)
        for data in b"a", b"b":
            send(writer, data)
            self.expect_events(poll, {"edge": "r"})
            self.expect_silence(poll)
            assert drain(reader) == data

    def test_EDG_18_a_level_registration_stays_one(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "level", Interest.READABLE, Mode.LEVEL)
        for second in reader.fileno(), IoSource(reader):
            self.expect_error(AlreadyRegisteredError, poll.register, second, "second", Interest.WRITABLE, Mode.EDGE)
        send(writer, b"x")
        for _ in range(3):
            self.expect_events(poll, {"level": "r"})

    # -- what reports would-blocks does so no longer than it is watched ---------------------------

    def test_REG_15_a_read_that_would_block_does_not_bring_a_deregistered_edge_back(
        self, poll: Poll[object], edge_pair: Ends
    ) -> None:
        reader, writer = edge_pair
        poll.register(reader, "reader", Interest.READABLE, Mode.EDGE)
        send(writer, b"x")
        self.expect_events(poll, {"reader": "r"})
        poll.deregister(reader)
        drain(reader)
        send(writer, b"y")
        self.expect_silence(poll)
        # Nor does it arm what is registered under the number afterwards.
        poll.register(reader.fileno(), "number", Interest.READABLE, Mode.ONESHOT)
        self.expect_events(poll, {"number": "r"})
        drain(reader)
        send(writer, b"z")
        self.expect_silence(poll)

    def test_REG_10_a_read_of_a_detached_socket_does_not_reach_the_next_owner(
        self, poll: Poll[object], edge_duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = edge_duplex
        poll.register(near, "former", Interest.READABLE, Mode.EDGE)
        send(far, b"x")
        self.expect_events(poll, {"former": "r"})
        with socket.socket(fileno=near.detach()) as owner:
            self.expect_error(OSError, near.recv, 1)
            poll.register(owner, "owner", Interest.READABLE, Mode.ONESHOT)
            self.expect_events(poll, {"owner": "r"})
            assert drain(owner) == b"x"
            send(far, b"y")
            self.expect_silence(poll)
            poll.rearm(owner)
            self.expect_events(poll, {"owner": "r"})

    @pytest.mark.parametrize("kind", ["net-tcp", "net-unix"])
    def test_GCL_02_a_socket_watched_for_edges_is_closed_at_once_when_it_is_dropped(
        self, poll: Poll[object], kind: str
    ) -> None:
        plain, far = self.tcp_pair() if kind == "net-tcp" else self.unix_pair()
        stream = net.TcpStream if kind == "net-tcp" else net.UnixStream
        near = stream.adopt(plain)
        poll.register(near, "near", Interest.READ_WRITE, Mode.EDGE)
        self.expect_events(poll, {"near": "w"})
        send(far, b"x")
        self.expect_events(poll, {"near": "r"}, also={"near": "w"})
        assert drain(near) == b"x"
        enabled = gc.isenabled()
        gc.disable()  # or the collector might do what the dropping must
        try:
            with pytest.warns(ResourceWarning, match="unclosed"):
                del near
        finally:
            if enabled:
                gc.enable()
        arrived(far)
        assert far.recv(1) == b""
        self.expect_silence(poll)
