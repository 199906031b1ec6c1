"""What is particular to readiness over completion ports: its invariant, its operations, the watches. On either port."""

from __future__ import annotations

import errno
import gc
import random
import select
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator

import pytest

import polling
from polling import Event, Interest, Mode, Poll, Waker
from polling._registry import Registration
from polling_backends import _completion_port
from polling_backends._completion_port import (
    CHUNK,
    READ,
    WRITE,
    Kind,
    Operation,
    Watchers,
    WindowsPort,
    describe,
)
from polling_backends._emulated_port import EmulatedPort, _Request
from polling_backends.iocp import IocpBackend, _Socket, _Watch
from polling_conformance.interrupt import Interrupter, at_each_step

WINDOWS = sys.platform == "win32"
PORT: type = WindowsPort if WINDOWS else EmulatedPort
"""That of this platform."""

if IocpBackend.unavailable_reason() is not None:
    pytest.skip(f"no completion port: {IocpBackend.unavailable_reason()}", allow_module_level=True)

Ends = tuple[socket.socket, socket.socket]


def connected() -> Ends:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


@pytest.fixture
def pair() -> Iterator[Ends]:
    near, far = connected()
    with near, far:
        yield near, far


@pytest.fixture
def backend() -> IocpBackend:
    return IocpBackend()


@pytest.fixture
def poll(backend: IocpBackend) -> Iterator[Poll[object]]:
    with Poll(backend) as poll:
        yield poll


def uncovered(backend: IocpBackend) -> list[str]:
    """Give what contradicts the invariant: armed directions that are neither hot nor waited for by an operation."""
    found = []
    for fd, watch in backend._watches.items():
        for bit in READ, WRITE:
            operation = watch.socket.operations.get(bit)
            waited_for = operation is not None and operation.started and operation.address in backend._operations
            if watch.armed & bit and fd not in backend._hot and not waited_for:
                found.append(f"bit {bit} of {fd}")
    return found


# -- the choice ------------------------------------------------------------------------------------------


def test_it_is_the_default_on_windows_and_nowhere_else() -> None:
    assert "iocp" in polling.backend_names()
    with Poll() as poll:
        assert (poll.backend.name == "iocp") is WINDOWS


def test_a_missing_private_name_is_the_reason_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    names = _completion_port.NEEDED["_overlapped"]
    system = types.SimpleNamespace(**dict.fromkeys(names))
    modules = {"_overlapped": system, "_winapi": types.SimpleNamespace(CloseHandle=None)}

    def find(name: str) -> object:
        try:
            return modules[name]
        except KeyError:
            raise ImportError(name) from None

    monkeypatch.setattr(_completion_port, "import_module", find)
    assert WindowsPort.unavailable_reason() is None
    for name in names:
        delattr(system, name)
        reason = WindowsPort.unavailable_reason()
        assert reason is not None
        assert name in reason
        setattr(system, name, None)
    del modules["_winapi"]
    reason = WindowsPort.unavailable_reason()
    assert reason is not None
    assert "_winapi" in reason


# -- kinds of sockets ------------------------------------------------------------------------------------


def test_sockets_are_told_apart(pair: Ends) -> None:
    assert describe(pair[0].fileno()) is Kind.STREAM
    with socket.socket() as fresh, socket.create_server(("127.0.0.1", 0)) as listener:
        assert describe(fresh.fileno()) is Kind.UNCONNECTED
        assert describe(listener.fileno()) is Kind.LISTENER
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert describe(datagrams.fileno()) is Kind.DATAGRAM
        number = datagrams.fileno()
    with pytest.raises(OSError, match=r"."):
        describe(number)


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_an_address_of_any_family_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict(socket.SocketType):  # as Windows is
        def getpeername(self) -> object:
            if self.family != socket.AF_INET6:
                raise OSError(errno.EFAULT, "no room for an address of IPv6")
            return super().getpeername()

    monkeypatch.setattr(socket, "SocketType", Strict)
    near, far = connected()
    with near, far:
        assert describe(near.fileno()) is Kind.STREAM


