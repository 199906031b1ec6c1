"""SIG: signals run their handlers during a wait, and cost neither events nor the deadline."""

from __future__ import annotations

import random
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from types import FrameType
from typing import Final, NamedTuple

import pytest

from polling import (
    AlreadyRegisteredError,
    Capability,
    Event,
    Interest,
    Mode,
    NotRegisteredError,
    Poll,
    Waker,
)
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import drain, send
from polling_conformance.harness import Harness
from polling_conformance.interrupt import Interrupted, Interrupter, Struck, at_each_step, strike
from polling_conformance.running import A_SIGNAL, signal_main_thread, since, until_blocked

__all__ = ["SignalRules", "Tally", "storm"]

STORM: Final = 20 * SILENCE
"""Seconds that a storm lasts. On an idle machine some thousand events are seen through, and several hundred are hit."""


class SignalRules(Harness):
    """A handler that returns leaves no trace in the wait; one that raises ends it, and loses no event.

    Single signals come from a thread that saw the main thread block. Storms run in a forked child (``in_child``),
    which has alarms of its own: here ``SIGALRM`` ends tests that hang. What a storm meets by chance,
    the tests "at any step" meet one after the other, without a signal: see ``polling_conformance.interrupt``.
    """

    # -- handlers that return ------------------------------------------------------------------------------------

    def test_SIG_01_a_handler_that_returns_does_not_end_the_wait_early(self, poll: Poll[object]) -> None:
        handled: list[int] = []
        timeout = 10 * SILENCE
        with self.on_signal(A_SIGNAL, lambda signum, _frame: handled.append(signum)):
            interruption = self.in_thread(_signal_main_thread_once_it_is_blocked)
            start = time.monotonic()
            events = poll.poll(timeout)
            elapsed = since(start)
            interruption.result()
        self.check(handled == [A_SIGNAL], "the handler ran once", repr(handled))
        self.check(
            not events and elapsed >= timeout,
            f"no event for {timeout} s",
            f"{events} after {elapsed:.6f} s",
            unasked=bool(events),
        )

    def test_SIG_01_a_handler_at_any_step_of_a_wait_leaves_no_trace(self) -> None:
        def scene(interrupt: Interrupter) -> None:
            with Stage(self) as stage:
                outcome = interrupt(stage.wait, lambda: None)
                self.check(not outcome.error and bool(outcome.returned), "the wait goes on to its events", outcome)
                stage.expect_complete(outcome, outcome.returned)

        at_each_step(scene, self.make_poll())

    # -- handlers that raise -------------------------------------------------------------------------------------

    def test_SIG_02_an_exception_leaves_the_wait_and_the_poll_goes_on(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "waker")
        for mode, near, far in _sources(self):
            poll.register(near, mode, Interest.READABLE, mode)
            begun = threading.Event()
            interruption = self.in_thread(_signal_main_thread_once_it_is_blocked, begun)
            outcome = "it returned"
            with self.on_signal(A_SIGNAL, _strike):
                try:
                    begun.set()  # from here on it may strike, though it tries to strike in the wait
                    poll.poll(SIGNAL_WAIT)
                except Struck:
                    outcome = "the exception came out"
                interruption.result()
            self.check(outcome == "the exception came out", "the handler's exception comes out of the wait", outcome)
            send(far, b"x")
            waker.wake()
            self.expect_events(poll, {mode: "r", "waker": "r"})
            poll.deregister(near)

    def test_SIG_02_an_exception_at_any_step_of_a_wait_costs_no_event(self) -> None:
        def scene(interrupt: Interrupter) -> None:
            with Stage(self) as stage:
                outcome = interrupt(stage.wait, strike)
                self._check_raised(outcome)
                stage.expect_complete(outcome, outcome.returned)

        at_each_step(scene, self.make_poll())

    def test_SIG_02_a_second_exception_at_any_step_of_the_next_wait_costs_no_event(self) -> None:
        # The first one comes at the last step there is, so that there is a batch to take up again.
        poll = self.make_poll()

        def rehearsal(interrupt: Interrupter) -> None:
            with Stage(self) as stage:
                interrupt(stage.wait, strike)

        last = at_each_step(rehearsal, poll)

        def scene(interrupt: Interrupter) -> None:
            with Stage(self) as stage:
                first = Interrupter(last, interrupt.packages)(stage.wait, strike)
                self._check_raised(first)
                outcome = interrupt(stage.wait, strike)
                self._check_raised(outcome)
                stage.expect_complete(outcome, [*(first.returned or ()), *(outcome.returned or ())])

        at_each_step(scene, poll)

    @pytest.mark.parametrize("change", ["register", "reregister", "rearm", "deregister"])
    def test_SIG_02_an_exception_at_any_step_of_a_change_leaves_the_poll_usable(self, change: str) -> None:
        def scene(interrupt: Interrupter) -> None:
            with Stage(self) as stage:
                poll = stage.poll
                near, _far = self.socketpair()  # at once writable, and never readable
                if change != "register":
                    poll.register(near, "old", Interest.READABLE, Mode.LEVEL)
                calls: dict[str, Callable[[], None]] = {
                    "register": lambda: poll.register(near, "new", Interest.WRITABLE, Mode.ONESHOT),
                    "reregister": lambda: poll.reregister(near, "new", Interest.WRITABLE, Mode.ONESHOT),
                    "rearm": lambda: poll.rearm(near),
                    "deregister": lambda: poll.deregister(near),
                }
                outcome = interrupt(calls[change], strike)
                self._check_raised(outcome)
                # Another thread does not share what a re-entrant lock lets this one do.
                events = self.in_thread(stage.collect).result()
                if change == "register" and self.in_thread(_is_registered, poll, near).result():
                    events = self.in_thread(stage.collect, events, "new").result()
                new = [(event.token, event.writable) for event in events if event.token in ("old", "new")]
                self.check(
                    new in ([], [("new", True)]), "one writable event under the new token, or none", f"{new}; {outcome}"
                )
                registered = self.in_thread(_deregister, poll, near).result()
                expected = {"register": bool(new), "reregister": True, "rearm": True}.get(change, registered)
                self.check(
                    registered == expected,
                    f"after {change} was cut off, the source {'is' if expected else 'is not'} registered",
                    f"it is{'' if registered else ' not'}, and reported {new}; {outcome}",
                )
                stage.expect_complete(outcome, events)

        at_each_step(scene, self.make_poll())

    @pytest.mark.parametrize("mode", Mode)
    def test_SIG_02_a_storm_costs_no_event(self, mode: Mode) -> None:
        def in_the_child() -> Tally:
            pairs = [_pair(self, mode) for _ in range(8)]
            with self.new_poll() as poll:
                return storm(poll, mode, pairs, STORM)

        self._expect_complete(self.in_child(in_the_child))

    # -- wake-up descriptors -----------------------------------------------------------------------------------

    def test_SIG_03_a_registered_wakeup_descriptor_ends_the_wait(self, poll: Poll[object]) -> None:
        handled: list[int] = []
        for mode, near, far in _sources(self):
            poll.register(near, mode, Interest.READABLE, mode)
            with _wakeup_fd(far), self.on_signal(A_SIGNAL, lambda signum, _frame: handled.append(signum)):
                for _ in range(3):
                    handled.clear()
                    interruption = self.in_thread(_signal_main_thread_once_it_is_blocked)
                    self.expect_events(poll, {mode: "r"})
                    interruption.result()
                    self.check(handled == [A_SIGNAL], "the handler ran once", repr(handled))
                    data = drain(near)
                    self.check(data == bytes([A_SIGNAL]), "the signal's number was written", repr(data))
                    if mode in (Mode.ONESHOT, Mode.EDGE_ONESHOT):
                        poll.rearm(near)
            poll.deregister(near)

    def test_SIG_04_a_signal_to_another_thread_is_handled_by_the_end_of_the_wait(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        handled: list[str] = []

        def signal_myself() -> None:
            until_blocked(threading.main_thread())
            signal.raise_signal(A_SIGNAL)

        poll.register(near, "wake-up descriptor")
        with self.on_signal(A_SIGNAL, lambda _signum, _frame: handled.append(threading.current_thread().name)):
            with _wakeup_fd(far):
                interruption = self.in_thread(signal_myself)
                self.expect_events(poll, {"wake-up descriptor": "r"})
                by_the_end = list(handled)
                interruption.result()
            self.check(
                by_the_end == [threading.main_thread().name],
                "with a wake-up descriptor the handler has run, in the main thread, when the wait returns",
                f"it had run in {by_the_end}",
            )
            drain(near)
            handled.clear()
            interruption = self.in_thread(signal_myself)
            events = poll.poll(4 * SILENCE)
            interruption.result()  # after this call at the latest, for it ends in the main thread
        self.check(not events, "no event without a wake-up descriptor", events, unasked=True)
        self.check(handled == [threading.main_thread().name], "the handler ran once, in the main thread", handled)

    def test_SIG_06_a_handler_runs_during_the_wait(self, poll: Poll[object]) -> None:
        interruptible = self.has(Capability.INTERRUPTIBLE)
        waker = Waker(poll, "waker")
        late: list[float] = []

        def handle(_signum: int, _frame: FrameType | None) -> None:
            late.append(time.monotonic())
            waker.wake()

        with self.on_signal(A_SIGNAL, handle):
            for _ in range(3):
                interruption = self.in_thread(_signal_main_thread_once_it_is_blocked)
                events = poll.poll()
                late[-1] -= interruption.result()
                self.check([event.token for event in events] == ["waker"], "the wake from the handler", events)
        # Waits in slices begin one when the wait begins; the signal comes right after that, and waits for its end.
        limit = 2 * SILENCE if interruptible else 5 * SILENCE + SILENCE
        self.check(
            min(late) <= limit,
            f"the handler runs {'at once' if interruptible else 'within 0.25 s'}: at best within {limit:g} s",
            "after " + ", ".join(f"{seconds:.3f} s" for seconds in late),
        )

    # -- words ---------------------------------------------------------------------------------------------------

    def _check_raised(self, outcome: Interrupted[object]) -> None:
        __tracebackhide__ = True
        self.check(
            not outcome.where or isinstance(outcome.error, Struck), "the exception comes out of the call", outcome
        )

    def _expect_complete(self, tally: Tally) -> None:
        __tracebackhide__ = True
        self.check(tally.strikes >= 20, "exceptions in at least 20 calls", f"{tally.strikes} in {tally.seconds:.2f} s")
        self.check(tally.lost is None, "each arming is reported, whatever the signals", tally.lost)


class Stage:
    """A poll with a batch in store: a source of each mode, and a waker, all of which have something to say."""

    def __init__(self, rules: SignalRules) -> None:
        self._rules = rules
        self._sources = list(_sources(rules))
        self.poll = rules.new_poll()
        self._expected: set[object] = {*Mode, "waker"}
        for mode, near, far in self._sources:
            self.poll.register(near, mode, Interest.READABLE, mode)
            send(far, b"x")
        Waker(self.poll, "waker").wake()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: object) -> None:
        self.poll.close()
        for _, near, far in self._sources:
            near.close()
            far.close()

    def wait(self) -> Sequence[Event[object]]:
        """Wait once."""
        return self.poll.poll(SIGNAL_WAIT)

    def collect(self, events: Sequence[Event[object]] = (), *others: object) -> Sequence[Event[object]]:
        """Add to *events* what comes until each source has reported, and *others* registered since."""
        events = list(events)
        expected = self._expected | {*others}
        deadline = time.monotonic() + SIGNAL_WAIT
        while not expected <= {event.token for event in events} and time.monotonic() < deadline:
            events += self.poll.poll(deadline - time.monotonic())
        return events

    def expect_complete(self, outcome: Interrupted[object], events: Sequence[Event[object]] | None) -> None:
        """Check that *events* and what comes now are all that is due, and that what reports once is silent then."""
        __tracebackhide__ = True
        events = self.collect(events or ())
        missing = self._expected - {event.token for event in events}
        self._rules.check(not missing, "an event of each source and of the waker", f"{missing} missing; {outcome}")
        again = {event.token for event in self.poll.poll(0)} & {"waker", Mode.ONESHOT, Mode.EDGE_ONESHOT}
        self._rules.check(not again, "a oneshot and a wake are silent after their event", f"again {again}; {outcome}")


