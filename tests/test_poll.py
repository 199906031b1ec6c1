"""The front object where the rules of the kit cannot reach: what an exception, a race or a finaliser leaves behind."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Client, Listener

import pytest

from polling import (
    Event,
    Interest,
    InvalidSourceError,
    Mode,
    NotRegisteredError,
    Poll,
    Readiness,
    Waker,
    available_backends,
)
from polling.backend import Pair, Wait
from polling.net import TcpListener, TcpStream, UdpSocket, pipe
from polling_backends.poll import PollBackend
from polling_conformance.ends import drain, fill
from polling_conformance.interrupt import Interrupter, Struck, at_each_step, strike

Sockets = tuple[socket.socket, socket.socket]
SILENT = 0.05
"""Seconds after which a poll that has nothing to say is believed."""


@pytest.fixture(params=available_backends())
def poll(request: pytest.FixtureRequest) -> Iterator[Poll[object]]:
    with Poll[object](request.param) as poll:
        yield poll


@pytest.fixture
def sockets() -> Generator[Sockets]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def tokens(events: list[Event[object]]) -> list[object]:
    return [event.token for event in events]


@contextmanager
def maybe_waiting(poll: Poll[object], during_a_wait: bool) -> Iterator[None]:
    """As if another thread had the wait, if so asked."""
    table = poll._table
    fetch = table.fetch
    if during_a_wait:
        table.fetch = None
    yield
    table.fetch = fetch


class Asking(PollBackend):
    """Counts how often it is asked for its waiter, and has that happen when it is told to."""

    asked = 0
    asks = False

    def waiter(self) -> Wait:
        self.asked += 1
        self.asks = False
        wait = super().waiter()

        def waiting(timeout: float | None, max_events: int) -> Sequence[Pair]:
            if self.asks:
                raise StopIteration
            return wait(timeout, max_events)

        return waiting


@pytest.mark.skipif(PollBackend.unavailable_reason() is not None, reason="this system has no poll(2)")
def test_a_wait_that_asks_for_the_waiter_has_it_asked_for_and_a_wake_has_not(sockets: Sockets) -> None:
    near, far = sockets
    backend = Asking()
    with Poll[object](backend) as poll:
        waker = Waker(poll, "waker")
        poll.register(near, "near")
        for _ in range(3):
            waker.wake()
            assert tokens(poll.poll()) == ["waker"]
        assert backend.asked == 1
        backend.asks = True
        far.send(b"x")
        assert tokens(poll.poll()) == ["near"]
        assert backend.asked == 2
        near.recv(1)
        backend.asks = True
        assert poll.poll(0) == []
        assert backend.asked == 3


@pytest.mark.parametrize("during_a_wait", [False, True])
def test_a_change_cut_off_at_any_step_is_wholly_made_or_wholly_absent(
    poll: Poll[object], sockets: Sockets, during_a_wait: bool
) -> None:
    near, far = sockets
    far.send(b"x")

    def scene(interrupt: Interrupter) -> None:
        poll.register(near, "old", Interest.WRITABLE)
        assert tokens(poll.poll(0)) == ["old"]
        with maybe_waiting(poll, during_a_wait):
            outcome = interrupt(lambda: poll.reregister(near, "new", Interest.READABLE, Mode.ONESHOT), strike)
        [event] = poll.poll(SILENT)
        old = ("old", False, True)
        new = ("new", True, False)
        assert (event.token, event.readable, event.writable) in ([old, new] if outcome.error else [new]), outcome
        assert bool(poll.poll(0)) == (event.token == "old"), outcome  # the new one is a oneshot
        poll.deregister(near)

    assert at_each_step(scene, poll) > 3


def test_a_change_that_the_kernel_refuses_keeps_nothing_out_of_the_next_batch(
    poll: Poll[object], sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    near, far = sockets
    poll.register(near, "near", Interest.WRITABLE)
    poll.register(far, "far", Interest.WRITABLE)
    monkeypatch.setattr(poll, "_change", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        poll.reregister(near, "new", Interest.READ_WRITE, Mode.ONESHOT)
    assert sorted(map(str, tokens(poll.poll(0)))) == ["far", "near"]


@pytest.mark.parametrize("during_a_wait", [False, True])
def test_a_registration_cut_off_at_any_step_is_reported_or_absent(
    poll: Poll[object], sockets: Sockets, during_a_wait: bool
) -> None:
    near, far = sockets
    far.send(b"x")

    def scene(interrupt: Interrupter) -> None:
        with maybe_waiting(poll, during_a_wait):
            outcome = interrupt(lambda: poll.register(near, "it"), strike)
        before = time.process_time()
        reported = tokens(poll.poll(SILENT))
        assert time.process_time() - before < SILENT / 2, f"{outcome}: the wait was spent spinning"
        if outcome.error is None or near.fileno() in poll._registrations:
            assert reported == ["it"], outcome
            poll.deregister(near)
        else:
            assert isinstance(outcome.error, Struck)
            assert reported == [], outcome

    assert at_each_step(scene, poll) > 3


@pytest.mark.parametrize("during_a_wait", [False, True])
def test_a_removal_cut_off_at_any_step_leaves_no_event_behind(
    poll: Poll[object], sockets: Sockets, during_a_wait: bool
) -> None:
    near, far = sockets

    def scene(interrupt: Interrupter) -> None:
        poll.register(near, "old")
        far.send(b"x")
        assert tokens(poll.poll(0)) == ["old"]
        near.recv(1)
        with maybe_waiting(poll, during_a_wait):
            outcome = interrupt(lambda: poll.deregister(near), strike)
        far.send(b"x")
        registered = near.fileno() in poll._registrations
        assert tokens(poll.poll(SILENT)) == (["old"] if registered else []), outcome
        if registered:
            poll.deregister(near)
        poll.register(near, "new")
        assert tokens(poll.poll(SILENT)) == ["new"], outcome
        poll.deregister(near)
        near.recv(1)

    assert at_each_step(scene, poll) > 3


def cut_off_a_wait(poll: Poll[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch a batch that is not handed out, as when a signal handler raises at that moment."""
    with monkeypatch.context() as patch:
        patch.setattr(poll.backend, "decode", lambda bits, interest: strike())
        with pytest.raises(Struck):
            poll.poll(0)