def test_a_default_timeout_leaves_the_blocking_mode_alone(poll: Poll[object]) -> None:
    near, far = socket.socketpair()
    with near, far:
        assert near.gettimeout() is None
        socket.setdefaulttimeout(5)
        try:
            poll.register(near, "near")
        finally:
            socket.setdefaulttimeout(None)
        assert poll.poll(0) == []
        reader = threading.Thread(target=near.recv, args=(1,))
        reader.start()
        reader.join(0.05)
        assert reader.is_alive(), "the socket blocks no longer"
        far.send(b"xy")
        reader.join(10)
        assert [event.token for event in poll.poll(10)] == ["near"]


# -- operations ------------------------------------------------------------------------------------------


def test_what_is_ready_begins_no_operation_and_what_is_idle_one(
    poll: Poll[object], backend: IocpBackend, pair: Ends
) -> None:
    near, far = pair
    far.send(b"x")
    poll.register(near, "near", Interest.READ_WRITE)
    for _ in range(3):
        assert [event.token for event in poll.poll(10)] == ["near"]
    assert not backend._operations
    poll.reregister(near, "near", Interest.READABLE, Mode.LEVEL)
    near.recv(1)
    for _ in range(3):
        assert poll.poll(0) == []
        assert len(backend._operations) == 1
        assert not backend._hot


