"""Why the wait looks as it does: every plain way to keep a fetched batch loses it in the storm of SIG-02.

The handler runs after the kernel's call has returned and before its result is stored, and then nobody has it.
``poll.py`` says what is done instead, and SIG-02 holds it to that in the same storm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from polling import Mode, Poll, available_backends
from polling.backend import Pair, Wait
from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.harness import Harness
from polling_conformance.suite.signals import Tally, storm

EPOLL = available_backends().get("epoll")  # like kqueue it forgets what it has reported; of the two it can fork

Fetch = Callable[[], Sequence[Pair]]


def assigned(fetch: Fetch) -> Sequence[Pair]:
    raw = fetch()
    return raw


def assigned_in_try(fetch: Fetch) -> Sequence[Pair]:
    raw: Sequence[Pair] = ()
    try:
        raw = fetch()
    finally:
        del fetch
    return raw


def assigned_under_a_lock(fetch: Fetch) -> Sequence[Pair]:
    with threading.Lock():
        raw = fetch()
    return raw


def put_into_a_list(fetch: Fetch) -> Sequence[Pair]:
    kept: list[Pair] = []
    kept.extend(fetch())
    return kept


@pytest.mark.skipif(EPOLL is None, reason="there is no epoll here")
@pytest.mark.parametrize("keep", [assigned, assigned_in_try, assigned_under_a_lock, put_into_a_list])
class TestNaiveWaits(Harness):
    backend = EPOLL or "epoll"

    def test_a_batch_that_crosses_a_call_is_lost(self, keep: Callable[[Fetch], Sequence[Pair]]) -> None:
        assert EPOLL is not None

        class Naive(EPOLL):  # type: ignore[misc,valid-type]  # it is epoll's backend, where there is one
            def waiter(self) -> Wait:
                wait: Wait = super().waiter()
                return lambda timeout, max_events: keep(lambda: wait(timeout, max_events))

        def in_the_child() -> Tally:
            pairs = [self.socketpair() for _ in range(8)]
            with Poll[object](Naive) as poll:
                return storm(poll, Mode.ONESHOT, pairs, seconds=SIGNAL_WAIT / 2)

        tally = self.in_child(in_the_child)
        assert tally.lost is not None, f"nothing was lost in {tally}"
