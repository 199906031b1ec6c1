"""Wrong in how messages come from other threads: THR-02 to THR-05."""

from __future__ import annotations

from typing import ClassVar

from polling import Channel, Receiver, Sender


class _Receiving(Channel[object]):
    """A channel with another receiver."""

    end: ClassVar[type[Receiver[object]]]

    def __init__(self, bound: int | None = None) -> None:
        super().__init__(bound)
        self.receiver = self.end(bound)  # type: ignore[misc]  # which is final for everybody else
        self.sender = Sender(self.receiver)  # type: ignore[misc]  # the same


class _RingingOnce(Receiver[object]):
    def drain(self) -> list[object]:
        drained = super().drain()
        self._rung_for = self._messages
        return drained


class OneRingIsEnough(_Receiving):
    """The note that somebody has rung stays when the messages are taken."""

    breaks = ("THR-02",)
    end = _RingingOnce


class _RingingAlways(Receiver[object]):
    def _put(self, message: object) -> bool:
        self._rung_for = None
        return super()._put(message)


class EachMessageRings(_Receiving):
    """Each message rings the bell."""

    breaks = ("THR-02",)
    end = _RingingAlways


class _LastComesFirst(Receiver[object]):
    def drain(self) -> list[object]:
        return super().drain()[::-1]


class LastMessageComesFirst(_Receiving):
    """Messages are taken from the wrong end of the queue."""

    breaks = ("THR-02",)
    end = _LastComesFirst


class BoundIsAdvice(Channel[object]):
    """A channel takes more messages than its bound allows."""

    breaks = ("THR-03",)

    def __init__(self, bound: int | None = None) -> None:
        super().__init__(bound)
        self.receiver._bound = None


class _KeepingSendersWaiting(Receiver[object]):
    def _tell_senders(self) -> None:
        pass


class RoomIsNotTold(_Receiving):
    """Who waits for room is not told that there is some, nor that there will be none."""

    breaks = ("THR-03", "THR-04")
    end = _KeepingSendersWaiting


class _EndingSilently(Receiver[object]):
    def _tell_senders(self) -> None:
        self.clear()
        super()._tell_senders()


class EndIsNotReported(_Receiving):
    """The end of the sender is no event."""

    breaks = ("THR-04",)
    end = _EndingSilently


class _Copying(Receiver[object]):
    def drain(self) -> list[object]:
        return list(super().drain())


class DrainCrossesACall(_Receiving):
    """What was taken is handed on by another function: a signal handler that raises there loses it."""

    breaks = ("THR-05",)
    end = _Copying
