"""THR-02 to THR-05: messages from any thread reach the one that waits, each once and in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from polling import ChannelClosedError, ChannelFullError, Event, Interest, Mode, Poll
from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.harness import Harness
from polling_conformance.interrupt import Interrupter, at_each_step, strike
from polling_conformance.suite.threads import restless

__all__ = ["ChannelRules"]

SENDERS = 4
MESSAGES = 500
"""Of each sender."""


class ChannelRules(Harness):
    """A `Channel` loses nothing, mixes nothing up, and wakes once for a batch."""

    @pytest.mark.parametrize("mode", Mode)
    def test_THR_02_a_message_ends_a_wait_and_one_before_it_too(self, poll: Poll[object], mode: Mode) -> None:
        channel = self.channel()
        poll.register(channel.receiver, "messages", Interest.READABLE, mode)
        waiter = self.in_thread(poll.poll).blocked()
        for message in range(3):
            channel.sender.send(message)
            self._expect_one_event(waiter.result())
            self.check(channel.receiver.drain() == [message], f"[{message}]", "others")
            self.expect_silence(poll)
            if mode in (Mode.ONESHOT, Mode.EDGE_ONESHOT):
                poll.rearm(channel.receiver)
            waiter = self.in_thread(poll.poll)
        channel.sender.send("last")
        self._expect_one_event(waiter.result())

    @pytest.mark.parametrize("mode", [Mode.LEVEL, Mode.EDGE])
    @pytest.mark.parametrize("bound", [None, 1, 100])
    def test_THR_02_of_several_threads_each_message_arrives_once_and_in_order(
        self, poll: Poll[object], mode: Mode, bound: int | None
    ) -> None:
        channel = self.channel(bound)
        poll.register(channel.receiver, "messages", Interest.READABLE, mode)

        def send(sender: int) -> None:
            for number in range(MESSAGES):
                channel.sender.send((sender, number))

        def receive() -> list[object]:
            received: list[object] = []
            while len(received) < SENDERS * MESSAGES:
                if not poll.poll(SIGNAL_WAIT / 2):
                    break  # what is missing is told below
                received += channel.receiver.drain()
            return received

        with restless():
            receiver = self.in_thread(receive)
            senders = [self.in_thread(send, sender) for sender in range(SENDERS)]
            received = receiver.result()
            if len(received) < SENDERS * MESSAGES:
                channel.receiver.close()  # or a sender might wait for room
            for running in senders:
                try:
                    running.result()
                except ChannelClosedError:
                    pass
        self.check(len(received) == SENDERS * MESSAGES, f"{SENDERS * MESSAGES} messages", f"{len(received)}")
        for sender in range(SENDERS):
            own = [message for message in received if message[0] == sender]  # type: ignore[index]  # a pair
            self.check(
                own == [(sender, number) for number in range(MESSAGES)], f"those of {sender} in order", "another order"
            )

    def test_THR_02_a_batch_of_messages_is_one_event(self, poll: Poll[object]) -> None:
        channel = self.channel()
        rings = 0
        poll.register(channel.receiver, "messages", Interest.READABLE, Mode.EDGE)
        registration = channel.receiver._registration
        assert registration is not None
        ring = registration.ring

        def count() -> None:
            nonlocal rings
            rings += 1
            ring()

        registration.ring = count
        for _ in range(3):
            rings = 0
            for message in range(1000):
                channel.sender.send(message)
            self.check(rings == 1, "the bell rings once for a batch of 1000", f"{rings} times")
            self._expect_one_event(poll.poll(0))
            self.expect_silence(poll)
            self.check(channel.receiver.drain() == [*range(1000)], "1000 messages in their order", "others")
        self.check(channel.receiver.drain() == [], "no message twice", "some")

    def test_THR_03_a_full_channel_refuses_or_waits(self, poll: Poll[object]) -> None:
        channel = self.channel(3)
        poll.register(channel.receiver, "messages")
        for message in range(3):
            channel.sender.try_send(message)
        self.expect_error(ChannelFullError, channel.sender.try_send, "too many")
        waiting = [self.in_thread(channel.sender.send, message) for message in (3, 4)]
        for running in waiting:
            running.blocked()
        self.expect_events(poll, {"messages": "r"})
        received = channel.receiver.drain()
        self.check(received == [0, 1, 2], "those that had room, and not the one refused", received)
        for running in waiting:
            running.result()
        self.expect_events(poll, {"messages": "r"})
        received = channel.receiver.drain()
        self.check(sorted(map(str, received)) == ["3", "4"], "those that waited", received)
        self.expect_silence(poll)
        for wrong, error in (0, ValueError), (-1, ValueError), (1.5, TypeError):
            self.expect_error(error, self.channel, wrong)

    @pytest.mark.parametrize("mode", Mode)
    def test_THR_04_the_receiver_learns_of_the_senders_end_after_the_last_message(
        self, poll: Poll[object], mode: Mode
    ) -> None:
        channel = self.channel()
        poll.register(channel.receiver, "messages", Interest.READABLE, mode)
        channel.sender.send("last")
        waiter = self.in_thread(poll.poll)
        channel.sender.close()
        channel.sender.close()
        self.expect_error(ChannelClosedError, channel.sender.send, "late")
        self.expect_error(ChannelClosedError, channel.sender.try_send, "late")
        self._expect_one_event(waiter.result())
        received = channel.receiver.drain()
        self.check(received == ["last"], "the message sent before the end", received)
        if mode in (Mode.ONESHOT, Mode.EDGE_ONESHOT):
            poll.rearm(channel.receiver)
        self.expect_events(poll, {"messages": "r"})
        self.expect_error(ChannelClosedError, channel.receiver.drain)
        if mode is Mode.LEVEL:
            self.expect_events(poll, {"messages": "r"})
        else:
            self.expect_silence(poll)
        self.expect_error(ChannelClosedError, channel.receiver.drain)

    @pytest.mark.parametrize("mode", Mode)
    def test_THR_04_the_senders_end_ends_a_wait(self, poll: Poll[object], mode: Mode) -> None:
        channel = self.channel()
        poll.register(channel.receiver, "messages", Interest.READABLE, mode)
        waiter = self.in_thread(poll.poll).blocked()
        channel.sender.close()
        self._expect_one_event(waiter.result())
        self.expect_error(ChannelClosedError, channel.receiver.drain)

    @pytest.mark.parametrize("end", ["sender", "receiver"])
    def test_THR_04_who_waits_for_room_learns_of_the_end(self, end: str) -> None:
        channel = self.channel(1)
        channel.sender.send("first")
        waiting = [self.in_thread(channel.sender.send, "second").blocked() for _ in range(2)]
        getattr(channel, end).close()
        for running in waiting:
            self.expect_error(ChannelClosedError, running.result)

    def test_THR_04_senders_learn_of_the_receivers_end(self, poll: Poll[object]) -> None:
        channel = self.channel()
        with channel.receiver:
            poll.register(channel.receiver, "messages")
            channel.sender.send("dropped")
        for call in channel.sender.send, channel.sender.try_send:
            self.expect_error(ChannelClosedError, call, "late")
        self.expect_error(ChannelClosedError, channel.receiver.drain)
        poll.deregister(channel.receiver)
        self.expect_silence(poll)

    @pytest.mark.parametrize("call", ["poll", "drain", "send"])
    @pytest.mark.parametrize("bound", [None, 4])
    def test_THR_05_a_message_sent_in_a_handler_at_any_step_arrives(self, call: str, bound: int | None) -> None:
        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll:
                channel = self.channel(bound)
                poll.register(channel.receiver, "messages", Interest.READABLE, Mode.EDGE)
                channel.sender.send("first")
                calls: dict[str, Callable[[], object]] = {
                    "poll": lambda: poll.poll(SIGNAL_WAIT),
                    "drain": channel.receiver.drain,
                    "send": lambda: channel.sender.send("second"),
                }
                outcome = interrupt(calls[call], lambda: channel.sender.try_send("from the handler"))
                self.check(outcome.error is None, "the call goes on", outcome)
                received = list(outcome.returned) if call == "drain" else []  # type: ignore[call-overload]  # a list
                if call == "poll":
                    received += channel.receiver.drain()
                if poll.poll(0):
                    received += channel.receiver.drain()
                expected = ["first"] + ["second"] * (call == "send") + ["from the handler"] * bool(outcome.where)
                self.check(sorted(received) == sorted(expected), f"each of {expected}, once", f"{received}; {outcome}")

        at_each_step(scene, self.make_poll(), self.channel().receiver)

    @pytest.mark.parametrize("bound", [None, 4])
    @pytest.mark.parametrize("ended", [False, True])
    def test_THR_05_a_drain_cut_off_by_an_exception_loses_no_message(self, bound: int | None, ended: bool) -> None:
        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll:
                channel = self.channel(bound)
                poll.register(channel.receiver, "messages", Interest.READABLE, Mode.EDGE)
                for message in range(3):
                    channel.sender.send(message)
                if ended:
                    channel.sender.close()
                self._expect_one_event(poll.poll(0))
                outcome = interrupt(channel.receiver.drain, strike)
                received = outcome.returned if outcome.error is None else channel.receiver.drain()
                self.check(received == [0, 1, 2], "[0, 1, 2]", f"{received}; {outcome}")

        at_each_step(scene, self.make_poll(), self.channel().receiver)

    @pytest.mark.parametrize("bound", [None, 4])
    def test_THR_05_a_send_cut_off_by_an_exception_is_wholly_made_or_absent(self, bound: int | None) -> None:
        def scene(interrupt: Interrupter) -> None:
            with self.new_poll() as poll:
                channel = self.channel(bound)
                poll.register(channel.receiver, "messages", Interest.READABLE, Mode.EDGE)
                outcome = interrupt(lambda: channel.sender.send("it"), strike)
                events = poll.poll(0)
                received = channel.receiver.drain()
                self.check(received in ([], ["it"]), "the message or none", f"{received}; {outcome}")
                self.check(bool(events) >= bool(received), "an event if it is there", f"none; {outcome}")
                channel.sender.send("next")
                self._expect_one_event(poll.poll(0))
                self.check(channel.receiver.drain() == ["next"], "['next']", outcome)

        at_each_step(scene, self.make_poll(), self.channel().receiver)

    # -- words ---------------------------------------------------------------------------------------------------

    def _expect_one_event(self, events: list[Event[object]]) -> None:
        __tracebackhide__ = True
        self.check([(event.token, event.readable) for event in events] == [("messages", True)], "one event", events)