class Tally(NamedTuple):
    """What came of a storm."""

    strikes: int  # exceptions raised by handlers
    rounds: int  # events that were followed to their end
    seconds: float  # how long it lasted
    lost: str | None  # the first source that was never reported again


def storm(
    poll: Poll[object], mode: Mode, pairs: Sequence[tuple[socket.socket, socket.socket]], seconds: float
) -> Tally:
    """Wait for sources that another thread feeds, while signals strike at every moment.

    Each source plays ping-pong: the feeder sends a byte, the wait reports it, it is read, armed again, and a byte goes
    back for which the feeder sends the next. So each event counts: one that is lost ends its source's game
    for good. Beside them a waker is woken, and another source is registered, changed and removed.

    Signals come from an interval timer with random pauses of up to half a millisecond, which strikes
    wherever the thread is, and from another thread, which strikes when this one wants its interpreter lock back: right
    behind the kernel's answer. Their handler raises during the calls to the poll, and nowhere else. Every now and
    then there is a calm, in which whatever has data must be reported.

    Runs in the main thread of a process of its own. Returns at the first loss, or after so many seconds.
    """
    if sys.platform == "win32":
        raise NotImplementedError("this platform has no fork to get such a process by")
    chance = random.Random(mode.value)
    raising = False
    strikes = 0

    def hit(signum: int, _frame: FrameType | None) -> None:
        nonlocal raising, strikes
        if signum == signal.SIGALRM:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(2e-6, 5e-4))
        if raising:
            raising = False
            strikes += 1
            raise Struck

    def feed() -> None:
        ends = [over[0], *(far for _, far in pairs)]
        while True:
            ready, _, _ = select.select(ends, [], [])
            if over[0] in ready:
                return
            for far in ready:
                if drain(far):
                    send(far, b"x")

    def thunder() -> None:
        main = threading.main_thread().ident or 0
        while not clear_sky.wait(chance.uniform(1e-5, 1e-3)):
            signal.pthread_kill(main, signal.SIGUSR1)

    def outlast(error: SystemError) -> None:
        """Go on after two strikes within one ``os.fstat``, as CPython 3.11.2 takes them.

        It multiplies integers there, at which handlers may run, and looks for exceptions at its end only; so the second
        handler runs with the first's exception set, and the first call in it complains.
        """
        if not isinstance(error.__cause__, Struck):
            raise error
        signal.setitimer(signal.ITIMER_REAL, 1e-4)  # to which the second handler did not come

    def insist(call: Callable[[], object]) -> None:
        """Call until it gets through; a call that was cut off may have done its work already."""
        nonlocal raising
        while True:
            try:
                raising = True
                call()
                raising = False  # no handler runs between the end of the call and this
                return
            except Struck:
                pass
            except SystemError as error:
                outlast(error)
            except (AlreadyRegisteredError, NotRegisteredError):
                raising = False
                return

    def wait(seconds: float) -> Sequence[Event[object]]:
        nonlocal raising
        events: Sequence[Event[object]] = ()
        try:
            raising = True
            events = poll.poll(seconds)
            raising = False
        except Struck:
            pass
        except SystemError as error:
            outlast(error)
        return events

    def take(events: Sequence[Event[object]]) -> Iterator[int]:
        """Read and arm what was reported; give the sources that have had another round."""
        for event in events:
            woken[0] |= event.token == "waker"
            if isinstance(event.token, int):
                near, _ = pairs[event.token]
                if drain(near):  # or else it was reported once more, after a handler had cut in
                    seen[event.token] += 1
                    yield event.token
                if mode in (Mode.ONESHOT, Mode.EDGE_ONESHOT):
                    insist(partial(poll.rearm, near))

    def lost() -> str | None:
        """In a calm, and without answering the feeder: does every source that has data report it?"""
        missing = {token for token, (near, _) in enumerate(pairs) if select.select([near], [], [], 0)[0]}
        answers: list[int] = []
        while missing:
            events = poll.poll(SIGNAL_WAIT / 20)
            if not events:
                token = min(missing)
                return (
                    f"source {token} has data, and after {seen[token]} reports there are no more, {strikes} exceptions "
                    f"and {sum(seen)} reports after the beginning of the storm"
                )
            fresh = list(take(events))
            missing -= {*fresh}
            answers += fresh
        for token in answers:
            send(pairs[token][0], b"x")
        return None

    over = socket.socketpair()
    passenger, companion = socket.socketpair()
    clear_sky = threading.Event()
    waker = Waker(poll, "waker")
    woken = [True]
    seen = [0] * len(pairs)
    changes: Iterator[Callable[[], None]] = cycle(
        [
            lambda: poll.register(passenger, "passenger", Interest.READ_WRITE, Mode.ONESHOT),
            lambda: poll.reregister(passenger, "passenger", Interest.READABLE, Mode.LEVEL),
            lambda: poll.deregister(passenger),
        ]
    )
    for token, (near, far) in enumerate(pairs):
        poll.register(near, token, Interest.READABLE, mode)
        send(far, b"x")
    signal.signal(signal.SIGALRM, hit)
    signal.signal(signal.SIGUSR1, hit)
    threads = [threading.Thread(target=feed, daemon=True), threading.Thread(target=thunder, daemon=True)]
    for thread in threads:
        thread.start()
    loss = None
    start = calm = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 1e-4)
    while time.monotonic() - start < seconds and loss is None:
        for token in take(wait(SIGNAL_WAIT / 20)):
            send(pairs[token][0], b"x")
        if woken[0]:
            woken[0] = False
            insist(waker.wake)
        insist(next(changes))
        if time.monotonic() - calm > SILENCE:
            loss = lost()
            calm = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0)
    clear_sky.set()
    send(over[1], b"x")
    for thread in threads:
        thread.join(SIGNAL_WAIT)
    for end in passenger, companion, *over:
        end.close()
    return Tally(strikes, sum(seen), time.monotonic() - start, loss)


