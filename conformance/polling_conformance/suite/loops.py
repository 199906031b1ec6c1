"""LOP: an `EventLoop` calls its handler for all that there is, and knows whose fault an exception is."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from polling import Event, EventLoop, Handler, Interest, Mode, PollBusyError, PollClosedError, Signals
from polling.backend import Source
from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.ends import arrived, send
from polling_conformance.harness import Harness
from polling_conformance.running import until_blocked

__all__ = ["LoopRules"]


class Recorder(Handler[Any, Any, Any]):
    """Writes down what it is called for, and does what it is told to do then."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.then: dict[tuple[str, object], Callable[[], object]] = {}

    def _called(self, method: str, what: object) -> None:
        self.calls.append((method, what))
        self.then.get((method, what), lambda: None)()

    def ready(self, loop: EventLoop[Any, Any, Any], token: object, event: Event[Any]) -> None:
        assert event.token is token
        self._called("ready", token)

    def notify(self, loop: EventLoop[Any, Any, Any], message: object) -> None:
        self._called("notify", message)

    def timeout(self, loop: EventLoop[Any, Any, Any], state: object) -> None:
        self._called("timeout", state)

    def signal(self, loop: EventLoop[Any, Any, Any], number: signal.Signals) -> None:
        self._called("signal", number)

    def interrupted(self, loop: EventLoop[Any, Any, Any]) -> None:
        self._called("interrupted", None)

    def tick(self, loop: EventLoop[Any, Any, Any]) -> None:
        self._called("tick", None)

    def error(self, loop: EventLoop[Any, Any, Any], token: object, source: Source, error: Exception) -> None:
        self.then.get(("error", token), lambda: loop.reset(source))()


class Mistake(Exception):  # no error: what a handler raises here on purpose
    """Raised by a handler."""


def mistake() -> None:
    raise Mistake


