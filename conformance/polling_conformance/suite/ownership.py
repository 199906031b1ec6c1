"""REG: what becomes of a registration when its source is closed, dropped, duplicated, or watched twice.

Most of these rules want several facts about one number: who owns it, whether it was closed meanwhile, and what the
kernel still believes.
"""

from __future__ import annotations

import gc
import selectors
import socket
import warnings

import pytest

from polling import (
    AlreadyRegisteredError,
    Capability,
    Event,
    Interest,
    InvalidSourceError,
    Mode,
    NotRegisteredError,
    Poll,
    PollingError,
    UnsupportedError,
    Waker,
)
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import End, Ends, arrived, drain, duplicate, ready, recv, send
from polling_conformance.harness import Harness

__all__ = ["OwnershipRules"]

BOUND = 1_000
"""After how many waits a source that is gone must have gone silent, where a rule allows it some last words."""

each_mode = pytest.mark.parametrize("mode", Mode, ids=[mode.name.lower() for mode in Mode])


def discard(ends: list[socket.socket]) -> None:
    """Drop the sockets in a list, so that they are closed by being collected and by nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        ends.clear()
        gc.collect()


class OwnershipRules(Harness):
    """A registration belongs to an open source, and not to a number, which may mean something else any time."""

    def _expect_silence_at_last(self, poll: Poll[object], gone: object) -> None:
        """Check that nothing is reported but what is *gone*, that a bounded number of times, and then nothing."""
        for _ in range(BOUND):
            events = poll.poll(SILENCE)
            if not events:
                break
            self.check({event.token for event in events} == {gone}, f"no events but of {gone!r}", events)
        else:
            raise self.failure(f"silence after at most {BOUND} waits", f"{events} once more")
        self.expect_silence(poll)

    def _open_under(self, number: int) -> tuple[socket.socket, socket.socket]:
        """Open a stream under *number*; give it, connected, and its peer.

        Not ``socketpair``: on Windows that opens a listener first, which would have the number, and closes it again.
        """
        one = self._socket_under(number, socket.SOCK_STREAM)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one.connect(listener.getsockname())
            other, _ = listener.accept()
        self._keep(other)
        for end in one, other:
            end.setblocking(False)
        return one, other

    def _socket_under(self, number: int, kind: socket.SocketKind) -> socket.socket:
        """Open sockets until one has *number*. The lowest free number comes next on POSIX, so this ends soon."""
        for _ in range(BOUND):
            one = socket.socket(socket.AF_INET, kind)
            self._keep(one)
            if one.fileno() == number:
                return one
        pytest.skip("this platform does not give a closed descriptor's number to the next")

    # -- REG-08: the other end is gone ---------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["pipe", "net_pipe"])
    @each_mode
    def test_REG_08_a_reader_whose_writer_is_gone_is_registered_and_reported(
        self, poll: Poll[object], kind: str, mode: Mode
    ) -> None:
        reader, writer = self._pipe_for(kind, mode)
        send(writer, b"x")
        writer.close()
        poll.register(reader, "reader", Interest.READABLE, mode)
        self.expect_events(poll, {"reader": "r"})
        self.check((data := [recv(reader), recv(reader)]) == [b"x", b""], "what was written, and then the end", data)
        poll.reregister(reader, "reader at its end", Interest.READABLE, mode)
        self.expect_events(poll, {"reader at its end": "r"})

    @pytest.mark.parametrize("kind", ["pipe", "net_pipe"])
    @each_mode
    def test_REG_08_a_writer_whose_reader_is_gone_is_registered_and_reported(
        self, poll: Poll[object], kind: str, mode: Mode
    ) -> None:
        reader, writer = self._pipe_for(kind, mode)
        reader.close()
        poll.register(writer, "writer", Interest.WRITABLE, mode)
        self.expect_events(poll, {"writer": "w"})
        self.expect_error(BrokenPipeError, send, writer, b"x")

    def _pipe_for(self, kind: str, mode: Mode) -> Ends:
        if mode is Mode.EDGE and kind == "pipe":
            self.needs(Capability.NATIVE_EDGE)
        return self.pipe() if kind == "pipe" else self.net_pipe()

    # -- REG-09 to REG-11: a source is closed --------------------------------------------------------

    def _deregister_closed(self, poll: Poll[object], source: End) -> None:
        """Deregister what was closed, which may succeed or say that it is not registered."""
        try:
            poll.deregister(source)
        except NotRegisteredError:
            pass
        except Exception as error:
            raise self.failure("success, or NotRegisteredError", repr(error)) from error

    @each_mode
    def test_REG_09_a_closed_source_can_be_deregistered(self, poll: Poll[object], edge_pair: Ends, mode: Mode) -> None:
        reader, writer = edge_pair
        poll.register(reader, "closed", Interest.READABLE, mode)
        send(writer, b"x")
        self.expect_events(poll, {"closed": "r"})
        reader.close()
        self._deregister_closed(poll, reader)
        self.expect_error(NotRegisteredError, poll.deregister, reader)
        self.expect_silence(poll)

    def test_REG_09_the_next_owner_of_the_number_is_left_alone(self, poll: Poll[object], pair: Ends) -> None:
        old, _ = pair
        number = old.fileno()
        for interest in Interest.READABLE, Interest.NONE:
            poll.register(old, "closed", interest)
            old.close()
            new, peer = self._open_under(number)
            poll.register(new, "new")
            self._deregister_closed(poll, old)
            send(peer, b"x")
            self.expect_events(poll, {"new": "r"})
            poll.deregister(new)
            old = new

    @each_mode
    def test_REG_10_a_new_source_takes_over_the_number_of_a_closed_one(
        self, poll: Poll[object], edge_pair: Ends, mode: Mode
    ) -> None:
        old, writer = edge_pair
        number = old.fileno()
        poll.register(old, "old", Interest.READABLE, mode)
        send(writer, b"x")
        self.expect_events(poll, {"old": "r"})
        old.close()
        new, peer = self._open_under(number)
        poll.register(new, "new")
        self.expect_silence(poll)
        send(peer, b"x")
        for _ in range(2):
            self.expect_events(poll, {"new": "r"})
        drain(new)
        self.expect_silence(poll)

    def test_REG_10_the_interest_of_a_closed_source_is_not_inherited(self, poll: Poll[object]) -> None:
        old, _ = self.socketpair()
        for former, interest, bits in (
            (Interest.READ_WRITE, Interest.READABLE, ""),
            (Interest.NONE, Interest.WRITABLE, "w"),
            (Interest.WRITABLE, Interest.NONE, ""),
        ):
            number = old.fileno()
            poll.register(old, "old", former)
            old.close()
            new, _ = self._open_under(number)
            token = f"{interest!r} after {former!r}"
            poll.register(new, token, interest)
            if bits:
                self.expect_events(poll, {token: bits})
            else:
                self.expect_silence(poll)
            poll.deregister(new)
            old = new

    @each_mode
    def test_REG_10_a_new_source_takes_over_the_number_of_a_dropped_one(self, poll: Poll[object], mode: Mode) -> None:
        dropped, far = socket.socketpair()
        with far:
            number = dropped.fileno()
            if mode is Mode.EDGE and not self.has(Capability.NATIVE_EDGE):
                mode = Mode.EDGE_ONESHOT
            dropped.setblocking(False)
            poll.register(dropped, "dropped", Interest.READABLE, mode)
            far.send(b"x")
            self.expect_events(poll, {"dropped": "r"})
            ends = [dropped]
            del dropped
            discard(ends)
            new, peer = self._open_under(number)
            poll.register(new, "new")
            self.expect_silence(poll)
            send(peer, b"x")
            self.expect_events(poll, {"new": "r"})

    def test_REG_10_the_number_of_an_open_source_is_taken(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "owner")
        self.expect_error(AlreadyRegisteredError, poll.register, reader.fileno(), "number")
        self.expect_error(AlreadyRegisteredError, poll.register, Alias(reader), "alias")
        send(writer, b"x")
        self.expect_events(poll, {"owner": "r"})

    def test_REG_10_a_bare_number_is_taken_until_it_is_deregistered(self, poll: Poll[object]) -> None:
        old, _ = self.socketpair()
        number = old.fileno()
        poll.register(number, "number")
        old.close()
        new, peer = self._open_under(number)
        self.expect_error(AlreadyRegisteredError, poll.register, new, "new")
        poll.deregister(number)
        poll.register(new, "new")
        send(peer, b"x")
        self.expect_events(poll, {"new": "r"})

    @each_mode
    def test_REG_11_a_closed_source_disturbs_no_wait(self, poll: Poll[object], edge_pair: Ends, mode: Mode) -> None:
        reader, writer = edge_pair
        near, far = self.socketpair()
        poll.register(near, "other")
        poll.register(reader, "closed", Interest.READABLE, mode)
        send(writer, b"x")
        reader.close()
        self._expect_silence_at_last(poll, "closed")
        send(far, b"x")
        for _ in range(2):
            self.expect_events(poll, {"other": "r"})

    def test_REG_11_the_closed_number_of_a_bare_registration_disturbs_no_wait(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "other")
        gone, peer = self.socketpair()
        poll.register(gone.fileno(), "closed", Interest.READ_WRITE)
        send(peer, b"x")
        gone.close()
        self._expect_silence_at_last(poll, "closed")
        send(far, b"x")
        self.expect_events(poll, {"other": "r"})

    def test_REG_11_a_source_closed_during_a_wait_does_not_end_it(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        near, far = self.socketpair()
        poll.register(reader, "closed")
        poll.register(near, "other")
        waiter = self.in_thread(self.expect_events, poll, {"other": "r"}, also={"closed": "r"}).blocked()
        reader.close()
        send(far, b"x")
        waiter.result()
        writer.close()
        drain(near)
        self._expect_silence_at_last(poll, "closed")

    # -- REG-12, REG-13: duplicates ------------------------------------------------------------------

    def test_REG_12_a_duplicate_is_a_source_of_its_own(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        copy = duplicate(reader)
        self._keep(copy)
        poll.register(reader, "reader")
        poll.register(copy, "copy", Interest.READABLE, Mode.LEVEL)
        send(writer, b"x")
        for _ in range(2):
            self.expect_events(poll, {"reader": "r", "copy": "r"})
        poll.deregister(reader)
        for _ in range(2):
            self.expect_events(poll, {"copy": "r"})
        poll.register(reader, "reader again")
        poll.deregister(copy)
        for _ in range(2):
            self.expect_events(poll, {"reader again": "r"})

    def test_REG_13_closing_ends_the_events_while_a_duplicate_is_open(self, poll: Poll[object], pair: Ends) -> None:
        self.needs(Capability.DUP_CLOSE)
        reader, writer = pair
        self._keep(duplicate(reader))
        poll.register(reader, "closed")
        send(writer, b"x")
        self.expect_events(poll, {"closed": "r"})
        reader.close()
        self._expect_silence_at_last(poll, "closed")
        send(writer, b"y")
        self._expect_silence_at_last(poll, "closed")

    @pytest.mark.parametrize("ending", ["deregister", "drop", "register_anew"])
    @each_mode
    def test_REG_13_nothing_is_left_of_a_closed_source_with_a_duplicate(
        self, poll: Poll[object], ending: str, mode: Mode
    ) -> None:
        if mode is Mode.EDGE and not self.has(Capability.NATIVE_EDGE):
            mode = Mode.EDGE_ONESHOT
        near, far = socket.socketpair()
        self._keep(far)
        near.setblocking(False)
        number = near.fileno()
        self._keep(near.dup())
        poll.register(near, "closed", Interest.READ_WRITE, mode)
        send(far, b"x")
        self.expect_events(poll, {"closed": "rw"})
        if mode is not Mode.LEVEL:
            poll.rearm(near)
        if ending == "drop":
            ends = [near]
            del near
            discard(ends)
        else:
            near.close()
        if ending == "deregister":
            self._deregister_closed(poll, near)
        elif ending == "register_anew":
            new, peer = self._open_under(number)
            poll.register(new, "new")
        # Where the facility knows only numbers, what the duplicate has to say looks like news of the new source.
        gone = "new" if ending == "register_anew" else "closed"
        self._expect_silence_at_last(poll, gone)
        send(far, b"y")
        self._expect_silence_at_last(poll, gone)
        if ending == "register_anew":
            send(peer, b"x")
            for _ in range(2):
                self.expect_events(poll, {"new": "r"})
            drain(new)
            self.expect_silence(poll)

    @pytest.mark.parametrize("ending", ["deregister", "register_anew"])
    def test_REG_13_the_other_registrations_are_as_they_were(self, poll: Poll[object], ending: str) -> None:
        others = {mode.name: self.net_tcp_pair() for mode in Mode}
        for mode in Mode:
            poll.register(others[mode.name][0], mode.name, Interest.READABLE, mode)
        fired, fired_peer = self.socketpair()
        poll.register(fired, "fired", Interest.READ_WRITE, Mode.ONESHOT)
        self.expect_events(poll, {"fired": "w"})
        parked, parked_peer = self.socketpair()
        poll.register(parked, "parked", Interest.NONE)
        waker = Waker(poll, "waker")

        near, far = self.socketpair()
        number = near.fileno()
        self._keep(near.dup())
        poll.register(near, "closed")
        send(far, b"x")
        self.expect_events(poll, {"closed": "r"})
        near.close()
        if ending == "deregister":
            self._deregister_closed(poll, near)
        else:
            new, _ = self._open_under(number)
            poll.register(new, "new")
        self._expect_silence_at_last(poll, "new" if ending == "register_anew" else "closed")

        send(fired_peer, b"x")
        send(parked_peer, b"x")
        self.expect_silence(poll)
        waiter = self.in_thread(poll.poll).blocked()
        waker.wake()
        events = waiter.result()
        self.check([event.token for event in events] == ["waker"], "an event of the waker, and no other", events)
        for token, (near_, far_) in others.items():
            send(far_, b"x")
            self.expect_events(poll, {token: "r"})
            drain(near_)
            send(far_, b"y")
            if token in ("LEVEL", "EDGE"):
                self.expect_events(poll, {token: "r"})
            else:
                self.expect_silence(poll)
            drain(near_)
        poll.rearm(fired)
        self.expect_events(poll, {"fired": "rw"})
        poll.reregister(parked, "unparked", Interest.READABLE, Mode.LEVEL)
        self.expect_events(poll, {"unparked": "r"})

    # -- REG-17: events at hand ----------------------------------------------------------------------

    def _event_of(self, poll: Poll[object], source: End, peer: End) -> Event[object]:
        """Register *source* and give an event of it."""
        poll.register(source, "source")
        send(peer, b"x")
        return self.expect_events(poll, {"source": "r"})[-1]

    def test_REG_17_an_event_is_current_while_its_registration_stands(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        event = self._event_of(poll, reader, writer)
        self.check(poll.is_current(event), "a current event", f"not current: {event}")
        drain(reader)
        self.expect_silence(poll)
        self.check(poll.is_current(event), "an event still current after the next wait", f"not current: {event}")
        poll.reregister(reader, "oneshot", Interest.READABLE, Mode.ONESHOT)
        send(writer, b"x")
        (event,) = self.expect_events(poll, {"oneshot": "r"})
        self.check(poll.is_current(event), "a current event of a oneshot that has fired", f"not current: {event}")

    @pytest.mark.parametrize("change", ["reregister", "deregister", "register_again", "close", "replace", "close_poll"])
    def test_REG_17_an_event_of_a_former_registration_is_not_current(
        self, poll: Poll[object], pair: Ends, change: str
    ) -> None:
        reader, writer = pair
        number = reader.fileno()
        event = self._event_of(poll, reader, writer)
        if change == "reregister":
            poll.reregister(reader, "source", Interest.READABLE, Mode.LEVEL)
        elif change == "close_poll":
            poll.close()
        elif change in ("close", "replace"):
            reader.close()
        else:
            poll.deregister(reader)
        fresh = None
        if change == "register_again":
            poll.register(reader, "source")
        elif change == "replace":
            fresh = self._event_of(poll, *self._open_under(number))
        self.check(not poll.is_current(event), f"an event that {change} has made outdated", f"current: {event}")
        if change in ("reregister", "register_again"):
            (fresh,) = self.expect_events(poll, {"source": "r"})
        if fresh is not None:
            self.check(poll.is_current(fresh), "a current event of the new registration", f"not current: {fresh}")
            self.check(not poll.is_current(event), f"an event that {change} has made outdated", f"current: {event}")

    def test_REG_17_an_event_of_a_dropped_source_is_not_current(self, poll: Poll[object]) -> None:
        near, far = socket.socketpair()
        with far:
            ends = [near]
            event = self._event_of(poll, near, far)
            del near
            discard(ends)
            self.check(not poll.is_current(event), "an event of a source that is gone", f"current: {event}")

    # -- REG-22, REG-24: several polls ---------------------------------------------------------------

    def test_REG_22_two_polls_report_one_source_or_the_second_refuses(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        second = self.make_poll()
        poll.register(reader, "first")
        if self.has(Capability.SHARED_SOURCE):
            second.register(reader, "second", Interest.READABLE, Mode.ONESHOT)
        else:
            self.expect_error(UnsupportedError, second.register, reader, "second", Interest.READABLE, Mode.ONESHOT)
        send(writer, b"x")
        for _ in range(2):
            self.expect_events(poll, {"first": "r"})
        if self.has(Capability.SHARED_SOURCE):
            self.expect_events(second, {"second": "r"})
        self.expect_silence(second)
        if self.has(Capability.SHARED_SOURCE):
            second.deregister(reader)
        second.close()
        self.expect_events(poll, {"first": "r"})

    def test_REG_22_edges_are_reported_to_two_polls_or_the_second_refuses(
        self, poll: Poll[object], edge_pair: Ends
    ) -> None:
        reader, writer = edge_pair
        second = self.make_poll()
        poll.register(reader, "first", Interest.READABLE, Mode.EDGE)
        shared = self.has(Capability.SHARED_SOURCE) and self.has(Capability.NATIVE_EDGE)
        if shared:
            second.register(reader, "second", Interest.READABLE, Mode.EDGE)
        else:
            self.expect_error(UnsupportedError, second.register, reader, "second", Interest.READABLE, Mode.EDGE)
            self.expect_error(NotRegisteredError, second.deregister, reader)
        for data in b"a", b"b":
            send(writer, data)
            self.expect_events(poll, {"first": "r"})
            if shared:
                self.expect_events(second, {"second": "r"})
            drain(reader)
        self.expect_silence(second)

    def test_REG_22_a_source_is_handed_over_to_a_poll_that_had_its_number_before(self, poll: Poll[object]) -> None:
        former, _ = self.net_tcp_pair()
        poll.register(former, "former")
        poll.deregister(former)
        number = former.fileno()
        former.close()
        pairs = [self.net_tcp_pair() for _ in range(3)]
        pairs += [(far, near) for near, far in pairs]
        # On most systems one of them has the number.
        near, far = next((pair for pair in pairs if pair[0].fileno() == number), pairs[0])
        with self.new_poll() as second:
            second.register(near, "second")
            second.deregister(near)
            poll.register(near, "first")
            self.expect_silence(poll)
            send(far, b"x")
            self.expect_events(poll, {"first": "r"})

    def test_REG_24_a_poll_is_readable_in_another_while_it_has_events(self, poll: Poll[object], pair: Ends) -> None:
        self.needs(Capability.NESTED, refused=poll.fileno)
        reader, writer = pair
        outer = self.make_poll()
        poll.register(reader, "reader")
        outer.register(poll, "inner")
        self.expect_silence(outer)
        send(writer, b"x")
        for _ in range(2):
            self.expect_events(outer, {"inner": "r"})
        self.expect_events(poll, {"reader": "r"})
        drain(reader)
        self.expect_silence(outer)
        Waker(poll, "waker").wake()
        self.expect_events(outer, {"inner": "r"})
        self.expect_events(poll, {"waker": "r"})
        self.expect_silence(outer)

    def test_REG_24_a_poll_stays_readable_after_a_source_is_closed_with_a_duplicate(self, poll: Poll[object]) -> None:
        self.needs(Capability.NESTED, refused=poll.fileno)
        number = poll.fileno()
        outer = self.make_poll()
        outer.register(poll, "inner")
        near, far = self.socketpair()
        poll.register(near, "near")
        closed, peer = self.socketpair()
        self._keep(closed.dup())
        poll.register(closed, "closed")
        send(peer, b"x")
        closed.close()
        self._deregister_closed(poll, closed)
        self._expect_silence_at_last(poll, "closed")
        self.check(poll.fileno() == number, f"the same descriptor, {number}", poll.fileno())
        send(far, b"x")
        self.expect_events(poll, {"near": "r"})
        self.expect_events(outer, {"inner": "r"})

    def test_REG_24_a_poll_cannot_be_registered_with_itself(self, poll: Poll[object]) -> None:
        self.needs(Capability.NESTED, refused=poll.fileno)
        near, far = self.socketpair()
        poll.register(near, "near")
        for source in poll, poll.fileno():
            self.expect_error(InvalidSourceError, poll.register, source, "itself")
            self.expect_error(PollingError, poll.deregister, source)
        send(far, b"x")
        self.expect_events(poll, {"near": "r"})

    # -- REG-28: what comes for others -----------------------------------------------------------------

    @pytest.mark.parametrize("news", ["data", "datagram", "connection"])
    @pytest.mark.parametrize("state", ["idle", "reported"])
    def test_REG_28_what_comes_for_the_next_owner_of_a_number_is_left_for_it(
        self, poll: Poll[object], state: str, news: str
    ) -> None:
        near, far = self.tcp_pair()
        poll.register(near, "near")
        if state == "reported":
            send(far, b"x")
            self.expect_events(poll, {"near": "r"})
            recv(near)
        else:
            self.expect_silence(poll)
        number = near.fileno()
        near.close()
        if news == "data":
            stranger, sender = self._open_under(number)
        else:
            stranger = self._socket_under(number, socket.SOCK_DGRAM if news == "datagram" else socket.SOCK_STREAM)
            stranger.bind(("127.0.0.1", 0))
            stranger.setblocking(False)
            sender = socket.socket(socket.AF_INET, stranger.type)
            self._keep(sender)
            if news == "connection":
                stranger.listen()
        self.expect_silence(poll)
        if news == "data":
            send(sender, b"x")
        else:
            sender.connect(stranger.getsockname())
            sender.send(b"x")
        there = ready(stranger, selectors.EVENT_READ, SIGNAL_WAIT)
        self.check(there, f"the {news} is left for the stranger", "it is gone")
        self.expect_silence(poll)
        if news == "connection":
            stranger, _ = stranger.accept()
            self._keep(stranger)
            arrived(stranger)
        assert recv(stranger) == b"x"


class Alias:
    """Another object for the number of a source."""

    def __init__(self, source: End) -> None:
        self._source = source

    def fileno(self) -> int:
        return self._source.fileno()
