"""The model of kqueue's kernel against what kqueue(2) and the kernels' sources say.

Each test is named after a fact. Where this machine has a kqueue of its own, that is held to the same: then a test that
fails is a fact that we have wrong.
"""

from __future__ import annotations

import errno
import gc
import itertools
import os
import random
import select
import signal
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import pytest

from polling_conformance.interrupt import Interrupter

if TYPE_CHECKING:
    from tests import kqueue_kernel as kq
else:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        kq = import_module("kqueue_kernel")

if sys.platform == "win32":
    pytest.skip("Windows has nothing like it", allow_module_level=True)

READ = kq.EVFILT_READ
WRITE = kq.EVFILT_WRITE
WAIT = 10.0
"""How long to wait for what must come, in seconds."""
SILENCE = 0.05
"""How long to watch that nothing comes, in seconds."""
ROOM = 16
"""More than any test has events."""

Pair: TypeAlias = tuple[socket.socket, socket.socket]


class Kernel(Protocol):
    user_filter: int | None

    def control(self, changes: Sequence[kq.Kevent], most: int, timeout: float | None) -> list[kq.Kevent]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Maker:
    """How a test makes the kqueues it asks for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.flavour, self._make = MAKERS[name]
        self._made: list[Kernel] = []

    def __call__(self) -> Kernel:
        kernel = self._make()
        self._made.append(kernel)
        return kernel

    def close(self) -> None:
        for kernel in self._made:
            kernel.close()


def system() -> Kernel:
    kernel: Kernel = import_module("polling_backends._kqueue_kernel").SystemKernel()
    return kernel


MAKERS: dict[str, tuple[kq.Flavour, Callable[[], Kernel]]] = {}
if sys.platform == "linux":
    MAKERS |= {flavour.value: (flavour, partial(kq.SimulatedKqueue, flavour)) for flavour in kq.Flavour}
elif hasattr(select, "kqueue"):
    MAKERS["system"] = kq.Flavour.MACOS if sys.platform == "darwin" else kq.Flavour.FREEBSD, system


@pytest.fixture(params=MAKERS)
def maker(request: pytest.FixtureRequest) -> Generator[Maker]:
    before = numbers_in_use()
    maker = Maker(request.param)
    yield maker
    maker.close()
    del maker
    gc.collect()  # exceptions whose tracebacks have what was under way
    assert numbers_in_use() <= before, "descriptors leaked"


@pytest.fixture
def kernel(maker: Maker) -> Kernel:
    return maker()


@pytest.fixture
def flavour(maker: Maker) -> kq.Flavour:
    return maker.flavour


@pytest.fixture
def user(kernel: Kernel) -> int:
    if kernel.user_filter is None:
        pytest.skip("this system has no EVFILT_USER")
    return kernel.user_filter


# Sources. Each fixture comes after the kernel's, and is closed before it.


@pytest.fixture
def stack(maker: Maker) -> Generator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def pair(stack: ExitStack) -> Pair:
    near, far = socket.socketpair()
    for end in stack.enter_context(near), stack.enter_context(far):
        end.setblocking(False)
    return near, far


@pytest.fixture
def listener(stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_server(("127.0.0.1", 0)))


@pytest.fixture
def tcp(stack: ExitStack, listener: socket.socket) -> Pair:
    near = stack.enter_context(socket.create_connection(listener.getsockname()))
    far = stack.enter_context(listener.accept()[0])
    for end in near, far:
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._open = {self.reader, self.writer}
        for fd in self._open:
            os.set_blocking(fd, False)

    def close(self, *fds: int) -> None:
        for fd in self._open.intersection(fds or self._open):
            self._open.remove(fd)
            os.close(fd)


@pytest.fixture
def pipe(stack: ExitStack) -> Pipe:
    pipe = Pipe()
    stack.callback(pipe.close)
    return pipe


# What the tests say, shortly.


def numbers_in_use() -> set[int]:
    return {int(name) for name in os.listdir("/dev/fd")}


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


HasFileno: TypeAlias = socket.socket | int


def number(source: HasFileno) -> int:
    return source if isinstance(source, int) else source.fileno()


def change(kernel: Kernel, source: HasFileno, wanted: int, flags: int, fflags: int = 0, data: int = 0) -> None:
    """Make one change, which must succeed."""
    assert kernel.control([(number(source), wanted, flags, fflags, data)], 0, 0) == []


def refusal(kernel: Kernel, source: HasFileno, wanted: int, flags: int) -> int:
    """Make one change, which must fail. Give its error's number."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the number is what the test looks at
        kernel.control([(number(source), wanted, flags, 0, 0)], 0, 0)
    return caught.value.errno or 0


def now(kernel: Kernel, room: int = ROOM) -> dict[kq.Key, kq.Kevent]:
    """Collect what is there, by key."""
    events = kernel.control([], room, 0)
    found = {event[:2]: event for event in events}
    assert len(found) == len(events), f"a knote is reported twice: {events}"
    return found


def await_event(kernel: Kernel, source: HasFileno, wanted: int) -> kq.Kevent:
    """Wait for one event, which must be of this knote."""
    events = kernel.control([], ROOM, WAIT)
    assert [event[:2] for event in events] == [(number(source), wanted)]
    return events[0]


def is_silent(kernel: Kernel) -> bool:
    return kernel.control([], ROOM, SILENCE) == []


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def fill(source: HasFileno) -> int:
    """Write until it would block. Give the number of bytes."""
    written = 0
    for size in 65536, 1:
        try:
            while True:
                written += os.write(number(source), bytes(size))
        except BlockingIOError:
            pass
    return written


def drain(source: HasFileno) -> int:
    """Read until it would block or ends. Give the number of bytes."""
    count = 0
    try:
        while data := os.read(number(source), 65536):
            count += len(data)
    except BlockingIOError:
        pass
    return count


