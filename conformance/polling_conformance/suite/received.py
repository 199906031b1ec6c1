"""SIG-05 and SIG-07 to SIG-10: signals that are received, and not handled."""

from __future__ import annotations

import gc
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from polling import (
    AlreadyRegisteredError,
    Event,
    Interest,
    InvalidSourceError,
    Mode,
    Poll,
    Signals,
)
from polling.signals import _open
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.harness import Harness
from polling_conformance.interrupt import Interrupted, Interrupter, at_each_step, strike
from polling_conformance.running import until_blocked

__all__ = ["ReceivedSignalRules"]

ONCE = [Mode.ONESHOT, Mode.EDGE_ONESHOT]


class ReceivedSignalRules(Harness):
    """`Signals` is a source on every backend, and leaves no trace when it is closed.

    The signals are those that every platform can raise in its own process. None of them is SIGALRM, by which a test
    that hangs is ended.
    """

    @pytest.fixture(autouse=True)
    def _handlers(self) -> Iterator[None]:
        """Put the handlers back that a failing test would leave."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.getsignal(number) for number in numbers]
        yield
        for left in [*_open]:
            left.close()
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    @pytest.mark.parametrize("mode", Mode)
    def test_SIG_05_a_signal_is_one_event_in_every_mode(self, poll: Poll[object], mode: Mode) -> None:
        with self.signals([signal.SIGTERM, signal.SIGINT]) as signals:
            poll.register(signals, "signals", Interest.READABLE, mode)
            self.expect_silence(poll)
            for numbers in [signal.SIGTERM], [signal.SIGINT, signal.SIGINT, signal.SIGTERM]:
                for number in numbers:
                    signal.raise_signal(number)
                self._expect_signals(poll.poll(SIGNAL_WAIT))
                received = signals.receive()
                self.check(received == list(dict.fromkeys(numbers)), f"{numbers}, each once", received)
                if mode in ONCE:
                    poll.rearm(signals)
                self.expect_silence(poll)
                self.check(signals.receive() == [], "nothing twice", "something")

    def test_SIG_05_what_is_received_are_signals_and_none_is_lost_in_a_flood(self, poll: Poll[object]) -> None:
        with self.signals([signal.SIGTERM, signal.SIGINT]) as signals:
            poll.register(signals, "signals", Interest.READABLE)
            for _ in range(5000):  # more than a pair of sockets holds
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            self._expect_signals(poll.poll(SIGNAL_WAIT))
            received = signals.receive()
            self.check(received == [signal.SIGTERM, signal.SIGINT], "both", received)
            self.check(all(type(one) is signal.Signals for one in received), "members of signal.Signals", received)
            self.expect_silence(poll)

    @pytest.mark.parametrize("mode", Mode)
    def test_SIG_09_a_signal_ends_a_wait_of_the_main_thread(self, poll: Poll[object], mode: Mode) -> None:
        with self.signals([signal.SIGTERM]) as signals:
            poll.register(signals, "signals", Interest.READABLE, mode)
            for _ in range(3):
                waiting = threading.current_thread()

                def send(waiting: threading.Thread = waiting) -> None:
                    until_blocked(waiting)
                    signal.raise_signal(signal.SIGTERM)  # in this thread, which does not interrupt the other

                sending = self.in_thread(send)
                self._expect_signals(poll.poll())
                sending.result()
                received = signals.receive()
                self.check(received == [signal.SIGTERM], "[SIGTERM]", received)
                if mode in ONCE:
                    poll.rearm(signals)

    @pytest.mark.parametrize("watched", [0, 1])
    def test_SIG_09_of_several_that_are_open_any_one_ends_a_wait_of_the_main_thread(
        self, poll: Poll[object], watched: int
    ) -> None:
        numbers = [signal.SIGTERM, signal.SIGINT]
        waiting = threading.current_thread()
        opened = [self.signals([number]) for number in numbers]
        poll.register(opened[watched], "signals", Interest.READABLE, Mode.LEVEL)

        def send() -> None:
            until_blocked(waiting)
            signal.raise_signal(numbers[watched])  # in this thread, which does not interrupt the other

        for _ in range(2):
            sending = self.in_thread(send)
            received: list[signal.Signals] = []
            while not received:
                self._expect_signals(poll.poll())
                received += opened[watched].receive()
            sending.result()
            self.check(received == [numbers[watched]], f"[{numbers[watched]!r}]", received)
        for signals in opened:
            signals.close()

    def test_SIG_09_a_signal_ends_a_wait_of_another_thread(self, poll: Poll[object]) -> None:
        with self.signals([signal.SIGTERM]) as signals:
            poll.register(signals, "signals", Interest.READABLE, Mode.LEVEL)

            def wait() -> list[object]:
                received: list[object] = []
                while not received and poll.poll(SIGNAL_WAIT):
                    received += signals.receive()
                return received

            waiter = self.in_thread(wait).blocked()
            signal.raise_signal(signal.SIGTERM)
            received = waiter.result()
            self.check(received == [signal.SIGTERM], "[SIGTERM]", received)

    def test_SIG_07_the_close_puts_back_what_was_there(self) -> None:
        def handler(number: int, frame: object) -> None: ...

        for before in handler, signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler:
            with self._wakeup() as own:
                signal.signal(signal.SIGTERM, before)
                for _ in range(2):
                    signals = self.signals([signal.SIGTERM])
                    signals.close()
                    signals.close()
                    self.check(
                        signal.getsignal(signal.SIGTERM) is before, f"{before}", signal.getsignal(signal.SIGTERM)
                    )
                    self._expect_wakeup(own)

    def test_SIG_07_in_whatever_order_several_are_closed(self) -> None:
        for order in (0, 1), (1, 0):
            with self._wakeup() as own:
                opened = [self.signals([signal.SIGTERM]), self.signals([signal.SIGINT])]
                for number in order:
                    opened[number].close()
                self._expect_wakeup(own)

    def test_SIG_07_the_close_waits_for_no_other_process_that_has_a_copy_of_the_wakeup_descriptor(self) -> None:
        with self._wakeup() as own:
            with self.signals([signal.SIGTERM]) as first, self.signals([signal.SIGINT]):
                number = signal.set_wakeup_fd(-1)
                signal.set_wakeup_fd(number, warn_on_full_buffer=False)
                with socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM):  # as one forked without Python has it
                    first.close()
            self._expect_wakeup(own)

    def test_SIG_07_what_others_have_set_meanwhile_is_theirs(self) -> None:
        def handler(number: int, frame: object) -> None: ...

        with self._wakeup() as own:
            signals = self.signals([signal.SIGTERM])
            signal.signal(signal.SIGTERM, handler)
            near, far = self.socketpair()
            with near, far:
                signal.set_wakeup_fd(far.fileno())
                signals.close()
                self._expect_wakeup(far.fileno())
                signal.set_wakeup_fd(own)
            self.check(signal.getsignal(signal.SIGTERM) is handler, "the handler set meanwhile", "another")

    def test_SIG_08_a_signal_has_one_owner(self, poll: Poll[object]) -> None:
        with self.signals([signal.SIGTERM]) as signals:
            handler = signal.getsignal(signal.SIGINT)
            self.expect_error(AlreadyRegisteredError, self.signals, [signal.SIGINT, signal.SIGTERM])
            self.check(signal.getsignal(signal.SIGINT) is handler, "nothing has changed", "a handler")
            with self.signals([signal.SIGINT]) as others:
                for name, source in ("signals", signals), ("others", others):
                    poll.register(source, name)
                signal.raise_signal(signal.SIGTERM)
                self.expect_events(poll, {"signals": "r"}, also={"others": "r"})
                self.check(others.receive() == [], "nothing: it is not its own", "something")
                self.check(signals.receive() == [signal.SIGTERM], "[SIGTERM]", "something else")
                while poll.poll(SILENCE):  # of several one may be rung for once more
                    self.check(signals.receive() == others.receive() == [], "nothing twice", "something")

    def test_SIG_08_what_cannot_be_received_is_refused_and_changes_nothing(self) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        with self._wakeup() as own:
            refused = [0, -1, 10_000]
            if sys.platform != "win32":
                refused.append(signal.SIGKILL)
            for wrong in refused:
                try:
                    self.signals([signal.SIGTERM, wrong])
                except (ValueError, OSError):
                    pass
                else:
                    raise self.failure(f"ValueError or OSError for {wrong!r}", "no error")
                self.check(signal.getsignal(signal.SIGTERM) is handler, "the handler of before", "another")
                self._expect_wakeup(own)

    def test_SIG_08_it_is_opened_and_closed_in_the_main_thread(self) -> None:
        opening = self.in_thread(self.signals, [signal.SIGTERM])
        self.expect_error(ValueError, opening.result)
        with self.signals([signal.SIGTERM]) as signals:
            closing = self.in_thread(signals.close)
            self.expect_error(ValueError, closing.result)
            signal.raise_signal(signal.SIGTERM)
            self.check(signals.receive() == [signal.SIGTERM], "it is open still", "it is not")
        self.expect_error(InvalidSourceError, signals.receive)

    @pytest.mark.parametrize("call", ["poll", "receive", "open", "close"])
    def test_SIG_10_an_exception_at_any_step_loses_no_signal_and_leaves_no_trace(self, call: str) -> None:
        handler = signal.getsignal(signal.SIGTERM)

        def scene(interrupt: Interrupter) -> None:
            with self._wakeup() as own, self.new_poll() as poll:
                outcome: Interrupted[Any]
                if call == "open":
                    with warnings.catch_warnings():
                        # Sockets that were nobody's yet when the handler struck are closed, with a warning.
                        warnings.simplefilter("ignore", ResourceWarning)
                        outcome = interrupt(lambda: self.signals([signal.SIGTERM]), strike)
                    if isinstance(outcome.returned, Signals):
                        outcome.returned.close()
                else:
                    signals = self.signals([signal.SIGTERM])
                    poll.register(signals, "signals", Interest.READABLE, Mode.EDGE)
                    signal.raise_signal(signal.SIGTERM)
                    calls: dict[str, Callable[[], object]] = {
                        "poll": lambda: poll.poll(SIGNAL_WAIT),
                        "receive": signals.receive,
                        "close": signals.close,
                    }
                    outcome = interrupt(calls[call], strike)
                    if call != "close":
                        received = outcome.returned if call == "receive" and not outcome.error else signals.receive()
                        self.check(received == [signal.SIGTERM], "[SIGTERM]", f"{received}; {outcome}")
                    signals.close()
                self.check(signal.getsignal(signal.SIGTERM) is handler, "the handler of before", outcome)
                self._expect_wakeup(own)

        at_each_step(scene, self.make_poll())

    @pytest.mark.parametrize("call", ["open", "close"])
    def test_SIG_10_an_exception_at_any_step_while_another_is_open_leaves_no_trace(self, call: str) -> None:
        handler = signal.getsignal(signal.SIGTERM)

        def scene(interrupt: Interrupter) -> None:
            with self._wakeup() as own, warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # of sockets that were nobody's yet, as above
                first = self.signals([signal.SIGINT])
                if call == "open":
                    outcome: Interrupted[Any] = interrupt(lambda: self.signals([signal.SIGTERM]), strike)
                    if isinstance(outcome.returned, Signals):
                        outcome.returned.close()
                else:
                    second = self.signals([signal.SIGTERM])
                    outcome = interrupt(second.close, strike)
                    second.close()
                self.check(signal.getsignal(signal.SIGTERM) is handler, "the handler of before", outcome)
                first.close()
                self._expect_wakeup(own)
                self.check(threading.active_count() == threads, f"{threads} threads", threading.enumerate())
                gc.collect()

        poll, threads = self.make_poll(), threading.active_count()
        at_each_step(scene, poll)

    @pytest.mark.parametrize("call", ["poll", "receive"])
    def test_SIG_10_a_signal_at_any_step_is_received(self, call: str) -> None:
        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll, self.signals([signal.SIGTERM, signal.SIGINT]) as signals:
                poll.register(signals, "signals", Interest.READABLE, Mode.EDGE)
                signal.raise_signal(signal.SIGTERM)
                calls: dict[str, Callable[[], list[object]]] = {
                    "poll": lambda: [*poll.poll(SIGNAL_WAIT)],
                    "receive": lambda: [*signals.receive()],
                }
                outcome = interrupt(calls[call], lambda: signal.raise_signal(signal.SIGINT))
                self.check(outcome.error is None, "the call goes on", outcome)
                received = list(outcome.returned or ()) if call == "receive" else [*signals.receive()]
                while poll.poll(0):
                    received += signals.receive()
                expected = {signal.SIGTERM} | ({signal.SIGINT} if outcome.where else set())
                self.check(set(received) == expected, f"{expected}", f"{received}; {outcome}")

        at_each_step(scene, self.make_poll())

    def test_SIG_10_a_forked_child_has_what_was_there_before(self, poll: Poll[object]) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        with self._wakeup() as own, self.signals([signal.SIGTERM]) as signals:
            poll.register(signals, "signals")

            def in_the_child() -> tuple[bool, bool]:
                restored = signal.getsignal(signal.SIGTERM) == handler
                signal.signal(signal.SIGTERM, lambda _number, _frame: None)
                signal.raise_signal(signal.SIGTERM)
                # asyncio, once it is imported, takes the descriptor away in each child, from 3.12 on.
                former = signal.set_wakeup_fd(-1)
                return restored, former == own or (former == -1 and "asyncio" in sys.modules)

            outcome = self.in_child(in_the_child)
            self.check(outcome == (True, True), "handler and wake-up descriptor of before", outcome)
            self.expect_silence(poll)
            signal.raise_signal(signal.SIGTERM)
            self.expect_events(poll, {"signals": "r"})

    # -- words ---------------------------------------------------------------------------------------------------

    def _expect_signals(self, events: list[Event[object]]) -> None:
        __tracebackhide__ = True
        self.check([(event.token, event.readable) for event in events] == [("signals", True)], "one event", events)

    @contextmanager
    def _wakeup(self) -> Iterator[int]:
        """Have somebody else's wake-up descriptor set meanwhile; give its number."""
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            before = signal.set_wakeup_fd(far.fileno(), warn_on_full_buffer=False)
            try:
                yield far.fileno()
            finally:
                signal.set_wakeup_fd(before)

    def _expect_wakeup(self, number: int) -> None:
        __tracebackhide__ = True
        found = signal.set_wakeup_fd(-1)
        if found != -1:
            signal.set_wakeup_fd(found, warn_on_full_buffer=False)
        self.check(found == number, f"the wake-up descriptor of before, {number}", found)
