"""What is particular to the code behind ``Signals``; the rules SIG-05 and SIG-07 to SIG-10 say the rest."""

from __future__ import annotations

import signal
import sys
import threading

import pytest

from polling import Signals
from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.running import until_blocked

if sys.platform == "win32":
    THREE = signal.SIGTERM, signal.SIGINT, signal.SIGBREAK
else:
    THREE = signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2


def test_none_is_closed_while_the_relay_rings_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = [Signals([number]) for number in THREE]
    last, main = opened[-1], threading.current_thread()
    ring, ringing, rung = last._ring, threading.Event(), threading.Event()
    was_open: list[bool] = []

    def slow_ring() -> None:
        if threading.current_thread() is not main:
            ringing.set()
            until_blocked(main)  # in ``close``, or, if that is through, below
            was_open.append(last.fileno() >= 0)
        ring()
        if was_open:
            rung.set()

    monkeypatch.setattr(last, "_ring", slow_ring)
    try:
        signal.raise_signal(THREE[-1])
        assert ringing.wait(SIGNAL_WAIT)
        last.close()
        assert rung.wait(SIGNAL_WAIT)
        assert was_open == [True]
    finally:
        for signals in opened:
            signals.close()
