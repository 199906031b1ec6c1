"""TIM: time is reported by the same wait as everything else, never early, and in order."""

from __future__ import annotations

import math
import random
import sys
import time
import tracemalloc
import weakref
from collections.abc import Callable
from itertools import pairwise

import pytest

from polling import Event, Interest, Mode, Poll, Timer, Waker
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import send
from polling_conformance.harness import Harness
from polling_conformance.interrupt import Interrupter, at_each_step, strike
from polling_conformance.running import since

__all__ = ["TimerRules"]

SOON = SILENCE / 2
"""Seconds until a timeout that is to be waited for."""
ONCE = [Mode.ONESHOT, Mode.EDGE_ONESHOT]


class TimerRules(Harness):
    """A `Timer` ends a wait when its nearest timeout is due, and gives each state once."""

    @pytest.mark.parametrize("mode", Mode)
    def test_TIM_01_a_timeout_ends_the_wait_when_it_is_due_and_not_before(self, poll: Poll[object], mode: Mode) -> None:
        timer = self.timer()
        poll.register(timer, "timer", Interest.READABLE, mode)
        for seconds in SOON, 0.001, SOON / 7:
            start = time.monotonic()
            timer.set_timeout(seconds, "state")
            self._expect_timer(self.in_thread(poll.poll).result())
            elapsed = since(start)
            self.check(elapsed >= seconds, f"no event before {seconds} s", f"after {elapsed:.6f} s")
            self._expect_states(timer, ["state"])
            if mode in ONCE:
                poll.rearm(timer)
            self.expect_silence(poll)

    @pytest.mark.parametrize("seconds", [0, -1, -0.0, -math.inf, -(10**400)])
    def test_TIM_01_a_time_that_has_passed_is_due_at_once(self, poll: Poll[object], seconds: float) -> None:
        timer = self.timer()
        poll.register(timer, "timer")
        timer.set_timeout(seconds, "state")
        self._expect_timer(poll.poll(0))
        self._expect_states(timer, ["state"])
        self.expect_silence(poll)

    @pytest.mark.parametrize("seconds", [1e9, 1e300, math.inf, 10**400, sys.float_info.max])
    def test_TIM_01_a_huge_interval_is_accepted_and_not_due(self, poll: Poll[object], seconds: float) -> None:
        timer = self.timer()
        poll.register(timer, "timer")
        timeout = timer.set_timeout(seconds, "state", every=seconds)
        self.expect_silence(poll)
        self._expect_states(timer, [])
        self.check(timeout.cancel(), "it was pending", "it was not")

    def test_TIM_01_several_that_are_due_make_one_event(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer", Interest.READABLE, Mode.EDGE)
        for state in range(5):
            timer.set_timeout(0, state)
        self._expect_timer(poll.poll(0))
        self.expect_silence(poll)
        self._expect_states(timer, [*range(5)])

    def test_TIM_01_what_is_no_time_is_refused(self) -> None:
        timer = self.timer()
        for seconds, every, error in [
            (math.nan, None, ValueError),
            (1, math.nan, ValueError),
            (1, 0, ValueError),
            (1, -1, ValueError),
            ("1", None, TypeError),
            (None, None, TypeError),
            (1, "1", TypeError),
        ]:
            self.expect_error(error, timer.set_timeout, seconds, "state", every=every)
        self._expect_states(timer, [])

    @pytest.mark.parametrize("mode", Mode)
    def test_TIM_01_set_before_it_is_registered_counts(self, poll: Poll[object], mode: Mode) -> None:
        timer = self.timer()
        timer.set_timeout(SOON, "state")
        poll.register(timer, "timer", Interest.READABLE, mode)
        self._expect_timer(self.in_thread(poll.poll).result())
        self._expect_states(timer, ["state"])

    def test_TIM_01_it_is_level_and_edge_like_any_source(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer", Interest.READABLE, Mode.LEVEL)
        timer.set_timeout(0, 1)
        for _ in range(3):
            self._expect_timer(poll.poll(0))
        poll.reregister(timer, "timer", Interest.READABLE, Mode.EDGE)
        self._expect_timer(poll.poll(0))
        self.expect_silence(poll)
        poll.reregister(timer, "timer", Interest.NONE, Mode.LEVEL)
        self.expect_silence(poll)
        self._expect_states(timer, [1])

    # -- TIM-02: the wait's own deadline, and everybody else ------------------------------------------------------

    def test_TIM_02_the_waits_own_timeout_holds(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer")
        timer.set_timeout(1000 * SIGNAL_WAIT, "far")
        start = time.monotonic()
        events = poll.poll(SOON)
        elapsed = since(start)
        self.check(not events and elapsed >= SOON, f"nothing, after {SOON} s", f"{events} after {elapsed:.6f} s")
        start = time.monotonic()
        self.check(poll.poll(0) == [], "nothing, at once", "an event")
        self.check(since(start) < SIGNAL_WAIT, "a wait of 0 does not wait", "it did")

    def test_TIM_02_others_are_reported_meanwhile(self, poll: Poll[object]) -> None:
        timer, waker = self.timer(), Waker(poll, "waker")
        near, far = self.socketpair()
        poll.register(timer, "timer")
        poll.register(near, "near")
        timer.set_timeout(1000 * SIGNAL_WAIT, "far")
        send(far, b"x")
        waker.wake()
        self.expect_events(poll, {"near": "r", "waker": "r"})
        timer.set_timeout(0, "now")
        self.expect_events(poll, {"near": "r", "timer": "r"})

    def test_TIM_02_a_deregistered_timer_bends_no_wait(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer")
        timer.set_timeout(SOON, "state")
        poll.deregister(timer)
        self.expect_silence(poll)
        time_left = self.in_thread(poll.poll, 4 * SOON).result()
        self.check(time_left == [], "nothing", time_left)
        self._expect_states(timer, ["state"])

    def test_TIM_02_several_timers_each_keep_their_time(self, poll: Poll[object]) -> None:
        timers = {token: self.timer() for token in (3, 1, 2)}
        start = time.monotonic()
        for token, timer in timers.items():
            poll.register(timer, token)
            timer.set_timeout(token * SOON, token)
        while timers:
            events = poll.poll(SIGNAL_WAIT)
            elapsed = since(start) / SOON
            tokens = [event.token for event in events if isinstance(event.token, int)]
            self.check(bool(tokens), f"an event of each of {[*timers]}", events)
            for token in tokens:
                self.check(elapsed >= token, f"{token} not before its time", f"after {elapsed / token:.3f} of it")
                self._expect_states(timers.pop(token), [token])

    # -- TIM-03: order, and all of them ---------------------------------------------------------------------------

    def test_TIM_03_those_that_are_due_together_come_in_the_order_of_setting(self) -> None:
        timer = self.timer()
        timer.set_timeout(1000, "last")
        timeouts = [timer.set_timeout(0, number) for number in range(1000)]
        self._expect_states(timer, [*range(1000)])
        self._expect_states(timer, [])
        self.check(
            not any(timeout.cancel() for timeout in timeouts), "what has expired cannot be cancelled", "it could"
        )

    def test_TIM_03_the_order_is_that_of_the_deadlines_and_not_of_setting(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer")
        seconds = [number * SOON / 1000 for number in range(1000)]
        random.Random(2).shuffle(seconds)
        earliest, latest = [], []  # within these two lies the deadline of each
        for number, left in enumerate(seconds):
            earliest.append(time.monotonic() + left)
            timer.set_timeout(left, number)
            latest.append(time.monotonic() + left)
        states: list[int] = []
        while len(states) < 1000 and poll.poll(SIGNAL_WAIT):
            states += timer.expired()
        self.check(sorted(states) == [*range(1000)], "each once", "others")
        swapped = [(one, other) for one, other in pairwise(states) if earliest[one] > latest[other]]
        self.check(not swapped, "in the order of their deadlines", f"swapped: {swapped[:5]}")

    # -- TIM-04: cancelling ----------------------------------------------------------------------------------------

    def test_TIM_04_what_is_cancelled_does_not_expire(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer")
        first = timer.set_timeout(SOON, "first")
        second = timer.set_timeout(SOON * 2, "second")
        self.check(first.cancel(), "True: it was pending", "False")
        self.check(not first.cancel(), "False: it was cancelled already", "True")
        start = time.monotonic()
        self._expect_timer(poll.poll(SIGNAL_WAIT))
        elapsed = since(start)
        self.check(elapsed > SOON, "no event for what was cancelled", f"one after {elapsed:.6f} s")
        self._expect_states(timer, ["second"])
        self.check(not second.cancel(), "False: it has expired", "True")
        third = timer.set_timeout(0, "third")
        self._expect_timer(poll.poll(0))
        self.check(third.cancel(), "True: nobody has taken it", "False")
        self._expect_states(timer, [])
        self.expect_silence(poll)

    def test_TIM_04_what_is_over_is_let_go_of(self) -> None:
        class State:
            pass

        timer = self.timer()
        states = [State(), State()]
        gone = [weakref.ref(state) for state in states]
        cancelled = timer.set_timeout(1000, states[0])
        expired = timer.set_timeout(0, states[1])
        del states
        cancelled.cancel()
        self.check(gone[0]() is None, "the state of what is cancelled is released", "it is held")
        timer.expired()
        self.check(gone[1]() is None, "the state of what has expired is released", "it is held")
        del expired

    def test_TIM_04_many_that_are_cancelled_before_their_time_take_no_memory(self) -> None:
        timer = self.timer()
        pending = [timer.set_timeout(1000 + number % 1000, None) for number in range(1_000)]
        tracemalloc.start()
        try:
            for _ in range(8):
                for number, timeout in enumerate(pending):
                    timeout.cancel()
                    pending[number] = timer.set_timeout(1000 + number % 1000, None)
            grown, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # One takes some 250 bytes. Those that are pending were made anew, and as many more may be on their way out.
        self.check(grown < 1_000 * 250 * 4, "at most as many that are cancelled as are pending", f"{grown} bytes")
        self.check(all(timeout.cancel() for timeout in pending), "each is pending", "some are over")
        self._expect_states(timer, [])

    # -- TIM-05: repeating -----------------------------------------------------------------------------------------

    def test_TIM_05_a_repeated_timeout_expires_until_it_is_cancelled(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer")
        period = SOON / 5
        start = time.monotonic()
        timeout = timer.set_timeout(0, "tick", every=period)
        for number in range(6):
            self._expect_timer(poll.poll(SIGNAL_WAIT))
            elapsed = since(start)
            self.check(
                elapsed >= number * period, f"no tick {number} before {number * period} s", f"after {elapsed:.6f} s"
            )
            self._expect_states(timer, ["tick"])
        self.check(timeout.cancel(), "True: it was pending", "False")
        self.check(not timeout.cancel(), "False: it was cancelled", "True")
        self.expect_silence(poll)

    def test_TIM_05_what_passed_unnoticed_expires_once(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer")
        start = time.monotonic()
        timer.set_timeout(0, "tick", every=SOON)
        while time.monotonic() < start + 2.5 * SOON:  # some deadlines pass while nobody asks
            poll.poll(0)
        self._expect_states(timer, ["tick"])
        self._expect_timer(poll.poll(SIGNAL_WAIT))
        elapsed = since(start)
        self.check(elapsed >= 3 * SOON, "not before its time", f"after {elapsed / SOON:.2f} periods")

    def test_TIM_05_lateness_does_not_add_up(self, poll: Poll[object]) -> None:
        # Each tick is taken half a period late. A mark a quarter of a period behind the next beat comes after the next
        # tick, unless that is counted from when the last one was taken. No hurry of the machine is needed for that.
        timer = self.timer()
        poll.register(timer, "timer")
        start = time.monotonic()
        timer.set_timeout(0, "tick", every=SOON)
        latest = time.monotonic()
        for _ in range(4):
            while not 0.5 < (taken := since(start) / SOON) % 1 < 0.6:
                pass
            states = timer.expired()
            if "tick" not in states or int(since(start) / SOON) > int(taken):
                continue  # on a busy machine the next beat may have passed meanwhile
            timer.set_timeout(latest + (int(taken) + 1.25) * SOON - time.monotonic(), "mark")
            states = []
            while "mark" not in states and poll.poll(SIGNAL_WAIT):
                states += timer.expired()
            self.check(states[:1] == ["tick"], "the tick on the next beat, before the mark behind it", states)

    # -- TIM-06: threads and handlers --------------------------------------------------------------------------------

    def test_TIM_06_a_nearer_timeout_set_in_another_thread_shortens_the_wait(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer")
        timer.set_timeout(1000 * SIGNAL_WAIT, "far")
        for seconds in SOON, 0:
            waiter = self.in_thread(poll.poll).blocked()
            timer.set_timeout(seconds, "near")
            self._expect_timer(waiter.result())
            self._expect_states(timer, ["near"])

    def test_TIM_06_a_farther_timeout_neither_ends_nor_prolongs_the_wait(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer")

        def wait() -> tuple[list[Event[object]], float]:
            start = time.monotonic()
            return poll.poll(2 * SILENCE), since(start)

        waiter = self.in_thread(wait).blocked()
        for seconds in range(100):
            timer.set_timeout(1000 * SIGNAL_WAIT - seconds, "far")
        events, elapsed = waiter.result()
        self.check(not events and elapsed >= 2 * SILENCE, "nothing, in time", f"{events} after {elapsed:.6f} s")

    def test_TIM_06_threads_set_and_cancel_while_one_waits(self, poll: Poll[object]) -> None:
        timer = self.timer()
        poll.register(timer, "timer")
        turns = 2000

        def work(worker: int) -> int:
            kept = 0
            for turn in range(turns):
                timeout = timer.set_timeout(turn % 3 * 1e-4, (worker, turn))
                kept += turn % 2 == 0 or not timeout.cancel()
            return kept

        def wait() -> list[object]:
            states: list[object] = []
            while "over" not in states and poll.poll(SIGNAL_WAIT / 2):
                states += timer.expired()
            return states

        waiter = self.in_thread(wait)
        kept = sum(running.result() for running in [self.in_thread(work, worker) for worker in range(3)])
        timer.set_timeout(SOON, "over")
        states = waiter.result()
        self.check(len(states) == len(set(states)) == kept + 1, f"{kept + 1} states, each once", len(states))

    @pytest.mark.parametrize("call", ["poll", "expired", "set_timeout", "cancel"])
    def test_TIM_06_an_exception_at_any_step_costs_no_timeout(self, call: str) -> None:
        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll:
                timer = self.timer()
                poll.register(timer, "timer", Interest.READABLE, Mode.EDGE)
                for state in "ab":
                    timer.set_timeout(0, state)
                timer.set_timeout(0, "r", every=1000)
                other = timer.set_timeout(SIGNAL_WAIT * 1000, "other")
                calls: dict[str, Callable[[], object]] = {
                    "poll": lambda: poll.poll(SIGNAL_WAIT),
                    "expired": timer.expired,
                    "set_timeout": lambda: timer.set_timeout(0, "new"),
                    "cancel": other.cancel,
                }
                if call == "expired":
                    self._expect_timer(poll.poll(0))
                outcome = interrupt(calls[call], strike)
                if call == "expired":
                    states = timer.expired() if outcome.error else outcome.returned
                else:
                    waited = call == "poll" and not outcome.error
                    self._expect_timer(outcome.returned if waited else poll.poll(SIGNAL_WAIT))  # type: ignore[arg-type]  # a list of events
                    states = timer.expired()
                expected = ["a", "b", "r"] + ["new"] * (call == "set_timeout" and outcome.error is None)
                self.check(states == expected, f"{expected}", f"{states}; {outcome}")
                self.check(timer.expired() == [], "nothing twice", outcome)

        at_each_step(scene, self.make_poll(), self.timer())

    def test_TIM_06_a_timeout_set_at_any_step_of_a_wait_is_kept(self) -> None:
        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll:
                timer = self.timer()
                poll.register(timer, "timer")
                for seconds in 0, 0, 1000, 1000:
                    timer.set_timeout(seconds, "cancelled").cancel()
                outcome = interrupt(lambda: poll.poll(0), lambda: timer.set_timeout(0, "new"))
                if outcome.where:
                    self._expect_timer(outcome.returned or poll.poll(SIGNAL_WAIT))
                    states = timer.expired()
                    self.check(states == ["new"], "the new one", f"{states}; {outcome}")

        at_each_step(scene, self.make_poll(), self.timer())

    def test_TIM_06_what_a_handler_cancels_before_it_raises_does_not_come_back(self) -> None:
        def scene(interrupt: Interrupter) -> None:
            timer = self.timer()
            repeated = timer.set_timeout(0, "r", every=1000)
            timer.set_timeout(0, "a")

            def handler() -> None:
                self.check(repeated.cancel(), "True: it was pending", "False")
                strike()

            outcome = interrupt(timer.expired, handler)
            if outcome.error:
                self._expect_states(timer, ["a"])
                self.check(not repeated.cancel(), "it is over", f"it is pending again; {outcome}")

        at_each_step(scene, self.make_poll(), self.timer())

    # -- words ---------------------------------------------------------------------------------------------------

    def _expect_timer(self, events: list[Event[object]]) -> None:
        __tracebackhide__ = True
        self.check([(event.token, event.readable) for event in events] == [("timer", True)], "one event", events)

    def _expect_states(self, timer: Timer[object], expected: list[object]) -> None:
        __tracebackhide__ = True
        states = timer.expired()
        self.check(states == expected, f"{expected} has expired", states)
