"""What callers catch: each error is the library's own, comes from the call itself, and has changed nothing.

Where a backend has a part in it, it is a rule, and tested by the suite: REG-01 to REG-06, REG-21, REG-23, REG-26,
SRC-01, CLS-02, FRK-01, TMO-08, CAP-03. Here is what the front object does alone, and what the errors are.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import polling
from polling import (
    AlreadyRegisteredError,
    Backend,
    Event,
    ForkedPollError,
    Interest,
    InvalidSourceError,
    IoSource,
    Mode,
    NotRegisteredError,
    Poll,
    PollBusyError,
    PollClosedError,
    PollingError,
    UnknownBackendError,
    UnsupportedError,
    UnsupportedSourceError,
    UserSource,
    Waker,
    errors,
)

NAN = float("nan")


@pytest.fixture(params=polling.available_backends().values(), ids=lambda backend: backend.name)
def poll(request: pytest.FixtureRequest) -> Iterator[Poll]:
    backend: type[Backend] = request.param
    with Poll(backend) as poll:
        yield poll


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        yield near, far


@pytest.fixture
def registered(poll: Poll, ends: tuple[socket.socket, socket.socket]) -> Iterator[socket.socket]:
    """A source that is registered, and must be so afterwards, as it was."""
    near, far = ends
    poll.register(near, "registered", Interest.READABLE, Mode.ONESHOT)
    yield near
    assert poll.poll(0) == []
    far.send(b"x")
    (event,) = poll.poll()
    assert (event.token, event.readable, event.writable) == ("registered", True, False)
    assert poll.poll(0) == []
    poll.deregister(near)


# -- the tree ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (AlreadyRegisteredError, (FileExistsError,)),
        (NotRegisteredError, (FileNotFoundError,)),
        (InvalidSourceError, (ValueError,)),
        (UnsupportedError, ()),
        (UnsupportedSourceError, (UnsupportedError, PermissionError)),
        (UnknownBackendError, (LookupError,)),
        (PollClosedError, (ValueError,)),
        (ForkedPollError, ()),
        (PollBusyError, ()),
    ],
)
def test_each_error_is_the_library_s_and_the_built_in_one(error: type[Exception], bases: tuple[type, ...]) -> None:
    for base in (PollingError, *bases):
        assert issubclass(error, base)


def test_there_is_no_error_beside_these() -> None:
    assert set(errors.__all__) <= set(polling.__all__)
    assert len(errors.__all__) == 13  # the nine above, three of user space, and their base


def test_errors_that_are_os_errors_carry_their_number(
    poll: Poll, ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    near, _ = ends
    with pytest.raises(NotRegisteredError) as missing:
        poll.deregister(near)
    assert missing.value.errno == errno.ENOENT
    poll.register(near, "near")
    with pytest.raises(AlreadyRegisteredError, match=f"descriptor {near.fileno()} is already registered") as present:
        poll.register(near, "again")
    assert present.value.errno == errno.EEXIST
    with (tmp_path / "file").open("w") as file:
        with pytest.raises(UnsupportedSourceError, match="a regular file or directory") as refused:
            poll.register(file, "file")
        assert refused.value.errno == errno.EPERM


# -- sources -------------------------------------------------------------------------------------------------------


class Raising:
    """A source whose ``fileno()`` raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def fileno(self) -> int:
        raise self._error


def test_an_object_that_raises_once_closed_is_a_closed_source(poll: Poll, registered: socket.socket) -> None:
    for source in Raising(ValueError("I/O operation on closed file")), IoSource(Raising(ValueError("closed"))):
        with pytest.raises(InvalidSourceError, match="is closed"):
            poll.register(source, "closed")
        with pytest.raises(InvalidSourceError, match="is closed"):
            poll.reregister(source, "closed", Interest.READABLE, Mode.LEVEL)
        with pytest.raises(InvalidSourceError, match="is closed"):
            poll.rearm(source)
        with pytest.raises(NotRegisteredError):
            poll.deregister(source)


def test_other_errors_of_fileno_pass_through(poll: Poll, registered: socket.socket) -> None:
    source = Raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        poll.register(source, "source")
    with pytest.raises(ZeroDivisionError):
        poll.reregister(source, "source", Interest.READABLE, Mode.LEVEL)
    with pytest.raises(ZeroDivisionError):
        poll.rearm(source)
    with pytest.raises(NotRegisteredError):
        poll.deregister(source)


class Connection:
    """A source of a library that has an error of its own for what is closed, as those for databases have."""

    def __init__(self, sock: socket.socket, error: Exception) -> None:
        self._socket = sock
        self._error = error
        self.is_closed = False

    def fileno(self) -> int:
        if self.is_closed:
            raise self._error
        return self._socket.fileno()