def reset(sock: socket.socket) -> None:
    """Close a connection by RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# DESCRIPTION: knotes, filters, flags


def test_a_knote_is_found_by_ident_and_filter(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD)
    change(kernel, near, WRITE, kq.EV_ADD)
    far.send(b"x")
    assert now(kernel).keys() == {(near.fileno(), READ), (near.fileno(), WRITE)}
    change(kernel, near, WRITE, kq.EV_DELETE)
    assert now(kernel).keys() == {(near.fileno(), READ)}


def test_the_filter_is_run_at_registration(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    for flags in 0, kq.EV_CLEAR, kq.EV_ONESHOT, kq.EV_DISPATCH:
        change(kernel, near, READ, kq.EV_ADD | flags)
        await_event(kernel, near, READ)
        if flags != kq.EV_ONESHOT:
            change(kernel, near, READ, kq.EV_DELETE)


@pytest.mark.parametrize("flags", [0, kq.EV_CLEAR, kq.EV_DISPATCH])
def test_the_filter_is_run_again_at_retrieval(kernel: Kernel, pair: Pair, flags: int) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | flags)
    far.send(b"x")
    near.recv(1)
    assert is_silent(kernel)


def test_a_level_knote_is_reported_until_its_condition_is_gone(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD)
    far.send(b"xy")
    assert [await_event(kernel, near, READ)[4], await_event(kernel, near, READ)[4]] == [2, 2]
    near.recv(1)
    assert await_event(kernel, near, READ)[4] == 1
    near.recv(1)
    assert is_silent(kernel)
    far.send(b"z")
    await_event(kernel, near, READ)


def test_events_are_aggregated(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    far.send(b"x")
    far.send(b"y")
    assert await_event(kernel, near, READ)[4] == 2
    assert is_silent(kernel)


def test_EV_CLEAR_reports_what_arrives_and_nothing_else(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    assert is_silent(kernel)
    far.send(b"xy")
    await_event(kernel, near, READ)
    assert is_silent(kernel)
    near.recv(1)
    assert is_silent(kernel), "a partial read is no event"
    far.send(b"z")
    assert await_event(kernel, near, READ)[4] == 2, "undrained, and more arrived"


def test_EV_CLEAR_reports_a_refill_to_the_same_count(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    for _ in range(3):
        far.send(b"x")
        assert await_event(kernel, near, READ)[4] == 1
        near.recv(1)


@pytest.mark.parametrize("sockets", ["pair", "tcp"])
def test_EV_CLEAR_of_one_filter_is_independent_of_the_other(
    kernel: Kernel, request: pytest.FixtureRequest, sockets: str
) -> None:
    near, far = request.getfixturevalue(sockets)
    for wanted in READ, WRITE:
        change(kernel, near, wanted, kq.EV_ADD | kq.EV_CLEAR)
    await_event(kernel, near, WRITE)
    far.send(b"x")
    await_event(kernel, near, READ)
    change(kernel, near, WRITE, kq.EV_ADD)
    await_event(kernel, near, WRITE)
    assert is_silent(kernel)


def test_EV_ADD_of_an_existing_knote_makes_no_second_one(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    for _ in range(2):
        change(kernel, near, READ, kq.EV_ADD)
    far.send(b"x")
    await_event(kernel, near, READ)
    change(kernel, near, READ, kq.EV_DELETE)
    assert is_silent(kernel)


def test_EV_ADD_of_an_existing_knote_runs_its_filter(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    assert is_silent(kernel)
    far.send(b"x")
    for _ in range(3):
        await_event(kernel, near, READ)
        assert is_silent(kernel)
        change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)


def test_EV_ADD_of_an_existing_knote_does_not_make_it_another_kind(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    change(kernel, near, READ, kq.EV_ADD)
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR | kq.EV_ONESHOT)
    for _ in range(2):
        await_event(kernel, near, READ)
    change(kernel, near, WRITE, kq.EV_ADD | kq.EV_ONESHOT)
    change(kernel, near, WRITE, kq.EV_ADD)
    assert (near.fileno(), WRITE) in now(kernel)
    assert (near.fileno(), WRITE) not in now(kernel)


def test_EV_DISABLE_silences_until_EV_ENABLE(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    for flags in 0, kq.EV_CLEAR:
        change(kernel, near, READ, kq.EV_ADD | flags)
        far.send(b"x")
        change(kernel, near, READ, kq.EV_DISABLE)
        far.send(b"x")
        assert is_silent(kernel)
        change(kernel, near, READ, kq.EV_ENABLE)
        await_event(kernel, near, READ)
        change(kernel, near, READ, kq.EV_DISABLE)
        drain(near)
        change(kernel, near, READ, kq.EV_ENABLE)
        assert is_silent(kernel)
        far.send(b"x")
        await_event(kernel, near, READ)
        drain(near)
        change(kernel, near, READ, kq.EV_DELETE)


def test_EV_ADD_with_EV_DISABLE_is_silent_until_enabled(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    change(kernel, near, READ, kq.EV_ADD | kq.EV_DISABLE)
    far.send(b"x")
    assert is_silent(kernel)
    change(kernel, near, READ, kq.EV_ENABLE)
    await_event(kernel, near, READ)


def test_EV_ADD_alone_does_not_enable_a_disabled_knote(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    change(kernel, near, READ, kq.EV_ADD | kq.EV_DISABLE)
    change(kernel, near, READ, kq.EV_ADD)
    assert is_silent(kernel)
    change(kernel, near, READ, kq.EV_ADD | kq.EV_ENABLE)
    await_event(kernel, near, READ)


def test_EV_DELETE_of_a_ready_knote_takes_its_event_back(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    far.send(b"x")
    change(kernel, near, READ, kq.EV_DELETE)
    assert is_silent(kernel)


@pytest.mark.parametrize("flags", [kq.EV_DELETE, kq.EV_ENABLE, kq.EV_DISABLE, 0])
def test_ENOENT_for_a_knote_that_is_not_there(kernel: Kernel, pair: Pair, flags: int) -> None:
    change(kernel, pair[0], WRITE, kq.EV_ADD)
    assert refusal(kernel, pair[0], READ, flags) == errno.ENOENT


def test_EV_ONESHOT_reports_once_and_is_deleted(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | kq.EV_ONESHOT)
    far.send(b"x")
    assert await_event(kernel, near, READ)[2] & kq.EV_ONESHOT
    far.send(b"x")
    assert is_silent(kernel)
    assert refusal(kernel, near, READ, kq.EV_DELETE) == errno.ENOENT
    change(kernel, near, READ, kq.EV_ADD | kq.EV_ONESHOT)
    await_event(kernel, near, READ)


def test_EV_ONESHOT_is_of_one_filter_only(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    for wanted in READ, WRITE:
        change(kernel, near, wanted, kq.EV_ADD | kq.EV_ONESHOT)
    await_event(kernel, near, WRITE)
    far.send(b"x")
    await_event(kernel, near, READ)


def test_EV_DISPATCH_reports_once_and_is_disabled(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | kq.EV_DISPATCH)
    far.send(b"x")
    await_event(kernel, near, READ)
    far.send(b"x")
    assert is_silent(kernel)
    change(kernel, near, READ, kq.EV_ENABLE)
    await_event(kernel, near, READ)
    drain(near)
    change(kernel, near, READ, kq.EV_ENABLE)
    assert is_silent(kernel)
    change(kernel, near, READ, kq.EV_DELETE)


def test_any_change_of_a_knote_runs_its_filter(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    far.send(b"x")
    await_event(kernel, near, READ)
    change(kernel, near, READ, 0)
    await_event(kernel, near, READ)


def test_an_event_has_the_flags_of_its_knote(kernel: Kernel, pair: Pair, flavour: kq.Flavour) -> None:
    near, _ = pair
    change(kernel, near, WRITE, kq.EV_ADD | kq.EV_ENABLE | kq.EV_CLEAR)
    actions = kq.EV_ADD | kq.EV_ENABLE if flavour is kq.Flavour.MACOS else 0
    assert await_event(kernel, near, WRITE)[2] == kq.EV_CLEAR | actions


def test_EV_ADD_with_EV_DELETE(kernel: Kernel, pair: Pair, flavour: kq.Flavour) -> None:
    near, _ = pair
    if flavour is kq.Flavour.MACOS:
        assert refusal(kernel, near, WRITE, kq.EV_ADD | kq.EV_DELETE) == errno.ENOENT
        change(kernel, near, WRITE, kq.EV_ADD)
    else:
        change(kernel, near, WRITE, kq.EV_ADD | kq.EV_DELETE)
    await_event(kernel, near, WRITE)
    change(kernel, near, WRITE, kq.EV_ADD | kq.EV_DELETE)
    assert is_silent(kernel)


def test_EV_ENABLE_with_EV_DISABLE(kernel: Kernel, pair: Pair, flavour: kq.Flavour) -> None:
    near, _ = pair
    change(kernel, near, WRITE, kq.EV_ADD)
    if flavour is kq.Flavour.MACOS:
        change(kernel, near, WRITE, kq.EV_ENABLE | kq.EV_DISABLE)
        assert is_silent(kernel)
    else:
        assert refusal(kernel, near, WRITE, kq.EV_ENABLE | kq.EV_DISABLE) == errno.EINVAL


def test_EINVAL_for_a_filter_that_is_not_there(kernel: Kernel, pair: Pair) -> None:
    assert refusal(kernel, pair[0], -99, kq.EV_ADD) == errno.EINVAL
    assert refusal(kernel, pair[0], 1, kq.EV_ADD) == errno.EINVAL


# RETURN VALUES: answers to changes


def test_changes_are_applied_before_events_are_read(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    added = (near.fileno(), READ, kq.EV_ADD, 0, 0)
    assert [event[:2] for event in kernel.control([added], ROOM, 0)] == [added[:2]]
    deleted = (near.fileno(), READ, kq.EV_DELETE, 0, 0)
    assert kernel.control([deleted], ROOM, SILENCE) == []


def test_EV_RECEIPT_answers_each_change_and_drains_nothing(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    changes = [(near.fileno(), wanted, kq.EV_ADD | kq.EV_RECEIPT | kq.EV_CLEAR, 0, 0) for wanted in (READ, WRITE)]
    answers = kernel.control(changes, ROOM, None)
    assert [(*answer[:2], answer[2] & kq.EV_ERROR, answer[4]) for answer in answers] == [
        (near.fileno(), READ, kq.EV_ERROR, 0),
        (near.fileno(), WRITE, kq.EV_ERROR, 0),
    ]
    assert now(kernel).keys() == {(near.fileno(), READ), (near.fileno(), WRITE)}


def test_an_error_is_in_the_eventlist_and_the_other_changes_are_made(
    kernel: Kernel, pair: Pair, flavour: kq.Flavour
) -> None:
    near, _ = pair
    changes = [(near.fileno(), READ, kq.EV_DELETE, 0, 0), (near.fileno(), WRITE, kq.EV_ADD, 0, 0)]
    [(ident, wanted, flags, _, data)] = kernel.control(changes, ROOM, None)
    assert (ident, wanted, data) == (near.fileno(), READ, errno.ENOENT)
    assert flags == kq.EV_ERROR | (kq.EV_DELETE if flavour is kq.Flavour.MACOS else 0)
    await_event(kernel, near, WRITE)


def test_without_room_an_error_is_raised_and_the_changes_behind_it_are_not_made(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    changes = [
        (near.fileno(), WRITE, kq.EV_ADD, 0, 0),
        (near.fileno(), READ, kq.EV_DELETE, 0, 0),
        (far.fileno(), WRITE, kq.EV_ADD, 0, 0),
    ]
    with pytest.raises(FileNotFoundError):
        kernel.control(changes, 0, None)
    assert now(kernel).keys() == {(near.fileno(), WRITE)}


def test_an_error_behind_answers_that_took_all_room_is_raised(kernel: Kernel, pair: Pair) -> None:
    near, _ = pair
    changes = [(near.fileno(), WRITE, kq.EV_ADD | kq.EV_RECEIPT, 0, 0), (near.fileno(), READ, kq.EV_DELETE, 0, 0)]
    with pytest.raises(FileNotFoundError):
        kernel.control(changes, 1, None)


def test_EV_RECEIPT_without_room(kernel: Kernel, pair: Pair, flavour: kq.Flavour) -> None:
    near, far = pair
    changes = [(source.fileno(), WRITE, kq.EV_ADD | kq.EV_RECEIPT, 0, 0) for source in (near, far)]
    assert kernel.control(changes, 0, None) == []
    made = {(near.fileno(), WRITE)} | ({(far.fileno(), WRITE)} if flavour is kq.Flavour.MACOS else set())
    assert now(kernel).keys() == made


def test_no_room_for_events_returns_at_once(kernel: Kernel, pair: Pair) -> None:
    change(kernel, pair[0], WRITE, kq.EV_ADD)
    assert kernel.control([], 0, None) == []


def test_no_more_events_than_asked_for(kernel: Kernel, pair: Pair) -> None:
    for source in pair:
        change(kernel, source, WRITE, kq.EV_ADD)
    assert [len(kernel.control([], room, 0)) for room in (1, 2, 3)] == [1, 2, 2]


def test_both_filters_of_a_source_take_turns(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    for wanted in READ, WRITE:
        change(kernel, near, wanted, kq.EV_ADD)
    seen = [kernel.control([], 1, 0)[0][1] for _ in range(6)]
    assert seen in ([READ, WRITE] * 3, [WRITE, READ] * 3)


@pytest.mark.parametrize("flags", [kq.EV_CLEAR, kq.EV_ONESHOT, kq.EV_DISPATCH])
def test_what_there_was_no_room_for_comes_next(kernel: Kernel, pair: Pair, flags: int) -> None:
    near, far = pair
    far.send(b"x")
    for wanted in READ, WRITE:
        change(kernel, near, wanted, kq.EV_ADD | flags)
    seen = [kernel.control([], 1, 0)[0][1] for _ in range(2)]
    assert sorted(seen) == [WRITE, READ]
    assert is_silent(kernel)


def test_ready_sources_take_turns(kernel: Kernel, stack: ExitStack) -> None:
    sources = [stack.enter_context(end) for _ in range(8) for end in socket.socketpair()]
    for source in sources:
        change(kernel, source, WRITE, kq.EV_ADD)
    seen = [event[0] for _ in range(4) for event in kernel.control([], 4, 0)]
    assert sorted(seen) == sorted(source.fileno() for source in sources)


@pytest.mark.parametrize(("most", "timeout"), [(-1, 0.0), (1, -1.0), (1, float("nan"))])
def test_ValueError_for_senseless_arguments(kernel: Kernel, most: int, timeout: float) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the words are CPython's
        kernel.control([], most, timeout)


# EVFILT_READ, EVFILT_WRITE: sockets


def test_READ_of_a_listener_counts_the_pending_connections(
    kernel: Kernel, stack: ExitStack, listener: socket.socket
) -> None:
    change(kernel, listener, READ, kq.EV_ADD | kq.EV_CLEAR)
    change(kernel, listener, WRITE, kq.EV_ADD)
    assert is_silent(kernel)
    for count in 1, 2:
        stack.enter_context(socket.create_connection(listener.getsockname()))
        assert await_event(kernel, listener, READ)[4] == count
    assert is_silent(kernel)


def test_WRITE_counts_the_space_left(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, WRITE, kq.EV_ADD)
    space = await_event(kernel, near, WRITE)[4]
    near.send(bytes(4096))
    assert 0 < await_event(kernel, near, WRITE)[4] < space
    fill(near)
    assert is_silent(kernel)
    drain(far)
    assert await_event(kernel, near, WRITE)[4] == space


@pytest.mark.parametrize("sockets", ["pair", "tcp"])
@pytest.mark.parametrize("flags", [0, kq.EV_CLEAR])
def test_WRITE_is_reported_when_a_full_buffer_is_drained(
    kernel: Kernel, request: pytest.FixtureRequest, sockets: str, flags: int
) -> None:
    near, far = request.getfixturevalue(sockets)
    change(kernel, near, WRITE, kq.EV_ADD | flags)
    for _ in range(3):
        await_event(kernel, near, WRITE)
        fill(near)
        while not is_silent(kernel):
            fill(near)
        drain(far)


@pytest.mark.parametrize("sockets", ["pair", "tcp"])
def test_READ_of_a_half_closed_socket_has_EV_EOF_and_the_data(
    kernel: Kernel, request: pytest.FixtureRequest, sockets: str
) -> None:
    near, far = request.getfixturevalue(sockets)
    for wanted in READ, WRITE:
        change(kernel, near, wanted, kq.EV_ADD)
    far.send(b"last")
    far.shutdown(socket.SHUT_WR)
    events = wait_for_eof(kernel, near, READ)
    assert events[near.fileno(), READ][3:] == (0, 4)
    assert not events[near.fileno(), WRITE][2] & kq.EV_EOF
    assert near.recv(10) == b"last"
    assert now(kernel)[near.fileno(), READ][4] == 0
    assert near.recv(10) == b""
    assert now(kernel)[near.fileno(), READ][2] & kq.EV_EOF, "it stays"


def wait_for_eof(kernel: Kernel, source: HasFileno, *filters: int) -> dict[kq.Key, kq.Kevent]:
    """Collect until the given filters have EV_EOF in one batch: over loopback, too, things take their time."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        found = now(kernel)
        if all(found.get((number(source), wanted), (0,) * 5)[2] & kq.EV_EOF for wanted in filters):
            return found
    raise AssertionError(f"no EV_EOF for {filters}")


