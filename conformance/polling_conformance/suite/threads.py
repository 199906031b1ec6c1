"""THR, and REG-18 to REG-21: threads work on a poll while one of them waits."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import pytest

from polling import (
    AlreadyRegisteredError,
    Event,
    Interest,
    Mode,
    NotRegisteredError,
    Poll,
    PollBusyError,
    Waker,
)
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import Ends, drain, send
from polling_conformance.harness import Harness
from polling_conformance.interrupt import Interrupter, at_each_step
from polling_conformance.running import A_SIGNAL, Running, signal_main_thread, since, until_blocked

__all__ = ["ThreadRules"]

T = TypeVar("T")

WORKERS = 4
TURNS = 50
"""How many threads change registrations at once, and how often each."""


@contextmanager
def restless(interval: float = 1e-6) -> Iterator[None]:
    """Have the interpreter change threads as often as it can, so that what is not guarded goes wrong soon."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _meanwhile(rules: Harness, change: Callable[[str], T]) -> Running[T]:
    """Have another thread make a change as far as it comes: to its end, or until it is blocked by a lock."""
    other = rules.in_thread(change, "another's")
    with suppress(TimeoutError):  # it has ended
        until_blocked(other.thread)
    return other


class ThreadRules(Harness):
    """A wait holds no lock that another call needs, the interpreter's included, and sees what other threads change."""

    def _waiting(self, poll: Poll[object], timeout: float | None = None) -> Running[list[Event[object]]]:
        """Give a thread that waits on *poll*."""
        return self.in_thread(poll.poll, timeout).blocked()

    def _expect_result(self, waiter: Running[list[Event[object]]], token: object) -> None:
        """Check that the wait ends with one event, of *token*, which is readable."""
        events = waiter.result()
        self.check(
            [(event.token, event.readable) for event in events] == [(token, True)], f"{token!r} is readable", events
        )

    # -- REG-18, REG-19: changes during a wait -----------------------------------------------------

    @pytest.mark.parametrize("ready", [True, False], ids=["ready_before", "ready_after"])
    def test_REG_18_a_wait_takes_up_a_registration(self, poll: Poll[object], pair: Ends, ready: bool) -> None:
        reader, writer = pair
        waiter = self._waiting(poll)
        if ready:
            send(writer, b"x")
        poll.register(reader, "registered", Interest.READABLE)
        if not ready:
            waiter.blocked()
            send(writer, b"x")
        self._expect_result(waiter, "registered")

    def test_REG_18_a_wait_takes_up_a_reregistration(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "parked", Interest.NONE)
        send(writer, b"x")
        waiter = self._waiting(poll)
        poll.reregister(reader, "reregistered", Interest.READABLE, Mode.LEVEL)
        self._expect_result(waiter, "reregistered")

    def test_REG_18_a_wait_reports_a_reregistration_under_its_own_token(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        send(writer, b"x")
        poll.register(reader, "fired", Interest.READABLE, Mode.ONESHOT)
        self.expect_events(poll, {"fired": "r"})
        # Again and again, because what is reported depends on which of the two threads goes on first.
        for turn in range(TURNS):
            waiter = self._waiting(poll)
            poll.reregister(reader, turn, Interest.READABLE, Mode.ONESHOT)
            self._expect_result(waiter, turn)

    @pytest.mark.parametrize("mode", [Mode.ONESHOT, Mode.EDGE_ONESHOT], ids=["oneshot", "edge_oneshot"])
    def test_REG_18_a_wait_takes_up_a_rearming(self, poll: Poll[object], pair: Ends, mode: Mode) -> None:
        reader, writer = pair
        poll.register(reader, "rearmed", Interest.READABLE, mode)
        send(writer, b"x")
        self.expect_events(poll, {"rearmed": "r"})
        waiter = self._waiting(poll)
        poll.rearm(reader)
        self._expect_result(waiter, "rearmed")

    def test_REG_18_a_wait_takes_up_an_edge(self, poll: Poll[object], edge_pair: Ends) -> None:
        reader, writer = edge_pair
        waiter = self._waiting(poll)
        poll.register(reader, "edge", Interest.READABLE, Mode.EDGE)
        waiter.blocked()
        send(writer, b"x")
        self._expect_result(waiter, "edge")
        waiter = self._waiting(poll)
        drain(reader)
        waiter.blocked()
        send(writer, b"x")
        self._expect_result(waiter, "edge")

    def test_REG_18_no_change_is_lost_where_a_wait_begins(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        send(far, b"x")
        poll.register(near, "near", Interest.READABLE, Mode.ONESHOT)
        self.expect_events(poll, {"near": "r"})
        about_to_wait = threading.Semaphore(0)

        def wait_again_and_again() -> list[list[Event[object]]]:
            batches = []
            for _ in range(4 * TURNS):
                about_to_wait.release()
                batches.append(poll.poll(SIGNAL_WAIT))
            return batches

        with restless():
            waiter = self.in_thread(wait_again_and_again)
            for turn in range(4 * TURNS):
                about_to_wait.acquire(timeout=SIGNAL_WAIT)
                for _ in range(turn % TURNS):  # a little later each time, so that each point of the wait is met
                    pass
                poll.rearm(near)
            batches = waiter.result()
        self.check(all(batches), "one event for each re-arming", f"{batches.count([])} of {len(batches)} are lost")

    def test_REG_19_changes_neither_end_nor_prolong_a_wait(self, poll: Poll[object], pair: Ends) -> None:
        reader, _ = pair
        timeout = 2 * SILENCE

        def wait() -> tuple[list[Event[object]], float]:
            start = time.monotonic()
            events = poll.poll(timeout)
            return events, since(start)

        waiter = self.in_thread(wait)
        end = time.monotonic() + SIGNAL_WAIT
        changes = 0
        while waiter.thread.is_alive() and time.monotonic() < end:
            poll.register(reader, "registered")
            poll.reregister(reader, "reregistered", Interest.READABLE, Mode.ONESHOT)
            poll.rearm(reader)
            poll.deregister(reader)
            changes += 4
            waiter.thread.join(SILENCE / 50)  # leaves the waiter time to begin its wait anew
        self.check(not waiter.thread.is_alive(), f"the end of a wait of {timeout:g} s", f"none after {changes} changes")
        events, seconds = waiter.result()
        self.check(
            not events and seconds >= timeout,
            f"no event after {timeout:g} s",
            f"{events} after {seconds:.3f} s",
            unasked=bool(events),
        )

    # -- REG-20, REG-21: several threads -------------------------------------------------------------

    def test_REG_20_threads_change_their_own_sources(self, poll: Poll[object]) -> None:
        ends = [[self.socketpair() for _ in range(3)] for _ in range(WORKERS)]
        for own in ends:
            for _, far in own:
                send(far, b"x")
        strange: list[Event[object]] = []

        def wait() -> None:
            tokens: set[object] = set()
            while "over" not in tokens:
                events = poll.poll()
                tokens = {event.token for event in events}
                strange.extend(event for event in events if event.writable or not event.readable)

        def work(worker: int) -> None:
            for turn in range(TURNS):
                for i, (near, _) in enumerate(ends[worker]):
                    poll.register(near, (worker, i, turn), Interest.READABLE, Mode.ONESHOT)
                    poll.rearm(near)
                    poll.reregister(near, (worker, i, -turn), Interest.READABLE, Mode.ONESHOT)
                    poll.rearm(near)
                for near, _ in ends[worker]:
                    poll.deregister(near)
            for i, (near, _) in enumerate(ends[worker][:2]):
                poll.register(near, (worker, i), Interest.NONE)

        with restless():
            waiter = self.in_thread(wait)
            workers = [self.in_thread(work, worker) for worker in range(WORKERS)]
            for running in workers:
                running.result()
        Waker(poll, "over").wake()
        waiter.result()
        self.check(not strange, "readable, which is all that was asked for", strange)
        # What each thread left behind is what the table holds: the first two of its sources, parked, and not the third.
        self.expect_silence(poll)
        for worker, own in enumerate(ends):
            for i, (near, _) in enumerate(own[:2]):
                self.expect_error(AlreadyRegisteredError, poll.register, near, "again")
                poll.reregister(near, (worker, i), Interest.READABLE, Mode.ONESHOT)
            self.expect_error(NotRegisteredError, poll.deregister, own[2][0])
        self.expect_events(poll, {(worker, i): "r" for worker in range(WORKERS) for i in range(2)})
        self.expect_silence(poll)

    def test_REG_20_of_many_threads_one_registers_and_one_deregisters(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        send(far, b"x")
        barrier = threading.Barrier(WORKERS)

        def race(worker: int) -> list[str]:
            outcomes = []
            for _ in range(TURNS):
                barrier.wait(SIGNAL_WAIT)
                try:
                    poll.register(near, worker)
                    outcomes.append("registered")
                except AlreadyRegisteredError:
                    pass
                barrier.wait(SIGNAL_WAIT)
                try:
                    poll.deregister(near)
                    outcomes.append("deregistered")
                except NotRegisteredError:
                    pass
            return outcomes

        with restless():
            racing = [self.in_thread(race, worker) for worker in range(WORKERS)]
            outcomes = [outcome for running in racing for outcome in running.result()]
        for outcome in "registered", "deregistered":
            self.check(
                outcomes.count(outcome) == TURNS,
                f"in each of {TURNS} turns one thread of {WORKERS} has {outcome} the source",
                f"{outcomes.count(outcome)} times in all",
            )
        self.expect_silence(poll)

    @pytest.mark.parametrize("name", ["register", "reregister", "deregister"])
    def test_REG_20_a_call_by_another_thread_at_any_step_of_the_same_call_comes_before_or_after(
        self, name: str
    ) -> None:
        def scene(interrupt: Interrupter) -> None:
            near, far = socket.socketpair()
            with near, far, self.new_poll() as poll:
                far.send(b"x")
                if name != "register":
                    poll.register(near, "former", Interest.WRITABLE)

                def change(token: str) -> str:
                    try:
                        if name == "deregister":
                            poll.deregister(near)
                        elif name == "register":
                            poll.register(near, token)
                        else:
                            poll.reregister(near, token, Interest.READABLE, Mode.LEVEL)
                    except (AlreadyRegisteredError, NotRegisteredError) as error:
                        return type(error).__name__
                    return token

                others: list[Running[str]] = []
                outcome = interrupt(lambda: change("this thread's"), lambda: others.append(_meanwhile(self, change)))
                outcomes = [str(outcome.error or outcome.returned), *(other.result() for other in others)]
                done = [what for what in outcomes if not what.endswith("Error")]
                self.check(
                    len(done) == (len(outcomes) if name == "reregister" else 1),
                    "both calls done" if name == "reregister" else f"one {name} done, and the other one refused",
                    f"{outcomes}; {outcome}",
                )
                events = [(event.token, event.readable, event.writable) for event in poll.poll(0)]
                expected = [] if name == "deregister" else [[(token, True, False)] for token in done]
                self.check(
                    events in (expected or [[]]),
                    f"{'nothing' if not expected else 'near'} reported",
                    f"{events}; {outcome}",
                )

        with restless(0.001):
            at_each_step(scene, self.make_poll())

    def test_REG_20_a_change_by_another_thread_at_any_step_of_a_wait_is_in_force(self) -> None:
        def scene(interrupt: Interrupter) -> None:
            near, far = socket.socketpair()
            with near, far, self.new_poll() as poll:
                far.send(b"x")
                poll.register(near, "fired", Interest.READABLE, Mode.ONESHOT)
                self.expect_events(poll, {"fired": "r"})
                Waker(poll, "waker").wake()  # so that the wait has an end

                def change(token: str) -> None:
                    poll.reregister(near, token, Interest.READABLE, Mode.ONESHOT)

                others: list[Running[None]] = []
                outcome = interrupt(lambda: poll.poll(SIGNAL_WAIT), lambda: others.append(_meanwhile(self, change)))
                for other in others:
                    other.result()
                events = list(outcome.returned or ())
                while others and not any(event.token == "another's" for event in events):
                    more = poll.poll(SIGNAL_WAIT)
                    self.check(bool(more), "an event under the new token", f"{events}; {outcome}")
                    events += more
                again = [event for event in poll.poll(0) if event.token != "waker"]
                self.check(not again, "one event for the one arming", f"{again} after {events}; {outcome}")

        with restless(0.001):
            at_each_step(scene, self.make_poll())

    @pytest.mark.parametrize("name", ["rearm", "reregister"])
    def test_ONE_08_a_wait_by_another_thread_at_any_step_of_arming_reports_it_or_leaves_it_to_the_next(
        self, name: str
    ) -> None:
        def scene(interrupt: Interrupter) -> None:
            near, far = socket.socketpair()
            with near, far, self.new_poll() as poll:
                poll.register(near, "near", Interest.READ_WRITE, Mode.ONESHOT)
                self.expect_events(poll, {"near": "w"})
                far.send(b"x")  # what it was not armed for any more
                arm = {
                    "rearm": lambda: poll.rearm(near),
                    "reregister": lambda: poll.reregister(near, "near", Interest.READ_WRITE, Mode.ONESHOT),
                }
                others: list[Running[list[Event[object]]]] = []
                outcome = interrupt(arm[name], lambda: others.append(_meanwhile(self, lambda _: poll.poll(0))))
                events = [event for other in others for event in other.result()]
                events += poll.poll(0)
                self.check(len(events) == 1, "one event for the one arming", f"{events}; {outcome}")

        with restless(0.001):
            at_each_step(scene, self.make_poll())

    def test_REG_21_a_second_wait_is_refused_and_the_first_goes_on(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near")
        waiter = self._waiting(poll)
        for timeout in 0, SIGNAL_WAIT, None:
            self.expect_error(PollBusyError, poll.poll, timeout)
        waiter.blocked()
        send(far, b"x")
        self._expect_result(waiter, "near")
        drain(near)
        self.expect_silence(poll)

    def test_REG_21_a_wait_inside_a_signal_handler_is_refused(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near")
        outcomes: list[str] = []
        handled = threading.Semaphore(0)

        def handle(_signum: int, _frame: object) -> None:
            try:
                outcomes.append(f"it returned {poll.poll(0)}")
            except PollBusyError:
                outcomes.append("PollBusyError")
            handled.release()

        waiting = threading.current_thread()

        def disturb() -> None:
            # The thread may have stood still on its way to the wait, where the handler may wait. So more than once.
            while "PollBusyError" not in outcomes and len(outcomes) < 10:
                until_blocked(waiting)
                signal_main_thread()
                handled.acquire(timeout=SIGNAL_WAIT)
            send(far, b"x")

        with self.on_signal(A_SIGNAL, handle):
            disturbing = self.in_thread(disturb)
            self.expect_events(poll, {"near": "r"})
            disturbing.result()
        self.check("PollBusyError" in outcomes, "PollBusyError from the wait in the handler", outcomes)

    # -- THR-01 -----------------------------------------------------------------------------------------

    def test_THR_01_registering_does_not_wait_for_the_wait(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        waiter = self._waiting(poll)
        self.in_thread(poll.register, near, "near", Interest.READABLE).result()
        send(far, b"x")
        self._expect_result(waiter, "near")

    def test_THR_01_no_call_waits_for_the_wait(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, _ = duplex
        waker = Waker(poll, "waker")
        waiter = self._waiting(poll)
        for call in (
            lambda: poll.register(near, "registered", Interest.READABLE, Mode.ONESHOT),
            lambda: poll.rearm(near),
            lambda: poll.reregister(near, "reregistered", Interest.READABLE, Mode.LEVEL),
            lambda: poll.deregister(near),
        ):
            self.in_thread(call).result()
            waiter.blocked()
        self.in_thread(waker.wake).result()
        self._expect_result(waiter, "waker")
