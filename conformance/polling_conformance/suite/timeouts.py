"""TMO: a wait ends no earlier than asked, whatever the number."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from polling import Capability, Event, Interest, Mode, Poll, Waker
from polling.backend import Pair, Wait
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import Ends, send
from polling_conformance.harness import Harness
from polling_conformance.running import A_SIGNAL, Running, signal_main_thread, since

__all__ = ["TimeoutRules"]

BEYOND_ALL_FLOATS = 10**400
"""An int. Division of two of those, or ``time.time_ns`` in the wrong place, gives such numbers."""

NEGATIVE = [-1e-9, -0.0005, -1, -2_147_483.649, -1e30, -math.inf, -BEYOND_ALL_FLOATS]

HUGE = [
    # Little or negative if it wrapped round: milliseconds in 31 and 32 bits, nanoseconds in 63 and 64.
    2**31 / 1000 + 0.001,
    2**32 / 1000 + 0.001,
    2**63 / 1e9,
    2**64 / 1e9,
    1e10,
    1e30,
    sys.float_info.max,
    math.inf,
    BEYOND_ALL_FLOATS,
]


class TimeoutRules(Harness):
    """Timeouts are seconds, rounded up and never down. "Not early" is asserted always, "not late" hardly ever."""

    def test_TMO_01_none_waits_without_limit_also_with_nothing_registered(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")
        near, _far = self.socketpair()
        for situation in "nothing is registered", "an idle source is registered":
            self._expect_wait_until_wake(poll, None, waker, f"a timeout of None, while {situation},")
            if situation.startswith("nothing"):
                poll.register(near, "near")

    def test_TMO_02_zero_does_not_block_and_reports_what_is_ready(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "reader", Interest.READABLE)
        for zero in 0, 0.0, False:
            events = self.in_thread(poll.poll, zero).result()
            self.check(events == [], f"no event from poll({zero!r})", events, unasked=True)
        send(writer, b"x")
        self.expect_events(poll, {"reader": "r"})  # from now on it is ready without doubt
        for mode in Mode.LEVEL, Mode.ONESHOT, Mode.EDGE_ONESHOT:
            poll.reregister(reader, mode, Interest.READABLE, mode)
            events = poll.poll(0)
            self.check(
                [(event.token, event.readable) for event in events] == [(mode, True)],
                f"the reader in {mode.name}, which is ready, from poll(0)",
                events,
            )

    def test_TMO_03_a_wait_without_events_does_not_end_early(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        other, _ = self.socketpair()
        for timeout in 0.0001, 0.001, 0.0015, 0.01, SILENCE:
            self._expect_whole(poll, timeout)
        poll.register(other, "idle")
        poll.register(near, "reported", Interest.READABLE, Mode.ONESHOT)
        send(far, b"x")
        self.expect_events(poll, {"reported": "r"})
        for timeout in 0.0001, 0.001, 0.0015, 0.01, SILENCE:
            self._expect_whole(poll, timeout)

    def test_TMO_04_a_timeout_below_the_grain_is_slept_and_not_spun_away(
        self, poll: Poll[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Rounded down to 0, each wait would be made of hundreds that do not block, whether the backend makes them or
        # the poll, whose deadline holds.
        timeout, waits = 0.0009, 20
        asked = _asked_of(poll, monkeypatch)
        counts, shares = [], []
        for _ in range(5):
            asked.clear()
            start, busy = time.monotonic(), time.thread_time()
            for _ in range(waits):
                events = poll.poll(timeout)
                self.check(not events, "no event", events, unasked=True)
            elapsed, busy = since(start), time.thread_time() - busy
            self.check(
                elapsed >= waits * timeout, f"at least {waits * timeout} s for {waits} waits", f"{elapsed:.6f} s"
            )
            counts.append(len(asked))
            shares.append(busy / elapsed)
        self.check(
            min(counts) <= 3 * waits,
            f"at most {3 * waits} waits of the backend for {waits} of {timeout} s",
            f"{min(counts)} at best, the last of them with timeouts of {asked[-3:]} s",
        )
        self.check(
            min(shares) < 0.5,
            f"waits of {timeout} s sleep, and use little of the processor",
            f"they used {min(shares):.0%} of it at best",
        )

    def test_TMO_05_half_a_millisecond_is_kept_to_within_half_another(self, poll: Poll[object]) -> None:
        self.needs(Capability.SUB_MS)
        best = math.inf
        for _ in range(100):
            start = time.monotonic()
            poll.poll(0.0005)
            best = min(best, time.monotonic() - start)
        self.check(0.0005 <= best < 0.001, "the best of 100 waits of 0.0005 s takes less than 0.001 s", f"{best:.6f} s")

    def test_TMO_06_huge_and_infinite_timeouts_wait(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")
        for timeout in HUGE:
            self._expect_wait_until_wake(poll, timeout, waker, f"a timeout of {_spell(timeout)}")

    def test_TMO_06_a_wait_that_is_made_of_several_does_not_end_with_the_first(
        self, poll: Poll[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What no backend is asked to wait at once is 23 days: here it is a tenth of the timeout.
        monkeypatch.setattr("polling.poll.LONGEST_WAIT", SILENCE / 5)
        near, far = self.socketpair()
        poll.register(near, "near")
        for timeout in 2 * SILENCE, 2.3 * SILENCE:
            self._expect_whole(poll, timeout)
        waiter = self.in_thread(poll.poll, math.inf)
        waiter.thread.join(SILENCE)
        send(far, b"x")
        events = waiter.result()
        self.check([event.token for event in events] == ["near"], "the event of near", events)

    def test_TMO_07_a_negative_timeout_is_zero(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near")
        for timeout in NEGATIVE:
            events = self.in_thread(poll.poll, timeout).result()
            self.check(events == [], f"no event from poll({_spell(timeout)})", events, unasked=True)
        send(far, b"x")
        self.expect_events(poll, {"near": "r"})
        for timeout in NEGATIVE:
            events = poll.poll(timeout)
            self.check(
                [event.token for event in events] == ["near"], f"what is ready from poll({_spell(timeout)})", events
            )

    def test_TMO_08_what_is_no_number_is_refused_and_costs_no_event(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near", Interest.READABLE, Mode.ONESHOT)
        send(far, b"x")
        for wrong in "1", b"1", [], (1,), {}, object(), 1j:
            self.expect_error(TypeError, poll.poll, wrong)
        for nan in math.nan, -math.nan:
            self.expect_error(ValueError, poll.poll, nan)
        self.expect_events(poll, {"near": "r"})

    def test_TMO_09_registering_meanwhile_moves_no_deadline(self, poll: Poll[object]) -> None:
        near, _far = self.socketpair()

        def disturb() -> None:
            poll.register(near, "near")
            poll.reregister(near, "near", Interest.READABLE, Mode.ONESHOT)
            poll.rearm(near)
            poll.deregister(near)

        self._expect_deadline_in_spite_of(poll, disturb)

    def test_TMO_09_wakes_that_come_to_nothing_move_no_deadline(self, poll: Poll[object]) -> None:
        def disturb() -> None:
            waker = Waker(poll, "retired")
            waker.wake()
            poll.deregister(waker)

        # The wake may win the race against its own end.
        self._expect_deadline_in_spite_of(poll, disturb, unless="retired")

    def test_TMO_09_signals_move_no_deadline(self, poll: Poll[object]) -> None:
        with self.on_signal(A_SIGNAL, lambda _signum, _frame: None):
            self._expect_deadline_in_spite_of(poll, signal_main_thread)

    def test_TMO_10_setting_the_time_of_day_moves_no_deadline(
        self, poll: Poll[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for jump in 1e6, -1e6:
            now = [time.time()]

            def racing_clock(now: list[float] = now, jump: float = jump) -> float:
                now[0] += jump
                return now[0]

            with monkeypatch.context() as patch:
                _set_time_of_day(patch, racing_clock)
                waiter = self.in_thread(lambda: _timed(poll, 2 * SILENCE))
                elapsed, events = waiter.result()
            self.check(
                not events and elapsed >= 2 * SILENCE,
                f"no event for {2 * SILENCE:g} s, while the time of day jumps by {jump:g} s at each look",
                f"{events} after {elapsed:.6f} s",
                unasked=bool(events),
            )

    # -- words -------------------------------------------------------------------------------------------------

    def _expect_whole(self, poll: Poll[object], timeout: float) -> None:
        """Wait, and check that nothing is reported and that the timeout has passed."""
        __tracebackhide__ = True
        elapsed, events = _timed(poll, timeout)
        self.check(
            not events and elapsed >= timeout,
            f"no event for {timeout} s",
            f"{events} after {elapsed:.6f} s",
            unasked=bool(events),
        )

    def _expect_wait_until_wake(
        self, poll: Poll[object], timeout: float | None, waker: Waker[object], what: str
    ) -> None:
        """Check that the wait goes on until it is woken, and not before."""
        __tracebackhide__ = True
        waiter = self.in_thread(poll.poll, timeout)
        waiter.thread.join(SILENCE)
        self.check(waiter.thread.is_alive(), f"{what} waits until it is woken", _ending(waiter))
        waker.wake()
        events = waiter.result()
        self.check([event.token for event in events] == ["waker"], f"{what} ends with the event of the waker", events)

    def _expect_deadline_in_spite_of(
        self, poll: Poll[object], disturb: Callable[[], object], *, unless: object = None
    ) -> None:
        """Wait while *disturb* is called every millisecond, by a thread that ends only when the wait has ended."""
        __tracebackhide__ = True
        timeout = 4 * SILENCE
        over = threading.Event()
        limit = time.monotonic() + SIGNAL_WAIT

        def keep_disturbing() -> int:
            times = 0
            while not over.wait(0.001) and time.monotonic() < limit:
                disturb()
                times += 1
            return times

        disturber = self.in_thread(keep_disturbing)
        try:
            deadline = time.monotonic() + timeout
            events = poll.poll(timeout)
            while events and all(event.token == unless for event in events):
                events = poll.poll(deadline - time.monotonic())
            ended = time.monotonic()
        finally:
            over.set()
            times = disturber.result()
        outcome = f"{events} after {ended - deadline + timeout:.6f} s and {times} disturbances"
        self.check(
            not events and ended >= deadline,
            f"no event for {timeout:g} s, however it is disturbed",
            outcome,
            unasked=bool(events),
        )
        self.check(ended < limit, f"the wait of {timeout:g} s ends while it is being disturbed", outcome)


def _asked_of(poll: Poll[object], monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Keep a list of the timeouts that the poll's backend is asked to wait for, from now on."""
    asked: list[float | None] = []
    waiter = poll.backend.waiter

    def counting() -> Wait:
        wait = waiter()

        def counted(timeout: float | None, max_events: int) -> Sequence[Pair]:
            asked.append(timeout)
            return wait(timeout, max_events)

        return counted

    monkeypatch.setattr(poll.backend, "waiter", counting)
    return asked


def _timed(poll: Poll[object], timeout: float) -> tuple[float, Sequence[Event[object]]]:
    start = time.monotonic()
    events = poll.poll(timeout)
    return since(start), events


def _ending(waiter: Running[object]) -> str:
    if waiter.thread.is_alive():
        return "it waits"
    try:
        return f"it returned {waiter.result()!r}"
    except Exception as error:  # whatever it is, it is told
        return f"it raised {error!r}"


def _spell(number: float) -> str:
    return "10**400" if number == BEYOND_ALL_FLOATS else "-10**400" if number == -BEYOND_ALL_FLOATS else repr(number)


def _set_time_of_day(patch: pytest.MonkeyPatch, clock: Callable[[], float]) -> None:
    """Replace ``time.time`` and ``time.time_ns``, also where a module has imported the function by name."""
    for name, fake in ("time", clock), ("time_ns", lambda: int(clock() * 1e9)):
        real = getattr(time, name)
        for module in list(sys.modules.values()):
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                if value is real:
                    patch.setattr(module, attribute, fake)