def test_EV_CLEAR_reports_an_EOF_that_follows_data(kernel: Kernel, tcp: Pair) -> None:
    near, far = tcp
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    far.send(b"x")
    assert not await_event(kernel, near, READ)[2] & kq.EV_EOF
    far.shutdown(socket.SHUT_WR)
    assert await_event(kernel, near, READ)[2] & kq.EV_EOF
    assert is_silent(kernel)


@pytest.mark.parametrize("sockets", ["pair", "tcp"])
def test_WRITE_has_EV_EOF_after_the_own_shutdown(kernel: Kernel, request: pytest.FixtureRequest, sockets: str) -> None:
    near, _ = request.getfixturevalue(sockets)
    for wanted in READ, WRITE:
        change(kernel, near, wanted, kq.EV_ADD)
    near.shutdown(socket.SHUT_WR)
    event = await_event(kernel, near, WRITE)
    assert event[2] & kq.EV_EOF
    assert event[3] == 0


def test_READ_has_EV_EOF_after_the_own_shutdown(kernel: Kernel, pair: Pair) -> None:
    change(kernel, pair[0], READ, kq.EV_ADD)
    pair[0].shutdown(socket.SHUT_RD)
    assert await_event(kernel, pair[0], READ)[2] & kq.EV_EOF