@pytest.mark.parametrize("is_deregistered", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("closed"), AttributeError("it was let go of")], ids=repr)
def test_a_source_with_an_error_of_its_own_once_closed_disturbs_no_wait_and_is_deregistered(
    poll: Poll, ends: tuple[socket.socket, socket.socket], error: Exception, is_deregistered: bool
) -> None:
    near, far = ends
    others = socket.socketpair()
    with others[0], others[1]:
        connection = Connection(near, error)
        poll.register(connection, "connection")
        poll.register(others[0], "other")
        far.send(b"x")
        others[1].send(b"x")
        assert {event.token for event in poll.poll(10)} == {"connection", "other"}
        connection.is_closed = True
        if is_deregistered:
            poll.deregister(connection)
            with pytest.raises(NotRegisteredError):
                poll.deregister(connection)
        for _ in range(600):  # now and then each source is asked
            assert "other" in {event.token for event in poll.poll(10)}
        assert [event.token for event in poll.poll(10)] == ["other"]
        if isinstance(error, AttributeError):
            with pytest.raises(InvalidSourceError):
                poll.register(connection, "again")


def test_a_closed_file_and_a_closed_pipe_end_are_closed_sources(poll: Poll, registered: socket.socket) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    closed = open(reader, "rb", buffering=0)  # noqa: SIM115  # it is closed in the next line
    closed.close()
    with pytest.raises(InvalidSourceError):
        poll.register(closed, "closed")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows opens no directories")
def test_a_directory_is_refused_in_each_mode_and_leaves_nothing(
    poll: Poll, registered: socket.socket, tmp_path: Path
) -> None:
    number = os.open(tmp_path, os.O_RDONLY)
    try:
        for mode in Mode.LEVEL, Mode.ONESHOT, Mode.EDGE_ONESHOT:
            for interest in Interest.NONE, Interest.READABLE, Interest.READ_WRITE:
                with pytest.raises(UnsupportedSourceError):
                    poll.register(number, "directory", interest, mode)
        with pytest.raises(NotRegisteredError):
            poll.deregister(number)
    finally:
        os.close(number)


# -- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interest", [1, None, "r", Mode.EDGE, True], ids=repr)
def test_an_interest_is_an_interest(poll: Poll, registered: socket.socket, interest: Any) -> None:
    free, other = socket.socketpair()
    with free, other:
        with pytest.raises(TypeError, match="interest must be an Interest"):
            poll.register(free, "free", interest)
        with pytest.raises(NotRegisteredError):
            poll.deregister(free)
    with pytest.raises(TypeError, match="interest must be an Interest"):
        poll.reregister(registered, "changed", interest, Mode.LEVEL)


@pytest.mark.parametrize("interest", [1, None, "r", Mode.EDGE, True], ids=repr)
def test_an_io_source_calls_nothing_for_what_is_no_interest(interest: Any) -> None:
    called: list[None] = []
    source = IoSource(0)
    with pytest.raises(TypeError, match="interest must be an Interest"):
        source.do_io(interest, called.append, None)
    with pytest.raises(TypeError, match="interest must be an Interest"):
        source.drained(interest)
    assert not called


@pytest.mark.parametrize("mode", [0, None, "level", Interest.READABLE, True], ids=repr)
def test_a_mode_is_a_mode(poll: Poll, registered: socket.socket, mode: Any) -> None:
    free, other = socket.socketpair()
    with free, other:
        with pytest.raises(TypeError, match="mode must be a Mode"):
            poll.register(free, "free", Interest.READABLE, mode)
        with pytest.raises(NotRegisteredError):
            poll.deregister(free)
    with pytest.raises(TypeError, match="mode must be a Mode"):
        poll.reregister(registered, "changed", Interest.WRITABLE, mode)


def test_modes_do_not_combine_and_the_error_names_the_one_that_is_meant() -> None:
    modes: list[Any] = list(Mode)
    for one in modes:
        for other in (*modes, 1):
            with pytest.raises(TypeError, match="EDGE_ONESHOT"):
                one | other
            with pytest.raises(TypeError, match="EDGE_ONESHOT"):
                other | one


def test_interests_have_no_other_bits() -> None:
    with pytest.raises(ValueError, match="8"):
        Interest(8)


def test_reregister_has_no_defaults(poll: Poll, registered: socket.socket) -> None:
    reregister: Any = poll.reregister
    for arguments in (), (Interest.READABLE,):
        with pytest.raises(TypeError, match="missing"):
            reregister(registered, "changed", *arguments)


