"""The contract, by the conformance kit, and what is particular to select."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from polling_select import SelectBackend

from polling import Poll, UnsupportedError
from polling_conformance import BackendConformance


class TestSelect(BackendConformance):
    backend = SelectBackend


@contextmanager
def beyond_the_end() -> Iterator[None]:
    """Have every number that is opened meanwhile be too large for select."""
    if sys.platform == "win32":
        pytest.skip("select has room for any number on Windows")
    import resource  # POSIX only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.skip("this process may not open a descriptor that is too large")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    taken: list[int] = []
    try:
        while not taken or taken[-1] < 1023:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_number_that_is_too_large_is_refused_and_the_rest_goes_on() -> None:
    near, far = socket.socketpair()
    with Poll(SelectBackend) as poll, near, far:
        poll.register(near, "near")
        with beyond_the_end(), socket.socket() as large, pytest.raises(UnsupportedError, match="is too large"):
            poll.register(large, "large")
        far.send(b"x")
        assert [event.token for event in poll.poll(10)] == ["near"]


def test_a_backend_that_cannot_watch_its_own_bell_leaves_nothing_open() -> None:
    with beyond_the_end():
        lowest = os.dup(0)
        os.close(lowest)
        with pytest.raises(UnsupportedError, match="too large"):
            Poll(SelectBackend)
        again = os.dup(0)
        os.close(again)
    assert lowest == again


def test_what_is_ready_is_reported_beside_what_was_closed() -> None:
    near, far = socket.socketpair()
    closed, other = socket.socketpair()
    with Poll(SelectBackend) as poll, near, far, other:
        poll.register(closed, "closed")
        poll.register(near, "near")
        far.send(b"x")
        closed.close()
        assert [event.token for event in poll.poll(0)] == ["near"]


@pytest.mark.skipif(sys.platform == "win32", reason="a socket of Windows is nothing that dup2 could close")
def test_a_bell_whose_other_end_is_closed_is_an_error_and_no_spin() -> None:
    with Poll(SelectBackend) as poll:
        _, ringing = poll.backend.internal
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, ringing)  # closes the socket and keeps the number taken
        os.close(null)
        with pytest.raises(OSError, match="closed the socket by which this poll is woken"):
            poll.poll(10)