def test_both_filters_have_EV_EOF_once_a_unix_peer_is_closed(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    for wanted in READ, WRITE:
        change(kernel, near, wanted, kq.EV_ADD)
    far.send(b"x")
    far.close()
    events = wait_for_eof(kernel, near, READ, WRITE)
    assert events[near.fileno(), READ][3:] == (0, 1)


def test_a_reset_is_EV_EOF_with_the_error_which_stays_with_the_socket(kernel: Kernel, tcp: Pair) -> None:
    near, far = tcp
    for wanted in READ, WRITE:
        change(kernel, near, wanted, kq.EV_ADD)
    reset(far)
    for _ in range(2):
        events = wait_for_eof(kernel, near, READ, WRITE)
        assert {event[3] for event in events.values()} == {errno.ECONNRESET}
    with pytest.raises(ConnectionResetError):
        near.recv(1)
    events = now(kernel)
    assert {event[3] for event in events.values()} == {0}, "the error was taken, the end stays"
    assert all(event[2] & kq.EV_EOF for event in events.values())


@pytest.fixture
def nowhere() -> tuple[str, int]:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address: tuple[str, int] = closed.getsockname()
    return address


def test_a_refused_connection_is_EV_EOF_with_the_error(
    kernel: Kernel, stack: ExitStack, nowhere: tuple[str, int]
) -> None:
    sock = stack.enter_context(socket.socket())
    sock.setblocking(False)
    if sock.connect_ex(nowhere) != errno.EINPROGRESS:
        pytest.skip("this system refuses at once")
    for wanted in READ, WRITE:
        change(kernel, sock, wanted, kq.EV_ADD)
    events = wait_for_eof(kernel, sock, READ, WRITE)
    assert {event[3] for event in events.values()} == {errno.ECONNREFUSED}
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
@pytest.mark.parametrize("flags", [0, kq.EV_CLEAR, kq.EV_ONESHOT])
def test_an_unconnected_stream_socket_is_silent(
    kernel: Kernel, stack: ExitStack, family: socket.AddressFamily, flags: int
) -> None:
    sock = stack.enter_context(socket.socket(family))
    for wanted in READ, WRITE:
        change(kernel, sock, wanted, kq.EV_ADD | flags)
    assert not is_readable(kernel.fileno())
    assert is_silent(kernel)
    assert not is_readable(kernel.fileno())


@pytest.mark.parametrize("flags", [0, kq.EV_CLEAR, kq.EV_ONESHOT])
def test_a_socket_watched_before_it_connects_reports_that_it_has(
    kernel: Kernel, stack: ExitStack, listener: socket.socket, flags: int
) -> None:
    sock = stack.enter_context(socket.socket())
    sock.setblocking(False)
    change(kernel, sock, WRITE, kq.EV_ADD | flags)
    assert is_silent(kernel)
    sock.connect_ex(listener.getsockname())
    event = await_event(kernel, sock, WRITE)
    assert not event[2] & kq.EV_EOF
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_an_empty_datagram_is_an_event(kernel: Kernel, stack: ExitStack) -> None:
    receiver, sender = (stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))
    change(kernel, receiver, READ, kq.EV_ADD)
    change(kernel, sender, WRITE, kq.EV_ADD | kq.EV_ONESHOT)
    await_event(kernel, sender, WRITE)
    sender.sendto(b"", receiver.getsockname())
    event = await_event(kernel, receiver, READ)
    assert event[4] == 0
    assert not event[2] & kq.EV_EOF
    receiver.recv(1)
    assert is_silent(kernel)


def test_an_error_of_a_datagram_socket_is_an_event_without_EV_EOF(
    kernel: Kernel, stack: ExitStack, nowhere: tuple[str, int]
) -> None:
    sock = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    sock.connect(nowhere)
    change(kernel, sock, READ, kq.EV_ADD)
    sock.send(b"x")
    event = await_event(kernel, sock, READ)
    assert not event[2] & kq.EV_EOF
    with pytest.raises(ConnectionRefusedError):
        sock.recv(1)
    assert is_silent(kernel)


# Pipes, FIFOs, terminals, files


@pytest.mark.parametrize("flags", [0, kq.EV_CLEAR])
def test_READ_of_a_pipe(kernel: Kernel, pipe: Pipe, flags: int) -> None:
    change(kernel, pipe.reader, READ, kq.EV_ADD | flags)
    os.write(pipe.writer, b"abc")
    assert await_event(kernel, pipe.reader, READ)[4] == 3
    pipe.close(pipe.writer)
    event = await_event(kernel, pipe.reader, READ)
    assert (event[2] & kq.EV_EOF, event[4]) == (kq.EV_EOF, 3)
    drain(pipe.reader)
    assert is_silent(kernel) == bool(flags)


@pytest.mark.parametrize("flags", [0, kq.EV_CLEAR])
def test_WRITE_of_a_pipe(kernel: Kernel, pipe: Pipe, flags: int) -> None:
    change(kernel, pipe.writer, WRITE, kq.EV_ADD | flags)
    for _ in range(2):
        assert await_event(kernel, pipe.writer, WRITE)[4] >= 512
        fill(pipe.writer)
        assert is_silent(kernel)
        drain(pipe.reader)


@pytest.mark.parametrize("full", [False, True])
def test_WRITE_of_a_pipe_whose_reader_goes(kernel: Kernel, pipe: Pipe, flavour: kq.Flavour, full: bool) -> None:
    change(kernel, pipe.writer, WRITE, kq.EV_ADD)
    if full:
        fill(pipe.writer)
    pipe.close(pipe.reader)
    assert await_event(kernel, pipe.writer, WRITE)[2] & kq.EV_EOF
    if flavour is kq.Flavour.MACOS:
        assert await_event(kernel, pipe.writer, WRITE)[2] & kq.EV_EOF
    else:
        assert is_silent(kernel), "the kernel made it a oneshot"
        assert refusal(kernel, pipe.writer, WRITE, kq.EV_DELETE) == errno.ENOENT


def test_WRITE_of_a_pipe_whose_reader_is_gone(kernel: Kernel, pipe: Pipe, flavour: kq.Flavour) -> None:
    pipe.close(pipe.reader)
    if flavour is kq.Flavour.MACOS:
        change(kernel, pipe.writer, WRITE, kq.EV_ADD)
        assert await_event(kernel, pipe.writer, WRITE)[2] & kq.EV_EOF
    else:
        assert refusal(kernel, pipe.writer, WRITE, kq.EV_ADD) == errno.EPIPE
        assert refusal(kernel, pipe.writer, WRITE, kq.EV_DELETE) == errno.ENOENT


def test_the_wrong_end_of_a_pipe(kernel: Kernel, pipe: Pipe, flavour: kq.Flavour) -> None:
    change(kernel, pipe.writer, READ, kq.EV_ADD)
    change(kernel, pipe.reader, WRITE, kq.EV_ADD)
    os.write(pipe.writer, b"x")
    assert is_silent(kernel)
    pipe.close(pipe.writer)
    if flavour is kq.Flavour.MACOS:
        assert await_event(kernel, pipe.reader, WRITE)[2] & kq.EV_EOF
    else:
        assert is_silent(kernel)


@pytest.mark.parametrize("mode", [0, kq.EV_CLEAR, kq.EV_ONESHOT])
@pytest.mark.parametrize("late", [False, True])
def test_the_write_end_of_a_pipe_tells_a_READ_of_the_reader_that_left(
    kernel: Kernel, pipe: Pipe, mode: int, late: bool
) -> None:
    os.write(pipe.writer, b"x")
    if late:
        pipe.close(pipe.reader)
    change(kernel, pipe.writer, READ, kq.EV_ADD | mode)
    if not late:
        assert is_silent(kernel)
        pipe.close(pipe.reader)
    assert await_event(kernel, pipe.writer, READ)[2] & kq.EV_EOF
    assert is_silent(kernel) == bool(mode)


