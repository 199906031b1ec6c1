"""INT: events stay within what was asked for, and nothing asked for means nothing said."""

from __future__ import annotations

import socket
import time
from collections import Counter
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Final

import pytest

from polling import AlreadyRegisteredError, Capability, Interest, IoSource, Mode, Poll, net
from polling.backend import Source
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import Ends, drain, recv, reset, send
from polling_conformance.harness import Harness

__all__ = ["InterestRules"]

URGENT: Final = socket.MSG_OOB

each_mode = pytest.mark.parametrize("mode", Mode, ids=attrgetter("name"))


class InterestRules(Harness):
    """Interest is a filter in both directions: asked for and true is reported, all else is not, hangups included.

    Where a rule speaks of every mode, ``EDGE`` comes by way of ``IoSource``, which every backend takes.
    """

    def test_INT_01_a_parked_source_is_silent_and_stays_registered(self, poll: Poll[object], pair: Ends) -> None:
        for mode in Mode:
            reader, writer = map(IoSource, pair) if mode is Mode.EDGE else pair
            send(pair[1], b"before")
            poll.register(reader, f"reader, {mode.name}", Interest.NONE, mode)
            poll.register(writer, f"writer, {mode.name}", Interest.WRITABLE, mode)
            poll.reregister(writer, f"writer, {mode.name}", Interest.NONE, mode)
            send(pair[1], b"after")
            self.expect_silence(poll)
            for parked in reader, writer:
                self.expect_error(AlreadyRegisteredError, poll.register, parked, "again")
            poll.reregister(reader, f"reader, {mode.name}", Interest.READABLE, mode)
            self.expect_events(poll, {f"reader, {mode.name}": "r"})
            poll.deregister(reader)
            poll.deregister(writer)
            drain(pair[0])

    def test_INT_01_rearming_a_parked_source_leaves_it_silent(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.NONE, Mode.ONESHOT)
        send(writer, b"x")
        poll.rearm(reader)
        self.expect_silence(poll)

    def test_INT_02_a_parked_reader_is_silent_about_the_end(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = IoSource(pair[0]), pair[1]
        poll.register(reader, "parked", Interest.NONE)
        writer.close()
        self.expect_silence(poll)
        for mode in Mode:
            poll.reregister(reader, mode.name, Interest.READABLE, mode)
            self.expect_events(poll, {mode.name: "r"})
            poll.reregister(reader, "parked", Interest.NONE, mode)
        self.expect_silence(poll)

    def test_INT_02_a_parked_writer_is_silent_about_its_reader_leaving(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair[0], IoSource(pair[1])
        poll.register(writer, "parked", Interest.NONE)
        reader.close()
        self.expect_silence(poll)
        for mode in Mode:
            poll.reregister(writer, mode.name, Interest.WRITABLE, mode)
            self.expect_events(poll, {mode.name: "w"})
            poll.reregister(writer, "parked", Interest.NONE, mode)
        self.expect_silence(poll)

    def test_INT_02_a_parked_socket_is_silent_about_a_reset(self, poll: Poll[object]) -> None:
        near, far = self.tcp_pair()
        poll.register(near, "near", Interest.READ_WRITE)
        self.expect_events(poll, {"near": "w"})
        poll.reregister(near, "parked", Interest.NONE, Mode.LEVEL)
        reset(far)
        self.expect_silence(poll)
        poll.reregister(near, "near", Interest.READ_WRITE, Mode.LEVEL)
        self.expect_events(poll, {"near": "rw"})

    def test_INT_04_data_and_hangup_set_no_bit_outside_the_interest(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = map(IoSource, pair)
        send(pair[1], b"data")
        for mode in Mode:
            poll.register(reader, f"reader, {mode.name}", Interest.READABLE, mode)
            poll.register(writer, f"writer, {mode.name}", Interest.WRITABLE, mode)
            self.expect_events(poll, {f"reader, {mode.name}": "r", f"writer, {mode.name}": "w"})
            poll.deregister(reader)
            poll.deregister(writer)
        pair[1].close()
        for data in b"data", b"":
            for mode in Mode:
                poll.register(reader, f"ended reader, {mode.name}", Interest.READABLE, mode)
                self.expect_events(poll, {f"ended reader, {mode.name}": "r"})
                poll.deregister(reader)
            assert recv(pair[0]) == data

    def test_INT_04_a_writer_whose_reader_left_is_not_readable(self, poll: Poll[object], pair: Ends) -> None:
        pair[0].close()
        writer = IoSource(pair[1])
        for mode in Mode:
            poll.register(writer, f"left writer, {mode.name}", Interest.WRITABLE, mode)
            self.expect_events(poll, {f"left writer, {mode.name}": "w"})
            poll.deregister(writer)

    @each_mode
    def test_INT_04_reset_and_urgent_data_set_no_bit_outside_the_interest(self, poll: Poll[object], mode: Mode) -> None:
        peers = {}
        sources = {}
        interests = {"reading": Interest.READABLE, "writing": Interest.WRITABLE, "both": Interest.READ_WRITE}
        for name, interest in interests.items():
            near, peers[name] = self.tcp_pair()
            sources[name] = IoSource(near)
            poll.register(sources[name], name, interest, mode)
        for far in peers.values():
            far.send(b"data")
            far.send(b"!", URGENT)
        self.expect_events(poll, {"reading": "r", "writing": "w", "both": "rw"})
        for far in peers.values():
            reset(far)
        for _ in range(3):
            for name, interest in interests.items():
                poll.reregister(sources[name], name, interest, mode)
            self.expect_events(poll, {"reading": "r", "writing": "w", "both": "rw"})

    def test_INT_04_priority_interest_alone_is_not_told_of_data_and_a_reset_is_priority_only(
        self, poll: Poll[object]
    ) -> None:
        near, far = self.tcp_pair()
        self.needs(Capability.PRIORITY, refused=lambda: poll.register(near, "near", Interest.PRIORITY))
        poll.register(near, "near", Interest.PRIORITY)
        send(far, b"data")
        self.expect_silence(poll)
        reset(far)
        self.expect_events(poll, {"near": "p"})

    def test_INT_05_an_idle_connected_socket_is_writable_and_not_readable(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        poll.register(near, "near", Interest.READ_WRITE)
        for _ in range(3):
            self.expect_events(poll, {"near": "w"})
        send(far, b"x")
        # The data may still be on its way at the first wait.
        self.expect_events(poll, {"near": "rw"})

    def _listeners(self, folder: Path) -> dict[str, socket.socket]:
        listeners: dict[str, socket.socket] = {"tcp": self.listener(), "net-tcp": self.net_listener()}
        if hasattr(socket, "AF_UNIX"):
            listeners["net-unix"] = unix = net.UnixListener.open(folder / "listener")
            self._keep(unix)
        return listeners

    def test_INT_06_a_listener_is_never_writable(self, poll: Poll[object], tmp_path: Path) -> None:
        listeners = self._listeners(tmp_path)
        for kind, listener in listeners.items():
            poll.register(listener, kind, Interest.WRITABLE)
        self.expect_silence(poll)
        for listener in listeners.values():
            client = socket.socket(listener.family)
            self._keep(client)
            client.connect(listener.getsockname())
        self.expect_silence(poll)
        for mode in Mode.LEVEL, Mode.ONESHOT, Mode.EDGE_ONESHOT:
            for kind, listener in listeners.items():
                poll.reregister(listener, f"{kind}, {mode.name}", Interest.READ_WRITE, mode)
            self.expect_events(poll, {f"{kind}, {mode.name}": "r" for kind in listeners})

    def test_INT_06_a_listener_is_never_writable_in_edge_mode_either(self, poll: Poll[object]) -> None:
        listener = self.net_listener()
        poll.register(listener, "listener", Interest.READ_WRITE, Mode.EDGE)
        self.expect_silence(poll)
        for _ in range(3):
            with socket.create_connection(listener.getsockname()):
                self.expect_events(poll, {"listener": "r"})
                with suppress(BlockingIOError):
                    while True:
                        listener.accept()[0].close()

    def _fresh_stream(self) -> net.TcpStream:
        sock = net.TcpStream(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        self._keep(sock)
        return sock

    def test_INT_07_an_unconnected_socket_is_not_reported_again_and_again_but_in_level_mode(
        self, poll: Poll[object]
    ) -> None:
        for mode in Mode.EDGE, Mode.ONESHOT, Mode.EDGE_ONESHOT:
            poll.register(self._fresh_stream(), mode.name, Interest.READ_WRITE, mode)
        seen: Counter[object] = Counter()
        end = time.monotonic() + SILENCE
        while (left := end - time.monotonic()) > 0:
            for event in poll.poll(left):
                seen[event.token] += 1
                self.check(not event.priority, "readable or writable, if anything", event)
        self.check(max(seen.values(), default=0) <= 1, "one event at most for each before connect", dict(seen))

    @pytest.mark.parametrize("listening", [True, False], ids=["accepted", "refused"])
    def test_INT_07_a_connect_after_the_registration_is_reported(self, poll: Poll[object], listening: bool) -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            if listening:
                server.listen()
            for mode in Mode:
                stream = self._fresh_stream()
                poll.register(stream, mode.name, Interest.WRITABLE, mode)
                early = poll.poll(0)
                self.check(
                    all((event.token, event.readable, event.priority) == (mode.name, False, False) for event in early),
                    "writable, if anything",
                    early,
                )
                with suppress(BlockingIOError):
                    stream.connect(server.getsockname())
                if mode in (Mode.ONESHOT, Mode.EDGE_ONESHOT):
                    poll.rearm(stream)  # it may have spoken already
                # The word from before the connect may come late; then SO_ERROR says nothing, and a peer is missing.
                deadline = time.monotonic() + SIGNAL_WAIT
                while True:
                    self.expect_events(poll, {mode.name: "w"})
                    error = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if error or _connected(stream):
                        break
                    self.check(time.monotonic() < deadline, "an event when the connect is done", "only events before")
                self.check((error == 0) is listening, f"SO_ERROR {'0' if listening else 'set'} after the event", error)
                poll.deregister(stream)

    def _urgent_pair(self, kind: str, poll: Poll[object]) -> tuple[socket.socket, socket.socket]:
        near, far = self.tcp_pair() if kind == "tcp" else self.net_tcp_pair()
        self.needs(Capability.PRIORITY, refused=lambda: poll.register(near, "near", Interest.PRIORITY))
        return near, far

    @pytest.mark.parametrize("kind", ["tcp", "net-tcp"])
    def test_INT_08_urgent_data_is_priority_and_not_readable(self, poll: Poll[object], kind: str) -> None:
        near, far = self._urgent_pair(kind, poll)
        source = IoSource(near)
        poll.register(source, "near", Interest.READABLE)
        far.send(b"!", URGENT)
        self.expect_silence(poll)
        for mode in Mode:
            for interest in Interest.PRIORITY, Interest.PRIORITY | Interest.READABLE:
                poll.reregister(source, mode.name, interest, mode)
                self.expect_events(poll, {mode.name: "p"})
        assert near.recv(1, URGENT) == b"!"

    @pytest.mark.parametrize("kind", ["tcp", "net-tcp"])
    def test_INT_08_data_and_urgent_data_are_told_apart(self, poll: Poll[object], kind: str) -> None:
        near, far = self._urgent_pair(kind, poll)
        poll.register(near, "near", Interest.PRIORITY | Interest.READABLE)
        send(far, b"data")
        self.expect_events(poll, {"near": "r"})
        far.send(b"!", URGENT)
        self.expect_events(poll, {"near": "rp"})

    def test_INT_09_urgent_data_that_is_never_read_does_not_spin(self, poll: Poll[object]) -> None:
        for kind, (near, far) in {"tcp": self.tcp_pair(), "net-tcp": self.net_tcp_pair()}.items():
            poll.register(near, kind, Interest.READABLE)
            send(far, b"data")
            self.expect_events(poll, {kind: "r"})
            assert drain(near) == b"data"
            far.send(b"!", URGENT)  # and no read after it: one would pass over the byte, and end the condition
        self.expect_silence(poll)

    @each_mode
    def test_INT_10_dropping_one_interest_leaves_the_other(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket], mode: Mode
    ) -> None:
        near, far = duplex
        source: Source = IoSource(near) if mode is Mode.EDGE else near
        poll.register(source, "both", Interest.READ_WRITE, mode)
        self.expect_events(poll, {"both": "w"})
        poll.reregister(source, "reading", Interest.READABLE, mode)
        self.expect_silence(poll)
        send(far, b"x")
        self.expect_events(poll, {"reading": "r"})
        if mode is Mode.LEVEL:
            self.expect_events(poll, {"reading": "r"})
        else:
            self.expect_silence(poll)
        poll.reregister(source, "both", Interest.READ_WRITE, mode)
        self.expect_events(poll, {"both": "rw"})
        poll.reregister(source, "writing", Interest.WRITABLE, mode)
        self.expect_events(poll, {"writing": "w"})

    def test_INT_11_what_is_reported_writable_takes_a_byte(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(writer, "writer", Interest.WRITABLE)
        for _ in range(2):
            sent = 0
            while poll.poll(SILENCE):
                try:
                    sent += send(writer, b"x")
                except BlockingIOError:
                    raise self.failure(
                        "a source reported writable takes a byte", f"it would block after {sent} bytes"
                    ) from None
                try:
                    sent += send(writer, bytes(16_384))
                except BlockingIOError:
                    continue  # a byte was all that there was room for
            while sent:
                sent -= len(drain(reader))
            self.expect_events(poll, {"writer": "w"})

    def test_INT_11_what_is_reported_writable_takes_a_datagram(self, poll: Poll[object]) -> None:
        for kind, (near, _) in {"udp": self.udp_pair(), "net-udp": self.net_udp_pair()}.items():
            poll.register(near, kind, Interest.WRITABLE)
            for _ in range(20):
                self.expect_events(poll, {kind: "w"})
                assert near.send(b"datagram") == 8
            poll.deregister(near)


def _connected(stream: socket.socket) -> bool:
    try:
        stream.getpeername()
    except OSError:
        return False
    return True