@pytest.mark.parametrize("mode", [Mode.ONESHOT, Mode.EDGE_ONESHOT])
def test_a_oneshot_whose_batch_was_cut_off_is_armed_in_both_directions(
    poll: Poll[object], sockets: Sockets, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    near, far = sockets
    fill(near)
    far.send(b"x")
    poll.register(near, "near", Interest.READ_WRITE, mode)
    cut_off_a_wait(poll, monkeypatch)  # it was readable, and only that
    near.recv(1)
    assert poll.poll(0) == []
    drain(far)
    [event] = poll.poll(SILENT)
    assert event.writable


@pytest.mark.skipif(sys.platform == "win32", reason="on Windows no socket can be put under a number")
@pytest.mark.parametrize("mode", [Mode.ONESHOT, Mode.EDGE_ONESHOT])
def test_a_batch_cut_off_arms_nobody_elses_number(
    poll: Poll[object], sockets: Sockets, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    near, far = sockets
    far.send(b"x")
    poll.register(near, "near", Interest.READABLE, mode)
    cut_off_a_wait(poll, monkeypatch)
    number = near.fileno()
    near.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        if ours.fileno() != number:
            os.dup2(ours.fileno(), number)
        try:
            assert poll.poll(SILENT) == []
        finally:
            if ours.fileno() != number:
                os.close(number)


@pytest.mark.parametrize("mode", [Mode.LEVEL, Mode.ONESHOT])
@pytest.mark.parametrize("interest", [Interest.READABLE, Interest.NONE])
def test_a_change_that_two_handlers_left_half_undone_is_undone_by_the_next_wait(
    poll: Poll[object], sockets: Sockets, monkeypatch: pytest.MonkeyPatch, interest: Interest, mode: Mode
) -> None:
    near, far = sockets
    backend = poll.backend
    make, decode = backend.reregister if interest else backend.register, backend.decode
    decoded: list[int] = []

    def change(fd: int, interest: Interest, mode: Mode) -> None:
        if interest is Interest.READ_WRITE:
            make(fd, interest, mode)
        strike()  # after it was made, and before it is undone

    def drop(fd: int) -> None:
        strike()

    def count(bits: int, interest: Interest) -> Readiness:
        decoded.append(bits)
        return decode(bits, interest)

    poll.register(near, "near", interest, mode)
    with monkeypatch.context() as patch:
        for name, patched in ("_change", change), ("_add", change), ("_drop", drop):
            patch.setattr(poll, name, patched)
        with pytest.raises(Struck):
            poll.reregister(near, "other", Interest.READ_WRITE, mode)
    monkeypatch.setattr(backend, "decode", count)
    assert poll.poll(SILENT) == []
    assert len(decoded) <= 2
    far.send(b"x")
    assert tokens(poll.poll(10 if interest else SILENT)) == (["near"] if interest else [])


def test_a_wait_of_no_time_sees_what_is_ready_behind_the_doorbell(poll: Poll[object], sockets: Sockets) -> None:
    near, far = sockets
    poll.backend.wake()
    poll.register(near, "near")
    far.send(b"x")
    assert tokens(poll.poll(0, max_events=1)) == ["near"]


def test_an_object_whose_fileno_raises_os_error_once_closed_is_a_closed_source(poll: Poll[object]) -> None:
    with Listener(("127.0.0.1", 0)) as listener:  # Pipe's are no sockets on Windows
        reader = Client(listener.address)
        writer = listener.accept()
    with writer:
        poll.register(reader, "reader")
        reader.close()
        with pytest.raises(InvalidSourceError):
            poll.register(reader, "again")
        with pytest.raises(InvalidSourceError):
            poll.reregister(reader, "again", Interest.READABLE, Mode.LEVEL)
        with pytest.raises(InvalidSourceError):
            poll.rearm(reader)
        poll.deregister(reader)
        with pytest.raises(NotRegisteredError):
            poll.deregister(reader)


def test_a_poll_dropped_unclosed_lets_go_even_if_the_warning_is_an_error(
    poll: Poll[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    with UdpSocket.open(("127.0.0.1", 0)) as reader:
        dropped = Poll[object](type(poll.backend))
        dropped.register(reader, "reader", mode=Mode.EDGE)
        del dropped
        assert unraisable == [ResourceWarning]
        poll.register(reader, "reader", mode=Mode.EDGE)  # which a source that still reports elsewhere refuses


FORK_IN_A_HANDLER = """
import os, signal, sys
from polling import ForkedPollError, Poll

def fork(signum, frame):
    global child
    child = os.fork()

signal.signal(signal.SIGALRM, fork)
with Poll(sys.argv[1]) as poll:
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        poll.poll(0.2)
    except ForkedPollError:
        os._exit(0 if child == 0 else 3)
    except BaseException:
        os._exit(2)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_child_forked_by_a_handler_in_a_wait_leaves_the_wait_with_the_one_error(poll: Poll[object]) -> None:
    script = subprocess.run([sys.executable, "-c", FORK_IN_A_HANDLER, poll.backend.name], timeout=30, check=False)
    assert script.returncode == 0


class Empty:
    """A source that counts as false, as a container of pending requests may."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __len__(self) -> int:
        return 0

    def fileno(self) -> int:
        return self._sock.fileno()


class EmptyStream(TcpStream):
    """The same, of a kind that may be watched for edges everywhere."""

    __slots__ = ()

    def __len__(self) -> int:
        return 0


def test_a_source_that_counts_as_false_is_a_source(poll: Poll[object], sockets: Sockets) -> None:
    near, far = sockets
    source = Empty(near)
    poll.register(source, "source")
    far.send(b"x")
    assert tokens(poll.poll(0)) == ["source"]
    with TcpListener.open(("127.0.0.1", 0)) as listener, EmptyStream.open(listener.getsockname()) as stream:
        poll.register(stream, "stream", Interest.WRITABLE)
        poll.reregister(stream.fileno(), "stream", Interest.WRITABLE, Mode.EDGE)
        assert "stream" in tokens(poll.poll(10))


def test_a_handler_that_waits_in_the_midst_of_a_change_leaves_no_outdated_event(
    poll: Poll[object], sockets: Sockets
) -> None:
    near, far = sockets
    far.send(b"x")

    def scene(interrupt: Interrupter) -> None:
        poll.register(near, "old", Interest.READ_WRITE)
        outcome = interrupt(lambda: poll.reregister(near, "new", Interest.READABLE, Mode.LEVEL), lambda: poll.poll(0))
        [event] = poll.poll(SILENT)
        assert (event.token, event.writable) == ("new", False), outcome
        poll.deregister(near)

    assert at_each_step(scene, poll) > 3


@pytest.mark.parametrize("afterwards", [(), ("new",)])
def test_a_handler_that_makes_changes_in_the_midst_of_a_wait_is_heeded_from_then_on(
    poll: Poll[object], sockets: Sockets, afterwards: tuple[str, ...]
) -> None:
    near, far = sockets
    far.send(b"x")

    def change() -> None:
        poll.deregister(near)
        for token in afterwards:
            poll.register(near, token)

    def scene(interrupt: Interrupter) -> None:
        poll.register(near, "old")
        outcome = interrupt(lambda: poll.poll(0), change)
        assert outcome.error is None, outcome
        assert tokens(outcome.returned or []) in ([], ["old"], [*afterwards]), outcome
        if outcome.where:
            assert tokens(poll.poll(10 if afterwards else 0)) == [*afterwards], outcome
        if afterwards or not outcome.where:
            poll.deregister(near)

    assert at_each_step(scene, poll) > 3


def test_nothing_that_closes_is_copied_and_an_event_is_its_own_copy(poll: Poll[object], sockets: Sockets) -> None:
    near, far = sockets
    reader, writer = pipe()
    with reader, writer:
        for copied in copy.copy, copy.deepcopy, pickle.dumps:
            for original in poll, reader:
                with pytest.raises(TypeError, match=r"copy|pickle"):
                    copied(original)
    poll.register(near, "near")
    far.send(b"x")
    (event,) = poll.poll(10)
    assert copy.copy(event) is event
    assert copy.deepcopy([event])[0] is event
    with pytest.raises(TypeError, match="Event"):
        pickle.dumps(event)