def test_EV_EOF_of_a_FIFO_ends_with_a_new_writer(kernel: Kernel, stack: ExitStack, tmp_path: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("macOS has FIFOs of another make")
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    stack.callback(os.close, reader)
    change(kernel, reader, READ, kq.EV_ADD)
    assert is_silent(kernel), "there was no writer yet"
    os.close(os.open(tmp_path / "fifo", os.O_WRONLY))
    assert await_event(kernel, reader, READ)[2] & kq.EV_EOF
    stack.callback(os.close, os.open(tmp_path / "fifo", os.O_WRONLY))
    assert is_silent(kernel)


def test_terminals(maker: Maker, stack: ExitStack) -> None:
    master, slave = os.openpty()
    stack.callback(os.close, master)
    ours, theirs = maker(), maker()
    change(ours, master, READ, kq.EV_ADD)
    change(theirs, slave, WRITE, kq.EV_ADD | kq.EV_ONESHOT)
    await_event(theirs, slave, WRITE)
    change(theirs, slave, READ, kq.EV_ADD | kq.EV_CLEAR)
    os.write(slave, b"abc")
    assert await_event(ours, master, READ)[4] == 3
    assert os.read(master, 10) == b"abc"
    os.write(master, b"line\n")
    await_event(theirs, slave, READ)
    while not os.read(master, 10).endswith(b"\n"):
        pass  # the echo
    os.close(slave)
    assert await_event(ours, master, READ)[2] & kq.EV_EOF
    assert is_silent(theirs)


def test_READ_of_a_file_counts_to_its_end(kernel: Kernel, stack: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    file = os.open(tmp_path / "file", os.O_RDONLY)
    stack.callback(os.close, file)
    change(kernel, file, READ, kq.EV_ADD)
    assert await_event(kernel, file, READ)[4] == 3
    os.read(file, 10)
    assert is_silent(kernel)
    assert not is_readable(kernel.fileno())
    change(kernel, file, READ, kq.EV_DELETE)


# close(2), dup(2), numbers used again


def test_close_removes_the_knotes(kernel: Kernel, pair: Pair, flavour: kq.Flavour) -> None:
    near, far = pair
    fd = near.fileno()
    for wanted in READ, WRITE:
        change(kernel, near, wanted, kq.EV_ADD)
    far.send(b"x")
    near.close()
    assert is_silent(kernel)
    gone = errno.ENOENT if flavour is kq.Flavour.MACOS else errno.EBADF
    assert refusal(kernel, fd, READ, kq.EV_DELETE) == gone
    assert refusal(kernel, fd, WRITE, kq.EV_ENABLE) == gone
    assert refusal(kernel, fd, READ, kq.EV_ADD) == errno.EBADF


@pytest.mark.parametrize("flags", [0, kq.EV_CLEAR, kq.EV_ONESHOT, kq.EV_DISPATCH])
def test_close_removes_the_knotes_though_a_duplicate_lives(
    kernel: Kernel, pair: Pair, stack: ExitStack, flags: int
) -> None:
    near, far = pair
    duplicate = stack.enter_context(near.dup())
    fd = near.fileno()
    change(kernel, near, READ, kq.EV_ADD | flags)
    far.send(b"x")
    near.close()
    assert is_silent(kernel)
    far.send(b"x")
    assert is_silent(kernel)
    assert refusal(kernel, fd, READ, kq.EV_ADD) == errno.EBADF
    change(kernel, duplicate, READ, kq.EV_ADD)
    await_event(kernel, duplicate, READ)


@pytest.mark.parametrize("duplicate", [False, True])
def test_a_number_used_again_has_no_knotes(
    kernel: Kernel, pair: Pair, stack: ExitStack, pipe: Pipe, duplicate: bool
) -> None:
    near, far = pair
    fd = near.fileno()
    for wanted in READ, WRITE:
        change(kernel, near, wanted, kq.EV_ADD)
    if duplicate:
        stack.enter_context(near.dup())
    far.send(b"x")
    near.close()
    os.write(pipe.writer, b"abc")
    os.dup2(pipe.reader, fd)
    stack.callback(os.close, fd)
    assert is_silent(kernel)
    assert refusal(kernel, fd, READ, kq.EV_DELETE) == errno.ENOENT
    change(kernel, fd, READ, kq.EV_ADD)
    assert await_event(kernel, fd, READ)[4] == 3
    assert refusal(kernel, fd, WRITE, kq.EV_ENABLE) == errno.ENOENT


def test_a_duplicate_has_knotes_of_its_own(kernel: Kernel, pair: Pair, stack: ExitStack) -> None:
    near, far = pair
    duplicate = stack.enter_context(near.dup())
    for source in near, duplicate:
        change(kernel, source, READ, kq.EV_ADD)
    far.send(b"x")
    assert now(kernel).keys() == {(near.fileno(), READ), (duplicate.fileno(), READ)}
    change(kernel, near, READ, kq.EV_DELETE)
    await_event(kernel, duplicate, READ)


def test_EBADF_for_a_number_that_is_not_open(kernel: Kernel) -> None:
    assert refusal(kernel, 999_999, READ, kq.EV_ADD) == errno.EBADF


# EVFILT_USER


def test_a_user_event_is_reported_when_triggered(kernel: Kernel, user: int) -> None:
    change(kernel, 1, user, kq.EV_ADD | kq.EV_CLEAR)
    assert is_silent(kernel)
    for _ in range(2):
        for _ in range(3):
            change(kernel, 1, user, 0, kq.NOTE_TRIGGER)
        assert await_event(kernel, 1, user)[0] == 1
        assert is_silent(kernel)


def test_a_user_event_without_EV_CLEAR_stays_triggered(kernel: Kernel, user: int) -> None:
    change(kernel, 1, user, kq.EV_ADD)
    change(kernel, 1, user, 0, kq.NOTE_TRIGGER)
    for _ in range(3):
        await_event(kernel, 1, user)
    change(kernel, 1, user, kq.EV_DELETE)
    assert is_silent(kernel)


def test_a_user_event_is_not_triggered_again_by_other_changes(kernel: Kernel, user: int) -> None:
    change(kernel, 1, user, kq.EV_ADD | kq.EV_CLEAR)
    change(kernel, 1, user, kq.EV_ADD)
    change(kernel, 1, user, kq.EV_ENABLE)
    assert is_silent(kernel)
    change(kernel, 1, user, kq.EV_ADD, kq.NOTE_TRIGGER)
    await_event(kernel, 1, user)
    change(kernel, 1, user, kq.EV_ENABLE)
    assert is_silent(kernel)


def test_a_user_event_triggered_while_disabled(kernel: Kernel, user: int) -> None:
    change(kernel, 1, user, kq.EV_ADD | kq.EV_CLEAR | kq.EV_DISABLE)
    change(kernel, 1, user, 0, kq.NOTE_TRIGGER)
    assert is_silent(kernel)
    change(kernel, 1, user, kq.EV_ENABLE)
    await_event(kernel, 1, user)


def test_a_user_event_can_be_a_oneshot(kernel: Kernel, user: int) -> None:
    change(kernel, 1, user, kq.EV_ADD | kq.EV_ONESHOT)
    change(kernel, 1, user, 0, kq.NOTE_TRIGGER)
    await_event(kernel, 1, user)
    assert is_silent(kernel)
    assert refusal(kernel, 1, user, 0) == errno.ENOENT


def test_NOTE_TRIGGER_in_the_change_that_adds(kernel: Kernel, user: int, flavour: kq.Flavour) -> None:
    change(kernel, 1, user, kq.EV_ADD | kq.EV_CLEAR, kq.NOTE_TRIGGER)
    if flavour is kq.Flavour.MACOS:
        await_event(kernel, 1, user)
    assert is_silent(kernel)


def test_NOTE_TRIGGER_with_EV_CLEAR(kernel: Kernel, user: int, flavour: kq.Flavour) -> None:
    change(kernel, 1, user, kq.EV_ADD | kq.EV_CLEAR)
    change(kernel, 1, user, kq.EV_CLEAR, kq.NOTE_TRIGGER)
    if flavour is kq.Flavour.MACOS:
        await_event(kernel, 1, user)
    assert is_silent(kernel)


def test_user_flags_are_combined_as_told(kernel: Kernel, user: int) -> None:
    change(kernel, 1, user, kq.EV_ADD, 0b1100)
    seen = []
    for how, flags in [
        (kq.NOTE_FFNOP, 0b1),
        (kq.NOTE_FFAND, 0b0110),
        (kq.NOTE_FFOR, 0b0001),
        (kq.NOTE_FFCOPY, 0b1010),
    ]:
        change(kernel, 1, user, 0, how | flags | kq.NOTE_TRIGGER, 7)
        event = await_event(kernel, 1, user)
        assert event[4] == 7
        seen.append(event[3] & kq.NOTE_FFLAGSMASK)
    assert seen == [0b1100, 0b0100, 0b0101, 0b1010]


def test_a_user_event_has_nothing_to_do_with_a_descriptor_of_its_number(kernel: Kernel, user: int, pair: Pair) -> None:
    near, _ = pair
    change(kernel, near, WRITE, kq.EV_ADD)
    change(kernel, near, user, kq.EV_ADD | kq.EV_CLEAR)
    change(kernel, near, user, 0, kq.NOTE_TRIGGER)
    assert now(kernel).keys() == {(near.fileno(), WRITE), (near.fileno(), user)}
    change(kernel, near, WRITE, kq.EV_DELETE)
    assert is_silent(kernel)


# All of it together, against the algorithm of kern_event.c in a few lines


class Reference:
    """A knote for READ of a stream of which everything is known. ``active`` is KN_ACTIVE."""

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.enabled = not flags & kq.EV_DISABLE
        self.active = False


class Stream:
    """A pair of sockets of which one end is written and shut, the other read and watched; and what must come of it."""

    def __init__(self, stack: ExitStack, kernel: Kernel) -> None:
        self.near, self.far = (stack.enter_context(end) for end in socket.socketpair())
        self.near.setblocking(False)
        self.kernel = kernel
        self.knote: Reference | None = None
        self.data = 0
        self.is_over = False

    def happens(self) -> None:
        if self.knote and (self.data or self.is_over):
            self.knote.active = True

    def send(self) -> None:
        if not self.is_over:
            self.far.send(b"xy")
            self.data += 2
            self.happens()

    def shut(self) -> None:
        self.far.shutdown(socket.SHUT_WR)
        self.is_over = True
        self.happens()

    def read_a_byte(self) -> None:
        if self.data:
            self.data -= len(self.near.recv(1))

    def drain(self) -> None:
        self.data -= drain(self.near)
        assert self.data == 0

    def change(self, flags: int) -> None:
        change(self.kernel, self.near, READ, flags)

    def add(self, flags: int) -> None:
        self.change(kq.EV_ADD | flags)
        if self.knote is None:
            self.knote = Reference(flags)
        elif flags & kq.EV_DISABLE:
            self.knote.enabled = False
        self.happens()

    def touch(self, flags: int) -> None:
        if self.knote:
            self.change(flags)
            self.knote.enabled = bool(flags & kq.EV_ENABLE) or (self.knote.enabled and not flags & kq.EV_DISABLE)
            self.happens()

    def delete(self) -> None:
        if self.knote:
            self.change(kq.EV_DELETE)
            self.knote = None

    def retrieve(self) -> tuple[int, int] | None:
        """What is reported now: EV_EOF or not, and the data."""
        knote = self.knote
        if not knote or not knote.enabled or not knote.active:
            return None
        if not self.data and not self.is_over:
            knote.active = False
            return None
        if knote.flags & kq.EV_ONESHOT:
            self.knote = None
        elif knote.flags & (kq.EV_CLEAR | kq.EV_DISPATCH):
            knote.active = False
            knote.enabled = not knote.flags & kq.EV_DISPATCH
        return (kq.EV_EOF if self.is_over else 0), self.data


STEPS: list[Callable[[Stream], object]] = [
    *[Stream.send] * 4,
    *[Stream.read_a_byte, Stream.drain] * 2,
    *(
        partial(Stream.add, flags=flags | off)
        for flags in (0, kq.EV_CLEAR, kq.EV_ONESHOT, kq.EV_DISPATCH, kq.EV_CLEAR | kq.EV_ONESHOT)
        for off in (0, 0, 0, kq.EV_DISABLE)
    ),
    *(partial(Stream.touch, flags=flags) for flags in (0, kq.EV_ENABLE, kq.EV_DISABLE)),
    Stream.delete,
]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_no_event_is_masked_and_none_invented(kernel: Kernel, stack: ExitStack, seed: int) -> None:
    chance = random.Random(seed)
    streams = {(stream.near.fileno(), READ): stream for stream in (Stream(stack, kernel) for _ in range(4))}
    history: list[str] = []
    for count in range(300):
        key, stream = chance.choice([*streams.items()])
        step = Stream.shut if count > 250 and chance.random() < 0.1 else chance.choice(STEPS)
        step(stream)
        history.append(f"{key[0]} {step.__name__ if hasattr(step, '__name__') else step}")
        if chance.random() < 0.5:
            found = {key: (event[2] & kq.EV_EOF, event[4]) for key, event in now(kernel).items()}
            must_be = {key: report for key, stream in streams.items() if (report := stream.retrieve())}
            assert found == must_be, "\n".join(history[-20:])
            history.append(f"-- {found}")


# Waiting


def test_a_wait_ends_at_its_timeout_and_not_before(kernel: Kernel) -> None:
    for timeout in 0.0, 0.0002, 0.01:
        began = time.monotonic()
        assert kernel.control([], 1, timeout) == []
        assert time.monotonic() - began >= timeout


def while_waiting(kernel: Kernel, act: Callable[[], object]) -> list[kq.Kevent]:
    """Wait without limit, while another thread acts once this one sleeps."""

    def act_then() -> None:
        time.sleep(SILENCE)  # the test holds as well if the thread is not asleep by then
        act()

    thread = threading.Thread(target=act_then)
    thread.start()
    try:
        return kernel.control([], ROOM, WAIT)
    finally:
        thread.join()


def test_a_wait_is_ended_by_what_arrives(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    assert [event[:2] for event in while_waiting(kernel, lambda: far.send(b"x"))] == [(near.fileno(), READ)]


def test_a_wait_is_ended_by_a_change_of_another_thread(kernel: Kernel, pair: Pair) -> None:
    near, _ = pair
    events = while_waiting(kernel, lambda: change(kernel, near, WRITE, kq.EV_ADD | kq.EV_ONESHOT))
    assert [event[:2] for event in events] == [(near.fileno(), WRITE)]


def test_a_wait_is_ended_by_NOTE_TRIGGER_of_another_thread(kernel: Kernel, user: int) -> None:
    change(kernel, 1, user, kq.EV_ADD | kq.EV_CLEAR)
    events = while_waiting(kernel, lambda: change(kernel, 1, user, 0, kq.NOTE_TRIGGER))
    assert [event[:2] for event in events] == [(1, user)]


def test_a_knote_deleted_during_a_wait_does_not_end_it(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD)

    def act() -> None:
        change(kernel, near, READ, kq.EV_DELETE)
        far.send(b"x")
        change(kernel, far, WRITE, kq.EV_ADD)

    assert [event[:2] for event in while_waiting(kernel, act)] == [(far.fileno(), WRITE)]


def test_each_event_is_handed_to_one_of_two_waiting_threads(kernel: Kernel, stack: ExitStack) -> None:
    """A game of ping-pong on each of some sockets: an event that is lost ends it, one that is invented blocks it."""
    rounds = 50
    pairs = {}
    for _ in range(8):
        near, far = (stack.enter_context(end) for end in socket.socketpair())
        near.settimeout(WAIT)
        change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
        pairs[near.fileno()] = near, far, itertools.count(1)
        far.send(b"x")
    left = threading.Semaphore(0)

    def play() -> None:
        while True:
            for ident, wanted, *_ in kernel.control([], 2, WAIT):
                if wanted != READ:
                    return
                near, far, played = pairs[ident]
                near.recv(1)
                if next(played) < rounds:
                    far.send(b"x")
                else:
                    left.release()

    threads = [threading.Thread(target=play) for _ in range(2)]
    for thread in threads:
        thread.start()
    ended = [left.acquire(timeout=WAIT) for _ in pairs]
    over = [stack.enter_context(end) for end in socket.socketpair()]
    change(kernel, over[0], WRITE, kq.EV_ADD)
    for thread in threads:
        thread.join()
    assert all(ended)


# EINTR and signals


@contextmanager
def on_alarm(handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    gc.disable()  # an exception that strikes in a callback of the collector is lost, and no fault of the kernel's
    try:
        yield
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # first, as the handler may set the timer
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Struck(Exception):
    """What a signal's handler raises."""


def strike() -> None:
    raise Struck


def test_a_handler_that_returns_does_not_end_the_wait(kernel: Kernel) -> None:
    calls: list[None] = []
    with on_alarm(lambda: calls.append(None)):
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        began = time.monotonic()
        assert kernel.control([], 1, 0.1) == []
        assert time.monotonic() - began >= 0.1
    assert calls


def test_a_handler_that_raises_ends_the_wait(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    with on_alarm(strike):
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Struck):
            kernel.control([(near.fileno(), READ, kq.EV_ADD | kq.EV_CLEAR, 0, 0)], 1, WAIT)
    far.send(b"x")
    await_event(kernel, near, READ)


def test_a_handler_may_call_during_a_wait(kernel: Kernel, pair: Pair) -> None:
    near, _ = pair
    with on_alarm(lambda: change(kernel, near, WRITE, kq.EV_ADD | kq.EV_ONESHOT)):
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        await_event(kernel, near, WRITE)


@pytest.mark.parametrize("flags", [kq.EV_CLEAR, kq.EV_ONESHOT, kq.EV_DISPATCH])
def test_no_event_is_lost_or_invented_in_a_storm_of_signals(kernel: Kernel, stack: ExitStack, flags: int) -> None:
    """As ping-pong above, in one thread, where handlers raise at every moment of a call.

    The result of a call is taken by a loop over an iterator written in C, between which two CPython runs no handler.
    """
    chance = random.Random(flags)
    pairs = {}
    for _ in range(8):
        near, far = (stack.enter_context(end) for end in socket.socketpair())
        near.setblocking(False)
        change(kernel, near, READ, kq.EV_ADD | flags)
        pairs[near.fileno()] = near, far
    raising = False
    strikes = 0

    def hit() -> None:
        nonlocal raising, strikes
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 5e-4))
        if raising:
            raising = False
            strikes += 1
            raise Struck

    def insist(changes: list[kq.Kevent], room: int, timeout: float) -> list[kq.Kevent]:
        nonlocal raising
        while True:
            events: list[kq.Kevent] = []
            try:
                raising = True
                for events in itertools.starmap(kernel.control, [(changes, room, timeout)]):  # noqa: B007
                    raising = False
            except Struck:
                if not events:
                    continue
            return events

    arm = {kq.EV_ONESHOT: kq.EV_ADD | kq.EV_ONESHOT, kq.EV_DISPATCH: kq.EV_ENABLE}.get(flags)
    with on_alarm(hit):
        hit()
        for _, far in pairs.values():
            far.send(b"x")
        for turn in range(6000):
            if turn >= 600 and strikes > 100:
                break  # on a busy machine the alarms are late, and strike more seldom
            events = insist([], chance.randint(1, 8), WAIT)
            assert events, "an event was lost"
            for ident, *_ in events:
                near, far = pairs[ident]
                near.recv(1)  # BlockingIOError: an event was invented
                if arm is not None:
                    insist([(ident, READ, arm, 0, 0)], 0, 0)
                far.send(b"x")
    assert strikes > 100


# The descriptor: poll(2), kqueues in kqueues, close(2), fork(2)


@pytest.mark.parametrize("flags", [0, kq.EV_CLEAR, kq.EV_ONESHOT, kq.EV_DISPATCH])
def test_the_number_is_readable_while_there_are_events(kernel: Kernel, pair: Pair, flags: int) -> None:
    near, far = pair
    assert not is_readable(kernel.fileno())
    change(kernel, near, READ, kq.EV_ADD | flags)
    assert not is_readable(kernel.fileno())
    far.send(b"x")
    assert is_readable(kernel.fileno())
    await_event(kernel, near, READ)
    drain(near)
    assert is_silent(kernel)
    assert not is_readable(kernel.fileno())


def test_a_disabled_knote_does_not_make_the_number_readable(kernel: Kernel, pair: Pair) -> None:
    change(kernel, pair[0], WRITE, kq.EV_ADD)
    change(kernel, pair[0], WRITE, kq.EV_DISABLE)
    assert not is_readable(kernel.fileno())


def test_a_kqueue_in_a_kqueue(maker: Maker, pair: Pair) -> None:
    inner, outer = maker(), maker()
    near, far = pair
    change(inner, near, READ, kq.EV_ADD)
    change(outer, inner.fileno(), READ, kq.EV_ADD)
    assert is_silent(outer)
    far.send(b"x")
    await_event(outer, inner.fileno(), READ)
    assert is_readable(outer.fileno())
    drain(near)
    assert is_silent(inner)
    assert is_silent(outer)


def test_EINVAL_for_a_kqueue_in_itself(kernel: Kernel) -> None:
    assert refusal(kernel, kernel.fileno(), READ, kq.EV_ADD) == errno.EINVAL


def test_two_kqueues_watch_one_source(maker: Maker, pair: Pair) -> None:
    kernels = maker(), maker()
    near, far = pair
    for kernel in kernels:
        change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    far.send(b"x")
    for kernel in kernels:
        await_event(kernel, near, READ)
        assert is_silent(kernel)


def test_no_descriptor_is_inheritable(maker: Maker, pair: Pair) -> None:
    before = numbers_in_use()
    kernel = maker()
    change(kernel, pair[0], READ, kq.EV_ADD)
    if kernel.user_filter is not None:
        change(kernel, 1, kernel.user_filter, kq.EV_ADD)
    opened = {fd for fd in numbers_in_use() - before if is_open(fd)}
    assert kernel.fileno() in opened
    assert not any(map(os.get_inheritable, opened))


def test_calls_after_close_raise_ValueError(kernel: Kernel) -> None:
    kernel.close()
    kernel.close()
    with pytest.raises(ValueError, match="closed"):
        kernel.control([], 1, 0)
    with pytest.raises(ValueError, match="closed"):
        kernel.fileno()


def test_close_leaves_the_sources_as_they_are(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD)
    kernel.close()
    far.send(b"x")
    assert near.recv(1) == b"x"


def test_the_number_is_released_when_the_last_call_has_left(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    fd = kernel.fileno()
    change(kernel, near, READ, kq.EV_ADD)

    def close_and_send() -> None:
        kernel.close()
        assert is_open(fd)
        far.send(b"x")

    assert [event[:2] for event in while_waiting(kernel, close_and_send)] == [(near.fileno(), READ)]
    assert not is_open(fd)


def test_it_is_released_with_its_last_reference(maker: Maker) -> None:
    _, make = MAKERS[maker.name]
    kernel = make()
    fd = kernel.fileno()
    del kernel
    assert not is_open(fd)


def in_child(call: Callable[[], bool]) -> bool:
    """Whether *call* returns true in a forked child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which xdist has
        child = os.fork()
    if child == 0:
        status = 2
        try:
            status = 0 if call() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_does_not_inherit_it(kernel: Kernel, pair: Pair) -> None:
    near, far = pair
    change(kernel, near, READ, kq.EV_ADD | kq.EV_CLEAR)
    change(kernel, near, WRITE, kq.EV_ADD | kq.EV_ONESHOT)
    fd = kernel.fileno()

    def call() -> bool:
        if is_open(fd):
            return False
        try:
            kernel.control([(near.fileno(), READ, kq.EV_DELETE, 0, 0)], ROOM, 0)
        except (OSError, ValueError):  # the second since CPython marks it closed
            kernel.close()
            return True
        return False

    assert in_child(call)
    far.send(b"x")
    assert now(kernel).keys() == {(near.fileno(), READ), (near.fileno(), WRITE)}


# What is the model's own


needs_model = pytest.mark.skipif(sys.platform != "linux", reason="the model needs Linux")

either_flavour = pytest.mark.parametrize("maker", [kq.Flavour.FREEBSD.value], indirect=True)
"""They do not differ in this, and what is repeated for each step takes its time."""


Scene: TypeAlias = (
    "Callable[[Callable[[Callable[[], list[kq.Kevent]], Callable[[], object]], list[kq.Kevent] | None]], object]"
)


def at_each_step(scene: Scene) -> None:
    """Play *scene* with a signal's handler at the first step of a call, at the second, and so on to its end.

    The scene is given the way to make that call, with its handler. ``None`` comes back if the handler raised.
    """
    for step in itertools.count(1):
        interrupter = Interrupter(step, frozenset({kq.__name__.rpartition(".")[2]}))

        def interrupted(
            call: Callable[[], list[kq.Kevent]], handler: Callable[[], object], interrupt: Interrupter = interrupter
        ) -> list[kq.Kevent] | None:
            outcome = interrupt(call, handler)
            if outcome.error and not isinstance(outcome.error, Struck):
                raise outcome.error
            return outcome.returned

        scene(interrupted)
        if interrupter.missed:
            assert step > 20
            return


KINDS = [0, kq.EV_CLEAR, kq.EV_ONESHOT, kq.EV_DISPATCH]


@needs_model
@either_flavour
@pytest.mark.parametrize("raises", [True, False])
def test_what_is_taken_when_a_handler_comes_is_not_lost_and_not_reported_twice(
    maker: Maker, stack: ExitStack, raises: bool
) -> None:
    pairs = [[stack.enter_context(end) for end in socket.socketpair()] for _ in KINDS]
    for _, far in pairs:
        far.send(b"x")

    def scene(interrupted: Callable[..., list[kq.Kevent] | None]) -> None:
        kernel = maker()
        user = kernel.user_filter or 0
        for (near, _), flags in zip(pairs, KINDS, strict=True):
            change(kernel, near, READ, kq.EV_ADD | flags)
        change(kernel, 1, user, kq.EV_ADD | kq.EV_CLEAR)
        change(kernel, 1, user, 0, kq.NOTE_TRIGGER)
        level, *edges = [*((near.fileno(), READ) for near, _ in pairs), (1, user)]
        seen: list[kq.Kevent] = []

        def handler() -> None:
            if raises:
                raise Struck
            seen.extend(kernel.control([], ROOM, 0))

        seen += interrupted(lambda: kernel.control([], ROOM, 0), handler) or []
        seen += kernel.control([], ROOM, 0)
        keys = [event[:2] for event in seen]
        assert sorted(key for key in keys if key != level) == sorted(edges)
        assert level in keys
        assert now(kernel).keys() == {level}
        kernel.close()

    at_each_step(scene)


@needs_model
@either_flavour
@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("flags", KINDS)
def test_a_change_that_a_handler_interrupts_loses_no_event(maker: Maker, pair: Pair, flags: int, raises: bool) -> None:
    near, far = pair
    far.send(b"x")

    def scene(interrupted: Callable[..., list[kq.Kevent] | None]) -> None:
        kernel = maker()
        change(kernel, near, READ, kq.EV_ADD | flags)
        again = near.fileno(), READ, kq.EV_ADD | flags, 0, 0
        interrupted(lambda: kernel.control([again], 0, 0), strike if raises else lambda: None)
        await_event(kernel, near, READ)
        kernel.close()

    at_each_step(scene)


@needs_model
@either_flavour
def test_the_changes_of_a_call_that_a_handler_interrupts_are_all_made_or_none(maker: Maker, pair: Pair) -> None:
    near, _ = pair
    outcomes = set()

    def scene(interrupted: Callable[..., list[kq.Kevent] | None]) -> None:
        kernel = maker()
        change(kernel, near, READ, kq.EV_ADD)
        changes = [(near.fileno(), READ, kq.EV_DELETE, 0, 0), (near.fileno(), WRITE, kq.EV_ADD, 0, 0)]
        interrupted(lambda: kernel.control(changes, 0, 0), strike)
        answers = kernel.control([(near.fileno(), wanted, kq.EV_DELETE, 0, 0) for wanted in (READ, WRITE)], ROOM, 0)
        [missing] = [answer[1] for answer in answers]
        outcomes.add(missing)
        kernel.close()

    at_each_step(scene)
    assert outcomes == {READ, WRITE}


@needs_model
@either_flavour
def test_a_handler_that_makes_a_change_during_another_undoes_nothing(maker: Maker, pair: Pair) -> None:
    near, far = pair

    def scene(interrupted: Callable[..., list[kq.Kevent] | None]) -> None:
        kernel = maker()
        handled = []

        def handler() -> None:
            change(kernel, far, WRITE, kq.EV_ADD)
            handled.append(far.fileno())

        interrupted(lambda: kernel.control([(near.fileno(), WRITE, kq.EV_ADD, 0, 0)], 0, 0), handler)
        assert now(kernel).keys() == {(fd, WRITE) for fd in (near.fileno(), *handled)}
        kernel.close()

    at_each_step(scene)


@needs_model
def test_a_knote_takes_no_number_that_an_application_expects(kernel: Kernel, pair: Pair) -> None:
    lowest = os.dup(0)
    os.close(lowest)
    for wanted in READ, WRITE:
        change(kernel, pair[0], wanted, kq.EV_ADD)
    again = os.dup(0)
    os.close(again)
    assert again == lowest


@needs_model
def test_there_may_be_no_user_events() -> None:
    kernel = kq.SimulatedKqueue(user_events=False)
    assert kernel.user_filter is None
    assert refusal(kernel, 1, -11, kq.EV_ADD) == errno.EINVAL


@needs_model
@pytest.mark.parametrize("fixed", [False, True])
def test_an_object_that_knows_nothing_of_forks_closes_what_has_its_number(fixed: bool) -> None:
    kernel = kq.SimulatedKqueue(fork_fix=fixed)
    fd = kernel.fileno()

    def call() -> bool:
        os.dup2(0, fd)
        kernel.close()
        return is_open(fd) == fixed

    assert in_child(call)
    kernel.close()


@needs_model
def test_a_seed_puts_events_into_any_order(pair: Pair) -> None:
    orders = set()
    for seed in range(20):
        kernel = kq.SimulatedKqueue(seed=seed)
        for source in pair:
            change(kernel, source, WRITE, kq.EV_ADD)
        orders.add(tuple(event[0] for event in kernel.control([], ROOM, 0)))
        kernel.close()
    near, far = (source.fileno() for source in pair)
    assert orders == {(near, far), (far, near)}


@needs_model
def test_a_seed_makes_changes_twice_in_a_call_that_waits(pair: Pair) -> None:
    """As CPython does after EINTR: the second EV_DELETE finds nothing."""
    near, _ = pair
    outcomes = set()
    kernel = kq.SimulatedKqueue(seed=0)
    for _ in range(40):
        change(kernel, near, READ, kq.EV_ADD)
        events = kernel.control([(near.fileno(), READ, kq.EV_DELETE, 0, 0)], 1, 0.001)
        outcomes.add(tuple(event[4] for event in events))
    kernel.close()
    assert outcomes == {(), (errno.ENOENT,)}


@needs_model
def test_short_batches_lose_nothing(stack: ExitStack, maker: Maker) -> None:
    kernel = kq.SimulatedKqueue(seed=1, short=True)
    sources = [stack.enter_context(end) for _ in range(8) for end in socket.socketpair()]
    for source in sources:
        change(kernel, source, WRITE, kq.EV_ADD | kq.EV_CLEAR)
    batches = []
    while events := kernel.control([], ROOM, 0):
        batches.append(len(events))
    kernel.close()
    assert sum(batches) == len(sources)
    assert max(batches) < ROOM
