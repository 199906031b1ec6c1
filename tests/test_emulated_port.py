"""The emulated completion port does what the documentation of Windows says, and refuses what corrupts memory there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from polling_backends._completion_port import (
    ABORTED,
    FOREVER,
    INVALID,
    MORE_DATA,
    READ,
    WRITE,
    Operation,
    Packet,
)
from polling_backends._emulated_port import EmulatedPort, Misuse, _Request

if EmulatedPort.unavailable_reason() is not None:
    pytest.skip("this system has no poll(2) to emulate a completion port by", allow_module_level=True)


@pytest.fixture
def port() -> Iterator[EmulatedPort]:
    port = EmulatedPort()
    yield port
    port.close({})


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.fixture
def datagrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        near.bind(("127.0.0.1", 0))
        far.connect(near.getsockname())
        near.setblocking(False)
        yield near, far


def begun(port: EmulatedPort, sock: socket.socket, *, peek: bool = False) -> Operation:
    operation = port.receive(sock.fileno(), peek, None)
    assert port.start(operation)
    return operation


def packet_of(operation: Operation, error: int = 0) -> Packet:
    return error, 0, 0, operation.address


Pair = tuple[socket.socket, socket.socket]


# -- binding ---------------------------------------------------------------------------------------------


def test_a_socket_is_bound_once_and_for_life(port: EmulatedPort, pair: Pair) -> None:
    near, _ = pair
    other = EmulatedPort()
    assert port.attach(near.fileno())
    assert not port.attach(near.fileno())
    assert not other.attach(near.fileno())
    with near.dup() as duplicate:
        assert not other.attach(duplicate.fileno())
    port.close({})
    assert not other.attach(near.fileno())
    other.close({})


def test_the_next_socket_under_the_number_is_not_bound(port: EmulatedPort) -> None:
    former, peer = socket.socketpair()
    number = former.fileno()
    assert port.attach(number)
    former.close()
    new, other = socket.socketpair()
    with peer, new, other:
        assert number in (new.fileno(), other.fileno())
        assert port.attach(number)


def test_a_receive_on_a_socket_that_is_bound_to_another_port_is_misuse(port: EmulatedPort, pair: Pair) -> None:
    other = EmulatedPort()
    assert other.attach(pair[0].fileno())
    with pytest.raises(Misuse, match="another port"):
        begun(port, pair[0])
    other.close({})


# -- operations ------------------------------------------------------------------------------------------


def test_a_receive_ends_when_there_is_data_and_takes_none(port: EmulatedPort, pair: Pair) -> None:
    near, far = pair
    operation = begun(port, near)
    assert port.get(0) is None
    far.send(b"x")
    assert port.get(FOREVER) == packet_of(operation)
    assert port.get(0) is None
    assert near.recv(10) == b"x"


def test_a_receive_of_data_that_is_there_has_its_packet_at_once(port: EmulatedPort, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    operation = begun(port, near)
    assert port.get(0) == packet_of(operation)


def test_an_end_and_a_reset_end_a_receive(port: EmulatedPort, pair: Pair) -> None:
    near, far = pair
    operation = begun(port, near)
    far.close()
    assert port.get(FOREVER) is not None
    del operation
    operation = begun(port, near)
    packet = port.get(FOREVER)
    assert packet is not None
    assert packet[3] == operation.address


def test_packets_come_in_the_order_in_which_operations_end(port: EmulatedPort) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    operations = [begun(port, near) for near, _ in pairs]
    for number in 2, 0, 1:
        port.cancel(operations[number])
    assert [port.get(0) for _ in range(4)] == [*(packet_of(operations[n], ABORTED) for n in (2, 0, 1)), None]
    for ends in pairs:
        for end in ends:
            end.close()


def test_a_watch_ends_when_there_is_room(port: EmulatedPort, pair: Pair) -> None:
    near, far = pair
    near.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            near.send(bytes(4096))
    operation = port.watch(near.fileno(), WRITE, None)
    assert port.start(operation)
    assert port.get(0) is None
    far.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            far.recv(65536)
    assert port.get(FOREVER) == packet_of(operation)


@pytest.mark.parametrize("listening", [False, True])
def test_a_receive_needs_a_connection(port: EmulatedPort, listening: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) if listening else socket.socket() as sock:
        operation = port.receive(sock.fileno(), False, None)
        assert not port.start(operation)
        assert not operation.started
        assert not port.is_outstanding(operation)
        assert port.get(0) is None
        watch = port.watch(sock.fileno(), READ, None)
        assert port.start(watch)
        port.cancel(watch)
        assert port.get(0) is not None


def test_a_receive_that_peeks_leaves_the_datagram(port: EmulatedPort, datagrams: Pair) -> None:
    near, far = datagrams
    operation = begun(port, near, peek=True)
    far.send(b"datagram")
    assert port.get(FOREVER) == packet_of(operation, MORE_DATA)
    assert near.recv(10) == b"datagram"


def test_a_receive_that_does_not_peek_takes_the_datagram(port: EmulatedPort, datagrams: Pair) -> None:
    near, far = datagrams
    operation = begun(port, near)
    far.send(b"datagram")
    assert port.get(FOREVER) == packet_of(operation)
    with pytest.raises(BlockingIOError):
        near.recv(10)


def test_a_receive_whose_number_means_another_socket_by_now_ends(port: EmulatedPort, datagrams: Pair) -> None:
    near, _ = datagrams
    operation = begun(port, near)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        os.dup2(listener.fileno(), near.fileno())
        assert port.get(FOREVER) == packet_of(operation)


def test_a_receive_that_peeks_at_what_is_there_is_refused_and_leaves_a_packet(
    port: EmulatedPort, datagrams: Pair
) -> None:
    near, far = datagrams
    far.send(b"datagram")
    operation = port.receive(near.fileno(), True, None)
    assert not port.start(operation)
    assert port.is_outstanding(operation)
    assert port.get(0) == packet_of(operation, MORE_DATA)
    assert near.recv(10) == b"datagram"


def test_a_closed_socket_ends_its_operations(port: EmulatedPort, pair: Pair) -> None:
    near, _ = pair
    operation = begun(port, near)
    near.close()
    assert port.get(FOREVER) == packet_of(operation, ABORTED)


# -- cancelling ------------------------------------------------------------------------------------------


def test_a_cancelled_operation_has_its_packet_behind_those_queued(port: EmulatedPort, pair: Pair) -> None:
    near, far = pair
    operation = begun(port, near)
    port.post(2)
    port.cancel(operation)
    port.post(4)
    far.send(b"x")
    assert [port.get(0) for _ in range(4)] == [(0, 0, 0, 2), packet_of(operation, ABORTED), (0, 0, 0, 4), None]


def test_cancelling_what_has_ended_or_not_begun_does_nothing(port: EmulatedPort, pair: Pair) -> None:
    near, far = pair
    operation = port.receive(near.fileno(), False, None)
    port.cancel(operation)
    assert port.get(0) is None
    assert port.start(operation)
    far.send(b"x")
    packet = port.get(FOREVER)
    port.cancel(operation)
    assert packet == packet_of(operation)
    assert port.get(0) is None


def test_an_operation_that_is_cancelled_while_it_ends_has_one_packet(port: EmulatedPort, pair: Pair) -> None:
    near, far = pair
    operation = begun(port, near)
    far.send(b"x")
    end = port._end
    with pytest.MonkeyPatch.context() as patch:

        def cancelled_first(request: _Request, error: int) -> None:
            patch.undo()
            port.cancel(operation)  # as another thread does, right then
            end(request, error)

        patch.setattr(port, "_end", cancelled_first)
        assert port.get(FOREVER) == packet_of(operation, ABORTED)
    assert port.get(0) is None


# -- waiting ---------------------------------------------------------------------------------------------


def test_a_post_ends_a_wait_without_limit(port: EmulatedPort) -> None:
    packets: list[Packet | None] = []
    waiter = threading.Thread(target=lambda: packets.append(port.get(FOREVER)))
    waiter.start()
    port.post(2)
    waiter.join(10)
    assert packets == [(0, 0, 0, 2)]


def test_a_packet_at_null_is_taken_for_an_error(port: EmulatedPort) -> None:
    port.post(0)
    port.post(2)
    with pytest.raises(OSError, match="NULL"):
        port.get(0)
    assert port.get(0) == (0, 0, 0, 2)


def test_nothing_is_posted_after_the_close(port: EmulatedPort) -> None:
    port.close({})
    port.post(2)
    with pytest.raises(OSError, match="closed"):
        port.get(0)


def test_a_sample_tells_of_both_directions_and_of_closed_numbers(port: EmulatedPort, pair: Pair) -> None:
    near, far = pair
    both = READ | WRITE
    assert dict(port.sample([(near.fileno(), both)])) == {near.fileno(): WRITE}
    assert dict(port.sample([(near.fileno(), READ)])) == {}
    far.send(b"x")
    assert dict(port.sample([(near.fileno(), both), (far.fileno(), READ)])) == {near.fileno(): both}
    number = near.fileno()
    near.close()
    assert dict(port.sample([(number, READ)])) == {number: INVALID}


# -- misuse ----------------------------------------------------------------------------------------------


def test_an_address_is_given_anew_when_its_owner_is_gone(port: EmulatedPort, pair: Pair) -> None:
    near, far = pair
    operation = begun(port, near)
    address = operation.address
    assert port.receive(near.fileno(), False, None).address != address
    far.send(b"x")
    assert port.get(FOREVER) == packet_of(operation)
    del operation
    assert port.receive(near.fileno(), False, None).address == address


def test_letting_go_of_an_operation_before_its_packet_is_misuse(port: EmulatedPort, pair: Pair) -> None:
    near, _ = pair
    operation = begun(port, near)
    port.cancel(operation)
    del operation
    with pytest.raises(Misuse, match="let go of before its packet"):
        port.get(0)


def test_two_receives_on_one_socket_are_misuse(port: EmulatedPort, pair: Pair) -> None:
    near, _ = pair
    operation = begun(port, near)
    with pytest.raises(Misuse, match="outstanding already"):
        begun(port, near)
    port.cancel(operation)
    second = begun(port, near)  # the cancelled one has ended, if not been fetched
    assert port.get(0) == packet_of(operation, ABORTED)
    port.cancel(second)


def test_beginning_an_operation_twice_is_misuse(port: EmulatedPort, pair: Pair) -> None:
    near, _ = pair
    operation = begun(port, near)
    with pytest.raises(Misuse, match="begun before"):
        port.start(operation)