@pytest.mark.parametrize(
    ("timeout", "error"), [(NAN, ValueError), ("1", TypeError), ([], TypeError), (1j, TypeError), (object(), TypeError)]
)
def test_a_timeout_is_a_number_or_none(
    poll: Poll, registered: socket.socket, timeout: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="timeout must be a number of seconds or None"):
        poll.poll(timeout)


@pytest.mark.parametrize(
    ("max_events", "error"),
    [(0, ValueError), (-1, ValueError), (-(10**30), ValueError), (1.0, TypeError), ("1", TypeError), (None, TypeError)],
)
def test_max_events_is_an_int_of_at_least_one(
    poll: Poll, registered: socket.socket, max_events: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="max_events must be"):
        poll.poll(0, max_events)


def test_an_event_cannot_be_changed(poll: Poll, ends: tuple[socket.socket, socket.socket]) -> None:
    near, _ = ends
    poll.register(near, "near", Interest.WRITABLE)
    (event,) = poll.poll()
    for name in "token", "writable", "error":
        with pytest.raises(AttributeError, match=f"immutable: cannot set '{name}'"):
            setattr(event, name, "changed")
        with pytest.raises(AttributeError, match=f"immutable: cannot delete '{name}'"):
            delattr(event, name)
    assert (event.token, event.writable, event.error) == ("near", True, False)


# -- closed, busy ----------------------------------------------------------------------------------------------------


def test_every_call_says_that_the_poll_is_closed(poll: Poll, ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    waker = Waker(poll, "waker")
    poll.register(near, "near")
    poll.close()
    for source in near, far, near.fileno():
        with pytest.raises(PollClosedError, match="this poll is closed"):
            poll.register(source, "source")
        with pytest.raises(PollClosedError, match="this poll is closed"):
            poll.reregister(source, "source", Interest.READABLE, Mode.LEVEL)
        with pytest.raises(PollClosedError, match="this poll is closed"):
            poll.rearm(source)
        with pytest.raises(PollClosedError, match="this poll is closed"):
            poll.deregister(source)
    for timeout in 0, None:
        with pytest.raises(PollClosedError, match="this poll is closed"):
            poll.poll(timeout)
    with pytest.raises(PollClosedError, match="this poll is closed"):
        poll.deregister(waker)
    with pytest.raises(PollClosedError, match="this poll is closed"):
        Waker(poll, "late")
    with pytest.raises(PollClosedError, match="this poll is closed"):
        poll.fileno()
    waker.wake()


def test_a_waker_is_deregistered_once(poll: Poll) -> None:
    waker, other = Waker(poll, "waker"), Waker(poll, "other")
    poll.deregister(waker)
    with pytest.raises(NotRegisteredError, match="Waker 'waker'"):
        poll.deregister(waker)
    with Poll(type(poll.backend)) as another, pytest.raises(NotRegisteredError, match="Waker 'other'"):
        another.deregister(other)
    waker.wake()
    other.wake()
    assert [event.token for event in poll.poll()] == ["other"]


def test_errors_of_user_space_name_the_source(poll: Poll) -> None:
    source = UserSource()
    with pytest.raises(NotRegisteredError, match=r"<UserSource .*NONE.*> is not registered"):
        poll.rearm(source)
    poll.register(source, "source")
    source.set()
    with pytest.raises(AlreadyRegisteredError, match=r"<UserSource .*READABLE.*> is already registered"):
        poll.register(source, "again")
    with Poll(type(poll.backend)) as another, pytest.raises(UnsupportedError, match="registered at another poll"):
        another.register(source, "source")
    with pytest.raises(TypeError, match="must be an Interest, not 4"):
        source.set(4)  # type: ignore[arg-type]  # what is wrong is the point
    poll.close()
    for call in (poll.rearm, poll.deregister):
        with pytest.raises(PollClosedError, match="this poll is closed"):
            call(source)


def test_a_second_waiter_is_told_before_its_arguments_are_looked_at(poll: Poll) -> None:
    """It is busy whatever was asked, and stays so for the first waiter until that has its event."""
    waker = Waker(poll, "waker")
    first: list[Event] = []
    inside = threading.Event()

    class Timeout(float):
        """A timeout that tells when the wait has begun, and is asked for in the middle of it."""

        def __float__(self) -> float:
            inside.set()
            return 60.0

    waiter = threading.Thread(target=lambda: first.extend(poll.poll(Timeout(60))))
    waiter.start()
    assert inside.wait(60)
    for arguments in (0,), (None,), (NAN,), (0, 0):
        with pytest.raises(PollBusyError, match="another call is waiting"):
            poll.poll(*arguments)
    waker.wake()
    waiter.join()
    assert [event.token for event in first] == ["waker"]
