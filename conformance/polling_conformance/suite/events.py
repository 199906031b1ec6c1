"""EVT, MRG: what an event says about data, ends, resets and errors, and that it says it once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Hashable, Mapping
from itertools import combinations

import pytest

from polling import Capability, Event, Interest, Mode, Poll, net
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import End, Ends, arrived, recv, reset, send
from polling_conformance.situations import SITUATIONS, Situations, stuff

__all__ = ["EventRules"]

_INTERESTS = {"r": Interest.READABLE, "w": Interest.WRITABLE, "p": Interest.PRIORITY}


class Anonymous:
    """A token that equals every other, and so can only be told by identity."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Anonymous)

    def __hash__(self) -> int:
        return 0


class EventRules(Situations):
    """``readable`` and ``writable`` are enough to live by: whatever happens to a source shows up in them.

    Hints are asked for only where the backend declares them; where one is given, its condition must hold.
    """

    # -- whatever can have happened: the table of situations -------------------------------------------

    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_EVT_01_whatever_happened_shows_in_the_readiness_bits(self, poll: Poll[object], situation: str) -> None:
        watched = self._watch(poll, situation)
        events = self._events(poll, watched, {token: self._ready(situation) & bits for token, bits in watched.items()})
        for event in events:
            said = event.readable or event.writable or event.priority
            self.check(said, "an event with at least one readiness bit", repr(event))

    def test_EVT_01_priority_is_reported_or_refused(self, poll: Poll[object]) -> None:
        near, far = self.tcp_pair()
        self.needs(Capability.PRIORITY, refused=lambda: poll.register(near, "near", Interest.PRIORITY))
        poll.register(near, "near", Interest.PRIORITY)
        reset(far)
        self.expect_events(poll, {"near": "p"})

    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_EVT_04_read_closed_is_true_only_when_reading_is_over(self, poll: Poll[object], situation: str) -> None:
        self._judge_hint(poll, situation, Capability.READ_CLOSED, asked="r")

    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_EVT_06_write_closed_is_true_only_when_writing_is_over(self, poll: Poll[object], situation: str) -> None:
        self._judge_hint(poll, situation, Capability.WRITE_CLOSED, asked="rw")

    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_EVT_14_error_is_true_only_when_an_error_is_pending(self, poll: Poll[object], situation: str) -> None:
        self._judge_hint(poll, situation, Capability.ERROR, asked="")

    def _judge_hint(self, poll: Poll[object], situation: str, capability: Capability, *, asked: str) -> None:
        """Look at a hint in every event of a situation: demanded if certain, else allowed if true."""
        hint = str(capability.name).lower()
        entry = SITUATIONS[situation]
        demanded = {hint} if self.has(capability) and hint in entry.certain else set()
        watched = self._watch(poll, situation)
        events = self._events(
            poll, watched, {token: demanded for token, bits in watched.items() if bits.issuperset(asked)}
        )
        allowed = self.has(capability) and hint in entry.true
        why = "it is not true then" if self.has(capability) else f"{capability.name} is not declared"
        for event in events:
            self.check(allowed or not getattr(event, hint), f"no {hint}: {why}", repr(event))

    def _ready(self, situation: str) -> set[str]:
        """Give the letters that must be reported where they are asked for."""
        entry = SITUATIONS[situation]
        return set() if entry.silent_by_completion and self.by_completion() else set(entry.ready)

    def _watch(self, poll: Poll[object], situation: str) -> dict[str, set[str]]:
        """Bring sources into a situation, one for each interest and mode; give the tokens, and letters asked for.

        One of each interest is registered before it happens: some backends look at a source, others are told.
        """
        entry, ready = SITUATIONS[situation], self._ready(situation)
        letters = entry.asks if self.has(Capability.PRIORITY) else entry.asks.replace("p", "")
        watched: dict[str, set[str]] = {}
        for bits in (bits for count in range(1, len(letters) + 1) for bits in combinations(letters, count)):
            interest = Interest(sum(_INTERESTS[bit] for bit in bits))
            for before, mode in [(True, Mode.LEVEL), *((False, mode) for mode in self.modes())]:
                source, happen = entry.prepare(self)
                asked = " and ".join(str(_INTERESTS[bit].name) for bit in bits)
                token = f"{situation}, {mode.name} {asked} from {'before' if before else 'after'} it"
                if before:
                    poll.register(source, token, interest, mode)
                happen()
                if ready:
                    arrived(source, "r" if "r" in ready else "w")
                if not before:
                    poll.register(source, token, interest, mode)
                watched[token] = set(bits)
        return watched

    def _events(
        self, poll: Poll[object], watched: Collection[str], expected: Mapping[str, Collection[str]]
    ) -> list[Event[object]]:
        """Wait for what is expected, and one wait longer for whatever else is said of the same sources."""
        demanded: dict[Hashable, Collection[str]] = {token: bits for token, bits in expected.items() if bits}
        events = self.expect_events(poll, demanded, also=dict.fromkeys(watched, "rwp"))
        return events + poll.poll(SILENCE)

    # -- the end of what the peer says -------------------------------------------------------------------

    def test_EVT_02_data_comes_before_the_end_and_the_mark_does_not_hide_it(
        self, poll: Poll[object], pair: Ends
    ) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE)
        send(writer, b"last")
        writer.close()
        for expected in b"l", b"a", b"s", b"t", b"":
            for event in self.expect_events(poll, {"reader": "r"}):
                marked = event.read_closed and not event.readable
                self.check(not marked, "readable wherever read_closed is true", repr(event))
            read = recv(reader, 1)
            self.check(read == expected, f"the read to give {expected!r}, and the end after all data", repr(read))

    def test_EVT_03_the_end_of_the_peers_data_is_readable(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        poll.register(near, "near", Interest.READABLE)
        self.expect_silence(poll)
        far.shutdown(socket.SHUT_WR)
        self.expect_events(poll, {"near": "r"})
        for mode in self.modes(hooked=isinstance(near, (net.TcpStream, net.UnixStream))):
            poll.reregister(near, mode, Interest.READABLE, mode)
            self.expect_events(poll, {mode: "r"})
        assert recv(near) == b""

    def test_EVT_05_the_peers_end_leaves_the_source_writable(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        far.shutdown(socket.SHUT_WR)
        arrived(near)
        for interest, bits in (Interest.READ_WRITE, "rw"), (Interest.WRITABLE, "w"):
            poll.register(near, interest, interest)
            for data in b"a", b"b":
                for event in self.expect_events(poll, {interest: bits}):
                    self.check(not event.write_closed, "no write_closed: the peer still reads", repr(event))
                assert send(near, data) == 1
                arrived(far)
                assert recv(far) == data
            poll.deregister(near)

    def test_EVT_07_the_own_end_is_no_end_of_what_the_peer_says(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        poll.register(near, "near", Interest.READ_WRITE)
        near.shutdown(socket.SHUT_WR)
        events = poll.poll(SILENCE)
        for data in b"a", b"b":
            send(far, data)
            events += self.expect_events(poll, {"near": "r"}, also={"near": "w"})
            assert recv(near) == data
        for event in events:
            self.check(not event.read_closed, "no read_closed: the peer still sends", repr(event))

    def test_EVT_08_the_own_shutdown_of_receiving_is_readable(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, _ = duplex
        poll.register(near, "near", Interest.READABLE)
        near.shutdown(socket.SHUT_RD)
        self._expect_end_of_own_making(poll, near)

    def test_EVT_09_both_directions_shut_down_by_both_ends_are_readable(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        poll.register(near, "near", Interest.READABLE)
        near.shutdown(socket.SHUT_WR)
        far.shutdown(socket.SHUT_WR)
        self.expect_events(poll, {"near": "r"})
        poll.reregister(near, "both", Interest.READ_WRITE, Mode.ONESHOT)
        self.expect_events(poll, {"both": "r"}, also={"both": "w"})
        assert recv(near) == b""

    def test_EVT_09_both_directions_shut_down_by_the_own_end_are_readable(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, _ = duplex
        poll.register(near, "near", Interest.READABLE)
        near.shutdown(socket.SHUT_RDWR)
        self._expect_end_of_own_making(poll, near)

    def _expect_end_of_own_making(self, poll: Poll[object], near: socket.socket) -> None:
        """Expect ``near``, registered for reading, to be reported, where the facility tells of the own shutdown."""
        if self.by_completion():
            poll.poll(SILENCE)
            try:
                assert recv(near) == b""
            except OSError:
                pass  # WSAESHUTDOWN
            return
        self.expect_events(poll, {"near": "r"})
        for mode in self.modes(hooked=isinstance(near, (net.TcpStream, net.UnixStream))):
            poll.reregister(near, mode, Interest.READABLE, mode)
            self.expect_events(poll, {mode: "r"})
        assert recv(near) == b""

    # -- resets and errors -------------------------------------------------------------------------------

    def test_EVT_10_a_reset_is_readable_and_writable_and_raised_by_the_read(self, poll: Poll[object]) -> None:
        letters = "rwp" if self.has(Capability.PRIORITY) else "rw"
        for make in self.tcp_pair, self.net_tcp_pair:
            for bits in (bits for count in range(1, len(letters) + 1) for bits in combinations(letters, count)):
                near, far = make()
                poll.register(near, "near", Interest(sum(_INTERESTS[bit] for bit in bits)))
                reset(far)
                self.expect_events(poll, {"near": bits})
                if self.by_completion():
                    try:
                        assert recv(near) == b""
                    except ConnectionResetError:
                        pass
                else:
                    self.expect_error(ConnectionResetError, recv, near)
                    assert recv(near) == b"", "the error is raised once"
                poll.deregister(near)

    def test_EVT_11_a_report_leaves_the_error_to_the_caller(self, poll: Poll[object]) -> None:
        for mode in self.modes():
            refused = self.unconnected()
            self.begin_connect(refused, self.refusing_address())
            broken, far = self.tcp_pair()
            reset(far)
            for source, error in (refused, errno.ECONNREFUSED), (broken, errno.ECONNRESET):
                arrived(source, "w" if source is refused else "r")
                poll.register(source, "source", Interest.READ_WRITE, mode)
                for _ in range(3):
                    self.expect_events(poll, {"source": "rw"})
                    poll.reregister(source, "source", Interest.READ_WRITE, mode)
                # Completion ports, and Windows at large, tell of a reset by the next call only: see EVT-10.
                self._expect_pending(source, mode, error, *([0] if source is broken and self.by_completion() else []))
                poll.deregister(source)

    def test_EVT_11_a_report_leaves_the_networks_answer_to_the_caller(self, poll: Poll[object]) -> None:
        for mode in self.modes():
            near, far = self.udp_pair()
            poll.register(near, "near", Interest.READABLE, mode)
            far.close()
            send(near, b"x")
            if poll.poll(SILENCE):
                self._expect_pending(near, mode, errno.ECONNREFUSED, *([0] if self.by_completion() else []))
            poll.deregister(near)

    def _expect_pending(self, source: socket.socket, mode: Mode, *errors: int) -> None:
        found = source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        names = " or ".join(errno.errorcode.get(error, "0") for error in errors)
        observed = f"{errno.errorcode.get(found, found)} ({found}) after an event in {mode.name}"
        self.check(found in errors, f"SO_ERROR to be {names}", observed)

    def test_EVT_12_a_connect_that_succeeds_is_writable(self, poll: Poll[object]) -> None:
        listener = self.listener()
        for mode, stream in self._begun(listener.getsockname()):
            poll.register(stream, mode, Interest.WRITABLE, mode)
            self.expect_events(poll, {mode: "w"})
            self._expect_pending(stream, mode, 0)
            assert stream.getpeername() == listener.getsockname()
            poll.deregister(stream)

    def test_EVT_13_a_connect_that_fails_is_writable(self, poll: Poll[object]) -> None:
        for mode, stream in self._begun(self.refusing_address()):
            poll.register(stream, mode, Interest.WRITABLE, mode)
            self.expect_events(poll, {mode: "w"})
            self._expect_pending(stream, mode, errno.ECONNREFUSED)
            poll.deregister(stream)

    def _begun(self, address: tuple[str, int]) -> list[tuple[Mode, socket.socket]]:
        """Begin connects: plain ones, and those of ``polling.net``, one for each mode."""
        begun: list[tuple[Mode, socket.socket]] = [(mode, self.unconnected()) for mode in self.modes()]
        begun += [(mode, net.TcpStream.adopt(self.unconnected())) for mode in self.modes(hooked=True)]
        for _, stream in begun:
            self._keep(stream)
            self.begin_connect(stream, address)
        return begun

    # -- pipes, FIFOs, Unix sockets, terminals --------------------------------------------------------------

    def test_EVT_15_a_reader_whose_writer_closed_is_readable_to_the_end(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE)
        send(writer, b"last")
        writer.close()
        self.expect_events(poll, {"reader": "r"})
        assert recv(reader) == b"last"
        self.expect_events(poll, {"reader": "r"})
        assert recv(reader) == b""

    @pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
    @pytest.mark.parametrize("kind", ["pipe", "net_pipe"])
    def test_EVT_16_a_writer_whose_reader_closed_is_writable(self, poll: Poll[object], kind: str, full: bool) -> None:
        reader, writer = self.pipe() if kind == "pipe" else self.net_pipe()
        if full:
            stuff(writer)
        poll.register(writer, "writer", Interest.WRITABLE)
        if full:
            self.expect_silence(poll)
        reader.close()
        for _ in range(3):  # it is level, so each wait says it
            self.expect_events(poll, {"writer": "w"})
        for mode in self.modes(hooked=kind == "net_pipe"):
            poll.reregister(writer, mode, Interest.WRITABLE, mode)
            self.expect_events(poll, {mode: "w"})
        self.expect_error(BrokenPipeError, send, writer, b"x")

    def test_EVT_17_a_fifo_is_at_its_end_only_after_a_writer_and_before_the_next(self, poll: Poll[object]) -> None:
        fifo = self.fifo()
        poll.register(fifo.reader, "reader", Interest.READABLE)
        self.expect_silence(poll)
        for data in b"a", b"b":
            writer = self.fifo_writer(fifo)
            self.expect_silence(poll)
            send(writer, data)
            self.expect_events(poll, {"reader": "r"})
            assert recv(fifo.reader) == data
            self.expect_silence(poll)
            writer.close()
            self.expect_events(poll, {"reader": "r"})
            assert recv(fifo.reader) == b""

    def test_EVT_18_a_unix_peer_that_closed_on_unread_data_is_reported_to_every_interest(
        self, poll: Poll[object]
    ) -> None:
        for make in self.unix_pair, self.net_unix_pair:
            for bits in "r", "w", "rw":
                near, far = make()
                send(near, b"unread")
                poll.register(near, "near", Interest(sum(_INTERESTS[bit] for bit in bits)))
                far.close()
                self.expect_events(poll, {"near": bits})
                try:
                    read = recv(near)
                except OSError as error:
                    blocked = isinstance(error, BlockingIOError)
                    self.check(not blocked, "a read that raises the error or returns b''", repr(error))
                else:
                    self.check(read == b"", "a read that raises OSError or returns b''", repr(read))
                poll.deregister(near)

    def test_EVT_19_a_unix_peer_that_no_longer_receives_is_not_readable(self, poll: Poll[object]) -> None:
        stream, deaf = self.unix_pair()
        datagram, gone = self.unix_datagram_pair()
        both = [self.unix_pair(), self.unix_datagram_pair()]
        poll.register(stream, "stream", Interest.READABLE)
        poll.register(datagram, "datagram", Interest.READABLE)
        deaf.shutdown(socket.SHUT_RD)
        gone.close()
        self.expect_silence(poll)
        poll.deregister(stream)
        poll.deregister(datagram)
        for number, (near, _) in enumerate(both):
            poll.register(near, f"for both directions, {number}", Interest.READ_WRITE)
        both[0][1].shutdown(socket.SHUT_RD)
        both[1][1].close()
        for _ in range(3):
            for event in poll.poll(SILENCE):
                self.check(not event.readable, "an event that is writable only, or none", repr(event))

    def test_EVT_20_a_listener_that_was_shut_down_is_silent_once_parked(self, poll: Poll[object]) -> None:
        for listener, modes in (self.listener(), self.modes()), (self.net_listener(), self.modes(hooked=True)):
            poll.register(listener, "listener", Interest.READABLE)
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pytest.skip("this platform has no shutdown of a listener")  # ENOTCONN: macOS, Windows
            for mode in modes:
                poll.reregister(listener, "listener", Interest.READABLE, mode)
                for event in poll.poll(SILENCE):
                    self.check(event.readable, "a listener that is readable, or no event", repr(event))
                poll.reregister(listener, "parked", Interest.NONE, mode)
                self.expect_silence(poll)
            poll.deregister(listener)

    def test_EVT_21_a_terminal_whose_slave_closed_is_readable_to_the_end(self, poll: Poll[object]) -> None:
        for data in b"", b"left":
            master, slave = self.pty()
            poll.register(master, "master", Interest.READABLE)
            if data:
                send(slave, data)
            slave.close()
            read = b""
            try:
                self.expect_events(poll, {"master": "r"})
                while piece := recv(master):
                    read += piece
                    self.expect_events(poll, {"master": "r"})
            except OSError as error:
                self.check(error.errno == errno.EIO, "the end as b'' or EIO", repr(error))
            self.check(read == data, f"{data!r} to be read before the end", repr(read))
            for mode in self.modes():
                poll.reregister(master, mode, Interest.READABLE, mode)
                self.expect_events(poll, {mode: "r"})
            poll.deregister(master)

    # -- tokens ------------------------------------------------------------------------------------------

    def test_EVT_22_an_event_carries_the_very_token(self, poll: Poll[object]) -> None:
        for mode in self.modes():
            near, far = self.socketpair()
            send(far, b"x")
            first, second = Anonymous(), Anonymous()
            poll.register(near, first, Interest.READABLE, mode)
            self._expect_token(poll, first)
            poll.reregister(near, second, Interest.READABLE, mode)
            self._expect_token(poll, second)
            poll.rearm(near)
            if mode is not Mode.EDGE:  # where rearming need not report again
                self._expect_token(poll, second)
            # The next source gets the same number, and the same condition holds.
            poll.deregister(near)
            near.close()
            third = Anonymous()
            near, far = self.socketpair()
            send(far, b"x")
            poll.register(near, third, Interest.READABLE, mode)
            self._expect_token(poll, third)
            poll.deregister(near)

    def _expect_token(self, poll: Poll[object], token: object) -> None:
        events = poll.poll(SIGNAL_WAIT)
        self.check(
            [id(event.token) for event in events] == [id(token)],
            f"one event with {token!r} itself, and no object that equals it",
            repr(events),
        )

    # -- one event per source --------------------------------------------------------------------------------

    def test_MRG_01_one_wait_reports_a_source_once_with_all_its_bits(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        send(far, b"x")
        arrived(near)
        poll.register(near, "level", Interest.READ_WRITE)
        for mode in self.modes(hooked=isinstance(near, (net.TcpStream, net.UnixStream))):
            poll.reregister(near, mode, Interest.READ_WRITE, mode)
            batch = poll.poll(SIGNAL_WAIT)
            self.check(
                [(event.token, event.readable, event.writable) for event in batch] == [(mode, True, True)],
                f"one event in {mode.name}, readable and writable",
                repr(batch),
            )

    def test_MRG_01_urgent_data_is_in_the_same_event(self, poll: Poll[object]) -> None:
        near, far = self.tcp_pair()
        asked = Interest.READ_WRITE | Interest.PRIORITY
        self.needs(Capability.PRIORITY, refused=lambda: poll.register(near, "near", asked))
        far.send(b"a!", socket.MSG_OOB)
        poll.register(near, "near", Interest.PRIORITY)
        self.expect_events(poll, {"near": "p"})
        poll.reregister(near, "near", asked, Mode.LEVEL)
        batch = poll.poll(SIGNAL_WAIT)
        self.check(
            [(event.readable, event.writable, event.priority) for event in batch] == [(True, True, True)],
            "one event, readable, writable and priority",
            repr(batch),
            unasked=bool(batch),
        )

    @pytest.mark.parametrize("mode", Mode)
    @pytest.mark.parametrize("limit", [1, 2, 4])
    def test_MRG_02_a_full_batch_loses_no_direction(self, poll: Poll[object], mode: Mode, limit: int) -> None:
        sources = self._ready_both_ways(4)
        for token, source in sources.items():
            poll.register(source, token, Interest.READ_WRITE, mode)
        missing = {token: {"readable", "writable"} for token in sources}
        waits = 0
        while any(missing.values()):
            batch = poll.poll(SIGNAL_WAIT, limit)
            waits += 1
            tokens = [str(event.token) for event in batch]
            self.check(
                1 <= len(set(tokens)) == len(tokens) <= limit,
                f"1 to {limit} events, each of another source",
                f"{batch} in wait {waits}, while {missing} is missing",
            )
            for token, event in zip(tokens, batch, strict=True):
                said = {bit for bit in ("readable", "writable") if getattr(event, bit)}
                again = mode is not Mode.LEVEL and said - missing[token]
                self.check(not again, f"each direction once in {mode.name}", f"{event} in wait {waits}")
                missing[token] = missing[token] - said
                if missing[token] and mode in (Mode.ONESHOT, Mode.EDGE_ONESHOT):
                    # A batch that was full may carry one direction only (ONE-03); the other comes when asked for.
                    self.check(len(batch) == limit, "both directions in one event", repr(event))
                    other = Interest.READABLE if "readable" in missing[token] else Interest.WRITABLE
                    poll.reregister(sources[token], token, other, mode)
            self.check(waits < 100 or not any(missing.values()), "all directions in 100 waits", f"{missing} is missing")
        if mode is not Mode.LEVEL:
            self.expect_silence(poll)

    def test_MRG_03_both_directions_take_no_more_room_than_one(self, poll: Poll[object]) -> None:
        sources = self._ready_both_ways(4)
        sizes: dict[Interest, int] = {}
        for interest in Interest.READABLE, Interest.WRITABLE, Interest.READ_WRITE:
            for token, source in sources.items():
                poll.register(source, token, interest)
            batch = poll.poll(SIGNAL_WAIT, len(sources))
            sizes[interest] = len(batch)
            self.check(
                1 <= len({event.token for event in batch}) == len(batch) <= len(sources),
                f"a batch of at most {len(sources)} events, each of another source",
                repr(batch),
            )
            for source in sources.values():
                poll.deregister(source)
        # A backend may hand out less than there is room for, but not because directions were counted.
        self.check(
            min(sizes.values()) == max(sizes.values()),
            f"as many of {len(sources)} sources in one wait when they are ready both ways as when one way",
            ", ".join(f"{size} for {interest.name}" for interest, size in sizes.items()),
        )

    def _ready_both_ways(self, count: int) -> dict[str, End]:
        """Make sources with data and room."""
        made: dict[str, End] = {}
        for number in range(count):
            near, far = self.net_tcp_pair()
            send(far, b"x")
            arrived(near)
            made[f"source {number}"] = near
        return made
