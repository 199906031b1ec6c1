"""USR: what a program sets ready by a call is reported like what the kernel finds ready."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable

import pytest

from polling import (
    AlreadyRegisteredError,
    Capability,
    ForkedPollError,
    Interest,
    Mode,
    NotRegisteredError,
    Poll,
    PollClosedError,
    PollingError,
    UnsupportedError,
    UserSource,
    Waker,
)
from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.ends import arrived, drain, send
from polling_conformance.harness import Harness
from polling_conformance.interrupt import Interrupter, at_each_step, strike
from polling_conformance.suite.threads import restless

__all__ = ["UserRules"]

READABLE, WRITABLE, PRIORITY = Interest.READABLE, Interest.WRITABLE, Interest.PRIORITY
SINGLE = [Mode.EDGE, Mode.ONESHOT, Mode.EDGE_ONESHOT]
"""The modes in which what goes on is reported once."""
ONCE = [Mode.ONESHOT, Mode.EDGE_ONESHOT]


class UserRules(Harness):
    """A ``UserSource`` keeps the rules of descriptors, in all modes on all backends, and needs no backend to do so."""

    # -- USR-01: it is reported ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("mode", Mode)
    def test_USR_01_set_in_another_thread_ends_a_wait_without_limit(self, poll: Poll[object], mode: Mode) -> None:
        source = UserSource()
        poll.register(source, "source", READABLE, mode)
        waiter = self.in_thread(poll.poll).blocked()
        source.set(READABLE)
        events = waiter.result()
        self.check([event.token for event in events] == ["source"], "one event of the source", events)

    @pytest.mark.parametrize("mode", Mode)
    def test_USR_01_set_before_the_wait_is_seen_by_it(self, poll: Poll[object], mode: Mode) -> None:
        source = UserSource()
        poll.register(source, "source", READABLE, mode)
        for timeout in 0, None:
            source.set(READABLE)
            events = self.in_thread(poll.poll, timeout).result()
            self.check([event.token for event in events] == ["source"], "one event of the source", events)
            if mode in ONCE:
                poll.rearm(source)
                poll.poll(0)
                poll.rearm(source)

    @pytest.mark.parametrize("mode", Mode)
    @pytest.mark.parametrize("waiting", [False, True], ids=["before_the_wait", "during_it"])
    def test_USR_01_set_before_it_is_registered_is_reported(
        self, poll: Poll[object], mode: Mode, waiting: bool
    ) -> None:
        source = UserSource()
        source.set(READABLE)
        waiter = self.in_thread(poll.poll).blocked() if waiting else None
        poll.register(source, "source", READABLE, mode)
        events = (waiter or self.in_thread(poll.poll)).result()
        self.check([event.token for event in events] == ["source"], "one event of the source", events)

    def test_USR_01_the_last_of_many_sets_from_other_threads_is_reported(self, poll: Poll[object]) -> None:
        # As WAK-03: each producer adds first and sets then, the consumer clears first and takes then.
        sources = [UserSource() for _ in range(3)]
        items: dict[UserSource, list[int]] = {source: [] for source in sources}
        for source, mode in zip(sources, (Mode.LEVEL, Mode.EDGE, Mode.ONESHOT), strict=True):
            poll.register(source, source, READABLE, mode)

        def produce(source: UserSource) -> None:
            for item in range(1000):
                items[source].append(item)
                source.set(READABLE)

        def consume() -> int:
            taken = 0
            while taken < 3000:
                for event in poll.poll():
                    source = event.token
                    assert isinstance(source, UserSource)
                    source.clear(READABLE)
                    poll.rearm(source)
                    present = len(items[source])
                    taken += present
                    del items[source][:present]
            return taken

        consumer = self.in_thread(consume)
        for producer in [self.in_thread(produce, source) for source in sources]:
            producer.result()
        taken = consumer.result()
        self.check(taken == 3000, "3000 items", taken)

    # -- USR-02 to USR-04: by its mode ---------------------------------------------------------------------------

    def test_USR_02_level_is_reported_while_it_is_set(self, poll: Poll[object]) -> None:
        source = UserSource()
        poll.register(source, "source", READABLE, Mode.LEVEL)
        self.expect_silence(poll)
        for _ in range(2):
            source.set(READABLE)
            for _ in range(3):
                self.expect_events(poll, {"source": "r"})
            source.clear(READABLE)
            self.expect_silence(poll)

    @pytest.mark.parametrize("mode", Mode)
    def test_USR_02_what_was_set_and_cleared_before_the_wait_is_not_reported(
        self, poll: Poll[object], mode: Mode
    ) -> None:
        source = UserSource()
        poll.register(source, "source", READABLE, mode)
        source.set(READABLE)
        source.clear(READABLE)
        self.expect_silence(poll)
        source.set(READABLE)
        self.expect_events(poll, {"source": "r"})

    def test_USR_02_level_keeps_no_other_source_from_its_turn(self, poll: Poll[object]) -> None:
        source = UserSource()
        near, far = self.socketpair()
        poll.register(source, "source", READABLE, Mode.LEVEL)
        poll.register(near, "near", READABLE, Mode.LEVEL)
        source.set(READABLE)
        self.expect_events(poll, {"source": "r"})
        send(far, b"x")
        self.expect_events(poll, {"near": "r"}, also={"source": "r"})

    @pytest.mark.parametrize("mode", SINGLE)
    def test_USR_03_what_is_reported_once_is_reported_once(self, poll: Poll[object], mode: Mode) -> None:
        source = UserSource()
        poll.register(source, "source", READABLE, mode)
        source.set(READABLE)
        self.expect_events(poll, {"source": "r"})
        self.expect_silence(poll)
        self.check(source.readiness is READABLE, "it is still set", source.readiness)

    def test_USR_03_an_edge_comes_with_each_set_after_a_clear(self, poll: Poll[object]) -> None:
        source = UserSource()
        poll.register(source, "source", READABLE, Mode.EDGE)
        for _ in range(3):
            source.set(READABLE)
            self.expect_events(poll, {"source": "r"})
            source.clear(READABLE)
            self.expect_silence(poll)

    def test_USR_03_setting_what_is_set_is_an_edge_or_none(self, poll: Poll[object]) -> None:
        source = UserSource()
        poll.register(source, "source", READABLE, Mode.EDGE)
        source.set(READABLE)
        self.expect_events(poll, {"source": "r"})
        for _ in range(3):
            source.set(READABLE)
        events = poll.poll(0)
        self.check([event.token for event in events] in ([], ["source"]), "one event or none", events)
        self.expect_silence(poll)

    def test_USR_03_a_wait_that_found_nothing_has_nothing_reported_again(self, poll: Poll[object]) -> None:
        source, other = UserSource(), UserSource()
        poll.register(source, "source", Interest.READ_WRITE, Mode.EDGE)
        poll.register(other, "other", READABLE, Mode.EDGE)
        source.set(WRITABLE)
        self.expect_events(poll, {"source": "w"})
        source.set(READABLE)
        source.clear(READABLE)
        self.expect_silence(poll)
        other.set(READABLE)
        self.expect_events(poll, {"other": "r"})

    @pytest.mark.parametrize("mode", SINGLE)
    def test_USR_03_registering_anew_and_rearming_report_what_is_set(self, poll: Poll[object], mode: Mode) -> None:
        source = UserSource()
        source.set(READABLE)
        calls: list[Callable[[], None]] = [
            lambda: poll.register(source, "source", READABLE, mode),
            lambda: poll.reregister(source, "source", READABLE, mode),
            lambda: poll.rearm(source),
        ]
        for call in calls:
            call()
            self.expect_events(poll, {"source": "r"})
            self.expect_silence(poll)
        source.clear(READABLE)
        for call in calls[1:]:
            call()
            self.expect_silence(poll)

    @pytest.mark.parametrize("mode", ONCE)
    def test_USR_04_a_oneshot_is_disarmed_as_a_whole_and_stays_registered(self, poll: Poll[object], mode: Mode) -> None:
        source = UserSource()
        poll.register(source, "source", Interest.READ_WRITE, mode)
        source.set(READABLE)
        self.expect_events(poll, {"source": "r"})
        for bits in WRITABLE, READABLE:
            source.set(bits)
            self.expect_silence(poll)
        self.expect_error(AlreadyRegisteredError, poll.register, source, "again")
        source.clear(READABLE)
        poll.rearm(source)
        self.expect_events(poll, {"source": "w"})
        self.expect_silence(poll)

    def test_USR_04_switching_the_mode_takes_effect(self, poll: Poll[object]) -> None:
        source = UserSource()
        source.set(READABLE)
        poll.register(source, "source", READABLE, Mode.ONESHOT)
        self.expect_events(poll, {"source": "r"})
        poll.reregister(source, "source", READABLE, Mode.LEVEL)
        for _ in range(3):
            self.expect_events(poll, {"source": "r"})
        poll.reregister(source, "source", READABLE, Mode.EDGE)
        self.expect_events(poll, {"source": "r"})
        self.expect_silence(poll)

    # -- USR-05: within its interest -----------------------------------------------------------------------------

    @pytest.mark.parametrize("mode", Mode)
    def test_USR_05_nothing_outside_the_interest_is_reported(self, poll: Poll[object], mode: Mode) -> None:
        source = UserSource()
        for interest, letter in (READABLE, "r"), (WRITABLE, "w"), (PRIORITY, "p"):
            source.clear(Interest.READ_WRITE | PRIORITY)
            poll.register(source, "source", interest, mode)
            others = (Interest.READ_WRITE | PRIORITY) & ~interest
            source.set(others)
            self.expect_silence(poll)
            source.set(interest)
            self.expect_events(poll, {"source": letter})
            poll.deregister(source)

    @pytest.mark.parametrize("mode", Mode)
    def test_USR_05_without_interest_it_is_silent(self, poll: Poll[object], mode: Mode) -> None:
        source = UserSource()
        poll.register(source, "source", Interest.NONE, mode)
        source.set(Interest.READ_WRITE)
        self.expect_silence(poll)
        poll.reregister(source, "source", READABLE, mode)
        self.expect_events(poll, {"source": "r"})
        poll.reregister(source, "source", Interest.NONE, mode)
        self.expect_silence(poll)

    @pytest.mark.parametrize("mode", Mode)
    def test_USR_05_all_that_is_set_makes_one_event(self, poll: Poll[object], mode: Mode) -> None:
        source = UserSource()
        poll.register(source, "source", Interest.READ_WRITE | PRIORITY, mode)
        for bits in READABLE, WRITABLE, PRIORITY:
            source.set(bits)
        (event,) = poll.poll(0, 1)
        said = (event.readable, event.writable, event.priority, event.error, event.read_closed, event.write_closed)
        self.check(said == (True, True, True, False, False, False), "all three promises, and no hint", event)

    # -- USR-06: registering -------------------------------------------------------------------------------------

    def test_USR_06_what_is_wrong_is_the_error_that_a_descriptor_would_give(self, poll: Poll[object]) -> None:
        source, stranger = UserSource(), UserSource()
        poll.register(source, "source", READABLE, Mode.ONESHOT)
        source.set(READABLE)
        self.expect_error(AlreadyRegisteredError, poll.register, source, "other", WRITABLE)
        for token in "source", "again":
            self.expect_events(poll, {token: "r"})
            poll.reregister(source, "again", READABLE, Mode.ONESHOT)
        for call in poll.rearm, poll.deregister:
            self.expect_error(NotRegisteredError, call, stranger)
        self.expect_error(NotRegisteredError, poll.reregister, stranger, "stranger", READABLE, Mode.LEVEL)
        self.expect_error(TypeError, poll.register, stranger, "stranger", 1)
        self.expect_error(TypeError, poll.register, stranger, "stranger", READABLE, 0)
        for change in stranger.set, stranger.clear:
            self.expect_error(TypeError, change, 1)
        poll.deregister(source)
        self.expect_error(NotRegisteredError, poll.deregister, source)

    def test_USR_06_it_is_registered_at_one_poll_at_a_time(self) -> None:
        first, second = self.make_poll(), self.make_poll()
        source = UserSource()
        first.register(source, "first")
        self.expect_error(UnsupportedError, second.register, source, "second")
        self.expect_error(NotRegisteredError, second.deregister, source)
        source.set(READABLE)
        self.expect_events(first, {"first": "r"})
        self.expect_silence(second)
        first.close()
        second.register(source, "second")
        self.expect_events(second, {"second": "r"})
        self.expect_error(PollClosedError, first.register, source, "first")
        self.expect_error(PollClosedError, first.deregister, source)

    @pytest.mark.parametrize("mode", Mode)
    def test_USR_06_deregistered_or_replaced_it_is_not_reported_any_more(self, poll: Poll[object], mode: Mode) -> None:
        source = UserSource()
        poll.register(source, "old", READABLE, mode)
        source.set(READABLE)
        poll.deregister(source)
        self.expect_silence(poll)
        poll.register(source, "new", READABLE, mode)
        (event,) = poll.poll(0)
        self.check(event.token == "new", "'new'", event)
        self.check(poll.is_current(event), "the event is current", "it is not")
        token = object()
        poll.reregister(source, token, READABLE, mode)
        self.check(not poll.is_current(event), "the event of what was replaced is not current", "it is")
        (event,) = poll.poll(0)
        self.check(event.token is token, f"the very token {token}", event)
        poll.deregister(source)
        self.check(not poll.is_current(event), "the event of what was deregistered is not current", "it is")

    def test_USR_06_threads_register_and_deregister_what_they_set_during_a_wait(self, poll: Poll[object]) -> None:
        waker = Waker(poll, "over")

        def come_and_go(mode: Mode) -> None:
            source = UserSource()
            for _ in range(500):
                poll.register(source, mode, READABLE, mode)
                source.set(READABLE)
                poll.deregister(source)
                source.clear(READABLE)

        def wait() -> set[object]:
            seen: set[object] = set()
            while "over" not in seen:
                seen |= {event.token for event in poll.poll()}
            return seen

        with restless():
            waiter = self.in_thread(wait)
            for running in [self.in_thread(come_and_go, mode) for mode in Mode]:
                running.result()
            waker.wake()
            seen = waiter.result()
        self.check(seen <= {*Mode, "over"}, "each under its token", seen)
        self.expect_silence(poll)

    @pytest.mark.parametrize("end", ["deregister", "close"])
    def test_USR_06_a_poll_holds_it_and_lets_go_of_its_token(self, poll: Poll[object], end: str) -> None:
        class Token:
            pass

        tokens = [Token(), Token()]
        gone = [weakref.ref(token) for token in tokens]
        sources = [UserSource(), UserSource()]
        for source, token in zip(sources, tokens, strict=True):
            source.set(READABLE)
            poll.register(source, token, READABLE, Mode.ONESHOT)
        del sources[1], tokens[:], token
        gc.collect()
        self.check(len(poll.poll(0)) == 2, "an event also of the source that only the poll holds", "fewer")
        del source
        if end == "deregister":
            poll.deregister(sources[0])
            self.check(gone[0]() is None, "the token of what was deregistered is released", "it is held")
        poll.close()
        self.check(gone[0]() is gone[1]() is None, "after the close the tokens are released", "one is held")

    # -- USR-07: signal handlers ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("call", ["poll", "register", "reregister", "rearm", "deregister", "set", "clear"])
    def test_USR_07_set_in_a_handler_at_any_step_of_a_call_is_reported(self, call: str) -> None:
        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll:
                source, other = UserSource(), UserSource()
                poll.register(source, "source", READABLE, Mode.EDGE)
                if call != "register":
                    poll.register(other, "other", READABLE, Mode.EDGE)
                other.set(READABLE)
                calls: dict[str, Callable[[], object]] = {
                    "poll": lambda: poll.poll(SIGNAL_WAIT),
                    "register": lambda: poll.register(other, "other", READABLE),
                    "reregister": lambda: poll.reregister(other, "other", READABLE, Mode.LEVEL),
                    "rearm": lambda: poll.rearm(other),
                    "deregister": lambda: poll.deregister(other),
                    "set": lambda: other.set(READABLE),
                    "clear": lambda: other.clear(READABLE),
                }
                outcome = interrupt(calls[call], lambda: source.set(READABLE))
                self.check(outcome.error is None, "the call goes on", outcome)
                events = outcome.returned if isinstance(outcome.returned, list) else []
                if outcome.where and not any(event.token == "source" for event in events):
                    events = poll.poll(SIGNAL_WAIT)
                self.check(
                    sum(event.token == "source" for event in events) == bool(outcome.where),
                    "what the handler set by this wait or the next",
                    f"{events}; {outcome}",
                )

        at_each_step(scene, self.make_poll())

    @pytest.mark.parametrize("mode", Mode)
    def test_USR_07_an_exception_at_any_step_of_a_wait_costs_no_event(self, mode: Mode) -> None:
        near, far = self.socketpair()
        send(far, b"x")
        arrived(near)

        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll:
                sources = {token: UserSource() for token in "abc"}
                poll.register(near, "near", READABLE, Mode.ONESHOT)
                for token, source in sources.items():
                    poll.register(source, token, READABLE, mode)
                    source.set(READABLE)
                outcome = interrupt(lambda: poll.poll(SIGNAL_WAIT), strike)
                seen = {event.token for event in outcome.returned or ()}
                deadline = time.monotonic() + SIGNAL_WAIT
                while seen != {*sources, "near"} and time.monotonic() < deadline:
                    seen |= {event.token for event in poll.poll(deadline - time.monotonic())}
                self.check(seen == {*sources, "near"}, "an event of each source", f"{seen}; {outcome}")
                again = poll.poll(0)
                self.check(bool(again) == (mode is Mode.LEVEL), "no more than its mode says", f"{again}; {outcome}")

        at_each_step(scene, self.make_poll())

    @pytest.mark.parametrize("change", ["register", "reregister", "deregister"])
    def test_USR_07_an_exception_at_any_step_of_a_change_leaves_it_made_or_absent(self, change: str) -> None:
        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll:
                source = UserSource()
                source.set(READABLE)
                if change != "register":
                    poll.register(source, "old", READABLE, Mode.LEVEL)
                calls: dict[str, Callable[[], None]] = {
                    "register": lambda: poll.register(source, "new", READABLE, Mode.LEVEL),
                    "reregister": lambda: poll.reregister(source, "new", READABLE, Mode.LEVEL),
                    "deregister": lambda: poll.deregister(source),
                }
                outcome = interrupt(calls[change], strike)
                tokens = [event.token for event in poll.poll(0)]
                before = {"register": [], "reregister": ["old"], "deregister": ["old"]}[change]
                after = {"register": ["new"], "reregister": ["new"], "deregister": []}[change]
                allowed = [after] if outcome.error is None else [before, after]
                self.check(tokens in allowed, f"one of {allowed}", f"{tokens}; {outcome}")
                if tokens:
                    self.expect_error(AlreadyRegisteredError, poll.register, source, "again")
                else:
                    poll.register(source, "again")
                poll.deregister(source)
                self.check(poll.poll(0) == [], "nothing once it is deregistered", outcome)

        at_each_step(scene, self.make_poll())

    # -- USR-08, USR-09: beside everything else --------------------------------------------------------------------

    def test_USR_08_it_comes_beside_more_ready_descriptors_than_fit(self, poll: Poll[object]) -> None:
        sources = [UserSource() for _ in range(3)]
        for number, source in enumerate(sources):
            poll.register(source, f"user {number}", READABLE, Mode.EDGE)
        for token in range(5):
            near, far = self.socketpair()
            poll.register(near, token)
            send(far, b"x")
        for limit in 1, 2, 5:
            for source in sources:
                source.set(READABLE)
            events = poll.poll(None, limit)
            ours = [event for event in events if isinstance(event.token, str)]
            self.check(len(ours) == 3, "all three of user space", events)
            self.check(1 <= len(events) - 3 <= limit, f"and besides 1 to {limit} events of descriptors", events)
            events = poll.poll(None, limit)
            self.check(1 <= len(events) <= limit, f"1 to {limit} events of descriptors", events)

    def test_USR_08_descriptors_and_user_space_are_reported_by_one_wait(self, poll: Poll[object]) -> None:
        source = UserSource()
        near, far = self.socketpair()
        poll.register(near, "near", READABLE, Mode.LEVEL)
        poll.register(source, "source", READABLE, Mode.LEVEL)
        send(far, b"x")
        source.set(READABLE)
        events = self.expect_events(poll, {"near": "r", "source": "r"})
        self.check(len(events) == 2, "two events", events)
        drain(near)
        source.clear(READABLE)
        self.expect_silence(poll)

    def test_USR_09_a_poll_that_is_watched_by_another_tells_of_user_space(self, poll: Poll[object]) -> None:
        self.needs(Capability.NESTED, refused=poll.fileno)
        outer = self.make_poll()
        source = UserSource()
        poll.register(source, "source", READABLE, Mode.LEVEL)
        source.set(READABLE)
        self.expect_events(poll, {"source": "r"})  # before anybody asks for the descriptor
        outer.register(poll, "inner")
        for _ in range(3):
            self.expect_events(outer, {"inner": "r"})
            self.expect_events(poll, {"source": "r"})
        source.clear(READABLE)
        poll.poll(0)
        self.expect_silence(outer)
        source.set(READABLE)
        self.expect_events(outer, {"inner": "r"})
        outer.deregister(poll)

    def test_USR_10_after_the_close_it_can_be_set_and_used_elsewhere(self) -> None:
        source = UserSource()
        for _ in range(3):
            with self.new_poll() as poll:
                try:
                    poll.register(source, "source", READABLE, Mode.ONESHOT)
                except PollingError as error:
                    raise self.failure("the source is free for another poll", repr(error)) from error
                source.set(READABLE)
                self.expect_events(poll, {"source": "r"})
            source.set(WRITABLE)
            source.clear(READABLE)
        self.check(source.readiness is WRITABLE, "what was set last", source.readiness)

    def test_USR_10_in_a_forked_child_it_is_free_for_a_poll_of_its_own(self, poll: Poll[object]) -> None:
        source = UserSource()
        poll.register(source, "parent's", READABLE, Mode.EDGE)

        def in_the_child() -> list[object]:
            source.set(READABLE)
            self.expect_error(ForkedPollError, poll.deregister, source)
            with self.new_poll() as own:
                own.register(source, "child's", READABLE, Mode.EDGE)
                return [event.token for event in own.poll(SIGNAL_WAIT)]

        tokens = self.in_child(in_the_child)
        self.check(tokens == ["child's"], "the event of the child's registration", tokens)
        self.expect_silence(poll)
        source.set(READABLE)
        self.expect_events(poll, {"parent's": "r"})
