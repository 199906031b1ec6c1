"""What is particular to the kqueue backend: bringing events together, undoing changes, and the façade below it.

The rest is the kit's, see test_conformance.py. Where a test needs a kernel that answers in a certain way, it has a
script.
"""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from importlib import import_module
from itertools import count, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from polling import Backend, Event, Interest, Mode, Poll, UnsupportedSourceError
from polling_backends import _kqueue_kernel, kqueue
from polling_backends._kqueue_kernel import Kernel, Kevent, SystemKernel
from polling_backends.kqueue import ADD, BOTH, CLEAR, DELETE, EOF, ONESHOT, READ, RECEIPT, WRITE, KqueueBackend
from polling_conformance.ends import drain, fill
from polling_conformance.interrupt import Interrupter, Struck, at_each_step, strike

if TYPE_CHECKING:
    from tests.kqueue_backends import OnFreeBSD, OnMacOS, WithoutUserEvents
else:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        _backends = import_module("kqueue_backends")
        OnFreeBSD, OnMacOS, WithoutUserEvents = _backends.OnFreeBSD, _backends.OnMacOS, _backends.WithoutUserEvents

Sockets: TypeAlias = tuple[socket.socket, socket.socket]
Answering: TypeAlias = Callable[[Sequence[Kevent], int, float | None], list[Kevent]]

SILENT = 0.05
"""Seconds after which a poll that has nothing to say is believed."""

OWN = 99
"""The number of a scripted kqueue."""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the model of kqueue's kernel runs on Linux")


# -- numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (READ, "KQ_FILTER_READ"),
        (WRITE, "KQ_FILTER_WRITE"),
        (ADD, "KQ_EV_ADD"),
        (DELETE, "KQ_EV_DELETE"),
        (ONESHOT, "KQ_EV_ONESHOT"),
        (CLEAR, "KQ_EV_CLEAR"),
        (EOF, "KQ_EV_EOF"),
    ],
)
def test_the_literals_are_what_the_platform_says(ours: int, name: str) -> None:
    if not hasattr(select, name):
        pytest.skip(f"this platform has no {name}")
    assert ours == getattr(select, name)


def test_a_platform_with_other_numbers_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "kqueue", object, raising=False)
    for numbers, runs in ((READ, WRITE), True), ((0, 1), False):
        monkeypatch.setattr(select, "KQ_FILTER_READ", numbers[0], raising=False)
        monkeypatch.setattr(select, "KQ_FILTER_WRITE", numbers[1], raising=False)
        assert (KqueueBackend.unavailable_reason() is None) == runs
    monkeypatch.delattr(select, "kqueue")
    assert "no kqueue" in (KqueueBackend.unavailable_reason() or "")


# -- one event for both filters -----------------------------------------------------------------------------