# -- words -------------------------------------------------------------------------------------------------------


def _strike(_signum: int, _frame: FrameType | None) -> None:
    strike()


def _is_registered(poll: Poll[object], source: socket.socket) -> bool:
    """Say whether *source* is registered."""
    try:
        poll.register(source, "again", Interest.NONE)
    except AlreadyRegisteredError:
        return True
    poll.deregister(source)
    return False


def _deregister(poll: Poll[object], source: socket.socket) -> bool:
    """Deregister *source*, and say whether it was registered."""
    try:
        poll.deregister(source)
    except NotRegisteredError:
        return False
    return True


def _pair(rules: Harness, mode: Mode) -> tuple[socket.socket, socket.socket]:
    if mode is Mode.EDGE and not rules.has(Capability.NATIVE_EDGE):
        return rules.net_tcp_pair()
    return rules.socketpair()


def _sources(rules: Harness) -> Iterator[tuple[Mode, socket.socket, socket.socket]]:
    """Give a pair for each mode."""
    for mode in Mode:
        yield mode, *_pair(rules, mode)


def _signal_main_thread_once_it_is_blocked(begun: threading.Event | None = None) -> float:
    """Signal the main thread when it has begun and waits; give the time at which it was sent."""
    if begun is not None:
        begun.wait(SIGNAL_WAIT)
    until_blocked(threading.main_thread())
    sent = time.monotonic()
    signal_main_thread()
    return sent


@contextmanager
def _wakeup_fd(end: socket.socket) -> Iterator[None]:
    before = signal.set_wakeup_fd(end.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
