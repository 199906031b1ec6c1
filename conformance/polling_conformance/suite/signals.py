"""SIG: signals run their handlers during a wait, and cost neither events nor the deadline."""

from __future__ import annotations

import signal
import sys
import threading
import time

import pytest

from polling import Capability, Poll
from polling_conformance.harness import SILENCE, Harness, until_blocked

__all__ = ["SignalRules"]


class SignalRules(Harness):
    """A handler that returns leaves no trace in the wait; one that raises ends it, and loses no event.

    Single signals come from a thread that saw the main thread block. Storms run in a forked child (``in_child``),
    which has alarms of its own: here ``SIGALRM`` ends tests that hang.
    """

    def test_SIG_01_a_handler_that_returns_does_not_end_the_wait_early(self, poll: Poll[object]) -> None:
        if sys.platform == "win32":
            pytest.skip("this platform cannot signal a thread")
        self.needs(Capability.INTERRUPTIBLE)
        handled: list[int] = []

        def interrupt() -> None:
            until_blocked(threading.main_thread())
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        timeout = 10 * SILENCE
        with self.on_signal(signal.SIGUSR1, lambda signum, _frame: handled.append(signum)):
            interruption = self.in_thread(interrupt)
            start = time.monotonic()
            events = poll.poll(timeout)
            elapsed = time.monotonic() - start
            interruption.result()
        self.check(handled == [signal.SIGUSR1], "the handler ran once", repr(handled))
        self.check(not events and elapsed >= timeout, f"no event for {timeout} s", f"{events} after {elapsed:.6f} s")