class Scripted:
    """A kernel that agrees to all changes and answers waits as it is told to."""

    user_filter: int | None = -11

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self.changes: list[Kevent] = []

    def control(self, changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        self.changes += changes
        if changes:
            return [(fd, which, 0x4000, 0, 0) for fd, which, _, _, _ in changes[:most]]
        return self._answering(changes, most, timeout)

    def fileno(self) -> int:
        return OWN

    def close(self) -> None:
        pass


class OnScript(KqueueBackend):
    """A kqueue backend on a scripted kernel, which watches what is no descriptor."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        super().__init__()

    def _open_kernel(self) -> Kernel:
        return Scripted(self._answering)


class Queue:
    """Level filters that are all ready, in a queue as the kernel's: what is reported goes to its end."""

    def __init__(self, filters: Iterable[tuple[int, int]]) -> None:
        self._queue = deque(filters)
        self.asked: list[tuple[int, float | None]] = []

    def __call__(self, _changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        self.asked.append((most, timeout))
        taken = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        self._queue.extend(taken)
        return [(fd, which, ADD, 0, 1) for fd, which in taken]


def waiting(backend: Backend, fds: Iterable[int], mode: Mode = Mode.LEVEL) -> Callable[..., Sequence[tuple[int, int]]]:
    for fd in fds:
        backend.reregister(fd, Interest.READ_WRITE, mode)
    return backend.waiter()


def test_a_full_answer_is_filled_up_without_waiting_as_far_as_there_is_room() -> None:
    queue = Queue([(5, READ), (5, WRITE), (6, READ), (6, WRITE), (7, READ), (7, WRITE)])
    wait = waiting(OnScript(queue), [5, 6, 7])
    assert wait(None, 2) == [(5, 3), (6, 1)]
    assert queue.asked == [(2, None), (1, 0)], "one source is left to be found, without waiting"


def test_an_answer_with_room_left_is_all_there_is() -> None:
    queue = Queue([(5, READ), (5, WRITE), (6, READ)])
    assert waiting(OnScript(queue), [5, 6])(1.5, 4) == [(5, 3), (6, 1)]
    assert queue.asked == [(4, 1.5)]


def test_a_queue_that_has_gone_round_is_not_asked_again() -> None:
    queue = Queue([(5, READ), (5, WRITE), (6, READ), (6, WRITE)])
    assert waiting(OnScript(queue), [5, 6])(None, 4) == [(5, 3), (6, 3)]
    assert queue.asked == [(4, None), (2, 0)]


def test_a_direction_that_comes_with_a_refill_is_news() -> None:
    script = iter([[(5, READ), (6, READ), (7, READ), (5, WRITE)], [(6, WRITE)], [(7, WRITE)], []])
    wait = waiting(OnScript(lambda _c, _m, _t: [(fd, which, ADD, 0, 1) for fd, which in next(script)]), [5, 6, 7])
    assert wait(None, 4) == [(5, 3), (6, 3), (7, 3)]


def filters_of(fds: Iterable[int], *, apart: bool) -> list[tuple[int, int]]:
    """Give both filters of each, as they are queued when data comes: at once, or after there has been room for long."""
    return sorted(product(fds, BOTH), key=lambda pair: pair[1] if apart else 0)


@pytest.mark.parametrize("apart", [False, True])
def test_a_batch_of_few_is_complete_unless_it_is_full(apart: bool) -> None:
    for many in range(1, 9):
        fds = range(5, 5 + many)
        for limit in range(many + 1, 2 * many + 2):
            queue = Queue(filters_of(fds, apart=apart))
            assert sorted(waiting(OnScript(queue), fds)(None, limit)) == [(fd, 3) for fd in fds], f"{many} of {limit}"


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("room", [1, 10, 100, 1000])
def test_the_halves_of_many_are_brought_together_in_few_calls_or_left_for_the_next_wait(room: int, apart: bool) -> None:
    fds = range(5, 1005)
    queue = Queue(filters_of(fds, apart=apart))
    wait = waiting(OnScript(queue), fds)
    told = dict.fromkeys(fds, 0)
    for waits in range(1, 4):
        for fd, bits in wait(None, len(fds) + room):
            told[fd] |= bits
        assert len(queue.asked) <= 20 * waits
    assert {*told.values()} == {3}


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 100])
def test_whatever_is_in_the_queue_no_batch_is_too_large_and_no_direction_is_lost(limit: int) -> None:
    chance = random.Random(limit)
    for _ in range(50):
        fds = range(5, 5 + chance.randint(1, 8))
        filters = [pair for pair in product(fds, (READ, WRITE)) if chance.random() < 0.7]
        chance.shuffle(filters)
        queue = Queue(filters)
        wait = waiting(OnScript(queue), fds)
        missing = {fd: sum(-which for of, which in filters if of == fd) for fd in fds}
        for _ in range(2 * len(filters) // limit + 4):
            batch = wait(0, limit)
            assert len(batch) == len({fd for fd, _ in batch}) <= limit
            assert bool(batch) == bool(filters)
            for fd, bits in batch:
                missing[fd] &= ~bits
        assert not any(missing.values()), f"{missing} of {filters}"
        assert all(most <= limit for most, _ in queue.asked)


@pytest.mark.skipif(sys.platform == "win32", reason="there a socket's number is no descriptor")
@pytest.mark.parametrize("which", [READ, WRITE])
@pytest.mark.parametrize("interest", [Interest.READABLE, Interest.WRITABLE, Interest.READ_WRITE])
@pytest.mark.parametrize("fflags", [0, errno.ECONNRESET])
@pytest.mark.parametrize("flags", [ADD, ADD | EOF])
def test_each_event_says_something_of_its_own_direction_and_of_no_other(
    which: int, interest: Interest, flags: int, fflags: int
) -> None:
    near, far = socket.socketpair()
    with near, far:
        fd = near.fileno()
        backend = OnScript(lambda _c, _m, _t: [(fd, which, flags, fflags if flags & EOF else 0, 0)])
        backend.register(fd, interest, Mode.LEVEL)
        [(_, bits)] = backend.waiter()(0, 8)
        said = backend.decode(bits, interest)
        assert said.readable == (which == READ and Interest.READABLE in interest)
        assert said.writable == (which == WRITE and Interest.WRITABLE in interest)
        assert said.read_closed == (which == READ and bool(flags & EOF))
        assert said.write_closed == (which == WRITE and bool(flags & EOF))
        assert said.error == bool(flags & EOF and fflags)


@on_linux
def test_a_handler_s_error_is_not_taken_for_a_close() -> None:
    near, far = socket.socketpair()
    with near, far:
        backend = OnFreeBSD()
        backend.register(near.fileno(), Interest.READABLE, Mode.ONESHOT)

        def struck(changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
            raise ValueError("by the handler of a signal")

        backend._control, control = struck, backend._control
        with pytest.raises(ValueError, match="handler"):
            backend.rearm(near.fileno(), Interest.READABLE)
        backend._control = control
        backend.close()
        backend.rearm(near.fileno(), Interest.READABLE)  # closed, and so nothing to look at
        backend.wake()


def test_a_pipe_that_is_refused_leaves_nothing_in_the_books() -> None:
    def refuse(changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        reasons = {READ: errno.ENOMEM, WRITE: errno.EPIPE}
        return [(fd, which, 0, 0, reasons.get(which, 0) if flags & ADD else 0) for fd, which, flags, _, _ in changes]

    reader, writer = os.pipe()
    os.close(reader)
    try:
        backend = OnScript(refuse)
        backend._control = refuse
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            backend.register(writer, Interest.READ_WRITE, Mode.LEVEL)
        assert not backend._both
        assert not backend._readerless
    finally:
        os.close(writer)


# -- between the kernel's answer and its use -----------------------------------------------------------------


class Between:
    """Stands before a kernel and does something once, after it has answered a wait with something."""

    def __init__(self, backend: KqueueBackend, do: Callable[[], object]) -> None:
        self._control = backend._control
        self._left = [do]
        backend._control = self

    def __call__(self, changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        answer = self._control(changes, most, timeout)
        if answer and not changes and self._left:
            self._left.pop()()
        return answer


@pytest.fixture
def backend() -> OnFreeBSD:
    return OnFreeBSD()


@pytest.fixture
def poll(backend: OnFreeBSD) -> Generator[Poll[object]]:
    with Poll[object](backend) as poll:
        yield poll


@pytest.fixture
def sockets() -> Generator[Sockets]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def said(events: Iterable[Event[object]]) -> list[tuple[object, bool, bool]]:
    return [(event.token, event.readable, event.writable) for event in events]


@on_linux
@pytest.mark.parametrize("fires", ["before", "after"])
def test_a_oneshot_that_is_armed_again_as_it_fires_makes_one_event_and_loses_none(
    poll: Poll[object], backend: OnFreeBSD, sockets: Sockets, fires: str
) -> None:
    near, far = sockets
    poll.register(near, "near", Interest.READ_WRITE, Mode.ONESHOT)
    if fires == "after":
        assert said(poll.poll(0)) == [("near", False, True)]
        far.send(b"x")  # so that the spent half is what the kernel answers with
    Between(backend, lambda: poll.rearm(near))
    events = poll.poll(0) + poll.poll(0)
    assert len(events) == 1
    assert poll.poll(0) == []
    poll.rearm(near)
    assert len(poll.poll(0)) == 1


@on_linux
def test_a_spent_half_costs_others_nothing(poll: Poll[object], sockets: Sockets) -> None:
    near, far = sockets
    other, companion = socket.socketpair()
    with other, companion:
        poll.register(near, "near", Interest.READ_WRITE, Mode.ONESHOT)
        assert said(poll.poll(0)) == [("near", False, True)]
        far.send(b"x")
        companion.send(b"x")
        poll.register(other, "other")
        assert said(poll.poll(0, 1)) == [("other", True, False)]


@on_linux
@pytest.mark.parametrize("limit", [1, 3, 16])
def test_an_exception_at_any_step_of_bringing_events_together_costs_none(limit: int) -> None:
    def scene(interrupt: Interrupter) -> None:
        with ExitStack() as stack:
            poll = stack.enter_context(Poll[object](OnFreeBSD))
            tokens = ["spent", *Mode]
            nears, fars = zip(*(socket.socketpair() for _ in tokens), strict=True)
            for end in *nears, *fars:
                stack.enter_context(end)
                end.setblocking(False)
            poll.register(nears[0], "spent", Interest.READ_WRITE, Mode.ONESHOT)
            assert said(poll.poll(0)) == [("spent", False, True)]
            for near, mode in zip(nears[1:], Mode, strict=True):
                if mode in (Mode.ONESHOT, Mode.EDGE_ONESHOT):  # there is one event to be lost, and no other
                    with suppress(BlockingIOError):
                        while near.send(bytes(65536)):
                            pass
                poll.register(near, mode, Interest.READ_WRITE, mode)
            for far in fars:
                far.send(b"x")
            reader, writer = os.pipe()
            stack.callback(os.close, writer)
            poll.register(writer, "pipe", Interest.WRITABLE)
            os.close(reader)  # its filter goes with its next report
            outcome = interrupt(lambda: poll.poll(0, limit), strike)
            events = [*(outcome.returned or ())]
            for _ in range(24 // limit + 3):
                events += poll.poll(0, limit)
            for mode in Mode.LEVEL, Mode.EDGE:
                for direction in "readable", "writable":
                    told = [event for event in events if event.token == mode and getattr(event, direction)]
                    assert told, f"{mode!r} is never {direction}: {events} after {outcome}"
            reported = [event.token for event in events]
            assert reported.count(Mode.ONESHOT) == reported.count(Mode.EDGE_ONESHOT) == 1, f"{events} after {outcome}"
            assert reported.count("pipe") >= 2, f"{events} after {outcome}"
            assert "spent" not in reported, f"{events} after {outcome}"

    with Poll[object](OnFreeBSD) as probe:
        assert at_each_step(scene, probe) > 10


@on_linux
def test_a_handler_that_changes_what_is_being_armed_leaves_no_filter_of_the_former_interest(sockets: Sockets) -> None:
    near, _ = sockets

    def scene(interrupt: Interrupter) -> None:
        backend = OnFreeBSD()
        with Poll[object](backend) as poll:
            poll.register(near, "former", Interest.READ_WRITE)
            outcome = interrupt(
                lambda: poll.rearm(near), lambda: poll.reregister(near, "new", Interest.READABLE, Mode.LEVEL)
            )
            is_changed = outcome.where is not None
            assert bool(poll.poll(0)) != is_changed, outcome
            is_armed = (near.fileno(), WRITE) in backend._model._knotes
            assert is_armed != is_changed, f"each wait will spin, after {outcome}"

    with Poll[object](OnFreeBSD) as probe:
        assert at_each_step(scene, probe) > 5


@contextmanager
def another_file_under(number: int) -> Generator[Callable[[], None]]:
    """Put what is nobody's under a number that was closed. Gives what makes it ready in both directions."""

    def become_ready() -> None:
        drain(far)
        far.send(b"x")

    near, far = socket.socketpair()
    with near, far:
        for end in near, far:
            end.setblocking(False)
        if far.fileno() == number:
            near, far = far, near
        fill(near)
        if near.fileno() == number:
            yield become_ready
        else:
            os.dup2(near.fileno(), number)
            yield become_ready
            os.close(number)


@on_linux
def test_what_a_wait_that_was_cut_off_had_fetched_arms_nobody_elses_number(sockets: Sockets) -> None:
    near, _ = sockets

    def scene(interrupt: Interrupter) -> None:
        with Poll[object](OnFreeBSD) as poll, socket.socket(fileno=os.dup(near.fileno())) as end:
            poll.register(end, "closed", Interest.READ_WRITE, Mode.ONESHOT)
            outcome = interrupt(lambda: poll.poll(0), strike)
            number = end.fileno()
            end.close()
            with another_file_under(number) as become_ready:
                events = poll.poll(0)
                become_ready()
                assert events + poll.poll(0) == [], outcome

    with Poll[object](OnFreeBSD) as probe:
        assert at_each_step(scene, probe) > 10


# -- changes are made as a whole ------------------------------------------------------------------------------


class Refusing:
    """Stands before a kernel and refuses to add filters of one kind, once or as often as it is told to."""

    def __init__(self, backend: KqueueBackend, error: int) -> None:
        self._control = backend._control
        self._error = error
        self.refused: int | None = None
        self.times = 1
        backend._control = self

    def __call__(self, changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        answers: list[Kevent] = []
        for change in changes:
            if change[1] == self.refused and change[2] & ADD:
                answers.append((change[0], change[1], 0x4000, 0, self._error))
                self.times -= 1
                if not self.times:
                    self.refused, self.times = None, 1
            else:
                answers += self._control([change], most, timeout)
        return answers if changes else self._control(changes, most, timeout)


@on_linux
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("former_mode", Mode)
@pytest.mark.parametrize("former", [Interest.READABLE, Interest.WRITABLE, Interest.READ_WRITE])
@pytest.mark.parametrize("refused", [READ, WRITE])
def test_a_change_of_which_half_is_refused_is_undone(
    poll: Poll[object],
    backend: OnFreeBSD,
    sockets: Sockets,
    refused: int,
    former: Interest,
    former_mode: Mode,
    mode: Mode,
) -> None:
    near, far = sockets
    refusing = Refusing(backend, errno.ENOMEM)
    poll.register(near, "former", former, former_mode)
    before = {key: knote.flags for key, knote in backend._model._knotes.items()}
    refusing.refused = refused
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        poll.reregister(near, "new", Interest.READ_WRITE, mode)
    assert {key: knote.flags for key, knote in backend._model._knotes.items()} == before
    far.send(b"x")
    ready = ("former", Interest.READABLE in former, Interest.WRITABLE in former)
    assert said(poll.poll(0)) == [ready]
    assert said(poll.poll(0)) == ([ready] if former_mode is Mode.LEVEL else [])


@on_linux
@pytest.mark.parametrize("refused", [READ, WRITE])
@pytest.mark.parametrize("former", [Interest.WRITABLE, Interest.READ_WRITE])
def test_a_oneshot_that_has_fired_is_not_armed_by_a_change_that_fails(
    poll: Poll[object], backend: OnFreeBSD, sockets: Sockets, refused: int, former: Interest
) -> None:
    near, far = sockets
    refusing = Refusing(backend, errno.ENOMEM)
    poll.register(near, "former", former, Mode.ONESHOT)
    assert said(poll.poll(0)) == [("former", False, True)]
    far.send(b"x")
    refusing.refused = refused
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        poll.reregister(near, "new", Interest.READ_WRITE, Mode.LEVEL)
    assert poll.poll(SILENT) == []
    poll.rearm(near)
    assert said(poll.poll(0)) == [("former", Interest.READABLE in former, True)]


@on_linux
@pytest.mark.parametrize("former_mode", Mode)
@pytest.mark.parametrize("times", [2, 3, 4])
def test_what_cannot_be_undone_at_once_is_undone_later(
    poll: Poll[object], backend: OnFreeBSD, sockets: Sockets, times: int, former_mode: Mode
) -> None:
    near, far = sockets
    refusing = Refusing(backend, errno.ENOMEM)
    poll.register(near, "former", Interest.READABLE, former_mode)
    refusing.refused, refusing.times = READ, times  # the change, its undoing, and what is tried after that
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        poll.reregister(near, "new", Interest.READ_WRITE, Mode.LEVEL)
    assert poll.poll(0) == []
    far.send(b"x")
    events: list[Event[object]] = []
    for _ in range(600):  # waits; after each few hundred the backend is asked for its waiter, even if nobody rings
        events = events or poll.poll(0)
    assert said(events) == [("former", True, False)]
    assert said(poll.poll(0)) == ([("former", True, False)] if former_mode is Mode.LEVEL else [])
    poll.deregister(near)
    assert not backend._lapsed


@on_linux
@pytest.mark.parametrize("mode", [Mode.ONESHOT, Mode.EDGE_ONESHOT])
@pytest.mark.parametrize("interest", [Interest.READABLE, Interest.READ_WRITE])
@pytest.mark.parametrize("times", [1, 2])
def test_a_oneshot_that_there_is_no_memory_to_arm_is_armed_later_and_once(
    poll: Poll[object], backend: OnFreeBSD, sockets: Sockets, times: int, interest: Interest, mode: Mode
) -> None:
    near, far = sockets
    far.send(b"x")
    ready = ("near", True, interest is Interest.READ_WRITE)
    poll.register(near, "near", interest, mode)
    assert said(poll.poll(0)) == [ready]
    refusing = Refusing(backend, errno.ENOMEM)
    refusing.refused, refusing.times = READ, times
    poll.rearm(near)
    if times == 2:  # also when it is tried again, so that the application is faster
        poll.poll(0)
        poll.rearm(near)
    assert said(poll.poll(0)) == [ready]
    for _ in range(600):  # waits, as above
        assert poll.poll(0) == []
    assert not backend._lapsed


@on_linux
@pytest.mark.parametrize("then", ["deregistered", "closed", "used again", "another"])
def test_what_was_to_be_undone_is_forgotten_with_its_registration(
    poll: Poll[object], backend: OnFreeBSD, sockets: Sockets, then: str
) -> None:
    near, _ = sockets
    refusing = Refusing(backend, errno.ENOMEM)
    poll.register(near, "former", Interest.WRITABLE)
    refusing.refused, refusing.times = WRITE, 2
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        poll.reregister(near, "new", Interest.READ_WRITE, Mode.LEVEL)
    number = near.fileno()
    if then in ("closed", "used again"):
        near.close()
    else:
        poll.deregister(near)
    if then == "another":
        poll.register(near, "another", Interest.READABLE)
    with another_file_under(number) if then == "used again" else nullcontext(lambda: None) as become_ready:
        assert poll.poll(SILENT) == []
        become_ready()
        assert poll.poll(SILENT) == []
    assert not backend._lapsed
    assert [which for _, which in backend._model._knotes if which == WRITE] == []


@on_linux
@pytest.mark.parametrize("kind", [OnFreeBSD, OnMacOS, WithoutUserEvents])
def test_a_pipe_whose_reader_went_is_in_each_batch(kind: type[OnFreeBSD], sockets: Sockets) -> None:
    near, _ = sockets
    reader, writer = os.pipe()
    with Poll[object](kind) as poll:
        poll.register(writer, "pipe", Interest.WRITABLE)
        poll.register(near, "near", Interest.WRITABLE)
        os.close(reader)
        for _ in range(4):
            assert sorted(said(poll.poll(0))) == [("near", False, True), ("pipe", False, True)]
        poll.deregister(near)
        readable, _, _ = select.select([poll.fileno()], [], [], 0)
        assert readable, "who watches this poll must learn of the pipe, too"
    os.close(writer)


@on_linux
def test_a_filter_that_lapsed_is_not_added_for_who_has_the_number_since(poll: Poll[object]) -> None:
    reader, writer = os.pipe()
    with open(writer, "wb", buffering=0) as file:
        poll.register(file, "pipe", Interest.WRITABLE)
        os.close(reader)
        assert said(poll.poll(0)) == [("pipe", False, True)]
    with another_file_under(writer) as become_ready:
        assert poll.poll(SILENT) == []
        become_ready()
        assert poll.poll(SILENT) == []


@on_linux
def test_a_oneshot_under_the_number_of_a_pipe_whose_reader_went_fires_once(
    poll: Poll[object], backend: OnFreeBSD, sockets: Sockets
) -> None:
    near, _ = sockets
    reader, writer = os.pipe()
    poll.register(writer, "pipe", Interest.WRITABLE)
    os.close(reader)
    assert said(poll.poll(0)) == [
        ("pipe", False, True)
    ]  # and its filter is gone, which is seen to before the next wait
    poll.deregister(writer)
    os.dup2(near.fileno(), writer)
    poll.register(writer, "near", Interest.READ_WRITE, Mode.ONESHOT)
    assert said(poll.poll(0)) == [("near", False, True)]
    assert poll.poll(SILENT) == []
    os.close(writer)


@on_linux
@pytest.mark.parametrize("refused", [READ, WRITE])
def test_a_register_of_which_half_is_refused_leaves_nothing(
    poll: Poll[object], backend: OnFreeBSD, sockets: Sockets, refused: int
) -> None:
    near, _ = sockets
    refusing = Refusing(backend, errno.ENOMEM)
    before = {*backend._model._knotes}
    refusing.refused = refused
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        poll.register(near, "near", Interest.READ_WRITE)
    assert {*backend._model._knotes} == before


@on_linux
@pytest.mark.parametrize("kind", [OnFreeBSD, OnMacOS])
@pytest.mark.parametrize("mode", Mode)
def test_a_pipe_without_a_reader_survives_a_change_that_fails(kind: type[OnFreeBSD], mode: Mode) -> None:
    backend = kind()
    reader, writer = os.pipe()
    with Poll[object](backend) as poll:
        poll.register(writer, "former", Interest.WRITABLE, mode)
        os.close(reader)
        assert said(poll.poll(0)) == [("former", False, True)]
        refusing = Refusing(backend, errno.ENOMEM)
        for _ in range(2):
            poll.rearm(writer)  # if it was a oneshot
            refusing.refused = READ
            with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
                poll.reregister(writer, "new", Interest.READABLE, Mode.LEVEL)
            assert said(poll.poll(0)) == [("former", False, True)]
            assert said(poll.poll(0)) == ([("former", False, True)] if mode is Mode.LEVEL else [])
    os.close(writer)


@on_linux
@pytest.mark.parametrize("reason", ["EINVAL", "ENODEV", "ENXIO", "ENOTTY", "ENOTSUP"])
def test_what_has_no_filter_cannot_be_watched(backend: OnFreeBSD, sockets: Sockets, reason: str) -> None:
    near, far = sockets
    with Poll[object](backend) as poll:
        refusing = Refusing(backend, getattr(errno, reason))
        refusing.refused = READ
        with pytest.raises(UnsupportedSourceError):
            poll.register(near, "near")
        poll.register(near, "near")
        far.send(b"x")
        assert said(poll.poll(0)) == [("near", True, False)]


# -- the façade -------------------------------------------------------------------------------------------------


class FakeEvent:
    """A ``select.kevent``."""

    def __init__(self, ident: int, filter: int, flags: int, fflags: int, data: int) -> None:
        self.ident, self.filter, self.flags, self.fflags, self.data = ident, filter, flags, fflags, data


class FakeKqueue:
    """A ``select.kqueue`` that gives back its changes, or else one event."""

    answered = 0
    alive = 0

    def __init__(self) -> None:
        FakeKqueue.alive += 1

    def __del__(self) -> None:
        FakeKqueue.alive -= 1

    def control(self, changes: list[FakeEvent] | None, most: int, timeout: float | None) -> list[FakeEvent]:
        assert changes is None or all(type(change) is FakeEvent for change in changes)
        FakeKqueue.answered += 1
        return (changes or [FakeEvent(7, READ, ADD | EOF, 3, 4)])[:most]

    def fileno(self) -> int:
        return OWN


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> SystemKernel:
    monkeypatch.setattr(select, "kqueue", FakeKqueue, raising=False)
    monkeypatch.setattr(select, "kevent", FakeEvent, raising=False)
    return SystemKernel()


def test_the_facade_turns_tuples_into_kevents_and_back(system: SystemKernel) -> None:
    changes = [(5, READ, ADD | RECEIPT, 1, 2), (6, WRITE, DELETE, 0, -1)]
    assert system.control(changes, 8, 0) == changes
    assert system.control((), 8, None) == [(7, READ, ADD | EOF, 3, 4)]
    assert system.control(changes, 0, 0) == []
    assert system.fileno() == OWN


def test_the_facade_loses_no_answer_to_a_handler(system: SystemKernel) -> None:
    package = frozenset({_kqueue_kernel.__name__.partition(".")[0]})
    for step in count(1):
        FakeKqueue.answered = 0
        outcome = Interrupter(step, package)(lambda: system.control((), 8, None), strike)
        if outcome.where is None:
            assert step > 1, "the beginning of control is a step"
            break
        assert isinstance(outcome.error, Struck)
        assert FakeKqueue.answered == 0, f"the answer was lost: {outcome}"


def test_a_kqueue_is_closed_when_the_last_call_has_left_it(system: SystemKernel) -> None:
    kqueue = FakeKqueue.alive
    inside: list[int] = []

    def close_inside(_self: Any, _changes: object, _most: int, _timeout: float | None) -> list[FakeEvent]:
        system.close()
        inside.append(FakeKqueue.alive)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeKqueue, "control", close_inside)
        assert system.control((), 8, None) == []
    assert inside == [kqueue]
    assert FakeKqueue.alive == kqueue - 1
    for call in (system.fileno, lambda: system.control((), 1, 0)):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_the_traceback_of_a_wait_keeps_no_kqueue_open(system: SystemKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> list[FakeEvent]:
        raise KeyboardInterrupt

    alive = FakeKqueue.alive
    monkeypatch.setattr(FakeKqueue, "control", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt) as raised:
        system.control((), 8, None)
    system.close()
    assert FakeKqueue.alive == alive - 1
    assert raised.tb is not None


def test_a_kqueue_of_the_parent_never_dies_in_the_child(system: SystemKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kqueue, "_of_the_parent", [])
    monkeypatch.setattr(SystemKernel, "user_filter", -11)
    backend = KqueueBackend()
    alive = FakeKqueue.alive
    backend.abandon()
    del backend
    assert FakeKqueue.alive == alive