class LoopRules(Harness):
    """One connection's failure is its own, a listener's is everybody's."""

    def _loop(self) -> EventLoop[Any, Any, Any]:
        loop = self.event_loop(self.backend)
        self._polls.callback(loop.close)
        return loop

    def _turn(self, loop: EventLoop[Any, Any, Any], handler: Recorder) -> None:
        """Run once; what a handler raises on purpose must not come out."""
        __tracebackhide__ = True
        try:
            loop.run_once(handler, SIGNAL_WAIT)
        except Mistake as error:
            raise self.failure("a connection's failure does not end the loop", f"{error!r} out of it") from error

    def _expect_reset(self, far: socket.socket) -> None:
        """Expect that the other end was reset: if it was closed in order, a byte could still be sent."""
        __tracebackhide__ = True
        arrived(far)
        self.expect_error(ConnectionError, far.send, b"x")  # Wine's recv would say end of stream

    def test_LOP_01_each_kind_of_event_goes_to_its_method_and_a_tick_ends_the_turn(self) -> None:
        loop, handler = self._loop(), Recorder()
        near, far = self.socketpair()
        loop.register(near, "near", Interest.READABLE, Mode.ONESHOT)
        send(far, b"x")
        arrived(near)
        for message in "message", "another":
            loop.channel().send(message)
        loop.timeout(0, "state")
        cancelled = loop.timeout(0, "cancelled")
        cancelled.cancel()
        loop.run_once(handler, 0)
        expected = {("ready", "near"), ("notify", "message"), ("notify", "another"), ("timeout", "state")}
        self.check({*handler.calls[:-1]} == expected, f"{expected}", handler.calls)
        self.check(len(handler.calls) == 5, "each once", handler.calls)
        self.check(handler.calls[-1] == ("tick", None), "the tick at the end", handler.calls)
        handler.calls.clear()
        loop.run_once(handler, 0)
        self.check(handler.calls == [("tick", None)], "a tick and nothing else", handler.calls)
        loop.reregister(near, "again", Interest.READABLE, Mode.LEVEL)
        loop.run_once(handler, SIGNAL_WAIT)
        loop.deregister(near)
        loop.run_once(handler, 0)
        ready = [call for call in handler.calls if call[0] == "ready"]
        self.check(ready == [("ready", "again")], "ready once, under the new token", ready)

    def test_LOP_01_who_closes_the_channel_ends_the_messages_and_not_the_loop(self) -> None:
        loop, handler = self._loop(), Recorder()
        near, far = self.socketpair()
        loop.register(near, "near")
        with loop.channel() as sender:
            sender.send("last words")
        for _ in range(3):
            loop.run_once(handler, 0)
        self.check(("notify", "last words") in handler.calls, "what was sent before", handler.calls)
        send(far, b"x")
        arrived(near)
        loop.run_once(handler, 0)
        self.check(("ready", "near") in handler.calls, "the sources are served", handler.calls)

    def test_LOP_01_signals_go_to_their_method(self) -> None:
        loop, handler = self._loop(), Recorder()
        with self.signals([signal.SIGTERM]) as signals:
            loop.register(signals, "signals")
            signal.raise_signal(signal.SIGTERM)
            loop.run_once(handler, SIGNAL_WAIT)
            loop.deregister(signals)
        self.check(handler.calls == [("signal", signal.SIGTERM), ("tick", None)], "signal, tick", handler.calls)
        assert isinstance(signals, Signals)

    def test_LOP_02_a_connections_failure_resets_it_and_nobody_else(self) -> None:
        loop, handler = self._loop(), Recorder()
        ends = {token: self.tcp_pair() for token in "abc"}
        for token, (near, far) in ends.items():
            loop.register(near, token)
            send(far, b"x")
            arrived(near)
        handler.then["ready", "b"] = mistake
        self._turn(loop, handler)
        while len({*handler.calls}) < 4:
            self._turn(loop, handler)
        self.check(ends["b"][0].fileno() < 0, "the connection whose handler raised is closed", "it is open")
        self._expect_reset(ends["b"][1])
        for token in "ac":
            self.check(ends[token][0].fileno() >= 0, "the others are open", f"{token} is closed")
        handler.calls.clear()
        self._turn(loop, handler)
        called = {call for call in handler.calls if call[0] == "ready"}
        self.check(called == {("ready", "a"), ("ready", "c")}, "the others go on", handler.calls)

    def test_LOP_02_a_handler_can_see_to_errors_itself(self) -> None:
        seen: list[object] = []

        class Careful(Recorder):
            def error(self, loop: EventLoop[Any, Any, Any], token: object, source: object, error: Exception) -> None:
                seen.extend([token, source, type(error)])

        loop, handler = self._loop(), Careful()
        near, far = self.socketpair()
        loop.register(near, "near", Interest.READABLE, Mode.ONESHOT)
        send(far, b"x")
        handler.then["ready", "near"] = mistake
        self._turn(loop, handler)
        self.check(seen == ["near", near, Mistake], "token, source and error", seen)
        self.check(near.fileno() >= 0, "it is open: nobody closed it", "it is closed")

    def test_LOP_02_a_failure_in_a_loop_that_its_handler_closed_resets_the_connection(self) -> None:
        loop, handler = self._loop(), Recorder()
        near, far = self.tcp_pair()
        loop.register(near, "near")
        send(far, b"x")
        arrived(near)

        def close_and_fail() -> None:
            loop.close()
            raise Mistake

        handler.then["ready", "near"] = close_and_fail
        self._turn(loop, handler)
        self.check(near.fileno() < 0, "the connection is closed", "it is open")
        self._expect_reset(far)
        self.expect_error(PollClosedError, loop.run_once, handler, 0)

    def test_LOP_02_a_connection_that_its_handler_removed_before_it_failed(self) -> None:
        for remove in "close", "deregister", "reset":
            loop, handler = self._loop(), Recorder()
            near, far = self.socketpair()
            loop.register(near, "near")
            send(far, b"x")
            calls: dict[str, Callable[[], object]] = {
                "close": near.close,
                "deregister": partial(loop.deregister, near),
                "reset": partial(loop.reset, near),
            }

            def fail(remove: Callable[[], object] = calls[remove]) -> None:
                remove()
                mistake()

            handler.then["ready", "near"] = fail
            self._turn(loop, handler)
            self.check(handler.calls == [("ready", "near"), ("tick", None)], "ready, tick", handler.calls)
            self.check(near.fileno() < 0, "the connection is closed", "it is open")

    @pytest.mark.parametrize("culprit", ["listener", "notify", "timeout", "tick", "error", "signal"])
    def test_LOP_03_any_other_failure_resets_all_connections_and_is_raised(self, culprit: str) -> None:
        loop, handler = self._loop(), Recorder()
        near, far = self.tcp_pair()
        listener = self.listener()
        signals = self.signals([signal.SIGTERM])
        loop.register(near, "near")
        loop.register(listener, "listener")
        if culprit == "listener":
            client = socket.create_connection(listener.getsockname(), SIGNAL_WAIT)
            self._sources.callback(client.close)
            handler.then["ready", "listener"] = mistake
        elif culprit == "notify":
            loop.channel().send("it")
            handler.then["notify", "it"] = mistake
        elif culprit == "timeout":
            loop.timeout(0, "it")
            handler.then["timeout", "it"] = mistake
        elif culprit == "error":
            other, writer = self.socketpair()
            loop.register(other, "other")
            send(writer, b"x")
            handler.then["ready", "other"] = mistake
            handler.then["error", "other"] = mistake
        elif culprit == "signal":
            loop.register(signals, "signals")
            signal.raise_signal(signal.SIGTERM)
            handler.then["signal", signal.SIGTERM] = mistake
        else:
            loop.timeout(0, "it")
            handler.then["tick", None] = mistake
        running = self.in_thread(loop.run, handler)
        self.expect_error(Mistake, running.result)
        signals.close()
        self.check(near.fileno() < 0, "the connection is closed", "it is open")
        self._expect_reset(far)
        self.check(listener.fileno() >= 0, "the listener is the caller's to close", "it is closed")

    def test_LOP_03_what_is_no_failure_changes_nothing_and_the_rest_follows(self) -> None:
        loop, handler = self._loop(), Recorder()
        near, far = self.tcp_pair()
        loop.register(near, "near")
        send(far, b"x")
        arrived(near)
        for message in "abc":
            loop.channel().send(message)

        def stop() -> None:
            raise KeyboardInterrupt

        handler.then["notify", "a"] = stop
        try:
            loop.run_once(handler, 0)
        except KeyboardInterrupt:
            pass
        self.check(near.fileno() >= 0, "the connection is open", "it is closed")
        loop.run_once(handler, 0)
        expected = [("notify", "a"), ("notify", "b"), ("notify", "c"), ("ready", "near"), ("tick", None)]
        self.check(handler.calls == expected, f"{expected}", handler.calls)

    def test_LOP_03_a_second_waiter_is_told_and_harms_nobody(self) -> None:
        loop, handler = self._loop(), Recorder()
        near, far = self.tcp_pair()
        loop.register(near, "near")
        running = self.in_thread(loop.run, handler).blocked()
        self.expect_error(PollBusyError, loop.run_once, Recorder(), 0)
        handler.then["ready", "near"] = loop.shutdown
        self.check(near.fileno() >= 0, "the connection is open", "it is closed")
        send(far, b"x")
        running.result()

    def test_LOP_03_a_turn_within_a_turn_sees_to_what_is_left_of_it(self) -> None:
        loop, handler = self._loop(), Recorder()
        for message in "abc":
            loop.channel().send(message)
        handler.then["notify", "a"] = lambda: loop.run_once(handler, 0)
        loop.run_once(handler, 0)
        notified = [message for method, message in handler.calls if method == "notify"]
        self.check(notified == [*"abc"], "each message once", handler.calls)
        self.check(handler.calls[-1] == ("tick", None), "the tick at the end", handler.calls)

    @pytest.mark.parametrize("method", ["ready", "notify", "timeout", "tick", "error"])
    def test_LOP_04_shutdown_in_any_method_ends_run(self, method: str) -> None:
        loop, handler = self._loop(), Recorder()
        near, far = self.socketpair()
        loop.register(near, "it", Interest.READABLE, Mode.ONESHOT)
        if method in ("ready", "error"):
            send(far, b"x")
            handler.then["ready", "it"] = loop.shutdown if method == "ready" else mistake
            handler.then["error", "it"] = loop.shutdown
        else:
            loop.channel().send("it")
            loop.timeout(0, "it")
            handler.then[method, None if method == "tick" else "it"] = loop.shutdown
        self.in_thread(loop.run, handler).result()
        self.check(handler.calls[-1] == ("tick", None), "the turn is ended", handler.calls)
        self.check(handler.calls.count(("tick", None)) <= 2, "after two turns at most", handler.calls)

    def test_LOP_04_shutdown_ends_run(self) -> None:
        loop, handler = self._loop(), Recorder()
        for _ in range(2):
            running = self.in_thread(loop.run, handler).blocked()
            loop.shutdown()
            running.result()
        loop.shutdown()  # before it runs
        self.in_thread(loop.run, handler).result()
        loop.timeout(0, "last")
        handler.then["timeout", "last"] = loop.shutdown
        self.in_thread(loop.run, handler).result()
        self.check(handler.calls[-2:] == [("timeout", "last"), ("tick", None)], "the turn is ended", handler.calls)

    def test_LOP_05_what_an_earlier_event_removed_is_not_called(self) -> None:
        for remove in "close", "deregister":
            loop, handler = self._loop(), Recorder()
            ends = {token: self.socketpair() for token in "ab"}
            for token, (near, far) in ends.items():
                loop.register(near, token)
                send(far, b"x")
                other, _ = ends["b" if token == "a" else "a"]
                handler.then["ready", token] = other.close if remove == "close" else partial(loop.deregister, other)
            loop.run_once(handler, SIGNAL_WAIT)
            ready = [call for call in handler.calls if call[0] == "ready"]
            self.check(len(ready) == 1, "one of the two, which removes the other", ready)

    def test_LOP_05_a_handler_that_interrupts_ends_the_wait_and_not_the_loop(self) -> None:
        if sys.platform == "win32":
            pytest.skip("this platform cannot signal a thread")
        loop, handler = self._loop(), Recorder()
        main = threading.current_thread()

        def interrupt(_number: int, _frame: object) -> None:
            raise InterruptedError

        def send_signal() -> None:
            until_blocked(main)
            signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

        with self.on_signal(signal.SIGUSR1, interrupt):
            sending = self.in_thread(send_signal)
            loop.run_once(handler)
            sending.result()
        self.check(handler.calls == [("interrupted", None), ("tick", None)], "interrupted, tick", handler.calls)
