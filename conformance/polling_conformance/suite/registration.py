"""REG: what registering, changing and removing do to a source, and what they refuse.

The rest of the family is about what happens around these calls: sources that are closed, copied or shared are
in ``ownership``, threads in ``threads``.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from polling import (
    AlreadyRegisteredError,
    Backend,
    Capability,
    Interest,
    InvalidSourceError,
    Mode,
    NotRegisteredError,
    Poll,
    PollingError,
    Readiness,
    UnsupportedError,
    UnsupportedSourceError,
    Waker,
)
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import End, Ends, arrived, drain, open_descriptors, recv, reset, send
from polling_conformance.harness import Harness
from polling_conformance.interrupt import Interrupter, Struck, at_each_step, strike

__all__ = ["RegistrationRules"]

ROUNDS = 1_000
"""How often REG-27 registers and removes. Whatever is left behind each time shows after as many."""

REPEATING = (Mode.LEVEL, Mode.EDGE)
"""The modes that need no re-arming."""

each_mode = pytest.mark.parametrize("mode", Mode, ids=[mode.name.lower() for mode in Mode])


class Numbered:
    """An object that says a number is its descriptor, or says something that is none."""

    def __init__(self, number: object) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number  # type: ignore[return-value]  # that it may be no int is what the rules are about

    def __repr__(self) -> str:
        return f"<object with fileno() {self.number!r}>"


class RegistrationRules(Harness):
    """Registrations are made, replaced and removed as a whole, errors are the same everywhere and change nothing."""

    def _expect_mode(self, poll: Poll[object], token: str, mode: Mode, near: End, far: End) -> None:
        """Check that *near*, which is armed for reading and drained, is reported as *mode* says, and then drain it."""
        send(far, b"a")
        self.expect_events(poll, {token: "r"})
        if mode is Mode.LEVEL:
            self.expect_events(poll, {token: "r"})
        else:
            self.expect_silence(poll)
        drain(near)
        send(far, b"b")
        if mode in REPEATING:
            self.expect_events(poll, {token: "r"})
        else:
            self.expect_silence(poll)
        drain(near)

    # -- REG-01 to REG-05: what is refused ---------------------------------------------------------

    def test_REG_01_a_second_registration_is_refused_and_the_first_stays(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "first", Interest.READABLE)
        self.expect_error(AlreadyRegisteredError, poll.register, reader, "second", Interest.WRITABLE)
        self.expect_silence(poll)
        send(writer, b"x")
        self.expect_events(poll, {"first": "r"})

    @each_mode
    def test_REG_01_a_refused_registration_neither_arms_nor_disarms(self, poll: Poll[object], mode: Mode) -> None:
        near, far = self.net_tcp_pair()
        first = f"registered in {mode.name}"
        other = Mode.ONESHOT if mode is Mode.LEVEL else Mode.LEVEL
        poll.register(near, first, Interest.READABLE, mode)
        self.expect_error(AlreadyRegisteredError, poll.register, near, "second", Interest.READ_WRITE, other)
        self._expect_mode(poll, first, mode, near, far)
        send(far, b"c")
        self.expect_error(AlreadyRegisteredError, poll.register, near, "second", Interest.READ_WRITE, other)
        if mode in REPEATING:
            self.expect_events(poll, {first: "r"})
        else:
            self.expect_silence(poll)
            poll.rearm(near)
            self.expect_events(poll, {first: "r"})

    def test_REG_01_a_parked_source_is_registered(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "parked", Interest.NONE)
        self.expect_error(AlreadyRegisteredError, poll.register, reader, "second", Interest.READABLE)
        send(writer, b"x")
        self.expect_silence(poll)

    def test_REG_02_a_source_that_is_not_registered_cannot_be_deregistered(
        self, poll: Poll[object], pair: Ends
    ) -> None:
        reader, _ = pair
        self.expect_error(NotRegisteredError, poll.deregister, reader)
        self.expect_error(NotRegisteredError, poll.deregister, reader.fileno())
        for interest in Interest.READABLE, Interest.NONE:
            poll.register(reader, "reader", interest)
            poll.deregister(reader)
            self.expect_error(NotRegisteredError, poll.deregister, reader)
            self.expect_error(NotRegisteredError, poll.deregister, reader.fileno())

    def test_REG_02_a_source_of_another_poll_cannot_be_deregistered(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "reader")
        self.expect_error(NotRegisteredError, self.make_poll().deregister, reader)
        send(writer, b"x")
        self.expect_events(poll, {"reader": "r"})

    def test_REG_03_what_is_not_registered_is_not_changed_and_not_registered(
        self, poll: Poll[object], pair: Ends
    ) -> None:
        reader, writer = pair
        send(writer, b"x")
        change = ("changed", Interest.READABLE, Mode.LEVEL)
        self.expect_error(NotRegisteredError, poll.reregister, reader, *change)
        self.expect_error(NotRegisteredError, poll.rearm, reader)
        poll.register(reader, "deregistered", Interest.READABLE, Mode.ONESHOT)
        poll.deregister(reader)
        self.expect_error(NotRegisteredError, poll.reregister, reader, *change)
        self.expect_error(NotRegisteredError, poll.rearm, reader)
        self.expect_silence(poll)
        poll.register(reader, "registered")
        self.expect_events(poll, {"registered": "r"})

    def test_REG_03_a_source_of_another_poll_is_not_changed(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        other = self.make_poll()
        poll.register(reader, "reader")
        self.expect_error(NotRegisteredError, other.reregister, reader, "other", Interest.READABLE, Mode.LEVEL)
        self.expect_error(NotRegisteredError, other.rearm, reader)
        send(writer, b"x")
        self.expect_events(poll, {"reader": "r"})
        self.expect_silence(other)

    def test_REG_04_a_negative_descriptor_is_refused_at_the_call(self, poll: Poll[object]) -> None:
        for number in -1, -2, -(2**31):
            self.expect_error(InvalidSourceError, poll.register, number, "token")
            self.expect_error(InvalidSourceError, poll.register, Numbered(number), "token")
            self.expect_error(InvalidSourceError, poll.reregister, number, "token", Interest.READABLE, Mode.LEVEL)
            self.expect_error(InvalidSourceError, poll.rearm, number)
        self.expect_silence(poll)

    def test_REG_04_deregister_refuses_a_negative_descriptor(self, poll: Poll[object]) -> None:
        # Only a bare one: an object whose fileno() is negative was closed, of which REG-09 speaks.
        for number in -1, -2, -(2**31):
            self.expect_error(InvalidSourceError, poll.deregister, number)

    @pytest.mark.parametrize("source", ["0", 0.0, None, object()], ids=lambda source: type(source).__name__)
    def test_REG_04_deregister_refuses_what_has_no_fileno(self, poll: Poll[object], source: Numbered) -> None:
        self.expect_error(TypeError, poll.deregister, source)

    @pytest.mark.parametrize("number", ["0", 0.0, None], ids=repr)
    def test_REG_04_deregister_refuses_a_fileno_that_is_no_integer(self, poll: Poll[object], number: object) -> None:
        self.expect_error(TypeError, poll.deregister, Numbered(number))

    @pytest.mark.parametrize(
        "source",
        ["0", 0.0, None, object(), Numbered("0"), Numbered(None)],
        ids=["str", "float", "None", "object", "str of fileno", "None of fileno"],
    )
    def test_REG_04_what_has_no_descriptor_is_refused_at_the_call(self, poll: Poll[object], source: Numbered) -> None:
        self.expect_error(TypeError, poll.register, source, "token")
        self.expect_error(TypeError, poll.reregister, source, "token", Interest.READABLE, Mode.LEVEL)
        self.expect_error(TypeError, poll.rearm, source)
        self.expect_silence(poll)

    def test_REG_04_a_number_that_is_no_integer_names_no_registration(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near")
        alike = Numbered(float(near.fileno()))
        self.expect_error(TypeError, poll.register, alike, "alike")
        self.expect_error(TypeError, poll.reregister, alike, "alike", Interest.WRITABLE, Mode.LEVEL)
        self.expect_error(TypeError, poll.rearm, alike)
        send(far, b"x")
        self.expect_events(poll, {"near": "r"})

    @pytest.mark.parametrize(
        "interest", [Interest.READABLE, Interest.READ_WRITE, Interest.NONE], ids=["r", "rw", "none"]
    )
    def test_REG_05_a_closed_source_is_refused_at_the_call(
        self, poll: Poll[object], pair: Ends, interest: Interest
    ) -> None:
        reader, _ = pair
        number = reader.fileno()
        reader.close()
        # A bare number in EDGE may as well be refused for its mode, see REG-26.
        for mode in Mode.LEVEL, Mode.ONESHOT, Mode.EDGE_ONESHOT:
            for source in reader, number, Numbered(number):
                self.expect_error(InvalidSourceError, poll.register, source, "closed", interest, mode)
        self.expect_error(NotRegisteredError, poll.deregister, number)
        self.expect_silence(poll)

    # -- REG-06, REG-07: calls that are cut off ----------------------------------------------------

    def test_REG_06_a_register_that_raises_leaves_nothing(self, poll: Poll[object]) -> None:
        with tempfile.TemporaryFile() as file:
            number = file.fileno()
            for mode in Mode.LEVEL, Mode.ONESHOT, Mode.EDGE_ONESHOT:
                self.expect_error(UnsupportedSourceError, poll.register, number, "file", Interest.READ_WRITE, mode)
            self.expect_error(NotRegisteredError, poll.reregister, number, "file", Interest.READABLE, Mode.LEVEL)
            self.expect_error(NotRegisteredError, poll.deregister, number)
            self.expect_silence(poll)

    @each_mode
    def test_REG_06_a_register_that_is_cut_off_is_made_or_absent(self, poll: Poll[object], mode: Mode) -> None:
        near, far = self.net_tcp_pair()

        def scene(interrupt: Interrupter) -> None:
            self._cut_off(interrupt, lambda: poll.register(near, "cut off", Interest.READABLE, mode))
            try:
                poll.register(near, "made again", Interest.READABLE, mode)
                token = "made again"
            except AlreadyRegisteredError:
                token = "cut off"
            self._expect_mode(poll, token, mode, near, far)
            poll.deregister(near)
            send(far, b"x")
            self.check(not (events := poll.poll(0)), "no event of what was deregistered", events)
            drain(near)

        assert at_each_step(scene, poll)

    @each_mode
    def test_REG_06_a_reregister_that_is_cut_off_is_made_or_undone(self, poll: Poll[object], mode: Mode) -> None:
        former = Mode.ONESHOT if mode is Mode.LEVEL else Mode.LEVEL
        near, far = self.net_tcp_pair()

        def scene(interrupt: Interrupter) -> None:
            poll.register(near, "former", Interest.WRITABLE, former)
            self._cut_off(interrupt, lambda: poll.reregister(near, "new", Interest.READABLE, mode))
            send(far, b"x")
            events = self._first_events(poll)
            self.check(
                events in ([("former", False, True)], [("new", True, False)]),
                "either 'former': writable, or 'new': readable",
                f"{events} as (token, readable, writable)",
            )
            if events[0][0] == "new":
                drain(near)
                poll.rearm(near)
                self._expect_mode(poll, "new", mode, near, far)
            elif former is Mode.LEVEL:
                self.expect_events(poll, {"former": "w"})
            else:
                self.expect_silence(poll)  # at rest, too: what is there to read is nobody's interest
            drain(near)
            poll.deregister(near)

        assert at_each_step(scene, poll)

    def _cut_off(self, interrupt: Interrupter, call: Callable[[], object]) -> None:
        """Call, with an exception from a signal handler at the step in question, which comes out of the call."""
        outcome = interrupt(call, strike)
        self.check(
            not outcome.error or isinstance(outcome.error, Struck), "success, or the handler's exception", outcome
        )

    def _first_events(self, poll: Poll[object]) -> list[tuple[object, bool, bool]]:
        return [(event.token, event.readable, event.writable) for event in poll.poll()]

    def test_REG_06_a_call_that_is_cut_off_locks_no_other_thread_out(self, poll: Poll[object]) -> None:
        near, _ = self.socketpair()
        other, _ = self.socketpair()

        def change_twice() -> None:
            poll.register(other, "of another thread")
            poll.deregister(other)

        for registered, call in (
            (False, lambda: poll.register(near, "registered")),
            (True, lambda: poll.reregister(near, "reregistered", Interest.WRITABLE, Mode.ONESHOT)),
            (True, lambda: poll.rearm(near)),
            (True, lambda: poll.deregister(near)),
        ):

            def scene(interrupt: Interrupter, registered: bool = registered, call: Callable[[], object] = call) -> None:
                with suppress(AlreadyRegisteredError):
                    poll.register(near, "near")
                if not registered:
                    poll.deregister(near)
                self._cut_off(interrupt, call)
                self.in_thread(change_twice).result()

            assert at_each_step(scene, poll)

    def test_REG_07_signals_neither_fail_nor_repeat_a_call(self, poll: Poll[object], pair: Ends) -> None:
        if sys.platform == "win32":
            pytest.skip("this platform interrupts no call by a signal")
        reader, writer = pair
        send(writer, b"x")
        this_thread = threading.get_ident()
        over = threading.Event()
        handled = 0

        def handle(_signum: int, _frame: object) -> None:
            nonlocal handled
            handled += 1

        def storm() -> None:
            while not over.is_set():
                signal.pthread_kill(this_thread, signal.SIGUSR1)

        with self.on_signal(signal.SIGUSR1, handle):
            storming = self.in_thread(storm)
            try:
                for turn in range(200):
                    poll.register(reader, turn, Interest.READABLE, Mode.ONESHOT)
                    self.expect_events(poll, {turn: "r"})
                    poll.reregister(reader, -turn, Interest.READABLE, Mode.LEVEL)
                    self.expect_events(poll, {-turn: "r"})
                    poll.deregister(reader)
                    self.check(not (events := poll.poll(0)), "no event of what was deregistered", events)
            finally:
                over.set()
                storming.result()
        assert handled, "no signal came, so nothing was tested"

    def test_REG_07_a_signal_at_any_step_of_a_call_neither_fails_nor_repeats_it(self, poll: Poll[object]) -> None:
        if sys.platform == "win32":
            pytest.skip("this platform interrupts no call by a signal")
        near, far = self.net_tcp_pair()
        send(far, b"x")
        arrived(near)

        def strike_without_harm() -> None:
            signal.raise_signal(signal.SIGUSR1)

        def scene(interrupt: Interrupter) -> None:
            for call in (
                lambda: poll.register(near, "registered", Interest.READABLE, Mode.ONESHOT),
                lambda: poll.reregister(near, "reregistered", Interest.READABLE, Mode.ONESHOT),
                lambda: poll.deregister(near),
            ):
                outcome = interrupt(call, strike_without_harm)
                self.check(outcome.error is None, "success", outcome)
                reported = [event.token for event in poll.poll(0)]
                self.check(len(reported) <= 1, "one event at most of a oneshot", reported)
            self.check(not (events := poll.poll(0)), "no event of what was deregistered", events)

        with self.on_signal(signal.SIGUSR1, lambda _signum, _frame: None):
            assert at_each_step(scene, poll)

    # -- REG-14 to REG-16: what changing and removing mean -------------------------------------------

    def test_REG_14_token_and_interest_are_replaced(
        self, poll: Poll[object], duplex: tuple[socket.socket, socket.socket]
    ) -> None:
        near, far = duplex
        poll.register(near, "writable", Interest.WRITABLE)
        self.expect_events(poll, {"writable": "w"})
        poll.reregister(near, "not readable", Interest.READABLE, Mode.LEVEL)
        self.expect_silence(poll)
        poll.deregister(near)
        send(far, b"x")
        poll.register(near, "both", Interest.READ_WRITE)
        self.expect_events(poll, {"both": "rw"})
        for token, interest, bits in (
            ("to write", Interest.WRITABLE, "w"),
            ("to read", Interest.READABLE, "r"),
            ("both again", Interest.READ_WRITE, "rw"),
        ):
            poll.reregister(near, token, interest, Mode.LEVEL)
            for _ in range(2):
                self.expect_events(poll, {token: bits})
        poll.reregister(near, "parked", Interest.NONE, Mode.LEVEL)
        self.expect_silence(poll)

    def test_REG_14_any_object_for_the_number_replaces_it(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "by object")
        poll.reregister(reader.fileno(), "by number", Interest.READABLE, Mode.LEVEL)
        send(writer, b"x")
        self.expect_events(poll, {"by number": "r"})

    @pytest.mark.parametrize("former", Mode, ids=[f"from_{mode.name.lower()}" for mode in Mode])
    @each_mode
    def test_REG_14_the_mode_is_replaced(self, poll: Poll[object], former: Mode, mode: Mode) -> None:
        near, far = self.net_tcp_pair()
        poll.register(near, "former", Interest.READABLE, former)
        token = f"{mode.name} after {former.name}"
        poll.reregister(near, token, Interest.READABLE, mode)
        self._expect_mode(poll, token, mode, near, far)
        # Once more, now that there is a report of the former to be forgotten, and perhaps a oneshot that has fired.
        poll.reregister(near, "former", Interest.READABLE, former)
        send(far, b"x")
        self.expect_events(poll, {"former": "r"})
        drain(near)
        poll.reregister(near, token, Interest.READABLE, mode)
        self._expect_mode(poll, token, mode, near, far)

    @each_mode
    def test_REG_15_nothing_is_reported_after_deregister(self, poll: Poll[object], mode: Mode) -> None:
        ends = [self.net_tcp_pair() for _ in range(3)]
        for near, far in ends:
            send(far, b"x")
            poll.register(near, near, Interest.READ_WRITE, mode)
        # One of them is reported now, and the backend may have seen all three.
        events = poll.poll(max_events=1)
        self.check(len(events) == 1, "one event of three, as asked for", events)
        for near, far in ends:
            poll.deregister(near)
            send(far, b"y")
        self.expect_silence(poll)

    def test_REG_15_what_was_ready_is_not_reported_after_deregister(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        send(writer, b"x")
        for reported in False, True:
            poll.register(reader, "reader")
            if reported:
                self.expect_events(poll, {"reader": "r"})
            poll.deregister(reader)
            self.expect_silence(poll)

    def test_REG_16_only_the_new_token_is_reported(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        send(writer, b"x")
        poll.register(reader, "former")
        for turn in range(3):
            poll.deregister(reader)
            poll.register(reader, turn)
            for _ in range(2):
                self.expect_events(poll, {turn: "r"})

    def test_REG_16_a_quiet_source_that_is_registered_anew_is_quiet(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        for turn in range(3):
            poll.register(reader, turn)
            self.expect_silence(poll)  # by now whatever waits for data has begun, and must not show when it is ended
            poll.deregister(reader)
        poll.register(reader, "at last")
        self.expect_silence(poll)
        send(writer, b"x")
        self.expect_events(poll, {"at last": "r"})

    @each_mode
    def test_REG_16_only_the_new_interest_and_mode_are_in_force(self, poll: Poll[object], mode: Mode) -> None:
        near, far = self.net_tcp_pair()
        for former in Mode:
            send(far, b"x")
            poll.register(near, "former", Interest.READ_WRITE, former)
            self.expect_events(poll, {"former": "rw"})
            drain(near)
            poll.deregister(near)
            token = f"{mode.name} after {former.name}"
            poll.register(near, token, Interest.READABLE, mode)
            self._expect_mode(poll, token, mode, near, far)
            poll.deregister(near)

    # -- REG-23, REG-25 to REG-27: what registering leaves alone ---------------------------------------

    def test_REG_23_the_descriptors_of_the_poll_itself_are_refused(self) -> None:
        before = open_descriptors()
        poll = self.make_poll()
        waker = Waker(poll, "waker")
        waker.wake()
        self.expect_events(poll, {"waker": "r"})
        own = {*poll.backend.internal, *(open_descriptors().keys() - before.keys())}
        for number in own:
            for interest in Interest.READABLE, Interest.NONE:
                self.expect_error(InvalidSourceError, poll.register, number, "own", interest)
                self.expect_error(InvalidSourceError, poll.register, Numbered(number), "own", interest)
            for call in poll.rearm, poll.deregister:
                self.expect_error(PollingError, call, number)
        waker.wake()
        self.expect_events(poll, {"waker": "r"})
        self.expect_silence(poll)

    def test_REG_23_every_object_is_a_legal_token(self, poll: Poll[object]) -> None:
        tokens = [None, 0, -1, False, "", ..., float("nan"), [], {}, object(), poll, *poll.backend.internal]
        near, far = self.socketpair()
        send(far, b"x")
        for token in tokens:
            poll.register(near, token)
            events = poll.poll()
            self.check(
                len(events) == 1 and events[0].token is token, f"one event with the token {token!r} itself", events
            )
            poll.deregister(near)

    @pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "nonblocking"])
    def test_REG_25_a_source_blocks_or_not_as_before(self, poll: Poll[object], pair: Ends, blocking: bool) -> None:
        reader, writer = pair
        set_blocking(reader, blocking)
        poll.register(reader, "reader")
        self._expect_blocking(reader, writer, blocking, "registered")
        poll.reregister(reader, "reader", Interest.READABLE, Mode.ONESHOT)
        self._expect_blocking(reader, writer, blocking, "reregistered")
        send(writer, b"x")
        self.expect_events(poll, {"reader": "r"})
        set_blocking(reader, False)
        drain(reader)
        set_blocking(reader, blocking)
        poll.rearm(reader)
        self.expect_silence(poll)
        self._expect_blocking(reader, writer, blocking, "waited for")
        poll.deregister(reader)
        self._expect_blocking(reader, writer, blocking, "deregistered")

    def _expect_blocking(self, reader: End, writer: End, blocking: bool, state: str) -> None:
        """Check by a read of nothing, since not every system can be asked, that *reader* still blocks, or does not."""
        reading = self.in_thread(recv, reader)
        if blocking:
            try:
                reading.blocked()
            finally:
                send(writer, b"x")
            self.check((data := reading.result()) == b"x", f"a read of the {state} source waits for data", data)
        else:
            reading.thread.join(SIGNAL_WAIT)
            self.check(not reading.thread.is_alive(), f"a read of the {state} source would block", "it blocks")
            self.expect_error(BlockingIOError, reading.result)

    @each_mode
    def test_REG_26_a_mode_is_given_or_refused(self, poll: Poll[object], mode: Mode) -> None:
        near, far = self.tcp_pair()
        if mode is not Mode.EDGE or self.has(Capability.NATIVE_EDGE):
            poll.register(near, f"plain socket in {mode.name}", Interest.READABLE, mode)
            self._expect_mode(poll, f"plain socket in {mode.name}", mode, near, far)
            return
        for source in near, near.fileno():
            self.expect_error(UnsupportedError, poll.register, source, "refused", Interest.READABLE, mode)
        poll.register(near, "former", Interest.READABLE)
        for source in near, near.fileno():
            self.expect_error(UnsupportedError, poll.reregister, source, "refused", Interest.WRITABLE, mode)
        self._expect_mode(poll, "former", Mode.LEVEL, near, far)
        self.check(
            not self._has_edges(poll.backend),
            "edges that are had declared as NATIVE_EDGE",
            "asked directly, the backend reports each arrival once, and nobody tells it of would-blocks",
        )

    def test_REG_26_priority_is_given_or_refused(self, poll: Poll[object]) -> None:
        near, far = self.tcp_pair()
        if self.has(Capability.PRIORITY):
            poll.register(near, "urgent", Interest.PRIORITY)
            far.send(b"!", socket.MSG_OOB)
            self.expect_events(poll, {"urgent": "p"})
            return
        for interest in Interest.PRIORITY, Interest.PRIORITY | Interest.READABLE:
            self.expect_error(UnsupportedError, poll.register, near, "refused", interest)
        poll.register(near, "former", Interest.READABLE)
        for interest in Interest.PRIORITY, Interest.PRIORITY | Interest.WRITABLE:
            self.expect_error(UnsupportedError, poll.reregister, near, "refused", interest, Mode.ONESHOT)
        self._expect_mode(poll, "former", Mode.LEVEL, near, far)
        self.check(
            not self._has_priority(poll.backend),
            "urgent data that is reported declared as PRIORITY",
            "asked directly, the backend reports urgent data and hangups under Interest.PRIORITY",
        )

    # ``Poll`` refuses what is not declared. What the backend could do all the same shows when it is asked itself, which
    # a test may do as long as nobody waits.

    def _has_edges(self, backend: Backend) -> bool:
        near, far = self.tcp_pair()
        with suppress(UnsupportedError, OSError), _registered(backend, near, Interest.READABLE, Mode.EDGE) as look:
            for _ in range(3):
                send(far, b"x")
                if not (look() and not look()):
                    return False
                drain(near)
            return True
        return False  # refused

    def _has_priority(self, backend: Backend) -> bool:
        for happens in (lambda far: far.send(b"!", socket.MSG_OOB)), reset:
            near, far = self.tcp_pair()
            with suppress(UnsupportedError, OSError), _registered(backend, near, Interest.PRIORITY, Mode.LEVEL) as look:
                happens(far)
                if not any(readiness.priority for readiness in look()):
                    return False
                continue
            return False  # refused
        return True

    def test_REG_27_many_rounds_leave_nothing_behind(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        send(writer, b"x")

        def go_round(times: int) -> None:
            for _ in range(times):
                poll.register(reader, "former", Interest.READABLE, Mode.LEVEL)
                poll.reregister(reader, "parked", Interest.NONE, Mode.LEVEL)
                poll.reregister(reader, "oneshot", Interest.READABLE, Mode.ONESHOT)
                poll.deregister(reader)

        go_round(ROUNDS // 10)  # what is kept for good, such as a number of operations to re-use, is there now
        descriptors = open_descriptors()
        traced = tracemalloc.is_tracing()
        tracemalloc.start()
        try:
            go_round(1)
            for _ in range(3):  # what other threads of this process keep they do not keep each time
                gc.collect()
                before, _ = tracemalloc.get_traced_memory()
                go_round(ROUNDS)
                gc.collect()
                grown = tracemalloc.get_traced_memory()[0] - before
                if grown < 6 * ROUNDS:
                    break
        finally:
            if not traced:
                tracemalloc.stop()
        # The least that can be kept of a round is a reference in a list, which is 8 bytes.
        self.check(
            grown < 6 * ROUNDS, "memory does not grow with the rounds", f"{grown} bytes more after {ROUNDS} rounds"
        )
        now = open_descriptors()
        self.check(now == descriptors, f"the descriptors open before: {descriptors}", now)
        self.expect_silence(poll)
        poll.register(reader, "at last")
        self.expect_events(poll, {"at last": "r"})


@contextmanager
def _registered(
    backend: Backend, source: socket.socket, interest: Interest, mode: Mode
) -> Iterator[Callable[[], list[Readiness]]]:
    """Register with the backend itself, if it does not refuse; give a look at what it reports."""
    fd = source.fileno()

    def look() -> list[Readiness]:
        found: list[Readiness] = []
        deadline = time.monotonic() + SILENCE
        while not found and (left := deadline - time.monotonic()) > 0:
            found = [backend.decode(bits, interest) for number, bits in backend.waiter()(left, 10) if number == fd]
        return found

    backend.register(fd, interest, mode)
    try:
        yield look
    finally:
        backend.deregister(fd)


def set_blocking(end: End, blocking: bool) -> None:
    """Set whether an end of any kind blocks."""
    if isinstance(end, socket.socket):
        end.setblocking(blocking)
    elif sys.platform != "win32":
        os.set_blocking(end.fileno(), blocking)
    else:  # a pipe of polling.net, which is a socket there
        sock = socket.socket(fileno=end.fileno())
        sock.setblocking(blocking)
        sock.detach()
