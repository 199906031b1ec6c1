"""CLS, FRK, GCL: how a poll ends: closed, forked, or forgotten."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import warnings
import weakref
from contextlib import suppress
from functools import partial
from types import FrameType

import pytest

from polling import (
    Capability,
    ForkedPollError,
    Interest,
    Mode,
    Poll,
    PollClosedError,
    PollingError,
    Waker,
    net,
)
from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.ends import arrived, drain, open_descriptors, send
from polling_conformance.harness import Harness
from polling_conformance.interrupt import Interrupter, at_each_step, calls_of, strike
from polling_conformance.running import A_SIGNAL, signal_main_thread, until_blocked

__all__ = ["ClosingRules"]


class ClosingRules(Harness):
    """The end of a poll is the end of what it owns, in this process only, and of nothing else."""

    # -- closing ---------------------------------------------------------------------------------------------------

    def test_CLS_01_closing_again_does_nothing_and_leaving_the_block_closes(self) -> None:
        poll = self.new_poll()
        with poll as entered:
            self.check(entered is poll, "`with poll as entered` gives the poll", entered)
            poll.poll(0)
        self.expect_error(PollClosedError, poll.poll, 0)
        for _ in range(2):
            poll.close()
        with self.new_poll() as poll:
            poll.close()
        with pytest.raises(ZeroDivisionError), self.new_poll() as poll:
            1 // 0  # noqa: B018  # it is there to raise
        self.expect_error(PollClosedError, poll.poll, 0)

    def test_CLS_01_closing_again_finishes_what_a_signal_handler_cut_off(self) -> None:
        probe = self.make_poll()
        before = open_descriptors()

        def scene(interrupt: Interrupter) -> None:
            poll = self.new_poll()
            waiter = self.in_thread(poll.poll).blocked() if interrupt.step % 2 else None
            outcome = interrupt(poll.close, strike)
            poll.close()
            if waiter is not None:
                self.expect_error(PollClosedError, waiter.result)
            left = {fd: what for fd, what in open_descriptors().items() if fd not in before}
            self.check(not left, "no descriptor is left by the second close", f"{left}; {outcome}")

        at_each_step(scene, probe)

    def test_CLS_02_every_call_after_the_close_says_so(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near")
        poll.close()
        for source in near, far, far.fileno():
            self.expect_error(PollClosedError, poll.register, source, "source")
            self.expect_error(PollClosedError, poll.reregister, source, "source", Interest.READABLE, Mode.LEVEL)
            self.expect_error(PollClosedError, poll.rearm, source)
            self.expect_error(PollClosedError, poll.deregister, source)
        for timeout in None, 0, 1, -1:
            self.expect_error(PollClosedError, poll.poll, timeout)
        self.expect_error(PollClosedError, poll.fileno)
        self.expect_error(PollClosedError, Waker, poll, "waker")

    def test_CLS_03_closing_ends_the_wait_of_another_thread(self) -> None:
        for timeout in None, 1e6:
            poll = self.make_poll()
            waiter = self.in_thread(poll.poll, timeout).blocked()
            poll.close()
            self.expect_error(PollClosedError, waiter.result)

    def test_CLS_03_closing_from_a_handler_ends_the_wait_around_it(self) -> None:

        def interrupt() -> None:
            until_blocked(threading.main_thread())
            signal_main_thread()

        for timeout in None, 1e6:
            poll = self.make_poll()
            with self.on_signal(A_SIGNAL, partial(_close, poll)):
                interruption = self.in_thread(interrupt)
                self.expect_error(PollClosedError, poll.poll, timeout)
                interruption.result()

    @pytest.mark.parametrize("call", ["poll", "register", "reregister", "rearm", "deregister", "Waker"])
    def test_CLS_03_closing_from_a_handler_at_any_step_of_a_call_is_the_one_error(self, call: str) -> None:
        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll:
                near, far = self.socketpair()
                for letter in "ab":
                    Waker(poll, letter).wake()
                if call != "register":
                    poll.register(near, "near", Interest.READABLE)
                outcome = interrupt(calls_of(poll, near)[call], poll.close)
                self.check(
                    outcome.error is None or isinstance(outcome.error, PollClosedError),
                    "PollClosedError, or success if the call was as good as done",
                    outcome,
                )
                if outcome.where:
                    self.expect_error(PollClosedError, poll.poll, 0)
                near.close()
                far.close()

        at_each_step(scene, self.make_poll())

    def test_CLS_04_calls_under_way_at_the_close_touch_no_stranger(self) -> None:
        for _ in range(20):
            poll = self.new_poll()
            near, far = self.socketpair()
            poll.register(near, "near")
            over, changing, waking = (threading.Event() for _ in range(3))

            def keep_changing(
                poll: Poll[object] = poll, near: socket.socket = near, changing: threading.Event = changing
            ) -> None:
                with suppress(PollClosedError):
                    while True:
                        poll.reregister(near, "near", Interest.READABLE, Mode.ONESHOT)
                        poll.rearm(near)
                        changing.set()

            def keep_waking(
                waker: Waker[object], over: threading.Event = over, waking: threading.Event = waking
            ) -> None:
                while not over.is_set():
                    waker.wake()
                    waking.set()

            waker = Waker(poll, "waker")
            waiter = self.in_thread(self._wait_until_closed, poll)
            calls = [self.in_thread(keep_changing), self.in_thread(keep_waking, waker)]
            for begun in changing, waking:
                begun.wait(SIGNAL_WAIT)
            poll.close()
            strangers = [self.socketpair() for _ in range(4)]  # they get the numbers as soon as these are free
            over.set()
            for running in waiter, *calls:
                running.result()
            for end in (end for pair in strangers for end in pair):
                self.expect_error(BlockingIOError, end.recv, 1)
            for end in near, far, *(end for pair in strangers for end in pair):
                end.close()  # EBADF if somebody else has closed its number

    @pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "nonblocking"])
    def test_CLS_05_sources_stay_open_unchanged_and_free_for_another_poll(self, blocking: bool) -> None:
        for make in self.socketpair, self.net_tcp_pair:
            for mode in Mode:
                if mode is Mode.EDGE and make == self.socketpair and not self.has(Capability.NATIVE_EDGE):
                    continue
                first, second = self.new_poll(), self.make_poll()
                near, far = make()
                near.setblocking(blocking)
                untouched = {name: getattr(near, name) for name in ("recv", "send", "__class__")}
                first.register(near, "first", Interest.READ_WRITE, mode)
                send(far, b"x")
                self.expect_events(first, {"first": "rw"})
                first.close()
                if sys.platform != "win32":  # which does not tell
                    now = os.get_blocking(near.fileno())
                    self.check(now == blocking, f"blocking as before: {blocking}", now)
                methods = {name: getattr(near, name) for name in untouched}
                self.check(methods == untouched, f"the source's methods are its own: {untouched}", methods)
                near.setblocking(False)
                send(far, b"y")
                send(near, b"z")
                arrived(far)
                self.check((data := drain(far)) == b"z", "what is sent after the close arrives", data)
                second.register(near, "second", Interest.READ_WRITE, mode)
                self.expect_events(second, {"second": "rw"})
                self.check(
                    (data := drain(near)) == b"xy", "what came before the close is there, and what came after", data
                )

    def test_CLS_06_a_thousand_polls_leave_nothing_behind(self) -> None:
        near, _far = self.socketpair()
        self.new_poll().close()  # what is imported or opened once and for all
        before, threads = open_descriptors(), threading.active_count()
        for _ in range(1000):
            poll = self.new_poll()
            poll.register(near, "near")
            Waker(poll, "waker").wake()
            poll.poll(0)
            poll.close()
        self.check(open_descriptors() == before, f"the descriptors of before: {before}", open_descriptors())
        self.check(threading.active_count() == threads, f"{threads} threads", threading.enumerate())

    def test_CLS_06_a_constructor_that_fails_halfway_leaves_nothing_behind(self) -> None:
        # In a child, which can be left with few descriptors: with none, with one, and so on, until a poll can be made.
        def make_with_few() -> list[str]:
            if sys.platform == "win32":
                raise NotImplementedError("this platform has no fork")
            import resource

            self.new_poll().close()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            leaks = []
            for allowed in range(32):
                before = open_descriptors()
                free = [number for number in range(max(before) + 40) if number not in before]
                resource.setrlimit(resource.RLIMIT_NOFILE, (free[allowed], hard))
                try:
                    self.new_poll().close()
                    made = True
                except OSError:
                    made = False
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                left = {fd: what for fd, what in open_descriptors().items() if fd not in before}
                if left:
                    leaks.append(f"with {allowed} descriptors to spare {left} is left")
                if made:
                    return leaks
            return [*leaks, "a poll takes more than 32 descriptors"]

        if not open_descriptors():
            pytest.skip("this platform cannot say which descriptors are open")
        leaks = self.in_child(make_with_few)
        self.check(not leaks, "nothing is left of a poll that could not be made", "\n".join(leaks))

    # -- fork --------------------------------------------------------------------------------------------------------

    def test_FRK_01_a_forked_child_is_told_and_the_parents_poll_is_intact(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near", Interest.READABLE, Mode.ONESHOT)
        waker = Waker(poll, "waker")

        def in_the_child() -> None:
            for _ in range(2):
                for timeout in None, 0:
                    self.expect_error(ForkedPollError, poll.poll, timeout)
                self.expect_error(ForkedPollError, poll.register, far, "far")
                self.expect_error(ForkedPollError, poll.reregister, near, "n", Interest.WRITABLE, Mode.LEVEL)
                self.expect_error(ForkedPollError, poll.rearm, near)
                self.expect_error(ForkedPollError, poll.deregister, near)
                self.expect_error(ForkedPollError, poll.fileno)
                self.expect_error(ForkedPollError, waker.wake)

        self.in_child(in_the_child)
        self.expect_silence(poll)
        self._expect_intact(poll, waker, near, far)

    def test_FRK_01_a_lock_that_another_thread_holds_at_the_fork_blocks_no_child(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near", Interest.READABLE, Mode.ONESHOT)
        waker = Waker(poll, "waker")
        over = threading.Event()

        def keep_changing() -> None:
            other, _ = self.socketpair()
            while not over.is_set():
                poll.register(other, "other")
                poll.deregister(other)

        def be_refused() -> None:
            self.expect_error(ForkedPollError, poll.deregister, near)

        changer = self.in_thread(keep_changing)
        try:
            for _ in range(10):
                self.in_child(be_refused)
                self.in_child(poll.close)
        finally:
            over.set()
            changer.result()
        self._expect_intact(poll, waker, near, far)

    def test_FRK_02_closing_in_a_child_leaves_the_parents_poll_intact(self, poll: Poll[object]) -> None:
        near, far = self.socketpair()
        poll.register(near, "near", Interest.READABLE, Mode.ONESHOT)
        waker = Waker(poll, "waker")

        def close_and_use_the_numbers() -> None:
            # The fork has set the poll's numbers free, and the close is not to take them from those who have them now.
            strangers = [socket.socketpair() for _ in range(50)]
            for _ in range(2):
                poll.close()
                for one, other in strangers:
                    one.send(b"x")
                    assert other.recv(1) == b"x"
            with self.new_poll() as mine:
                mine.register(near, "mine")
                mine.poll(0)

        waiter = self.in_thread(poll.poll).blocked()
        self.in_child(close_and_use_the_numbers)
        waiter.blocked()
        self.check(waiter.thread.is_alive(), "the parent's wait goes on", "it ended")
        waker.wake()
        events = waiter.result()
        self.check([event.token for event in events] == ["waker"], "the parent's own wake", events)
        self._expect_intact(poll, waker, near, far)

    def test_FRK_03_collecting_in_a_child_has_no_effect_on_the_parents_poll(self) -> None:
        if sys.platform == "win32":
            pytest.skip("this platform has no fork")
        # The names are taken out of this list, in the child only, and with them the last references there.
        near, far = self.socketpair()
        held: list[object] = [self.new_poll(), near]
        poll = held[0]
        assert isinstance(poll, Poll)
        poll.register(near, "near", Interest.READABLE, Mode.ONESHOT)
        held.append(Waker(poll, "waker"))
        del poll

        def collect() -> bool:
            nonlocal near
            gone = weakref.ref(held[0])
            # Whoever has the poll's numbers now, if they are free here, is not to lose them by its end.
            strangers = [socket.socketpair() for _ in range(50)]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                held.clear()
                del near
                gc.collect()
            for one, other in strangers:
                one.send(b"x")
                assert other.recv(1) == b"x"
            return gone() is None

        collected = self.in_child(collect)
        assert collected, "the child's poll was held by this test"
        poll, _, waker = held
        assert isinstance(poll, Poll)
        assert isinstance(waker, Waker)
        self.expect_silence(poll)
        self._expect_intact(poll, waker, near, far)
        poll.close()

    # -- collection ----------------------------------------------------------------------------------------------

    def test_GCL_01_a_poll_that_is_dropped_warns_and_releases_its_descriptors(self) -> None:
        near, far = self.socketpair()
        before = open_descriptors()
        for use in "nothing", "a registration", "an interrupted wait":
            poll = self.new_poll()
            if use != "nothing":
                poll.register(near, "near")
                Waker(poll, "waker")
            if use == "an interrupted wait":
                send(far, b"x")
                Interrupter(2, frozenset({"polling"}))(partial(poll.poll, 0), strike)
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                del poll
                gc.collect()  # where it is held by a cycle
            said = [f"{warning.category.__name__}: {warning.message}" for warning in warned]
            self.check(
                any(issubclass(warning.category, ResourceWarning) for warning in warned),
                f"ResourceWarning from a poll with {use} that is dropped",
                said or "no warning",
            )
            self.check(open_descriptors() == before, f"the descriptors of before: {before}", open_descriptors())

    def test_GCL_01_a_closed_poll_does_not_warn(self) -> None:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            poll = self.new_poll()
            poll.close()
            del poll
            gc.collect()
        self.check(not warned, "no warning", [str(warning.message) for warning in warned])

    def test_GCL_02_dropping_a_poll_frees_tokens_at_once(self) -> None:
        near, _far = self.socketpair()
        net_near, _net_far = self.net_tcp_pair()
        tokens = [Token() for _ in range(3)]
        freed = [weakref.ref(token) for token in tokens]
        gc.collect()
        gc.disable()
        try:
            for close in True, False:
                poll = self.new_poll()
                tokens = [Token() for _ in range(3)]
                freed = [weakref.ref(token) for token in tokens]
                poll.register(near, tokens[0], Interest.WRITABLE)
                poll.register(net_near, tokens[1], Interest.WRITABLE, Mode.EDGE)
                Waker(poll, tokens[2]).wake()
                self.expect_events(poll, dict(zip(tokens, "wwr", strict=True)))
                del tokens
                self.check(all(token() for token in freed), "tokens live while registered", freed)
                if close:
                    poll.close()
                    self.check(not any(token() for token in freed), "close frees the tokens", freed)
                    del poll
                else:
                    gone = weakref.ref(poll)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", ResourceWarning)
                        del poll
                    self.check(gone() is None, "the poll is gone without the collector", "it is held by a cycle")
                    self.check(not any(token() for token in freed), "dropping the poll frees the tokens", freed)
        finally:
            gc.enable()

    def test_GCL_02_dropping_a_source_closes_it_and_releases_its_token(self, poll: Poll[object]) -> None:
        for make in self._unkept_socketpair, self._unkept_net_pair:
            for mode in Mode:
                if mode is Mode.EDGE and make == self._unkept_socketpair and not self.has(Capability.NATIVE_EDGE):
                    continue
                near, far = make()
                token = Token()
                freed, gone, number = weakref.ref(token), weakref.ref(near), near.fileno()
                poll.register(near, token, Interest.READABLE, mode)
                far.send(b"x")
                self.expect_events(poll, {token: "r"})
                del token
                gc.disable()
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", ResourceWarning)
                        del near
                    self.check(gone() is None, f"a {mode.name} source is gone when its last reference is", gone())
                    self.check(freed() is None, f"its token is released (in {mode.name})", freed())
                finally:
                    gc.enable()
                self.check(number not in open_descriptors(), f"descriptor {number} is closed", "it is open")
                self.expect_silence(poll)
                far.close()

    def test_GCL_03_a_late_finaliser_leaves_the_numbers_new_owner_alone(self, poll: Poll[object]) -> None:
        if sys.platform == "win32":
            pytest.skip("this platform gives no socket a number of one's choice")
        for end_of in self._collect_elsewhere, self._deregister_late:
            old, old_far = self._unkept_socketpair()
            number = old.fileno()
            poll.register(old, "old")
            keeper = [old]
            old.close()
            del old
            near, far = self._unkept_socketpair()
            moved = _moved_to(near, number)
            poll.register(moved, "new")
            end_of(poll, keeper)
            far.send(b"x")
            self.expect_events(poll, {"new": "r"})
            poll.deregister(moved)
            for end in moved, far, old_far:
                end.close()

    def test_GCL_04_the_polls_own_descriptors_are_not_inheritable(self) -> None:
        before = set(open_descriptors())
        with self.new_poll() as poll:
            own = set(open_descriptors()) - before | set(poll.backend.internal)
            if sys.platform == "win32":
                inheritable = sorted(fd for fd in own if os.get_handle_inheritable(fd))
            else:
                inheritable = sorted(fd for fd in own if os.get_inheritable(fd))
        self.check(not inheritable, f"none of the poll's descriptors {sorted(own)} is inheritable", inheritable)

    # -- words ---------------------------------------------------------------------------------------------------

    def _expect_intact(self, poll: Poll[object], waker: Waker[object], near: socket.socket, far: socket.socket) -> None:
        """Check that the registration, still armed as a oneshot, and the waker work as ever."""
        __tracebackhide__ = True
        send(far, b"x")
        self.expect_events(poll, {"near": "r"})
        self.expect_silence(poll)
        waiter = self.in_thread(poll.poll).blocked()
        waker.wake()
        events = waiter.result()
        self.check([event.token for event in events] == ["waker"], "the event of the waker", events)
        poll.rearm(near)
        self.expect_events(poll, {"near": "r"})

    def _wait_until_closed(self, poll: Poll[object]) -> None:
        with suppress(PollClosedError):
            while True:
                poll.poll()

    def _collect_elsewhere(self, _poll: Poll[object], keeper: list[socket.socket]) -> None:
        """Drop the last reference in another thread."""
        self.in_thread(keeper.clear).result()
        gc.collect()

    def _deregister_late(self, poll: Poll[object], keeper: list[socket.socket]) -> None:
        with suppress(PollingError):  # that it is not registered
            poll.deregister(keeper[0])
        keeper.clear()

    def _unkept_socketpair(self) -> tuple[socket.socket, socket.socket]:
        """Two sockets that nothing but the caller refers to."""
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        return near, far

    def _unkept_net_pair(self) -> tuple[socket.socket, socket.socket]:
        listener = net.TcpListener.open(("127.0.0.1", 0))
        with listener:
            near, far = net.TcpStream.open(listener.getsockname()), None
            while far is None:
                with suppress(BlockingIOError):
                    far, _ = listener.accept()
        return near, far


class Token:
    """A token that can be seen to be freed."""


def _close(poll: Poll[object], _signum: int, _frame: FrameType | None) -> None:
    poll.close()


def _moved_to(sock: socket.socket, number: int) -> socket.socket:
    """Give *sock* another number, that of a descriptor that was closed."""
    if sock.fileno() == number:
        return sock
    os.dup2(sock.fileno(), number, inheritable=False)
    moved = socket.socket(fileno=number)
    moved.setblocking(False)
    sock.close()
    return moved