def test_what_an_exception_keeps_from_beginning_is_begun_anew_or_forgotten(
    poll: Poll[object], backend: IocpBackend, pair: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = pair

    def interrupted(_operation: Operation) -> bool:
        raise KeyboardInterrupt

    for is_deregistered in True, False:
        poll.register(near, "near")
        with monkeypatch.context() as patch:
            patch.setattr(backend._port, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                poll.poll(0)
        assert not backend._operations
        if is_deregistered:
            poll.deregister(near)
    assert poll.poll(0) == []
    assert len(backend._operations) == 1
    far.send(b"x")
    assert [event.token for event in poll.poll(10)] == ["near"]


def test_a_change_of_interest_keeps_the_operation(poll: Poll[object], backend: IocpBackend, pair: Ends) -> None:
    near, _ = pair
    poll.register(near, "near")
    assert poll.poll(0) == []
    (operation,) = backend._operations.values()
    for mode in Mode.ONESHOT, Mode.LEVEL:
        poll.reregister(near, "near", Interest.READABLE, mode)
        assert poll.poll(0) == []
        assert [*backend._operations.values()] == [operation]


def test_three_thousand_idle_connections_leave_nothing_behind() -> None:
    count = 3000
    with descriptors(2 * count + 700):
        handles, objects, threads = highest_of(2 * count + 500), kept(), threading.enumerate()
        limbo = {*_completion_port._LIMBO}
        backend = IocpBackend()
        poll = Poll(backend)
        ends = [connected() for _ in range(count)]
        for near, _ in ends:
            poll.register(near, near)
        assert poll.poll(0) == []
        assert len(backend._operations) == count
        assert not backend._hot
        for near, far in ends[:: count // 10]:
            far.send(b"x")
            (event,) = poll.poll(10)
            assert event.token is near
            near.recv(1)
        del event
        for near, far in ends:
            near.close()
            far.close()
        deadline = time.monotonic() + 30
        while backend._operations and time.monotonic() < deadline:
            assert poll.poll(0.1) == []
        assert not backend._operations
        assert not backend._hot
        assert not backend._watches
        poll.close()
        assert threading.enumerate() == threads
        del poll, backend
        assert kept() == objects
        assert limbo >= _completion_port._LIMBO
        assert highest_of(2 * count + 500) <= handles + 4 * 50, "descriptors or handles are left"


def highest_of(count: int) -> int:
    """Give the highest number among *count* new sockets: higher by each descriptor, or handle, that there is besides.

    For a system gives the free numbers before it counts on; descriptors in steps of one, handles in steps of four.
    """
    opened = [socket.socket() for _ in range(count)]
    highest = max(sock.fileno() for sock in opened)
    for sock in opened:
        sock.close()
    return highest


def kept() -> int:
    """Count the objects there are of those that a registration takes."""
    gc.collect()
    kinds = (IocpBackend, PORT, _Socket, _Watch, Operation, _Request, Registration, Event)
    return sum(isinstance(found, kinds) for found in gc.get_objects())


def test_a_change_of_what_was_dropped_says_that_it_is_not_there(backend: IocpBackend, pair: Ends) -> None:
    with Poll[object](backend), pytest.raises(FileNotFoundError):
        backend.reregister(pair[0].fileno(), Interest.READABLE, Mode.LEVEL)


def test_closing_ends_what_is_outstanding(backend: IocpBackend, pair: Ends) -> None:
    limbo = {*_completion_port._LIMBO}
    with Poll(backend) as poll, socket.create_server(("127.0.0.1", 0)) as listener:
        poll.register(pair[0], "near")
        poll.register(listener, "listener")
        assert poll.poll(0) == []
        assert len(backend._operations) == 2
    assert not backend._operations
    gc.collect()
    assert limbo >= _completion_port._LIMBO
    assert not [thread for thread in threading.enumerate() if "watcher" in thread.name]


def test_what_a_duplicate_keeps_under_way_is_kept_until_it_has_ended(backend: IocpBackend, pair: Ends) -> None:
    limbo = {*_completion_port._LIMBO}
    near, _ = pair
    with near.dup():
        with Poll(backend) as poll:
            poll.register(near, "near")
            assert poll.poll(0) == []
            near.close()
        gc.collect()
        kept = _completion_port._LIMBO - limbo
        assert len(kept) == (1 if sys.platform == "win32" else 0)
    deadline = time.monotonic() + 10
    while _completion_port._LIMBO & kept and time.monotonic() < deadline:
        Poll(IocpBackend()).close()  # which looks what has ended
    assert not _completion_port._LIMBO & kept


@pytest.mark.parametrize("waiting", ["between", "seldom"])
def test_ten_thousand_rounds_leave_few_operations(
    poll: Poll[object], backend: IocpBackend, pair: Ends, waiting: str
) -> None:
    near, _ = pair
    most = 0
    for turn in range(10_000):
        poll.register(near, turn)
        if waiting == "between" or (waiting == "seldom" and turn % 100 == 0):
            assert poll.poll(0) == []
        most = max(most, len(backend._operations))
        poll.deregister(near)
    assert most <= 64
    deadline = time.monotonic() + 10
    while backend._operations and time.monotonic() < deadline:
        assert poll.poll(0.01) == []
    assert not backend._operations


def descriptors(wanted: int) -> Lifted:
    return Lifted(wanted)


class Lifted:
    """Raises the limit of descriptors for a while."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        if sys.platform != "win32":
            import resource

            self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
            soft, hard = self._before
            if hard != resource.RLIM_INFINITY and hard < self._wanted:
                pytest.skip(f"the limit of descriptors is {hard}")
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, self._wanted), hard))

    def __exit__(self, *error: object) -> None:
        if sys.platform != "win32":
            import resource

            resource.setrlimit(resource.RLIMIT_NOFILE, self._before)


def test_a_closed_port_binds_nothing(pair: Ends) -> None:
    # Its handle may be another's by then; and a signal handler may have closed it in the midst of a call.
    port = IocpBackend.open_port()
    port.close({})
    assert not port.attach(pair[0].fileno())


def test_the_close_of_a_port_does_not_wait_for_what_never_began(pair: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    port = IocpBackend.open_port()
    operation = port.receive(pair[0].fileno(), False, None)
    outstanding = {operation.address: operation}
    monkeypatch.setattr(port, "get", lambda milliseconds: pytest.fail("it waits for a packet"))
    port.close(outstanding)
    assert not outstanding


# -- sockets that need a watch ---------------------------------------------------------------------------


def test_a_socket_that_is_bound_to_another_port_is_watched(poll: Poll[object], pair: Ends) -> None:
    near, far = pair
    with Poll("iocp") as former:
        former.register(near, "former")
        assert former.poll(0) == []
        former.deregister(near)
        poll.register(near, "near")
        for _ in range(3):
            assert poll.poll(0) == []
            far.send(b"x")
            assert [event.token for event in poll.poll(10)] == ["near"]
            near.recv(1)


def test_a_number_that_means_a_socket_of_another_port_is_watched(poll: Poll[object], backend: IocpBackend) -> None:
    former, peer = connected()
    number = former.fileno()
    poll.register(former, "former")
    poll.deregister(former)
    former.close()
    fillers = [connected() for _ in range(4)]
    ends = [ends for filler in fillers for ends in (filler, filler[::-1]) if ends[0].fileno() == number]
    if ends:
        near, far = ends[0]
        with Poll("iocp") as other:
            other.register(near, "near")
            other.deregister(near)
            poll.register(near, "near")
            assert poll.poll(0) == []
            assert not uncovered(backend)
            far.send(b"x")
            assert [event.token for event in poll.poll(10)] == ["near"]
    for end in (peer, *(end for filler in fillers for end in filler)):
        end.close()
    if not ends:
        pytest.skip("this platform does not give a closed number to the next socket")


def test_a_number_that_means_another_socket_has_operations_of_its_own(
    poll: Poll[object], backend: IocpBackend, pair: Ends
) -> None:
    former, peer = connected()
    number = former.fileno()
    poll.register(number, "number")
    assert poll.poll(0) == []
    former.close()
    fillers = [connected() for _ in range(4)]
    ends = [ends for ends in fillers if ends[0].fileno() == number]
    if ends:
        near, far = ends[0]
        poll.reregister(number, "number", Interest.READABLE, Mode.LEVEL)
        assert poll.poll(0) == []
        assert not uncovered(backend)
        far.send(b"x")
        assert [event.token for event in poll.poll(10)] == ["number"]
        near.recv(1)
    for end in (peer, *(end for filler in fillers for end in filler)):
        end.close()
    if not ends:
        pytest.skip("this platform does not give a closed number to the next socket")


def test_a_datagram_that_comes_just_before_the_receive_is_reported() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        near.bind(("127.0.0.1", 0))
        far.connect(near.getsockname())
        near.setblocking(False)

        class Late(PORT):  # type: ignore[misc]  # see there
            """A datagram comes between each look and the receive that follows from it."""

            def receive(self, fd: int, peek: bool, owner: object) -> Operation:
                if fd == near.fileno() and not arrived:
                    far.send(b"x")
                    select.select([near], [], [], 10)
                    arrived.append(True)
                operation: Operation = super().receive(fd, peek, owner)
                return operation

        class OnIt(IocpBackend):
            open_port = Late

        arrived: list[bool] = []
        with Poll(OnIt) as poll:
            poll.register(near, "near", Interest.READABLE, Mode.ONESHOT)
            for _ in range(2):
                assert [event.token for event in poll.poll(10)] == ["near"]
                assert near.recv(10) == b"x"
                arrived.clear()
                poll.rearm(near)


def test_a_socket_that_is_closed_just_before_the_receive_ends_no_wait(
    backend: IocpBackend, pair: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, _ = pair
    receive = backend._port.receive

    def closed_first(fd: int, peek: bool, owner: object) -> Operation:
        near.close()  # as another thread may
        return receive(fd, peek, owner)

    monkeypatch.setattr(backend._port, "receive", closed_first)
    with Poll[object](backend) as poll:
        poll.register(near, "near")
        deadline = time.monotonic() + 10
        while backend._watches and time.monotonic() < deadline:
            assert poll.poll(0.01) == []
        assert not backend._watches


@pytest.mark.parametrize("listening", [False, True])
def test_a_handler_that_deregisters_in_the_midst_of_a_wait_leaves_no_operation(
    poll: Poll[object], backend: IocpBackend, pair: Ends, listening: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) if listening else pair[0] as near:

        def change() -> None:
            poll.deregister(near)
            poll.register(near, "again")

        def scene(interrupt: Interrupter) -> None:
            poll.register(near, "near")
            outcome = interrupt(lambda: poll.poll(0), change)
            assert (outcome.error, outcome.returned) == (None, []), outcome
            assert poll.poll(0) == []
            assert not uncovered(backend), outcome
            poll.deregister(near)
            deadline = time.monotonic() + 10
            while backend._operations and time.monotonic() < deadline:
                assert poll.poll(0.01) == []
            assert not backend._operations, outcome

        assert at_each_step(scene, poll) > 20


def test_receives_that_end_for_nothing_do_not_make_the_wait_spin(pair: Ends) -> None:
    if WINDOWS:
        pytest.skip("this needs a port that can be told to; INT-09 shows it under Wine")
    begun: list[int] = []

    class Hasty(EmulatedPort):
        """Ends each receive at once."""

        def start(self, operation: Operation) -> bool:
            started = super().start(operation)
            request = self._requests.get((operation.fd, READ))
            if request is not None and request.receives:
                begun.append(operation.fd)
                self._end(request, 0)
            return started

    class OnIt(IocpBackend):
        open_port = Hasty

    near, far = pair
    with Poll(OnIt) as poll:
        poll.register(near, "near")
        for _ in range(3):
            begun.clear()
            assert poll.poll(0.05) == []
            assert len(begun) <= 5
            far.send(b"x")
            assert [event.token for event in poll.poll(10)] == ["near"]
            near.recv(1)


# -- wakes and waits -------------------------------------------------------------------------------------


def test_wakes_merge_to_one_packet(poll: Poll[object], backend: IocpBackend) -> None:
    waker = Waker(poll, "waker")
    for _ in range(3):
        before = backend._posted
        for _ in range(100):
            waker.wake()
        assert backend._posted == before + 1
        assert [event.token for event in poll.poll(10)] == ["waker"]
        assert poll.poll(0) == []


def test_an_exception_right_after_a_post_suppresses_no_later_wake(poll: Poll[object], backend: IocpBackend) -> None:
    waker = Waker(poll, "waker")
    post = backend._port.post

    def interrupted(address: int) -> None:
        post(address)
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backend._port, "post", interrupted)
            with pytest.raises(KeyboardInterrupt):
                waker.wake()
        assert [event.token for event in poll.poll(10)] == ["waker"]
        waker.wake()
        assert [event.token for event in poll.poll(10)] == ["waker"]
    assert poll.poll(0) == []


@pytest.mark.parametrize("interruptible", [True, False])
def test_the_main_thread_waits_in_slices_where_it_cannot_be_interrupted(
    backend: IocpBackend, monkeypatch: pytest.MonkeyPatch, interruptible: bool
) -> None:
    monkeypatch.setattr(type(backend._port), "interruptible", interruptible)
    sliced = not interruptible
    assert backend._limit(10) == (250 if sliced else 10_000)
    assert backend._limit(None) == (250 if sliced else 0xFFFFFFFF)
    assert backend._limit(0.0101) == 11
    limits: list[int] = []
    thread = threading.Thread(target=lambda: limits.append(backend._limit(10)))
    thread.start()
    thread.join()
    assert limits == [10_000]
    Poll(backend).close()


# -- the invariant ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_no_random_walk_loses_an_event(poll: Poll[object], backend: IocpBackend, seed: int) -> None:
    chance = random.Random(seed)
    ends = [connected() for _ in range(6)]
    registered: dict[int, Mode] = {}

    def step() -> None:
        number = chance.randrange(len(ends))
        near, far = ends[number]
        mode = chance.choice([Mode.LEVEL, Mode.ONESHOT, Mode.EDGE_ONESHOT])
        interest = chance.choice([Interest.READABLE, Interest.READ_WRITE, Interest.NONE])

        def register() -> None:
            poll.register(near, number, interest, mode)
            registered[number] = mode

        def reregister() -> None:
            poll.reregister(near, number, interest, mode)
            registered[number] = mode

        def deregister() -> None:
            poll.deregister(near)
            del registered[number]

        actions: list[Callable[[], object]] = [
            lambda: far.send(b"x"),
            lambda: drained(near),
            lambda: poll.poll(0, chance.choice([1, 2, 100])),
            lambda: poll.poll(0.001),
        ]
        if number in registered:
            actions += [reregister, deregister, lambda: poll.rearm(near)]
        else:
            actions.append(register)
        chance.choice(actions)()

    for _ in range(300):
        step()
        assert not uncovered(backend)
    for number, (near, _) in enumerate(ends):
        drained(near)
        if number in registered:
            poll.reregister(near, number, Interest.READABLE, registered[number])
    assert poll.poll(0) == []
    for number, (_, far) in enumerate(ends):
        far.send(b"x")
        if number in registered:
            assert number in [event.token for event in poll.poll(10)]
    for near, far in ends:
        near.close()
        far.close()


def drained(sock: socket.socket) -> None:
    try:
        while sock.recv(100):
            pass
    except BlockingIOError:
        pass


# -- watches ---------------------------------------------------------------------------------------------


class Posted:
    """Takes what is posted."""

    def __init__(self) -> None:
        self.addresses: list[int] = []
        self._more = threading.Semaphore(0)

    def __call__(self, address: int) -> None:
        self.addresses.append(address)
        self._more.release()

    def next(self) -> int:
        assert self._more.acquire(timeout=10), "nothing was posted"
        return self.addresses.pop(0)


@pytest.fixture
def posted() -> Posted:
    return Posted()


@pytest.fixture
def watchers(posted: Posted) -> Iterator[Watchers]:
    watchers = Watchers(posted)
    yield watchers
    watchers.close()
    assert not watchers._threads


def watch(address: int, sock: socket.socket, bit: int) -> Operation:
    operation = Operation(sock.fileno(), bit, None)
    operation.address = address
    return operation


def test_there_is_no_thread_before_the_first_watch(watchers: Watchers) -> None:
    assert not watchers._threads


def test_a_watch_posts_once_when_its_socket_is_ready(watchers: Watchers, posted: Posted, pair: Ends) -> None:
    near, far = pair
    watchers.start(watch(3, near, READ), False)
    watchers.start(watch(5, far, WRITE), False)
    assert posted.next() == 5
    far.send(b"x")
    assert posted.next() == 3
    watchers.start(watch(7, near, READ), False)
    assert posted.next() == 7
    assert not posted.addresses


def test_both_watches_of_a_socket_end_with_the_first(watchers: Watchers, posted: Posted, pair: Ends) -> None:
    near, _ = pair
    watchers.start(watch(3, near, READ), False)
    watchers.start(watch(5, near, WRITE), False)  # which would be watched under a number that may be closed by then
    assert {posted.next(), posted.next()} == {3, 5}


def test_a_watch_that_is_begun_again_is_one(watchers: Watchers, posted: Posted, pair: Ends) -> None:
    near, far = pair
    again = watch(3, near, READ)
    watchers.start(again, False)
    watchers.start(again, False)
    far.send(b"x")
    assert posted.next() == 3
    watchers.start(watch(5, near, WRITE), False)
    assert posted.next() == 5
    assert not posted.addresses


def test_a_cancelled_watch_posts_once(watchers: Watchers, posted: Posted, pair: Ends) -> None:
    near, far = pair
    cancelled = watch(3, near, READ)
    watchers.start(cancelled, False)
    watchers.cancel(cancelled)
    watchers.cancel(cancelled)
    assert posted.next() == 3
    far.send(b"x")
    watchers.start(watch(5, near, READ), False)
    assert posted.next() == 5
    assert not posted.addresses


def test_a_closed_socket_ends_its_watch_and_no_other(watchers: Watchers, posted: Posted, pair: Ends) -> None:
    near, far = pair
    closed, peer = connected()
    watchers.start(watch(3, closed, READ), False)
    closed.close()
    watchers.start(watch(5, near, READ), False)
    assert posted.next() == 3
    far.send(b"x")
    assert posted.next() == 5
    peer.close()


def test_a_connect_that_fails_ends_a_watch(watchers: Watchers, posted: Posted) -> None:
    with socket.socket() as taken, socket.socket() as near:
        taken.bind(("127.0.0.1", 0))
        near.setblocking(False)
        near.connect_ex(taken.getsockname())
        watchers.start(watch(3, near, WRITE), True)
        assert posted.next() == 3


def test_more_watches_than_one_select_takes_have_several_threads(watchers: Watchers, posted: Posted) -> None:
    ends = [connected() for _ in range(CHUNK // 2)]
    with descriptors(CHUNK + 100):
        for number, (near, far) in enumerate(ends):
            for address, end in (4 * number + 1, near), (4 * number + 3, far):
                watchers.start(watch(address, end, READ), False)
        assert len(watchers._threads) == 1
        with socket.create_server(("127.0.0.1", 0)) as listener:
            watchers.start(watch(1_000_001, listener, READ), False)
            assert len(watchers._threads) == 2
            for number in 0, CHUNK // 4, CHUNK // 2 - 1:
                ends[number][1].send(b"x")
                assert posted.next() == 4 * number + 1
            with socket.create_connection(listener.getsockname()):
                assert posted.next() == 1_000_001
        for near, far in ends:
            near.close()
            far.close()
