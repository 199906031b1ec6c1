"""SRC, UDP, WIN: kinds of source, which of them every backend takes or refuses, and what they share."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest

from polling import Capability, Interest, Mode, NotRegisteredError, Poll, UnsupportedSourceError, Waker, net
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import Descriptor, drain, fill, has_ipv6, recv, send
from polling_conformance.situations import Situations, stuff

__all__ = ["SourceRules"]


class SourceRules(Situations):
    """Sockets of every kind are watched, pipes and terminals where declared, and files nowhere."""

    @pytest.mark.parametrize("kind", ["file", "directory"])
    def test_SRC_01_files_and_directories_are_refused(self, poll: Poll[object], kind: str) -> None:
        folder = self._sources.enter_context(tempfile.TemporaryDirectory())
        if kind == "file":
            source = self._open(os.path.join(folder, "file"), os.O_RDWR | os.O_CREAT)
        elif sys.platform == "win32":
            pytest.skip("this platform does not open directories")
        else:
            source = self._open(folder)
        interests = Interest.READABLE, Interest.WRITABLE, Interest.READ_WRITE, Interest.NONE
        for mode, interest, form in product(Mode, interests, (source, source.fileno())):
            self.expect_error(UnsupportedSourceError, poll.register, form, kind, interest, mode)
            self.expect_error(NotRegisteredError, poll.deregister, form)
        self.expect_silence(poll)

    @pytest.mark.parametrize("device", ["null", "zero"])
    def test_SRC_02_character_devices_are_always_ready_or_refused(self, poll: Poll[object], device: str) -> None:
        path = f"/dev/{device}"
        if sys.platform == "win32" or not os.path.exists(path):  # Wine shows the folder, of another platform
            pytest.skip(f"this platform has no {path}")
        source = self._open(path, os.O_RDWR)
        for interest, bits in (Interest.READABLE, "r"), (Interest.WRITABLE, "w"), (Interest.READ_WRITE, "rw"):
            if not self.has(Capability.CHAR_DEVICES):
                self._expect_refusal(poll, source)
                continue
            poll.register(source, interest, interest)
            for _ in range(3):
                self.expect_events(poll, {interest: bits})
            poll.deregister(source)

    def test_SRC_03_both_ends_of_a_terminal_tell_of_input_or_are_refused(self, poll: Poll[object]) -> None:
        if sys.platform == "win32":
            pytest.skip("this platform has no pseudo-terminals")
        if not self.has(Capability.TTY):
            ends = [*map(Descriptor, os.openpty())]
            self._keep(*ends)
            for end in ends:
                self._expect_refusal(poll, end)
            return
        master, slave = self.pty()
        for mode in self.modes():
            poll.register(master, "master", Interest.READABLE, mode)
            poll.register(slave, "slave", Interest.READABLE, mode)
            self.expect_silence(poll)
            for near, far, token in (master, slave, "master"), (slave, master, "slave"):
                send(far, b"typed")
                self.expect_events(poll, {token: "r"})
                assert drain(near) == b"typed"
            self.expect_silence(poll)
            for end in master, slave:
                poll.deregister(end)
                poll.register(end, end, Interest.WRITABLE, mode)
            self.expect_events(poll, {master: "w", slave: "w"})
            for end in master, slave:
                poll.deregister(end)

    @pytest.mark.parametrize("kind", ["pipe", "FIFO"])
    def test_SRC_04_both_ends_of_a_pipe_are_watched_or_refused(self, poll: Poll[object], kind: str) -> None:
        if not self.has(Capability.PIPES):
            ends = [*map(Descriptor, os.pipe())]
            self._keep(*ends)
            for end in ends:
                self._expect_refusal(poll, end)
            return
        if kind == "pipe":
            reader, writer = self.pipe()
        else:
            fifo = self.fifo()
            reader, writer = fifo.reader, self.fifo_writer(fifo)
        for mode in self.modes():
            poll.register(reader, "reader", Interest.READABLE, mode)
            self.expect_silence(poll)
            send(writer, b"x")
            self.expect_events(poll, {"reader": "r"})
            poll.deregister(reader)
            stuff(writer)
            poll.register(writer, "writer", Interest.WRITABLE, mode)
            self.expect_silence(poll)
            drain(reader)
            self.expect_events(poll, {"writer": "w"})
            poll.deregister(writer)

    def test_SRC_05_both_ends_of_a_socketpair_are_connected_streams(self, poll: Poll[object]) -> None:
        for mode in self.modes():
            ends = self.socketpair()
            for end, peer in ends, ends[::-1]:
                poll.register(end, "end", Interest.WRITABLE, mode)
                self.expect_events(poll, {"end": "w"})
                poll.reregister(end, "end", Interest.READABLE, mode)
                self.expect_silence(poll)
                send(peer, b"x")
                self.expect_events(poll, {"end": "r"})
                assert drain(end) == b"x"
                poll.deregister(end)
            end, peer = ends
            poll.register(end, "end", Interest.READABLE, mode)
            peer.close()
            self.expect_events(poll, {"end": "r"})
            assert recv(end) == b""
            poll.deregister(end)

    def test_SRC_06_sockets_of_ipv6_are_watched_as_any(self, poll: Poll[object]) -> None:
        if not has_ipv6():
            pytest.skip("this machine has no IPv6")
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
        self._keep(listener)
        datagrams, sender = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
        self._keep(datagrams, sender)
        datagrams.bind(("::1", 0))
        listener.setblocking(False)
        datagrams.setblocking(False)
        for mode in self.modes():
            poll.register(listener, "listener", Interest.READABLE, mode)
            poll.register(datagrams, "datagrams", Interest.READABLE, mode)
            self.expect_silence(poll)
            near = socket.socket(socket.AF_INET6)
            self._keep(near)
            near.setblocking(False)
            near.connect_ex(listener.getsockname())
            poll.register(near, "near", Interest.WRITABLE, mode)
            self.expect_events(poll, {"near": "w", "listener": "r"})
            far, _ = listener.accept()
            self._keep(far)
            poll.reregister(near, "near", Interest.READABLE, mode)
            self.expect_silence(poll)
            send(far, b"x")
            sender.sendto(b"x", datagrams.getsockname())
            self.expect_events(poll, {"near": "r", "datagrams": "r"})
            assert recv(near) == recv(datagrams) == b"x"
            for source in listener, datagrams, near:
                poll.deregister(source)

    # -- datagrams -----------------------------------------------------------------------------------------

    def test_UDP_01_an_empty_datagram_is_readable_and_read_once(self, poll: Poll[object]) -> None:
        for near, far in self.udp_pair(), self.net_udp_pair():
            for mode in self.modes(hooked=isinstance(near, net.UdpSocket)):
                poll.register(near, "near", Interest.READABLE, mode)
                send(far, b"")
                self.expect_events(poll, {"near": "r"})
                assert recv(near) == b""
                self.expect_error(BlockingIOError, recv, near)
                self.expect_silence(poll)
                # It is no end of the stream: there is none.
                send(far, b"x")
                poll.reregister(near, "near", Interest.READABLE, mode)
                self.expect_events(poll, {"near": "r"})
                assert recv(near) == b"x"
                poll.deregister(near)

    def test_UDP_02_a_datagram_larger_than_the_buffer_is_taken_whole(self, poll: Poll[object]) -> None:
        for near, far in self.udp_pair(), self.net_udp_pair():
            for mode in self.modes(hooked=isinstance(near, net.UdpSocket)):
                poll.register(near, "near", Interest.READABLE, mode)
                send(far, b"0123456789")
                self.expect_events(poll, {"near": "r"})
                try:
                    read = recv(near, 4)
                except OSError as error:
                    blocked = isinstance(error, BlockingIOError)
                    self.check(not blocked, "a receive that gives the beginning, or EMSGSIZE", repr(error))
                else:
                    self.check(read == b"0123", "the beginning of the datagram", repr(read))
                self.expect_silence(poll)
                self.expect_error(BlockingIOError, recv, near)
                poll.deregister(near)

    @pytest.mark.parametrize("interest", [Interest.READABLE, Interest.WRITABLE, Interest.READ_WRITE])
    def test_UDP_03_an_unreachable_port_is_told_to_every_interest_or_to_none(
        self, poll: Poll[object], interest: Interest
    ) -> None:
        for make in self.udp_pair, self.net_udp_pair:
            near, far = make()
            poll.register(near, "near", interest)
            far.close()
            send(near, b"x")
            # Without the hint, an event that is merely writable says that there is room, as there always is.
            told = [event for event in poll.poll(SILENCE) if event.readable or event.error]
            for event in told:
                asked = (Interest.READABLE in interest, Interest.WRITABLE in interest)
                self.check((event.readable, event.writable) == asked, f"a report to all of {interest!r}", repr(event))
            if told:
                try:
                    read = recv(near)
                except (ConnectionRefusedError, ConnectionResetError):
                    pass
                except BlockingIOError as error:
                    self.check(self.by_completion(), "the next call to raise the error that was reported", repr(error))
                else:
                    raise self.failure("the next call to raise the error that was reported", f"it gave {read!r}")
                if Interest.WRITABLE in interest:
                    for event in self.expect_events(poll, {"near": "w"}):
                        self.check(not event.error, "no error, since it was taken", repr(event))
                else:
                    self.expect_silence(poll)
            poll.deregister(near)

    def test_UDP_04_a_datagram_socket_is_writable_at_once(self, poll: Poll[object]) -> None:
        sources: dict[str, socket.socket] = {}
        for mode in self.modes():
            fresh, bound = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
            self._keep(fresh, bound)
            for sock in fresh, bound:
                sock.setblocking(False)
            bound.bind(("127.0.0.1", 0))
            sources |= {"fresh": fresh, "bound": bound, "connected": self.udp_pair()[0]}
            hooked = net.UdpSocket.open(("127.0.0.1", 0))
            self._keep(hooked)
            sources["polling.net"] = hooked
            for kind, sock in sources.items():
                poll.register(sock, kind, Interest.WRITABLE, mode)
            self.expect_events(poll, dict.fromkeys(sources, "w"))
            for sock in sources.values():
                poll.deregister(sock)

    # -- what a backend does for several sources at once, or has begun for one --------------------------------

    @pytest.mark.parametrize("news", ["data", "room", "connections"])
    def test_WIN_01_the_others_are_reported_whatever_becomes_of_one(self, poll: Poll[object], news: str) -> None:
        interest = Interest.WRITABLE if news == "room" else Interest.READABLE
        sources: list[socket.socket] = []
        happen: list[Callable[[], object]] = []
        for _ in range(6):
            if news == "connections":
                source = self.listener()
                happen.append(partial(self._knock, source.getsockname()))
            else:
                source, far = self.tcp_pair()
                if news == "room":
                    fill(source)
                happen.append(partial(drain, far) if news == "room" else partial(send, far, b"x"))
            sources.append(source)
            poll.register(source, len(sources), interest)
        self.expect_silence(poll)  # by now whatever waits for them has begun, also if one thing waits for all
        deregistered, parked, again, closed, *_ = sources
        poll.deregister(deregistered)
        poll.reregister(parked, "parked", Interest.NONE, Mode.LEVEL)
        poll.deregister(again)
        poll.register(again, "again", interest)
        for source, make in zip(sources, happen, strict=True):
            if source is closed:
                source.close()
            else:
                make()
        self.expect_events(poll, dict.fromkeys(["again", 5, 6], "w" if news == "room" else "r"))

    @pytest.mark.parametrize("change", ["deregistered", "parked", "registered anew", "closed"])
    def test_WIN_02_what_is_called_off_is_no_event_and_ends_no_wait(self, poll: Poll[object], change: str) -> None:
        waker = Waker(poll, "waker")
        for waits in False, True:
            near, _ = self.tcp_pair()
            poll.register(near, "near")
            self.expect_silence(poll)  # by now what waits for data has begun
            waiter = self.in_thread(poll.poll, SIGNAL_WAIT).blocked() if waits else None
            if change == "closed":
                near.close()
            elif change == "parked":
                poll.reregister(near, "near", Interest.NONE, Mode.LEVEL)
            else:
                poll.deregister(near)
            if change == "registered anew":
                poll.register(near, "near")
            if waiter is None:
                self.expect_silence(poll)
                continue
            waiter.thread.join(SILENCE)
            waker.wake()
            events = waiter.result()
            self.check(
                [event.token for event in events] == ["waker"],
                "a wait that goes on until it is woken",
                f"it ends with {events}",
                unasked=bool(events),
            )

    # -- helpers -------------------------------------------------------------------------------------------

    def _knock(self, address: tuple[str, int]) -> None:
        self._keep(socket.create_connection(address, timeout=SIGNAL_WAIT))

    def _open(self, path: str, flags: int = os.O_RDONLY) -> Descriptor:
        source = Descriptor(os.open(path, flags))
        self._keep(source)
        return source

    def _expect_refusal(self, poll: Poll[object], source: Descriptor) -> None:
        self.expect_error(UnsupportedSourceError, poll.register, source, "refused")
        self.expect_error(NotRegisteredError, poll.deregister, source)
