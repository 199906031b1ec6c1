"""CAP, SPU: what happens when there is more, or less, than a batch holds."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import pytest

from polling import Event, Interest, Mode, Poll, UnsupportedError
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import arrived, drain, open_descriptors, reset, send
from polling_conformance.situations import Situations, stuff

__all__ = ["CapacityRules"]

_MANY = 3000
"""Registrations for the rule on bulk: beyond every group, set and array that a facility is known to have."""

_FEW = 100
"""Registrations for which any facility must have room."""

_SPARE = 64
"""Descriptors that are left to the process besides."""

_in_each_mode = pytest.mark.parametrize("mode", Mode, ids=[mode.name for mode in Mode])


class CapacityRules(Situations):
    """``max_events`` cuts a batch and loses nothing: the rest comes later, and nobody waits for ever.

    The order within a batch is never asserted, nor that a batch is as large as it may be: a wait owes one event.
    """

    @_in_each_mode
    def test_CAP_01_what_does_not_fit_into_a_batch_comes_later(self, poll: Poll[object], mode: Mode) -> None:
        sources = {}
        for token in range(5):
            near, far = self.net_tcp_pair()
            send(far, b"x")
            arrived(near)
            poll.register(near, token, Interest.READABLE, mode)
            sources[token] = near
        seen: list[object] = []
        while len(seen) < 5:
            batch = poll.poll(SIGNAL_WAIT, 2)
            self.check(1 <= len(batch) <= 2, f"1 or 2 events in {mode.name} while some are left", f"{batch}, {seen=}")
            for event in batch:
                drain(sources[event.token])  # type: ignore[index]  # tokens of a Poll[object]; these are numbers
            seen += [event.token for event in batch]
        self.check(
            set(seen) == set(range(5)),
            f"each of 0 to 4 once in {mode.name}",
            repr(seen),
            unasked=len({*seen}) < len(seen),
        )
        self.expect_silence(poll)

    @pytest.mark.parametrize("limit", [1, 2, 3, 7])
    def test_CAP_02_sources_that_are_always_ready_take_turns(self, poll: Poll[object], limit: int) -> None:
        count = 10
        pairs = [self.socketpair() for _ in range(count + 1)]
        for token, (near, far) in enumerate(pairs):
            send(far, b"x")
            arrived(near)
            if token < count:
                poll.register(near, token, Interest.READABLE)
        self._expect_turns(poll, set(range(count)), limit)
        # The turn outlives a change of who takes part.
        poll.deregister(pairs[3][0])
        poll.register(pairs[count][0], count, Interest.READABLE)
        self._expect_turns(poll, set(range(count + 1)) - {3}, limit)

    def _expect_turns(self, poll: Poll[object], tokens: Collection[object], limit: int) -> None:
        missing, batches = set(tokens), list[list[object]]()
        largest = 1  # what a backend hands out at once, which may be less than the limit
        while missing:
            batch = [event.token for event in poll.poll(SIGNAL_WAIT, limit)]
            batches.append(batch)
            missing.difference_update(batch)
            largest = max(largest, len(batch))
            waits = 2 * -(-len(tokens) // largest)
            self.check(
                not missing or len(batches) < waits,
                f"all of {sorted(map(str, tokens))} in {waits} waits of at most {limit}",
                f"{sorted(map(str, missing))} missing from {batches}",
            )

    @pytest.mark.parametrize("limit", [0, -1, -(2**70)])
    def test_CAP_03_a_limit_below_one_is_an_error_at_once(self, poll: Poll[object], limit: int) -> None:
        self.expect_error(ValueError, poll.poll, None, limit)
        near, far = self.socketpair()
        poll.register(near, "near", Interest.READABLE, Mode.ONESHOT)
        send(far, b"x")
        arrived(near)
        self.expect_error(ValueError, poll.poll, None, limit)
        self.expect_events(poll, {"near": "r"})

    @_in_each_mode
    def test_CAP_04_each_ready_source_is_there_once_in_whatever_order(self, poll: Poll[object], mode: Mode) -> None:
        tokens = set(range(20))
        for token in sorted(tokens, key=lambda token: token * 7 % 20):
            near, far = self.net_tcp_pair()
            send(far, b"x")
            arrived(near)
            poll.register(near, token, Interest.READABLE, mode)
        seen: list[object] = []
        for _ in tokens:
            batch = [event.token for event in poll.poll(SIGNAL_WAIT, 10 * len(tokens))]
            self.check(len(set(batch)) == len(batch) > 0, "a batch without repetition", repr(batch))
            seen += batch
            if len(seen) >= len(tokens):
                break
        self.check(set(seen) == tokens and len(seen) == len(tokens), f"each of {tokens} once", repr(seen))

    def test_CAP_05_each_wait_returns_a_list_of_its_own(self, poll: Poll[object]) -> None:
        kept: list[tuple[list[Event[object]], list[Event[object]]]] = []
        for token in range(3):
            near, far = self.socketpair()
            poll.register(near, token, Interest.READABLE)
            send(far, b"x")
            arrived(near)
            batch = poll.poll(SIGNAL_WAIT)
            self.check(
                [event.token for event in batch] == [token], f"an event of {token}, and of no earlier wait", repr(batch)
            )
            kept.append((batch, batch.copy()))
            drain(near)
        kept.append((empty := poll.poll(0), []))
        self.check(empty == [], "an empty list when all is read", repr(empty))
        for batch, copy in kept:
            self.check(batch == copy, f"a list that stays {copy}", repr(batch))
        empty.append(kept[0][0][0])  # the list is the caller's, and what is put into it does not come back
        again = poll.poll(0)
        self.check(again == [], "a new list", repr(again))

    @_in_each_mode
    def test_CAP_06_a_parked_listener_keeps_its_connection(self, poll: Poll[object], mode: Mode) -> None:
        listener = self.net_listener()
        poll.register(listener, "listener", Interest.READABLE, mode)
        self.begin_connect(self.unconnected(), listener.getsockname())
        self.expect_events(poll, {"listener": "r"})
        with _no_descriptor_to_spare():
            if sys.platform != "win32":  # elsewhere there is a limit to run into
                error = self.expect_error(OSError, listener.accept)
                self.check(error.errno == errno.EMFILE, "EMFILE", repr(error))
            poll.reregister(listener, "parked", Interest.NONE, mode)
            self.expect_silence(poll)
        poll.reregister(listener, "listener", Interest.READABLE, mode)
        self.expect_events(poll, {"listener": "r"})
        accepted, _ = listener.accept()
        accepted.close()

    def test_CAP_07_thousands_of_oneshots_are_each_reported_once(self, poll: Poll[object]) -> None:
        with _descriptors(_MANY + _SPARE) as spare:
            count = min(_MANY, spare - _SPARE)
            for token in range(count):
                # One descriptor each, and ready from the start.
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self._keep(sock)
                sock.setblocking(False)
                try:
                    poll.register(sock, token, Interest.WRITABLE, Mode.ONESHOT)
                except (OSError, UnsupportedError) as error:
                    self.check(
                        token >= _FEW, f"room for {_FEW} registrations at least", f"the next is refused: {error!r}"
                    )
                    count = token
                    break
            reports: dict[object, int] = dict.fromkeys(range(count), 0)
            while 0 in reports.values():
                batch = poll.poll(SIGNAL_WAIT)
                missing = [token for token, times in reports.items() if not times]
                self.check(
                    bool(batch), f"an event from each of {count} sources", f"none from {len(missing)}: {missing[:10]}"
                )
                for event in batch:
                    reports[event.token] += 1
            self.expect_silence(poll)
            often = {token: times for token, times in reports.items() if times != 1}
            self.check(not often, f"one event from each of {count} sources", f"number of events by source: {often}")

    # -- spurious events -----------------------------------------------------------------------------------

    @_in_each_mode
    def test_SPU_01_what_is_quiet_is_seldom_reported(self, poll: Poll[object], mode: Mode) -> None:
        self._register_quiet(poll, mode)
        spurious = [batch for _ in range(100) if (batch := poll.poll(SILENCE / 100))]
        self.check(
            len(spurious) <= 5, f"events in at most 5 of 100 waits in {mode.name}", f"{len(spurious)}: {spurious[:5]}"
        )

    @_in_each_mode
    def test_SPU_02_a_spurious_event_says_nothing_that_is_not_so(self, poll: Poll[object], mode: Mode) -> None:
        asked = self._register_quiet(poll, mode)
        events = [event for _ in range(100) for event in poll.poll(SILENCE / 100)]
        for event in events:
            interest = asked[event.token]
            outside = event.priority or (event.writable if interest is Interest.READABLE else event.readable)
            self.check(not outside, f"no bit outside {interest!r}", repr(event))
            hints = event.error or event.read_closed or event.write_closed
            self.check(not hints, "no hint: nothing has ended or failed", repr(event))

    def _register_quiet(self, poll: Poll[object], mode: Mode) -> dict[object, Interest]:
        """Register sources that had every occasion for a stale report, and are quiet now; give the interests."""
        # The number of a source that was reset is given to the first of the quiet ones.
        near, far = self.net_tcp_pair()
        poll.register(near, "reset", Interest.READ_WRITE)
        reset(far)
        self.expect_events(poll, {"reset": "rw"})
        poll.deregister(near)
        near.close()
        asked: dict[object, Interest] = {}
        for kind in "idle", "reported and drained", "drained":
            near, far = self.net_tcp_pair()
            poll.register(near, kind, Interest.READABLE, mode)
            if kind != "idle":
                send(far, b"x")
                arrived(near)
                if kind == "reported and drained":
                    self.expect_events(poll, {kind: "r"})
                drain(near)
            poll.reregister(near, kind, Interest.READABLE, mode)
            asked[kind] = Interest.READABLE
        full, _ = self.net_unix_pair()
        poll.register(full, "full", Interest.WRITABLE, mode)
        self.expect_events(poll, {"full": "w"})
        stuff(full)
        poll.reregister(full, "full", Interest.WRITABLE, mode)
        asked["full"] = Interest.WRITABLE
        return asked


@contextmanager
def _descriptors(wanted: int) -> Iterator[int]:
    """Raise the limit of this process so that *wanted* more descriptors can be opened; give how many can."""
    if sys.platform == "win32":
        yield wanted
        return
    import resource  # POSIX only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(open_descriptors(), default=0) + 1
    if soft not in (resource.RLIM_INFINITY, max(soft, used + wanted)):
        highest = used + wanted if hard == resource.RLIM_INFINITY else min(used + wanted, hard)
        with suppress(OSError, ValueError):  # some systems have a lower limit than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield wanted if now == resource.RLIM_INFINITY else min(wanted, now - used)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def _no_descriptor_to_spare() -> Iterator[None]:
    """Lower the limit of this process to what is open, so that nothing more can be."""
    if sys.platform == "win32":
        yield
        return
    import resource  # POSIX only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
