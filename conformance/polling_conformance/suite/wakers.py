"""WAK: a wake ends the wait, the present one or the next, once, whatever else is going on."""

from __future__ import annotations

import os
import threading
import time
from functools import partial

import pytest

from polling import Interest, Poll, Waker
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import open_descriptors, send
from polling_conformance.failure import RuleFailure
from polling_conformance.harness import Harness
from polling_conformance.interrupt import Interrupter, at_each_step, calls_of
from polling_conformance.running import A_SIGNAL, Rest, signal_main_thread, since, until_blocked

__all__ = ["WakerRules"]


class WakerRules(Harness):
    """A wake is an event with the waker's token. It is never lost, never sticky, and takes nobody's place."""

    def test_WAK_01_a_wake_from_another_thread_ends_a_wait_without_limit(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")
        for _ in range(3):
            waiter = self.in_thread(poll.poll).blocked()
            waker.wake()
            self._expect_wakes(waiter.result(), "waker")
            self.expect_silence(poll)

    def test_WAK_02_a_wake_before_the_wait_ends_that_wait_only(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")
        for timeout in None, 0, 1000:
            waker.wake()
            self._expect_wakes(self.in_thread(poll.poll, timeout).result(), "waker")
            self.expect_silence(poll)

    def test_WAK_03_wakes_merge_and_the_first_one_after_the_wait_counts_again(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")
        for wakes in 1, 2, 100:
            for _ in range(3):  # at once again, before anything could be tidied up
                for _ in range(wakes):
                    waker.wake()
                self._expect_wakes(self.in_thread(poll.poll).result(), "waker")
            self.expect_silence(poll)

    def test_WAK_03_the_last_of_many_wakes_from_other_threads_is_reported(self, poll: Poll[object]) -> None:
        # Each producer adds an item first and wakes then, and the consumer takes all there is after each wake. If the
        # wake for the last item is lost, the consumer sleeps on it.
        waker = Waker(poll, "waker")
        items: list[int] = []
        total = 3 * 1000

        def produce() -> None:
            for item in range(1000):
                items.append(item)
                waker.wake()

        def consume() -> int:
            taken = waits = 0
            while taken < total:
                poll.poll()
                waits += 1
                present = len(items)
                taken += present
                del items[:present]
            return waits

        consumer = self.in_thread(consume)
        for producer in [self.in_thread(produce) for _ in range(3)]:
            producer.result()
        waits = consumer.result()
        self.check(waits <= total + 1, f"at most one event for each of {total} wakes", f"{waits} waits")

    def test_WAK_04_a_hundred_thousand_wakes_without_a_wait_neither_block_nor_raise(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")

        def wake_often() -> None:
            for _ in range(100_000):  # a pipe holds 65,536 bytes, a pair of sockets less
                waker.wake()

        self.in_thread(wake_often).result()
        self._expect_wakes(self.in_thread(poll.poll).result(), "waker")
        self.expect_silence(poll)

    def test_WAK_05_a_wake_from_a_handler_ends_the_wait_it_interrupts(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")

        def interrupt() -> None:
            until_blocked(threading.main_thread())
            signal_main_thread()

        with self.on_signal(A_SIGNAL, lambda _signum, _frame: waker.wake()):
            for _ in range(3):
                interruption = self.in_thread(interrupt)
                self._expect_wakes(poll.poll(), "waker")
                interruption.result()

    @pytest.mark.parametrize("call", ["poll", "register", "reregister", "rearm", "deregister", "wake", "Waker"])
    def test_WAK_05_a_wake_from_a_handler_at_any_step_of_a_call_is_reported(self, call: str) -> None:
        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll:
                waker, other = Waker(poll, "waker"), Waker(poll, "other")
                near, far = self.socketpair()
                send(far, b"x")
                if call != "register":
                    poll.register(near, "near", Interest.READABLE)
                calls = {"wake": other.wake, **calls_of(poll, near)}
                outcome = interrupt(calls[call], waker.wake)
                self.check(outcome.error is None, "the call goes on", outcome)
                events = outcome.returned if isinstance(outcome.returned, list) else []
                if outcome.where and not any(event.token == "waker" for event in events):
                    events = poll.poll(SIGNAL_WAIT)
                self.check(
                    sum(event.token == "waker" for event in events) == bool(outcome.where),
                    "the wake from the handler by this wait or the next",
                    f"{events}; {outcome}",
                )
                near.close()
                far.close()

        at_each_step(scene, self.make_poll())

    def test_WAK_06_a_wake_after_the_close_does_nothing(self) -> None:
        poll = self.new_poll()
        waker = Waker(poll, "waker")
        before = open_descriptors()
        internal = list(poll.backend.internal)
        poll.close()
        waker.wake()
        # Whoever gets the numbers next is not written to.
        readers = [self.socketpair() for _ in range(len(internal) + 1)]
        for _ in range(3):
            waker.wake()
        numbers = {end.fileno() for pair in readers for end in pair}
        if before:  # where descriptors are counted from the lowest free number
            self.check(numbers >= {*internal}, f"the released numbers {internal} are used again", sorted(numbers))
        for pair in readers:
            for end in pair:
                self.expect_error(BlockingIOError, end.recv, 1)

    def test_WAK_06_a_wake_at_the_same_time_as_the_close_reaches_no_stranger(self) -> None:
        for _ in range(50):
            poll = self.new_poll()
            wakers = [Waker(poll, number) for number in range(2)]
            over = threading.Event()

            def keep_waking(waker: Waker[object], over: threading.Event = over) -> None:
                while not over.is_set():
                    waker.wake()

            threads = [self.in_thread(keep_waking, waker) for waker in wakers]
            poll.close()
            strangers = [self.socketpair() for _ in range(2)]
            over.set()
            for thread in threads:
                thread.result()
            ends = [end for pair in strangers for end in pair]
            for end in ends:
                self.expect_error(BlockingIOError, end.recv, 1)
            for end in ends:
                end.close()

    def test_WAK_07_a_wake_is_reported_beside_more_ready_sources_than_fit(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")
        for token in range(5):
            near, far = self.socketpair()
            poll.register(near, token)
            send(far, b"x")
        for limit in 1, 2, 5:
            for _ in range(3):
                events = poll.poll(None, limit)
                self.check(1 <= len(events) <= limit, f"1 to {limit} events of sources while nobody wakes", events)
                waker.wake()
                events = poll.poll(None, limit)
                others = [event for event in events if event.token != "waker"]
                self.check(
                    len(events) == len(others) + 1 and 1 <= len(others) <= limit,
                    f"the wake, and besides it 1 to {limit} events of sources",
                    events,
                )

    def test_WAK_08_wakers_of_one_poll_and_of_several_do_not_mix(self) -> None:
        polls = [self.make_poll() for _ in range(3)]
        wakers = [[Waker(poll, (number, letter)) for letter in "ab"] for number, poll in enumerate(polls)]
        wakers[1][0].wake()
        for number in 0, 2:
            self.expect_silence(polls[number])
        self._expect_wakes(polls[1].poll(0), (1, "a"))
        for pair in wakers:
            for waker in pair:
                waker.wake()
        for number, poll in enumerate(polls):
            self._expect_wakes(poll.poll(0), (number, "a"), (number, "b"))
            self.expect_silence(poll)
        polls[1].deregister(wakers[1][0])
        for waker in wakers[1]:
            waker.wake()
        self._expect_wakes(self.in_thread(polls[1].poll).result(), (1, "b"))

    def test_WAK_09_a_wake_is_a_readable_event_with_the_wakers_token(self, poll: Poll[object]) -> None:
        token = object()
        waker = Waker(poll, token)
        waker.wake()
        (event,) = poll.poll(0, 1)
        said = (event.readable, event.writable, event.priority, event.error, event.read_closed, event.write_closed)
        self.check(event.token is token, f"the very token {token}", event)
        self.check(said == (True, False, False, False, False, False), "readable and nothing else", event)
        self.check(poll.is_current(event), "the event is current", "it is not")
        poll.deregister(waker)
        self.check(not poll.is_current(event), "the event is not current once its waker is deregistered", "it is")

    def test_WAK_10_a_doorbell_closed_by_somebody_else_is_an_error_and_no_spin(self) -> None:
        # In a child, since what becomes of the number afterwards is nobody's business. Which of the backend's
        # descriptors is the doorbell is not known: each is tried, and those that are not may go on.
        def close_and_wait(number: int) -> str:
            poll = self.new_poll()
            waker = Waker(poll, "waker")
            os.close(sorted(poll.backend.internal)[number])
            try:
                for _ in range(4):  # a busy machine may keep it from resting, but not each time
                    start, rest = time.monotonic(), Rest(4 * SILENCE)
                    events = poll.poll(4 * SILENCE)
                    elapsed, rested = since(start), rest.over()
                    if rested:
                        break
                if events or elapsed < 4 * SILENCE or not rested:
                    return f"a wait without a wake gave {events} after {elapsed:.3f} s: {rested}"
                waiter = self.in_thread(poll.poll, SIGNAL_WAIT / 2).blocked()
                start = time.monotonic()
                waker.wake()
                events = waiter.result()
                elapsed = since(start)
            except RuleFailure as failure:  # the waiter does not rest, or hangs
                return failure.observation
            except Exception:  # any error of the call's own will do
                return "fine"
            if [event.token for event in events] != ["waker"] or elapsed > SIGNAL_WAIT / 4:
                return f"after a wake, which raised nothing, the wait gave {events} after {elapsed:.3f} s"
            return "fine"

        with self.new_poll() as poll:
            internal = len(poll.backend.internal)
        for number in range(internal):
            verdict = self.in_child(partial(close_and_wait, number))
            self.check(verdict == "fine", "an error from the next wait or wake, or a wake that works", verdict)

    def test_WAK_11_waking_works_for_many_thousand_rounds(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")
        before = open_descriptors()
        enough = time.monotonic() + SIGNAL_WAIT / 2  # for a backend to which each is dear
        for _ in range(20_000):
            waker.wake()
            events = poll.poll(SIGNAL_WAIT)
            if [event.token for event in events] != ["waker"]:
                self._expect_wakes(events, "waker")
            if time.monotonic() > enough:
                break
        for _ in range(3):  # and the doorbell, by which alone a wait in progress is ended, rings as it ever did
            waiter = self.in_thread(poll.poll).blocked()
            waker.wake()
            self._expect_wakes(waiter.result(), "waker")
        self.check(open_descriptors() == before, f"the same descriptors as before: {before}", open_descriptors())
        self.expect_silence(poll)

    # -- words ---------------------------------------------------------------------------------------------------

    def _expect_wakes(self, events: object, *tokens: object) -> None:
        """Check that *events* are one readable event for each of *tokens*."""
        __tracebackhide__ = True
        assert isinstance(events, list)
        self.check(
            len(events) == len(tokens)
            and {(event.token, event.readable) for event in events} == {(token, True) for token in tokens},
            f"one readable event for each of the wakers {list(tokens)}",
            events,
        )
